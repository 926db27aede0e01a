"""Answers kept for `Idempotency-Key`, so that a repeated request is not carried out twice."""

from django.db import models


class IdempotencyKey(models.Model):
    """One key of one principal: the digest of its first request and, once there is one, the answer.

    `claim` names the request that is carrying it out, `claimed_at` when that last said so; `body` is sealed with the keyring,
    as an answer may hold a new secret.
    """

    principal = models.CharField(max_length=80)
    key = models.CharField(max_length=255)
    request_digest = models.CharField(max_length=64)
    claim = models.CharField(max_length=32, blank=True)
    claimed_at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True)
    body = models.BinaryField(null=True)
    content_type = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("principal", "key"), name="idempotency_once"),)

    def __str__(self) -> str:
        return f"{self.principal} {self.key}"
