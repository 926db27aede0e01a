"""Tenants: everything that is registered belongs to one."""

from django.db import models

from apps.common.models import BaseModel
from apps.common.validators import SLUG


class Tenant(BaseModel):
    """A company, department or project whose objects nobody else sees."""

    slug = models.CharField(max_length=40, unique=True, validators=[SLUG])
    name = models.CharField(max_length=120)
    active = models.BooleanField(default=True)
    sample_payloads = models.BooleanField(
        default=True, help_text="Keep redacted samples of arguments and results in the audit log; digests are always kept."
    )

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name
