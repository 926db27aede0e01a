"""`Idempotency-Key`: a repeated request is answered with the first one's answer and carried out once.

A claim is a row, so the unique constraint decides between requests that arrive at once, on any process. Whoever holds a
claim renews it while it works; one that has not been renewed for 60 s belongs to a process that died and can be taken over.
(Between the commit of its work and the storing of its answer a process can still die; then the request is carried out again.)
"""

import hashlib
import logging
import secrets
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from django.conf import settings
from django.db import IntegrityError, connections, transaction

from apps.common.clock import now
from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import Conflict, ValidationFailed
from apps.common.models import IdempotencyKey

logger = logging.getLogger(__name__)

TAKEOVER_SECONDS = 60.0
"""An unfinished claim that has not been renewed for so long can be taken over."""
RENEW_SECONDS = 15.0
"""How often a claim that is being worked on is renewed."""
MAX_KEY = 255
MAX_BODY = 1024 * 1024
"""Bytes of an answer that are kept; a longer one is answered and then forgotten, and its key refused."""
NOTHING_WAS_DONE = frozenset((401, 403, 429, 503))
"""Answers that are not kept: they say that nothing was carried out, so the same key may try again."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The answer to the first request with this key."""

    status: int
    body: bytes = field(repr=False)
    content_type: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to carry out a request; ends with `finish` or `release`."""

    id: int
    token: str
    associated: bytes

    def finish(self, *, status: int, body: bytes, content_type: str) -> None:
        """Keep the answer, unless it says that nothing was done (then the key is free again)."""
        _keeper.drop(self.id)
        if status in NOTHING_WAS_DONE:
            self.release()
            return
        if len(body) > MAX_BODY:
            body, content_type = b"", ""
        sealed = _keyring(settings.SWITCHYARD.encryption_keys).seal(body, associated=self.associated)
        IdempotencyKey.objects.filter(pk=self.id, claim=self.token).update(
            status=status, body=sealed, content_type=content_type[:100], claim=""
        )

    def release(self) -> None:
        """Give the key back: nothing was done."""
        _keeper.drop(self.id)
        IdempotencyKey.objects.filter(pk=self.id, claim=self.token).delete()

    def abandon(self) -> None:
        """Stop renewing: what was done is not known; the claim can be taken over in a minute."""
        _keeper.drop(self.id)


def digest_request(*parts: bytes | str) -> str:
    """Return the digest by which a repetition is recognised: method, address, tenant, body."""
    hasher = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        hasher.update(len(raw).to_bytes(8, "big"))
        hasher.update(raw)
    return hasher.hexdigest()


def check_key(given: str) -> str:
    """Return the key that a header names, with or without quotes; raises ValidationFailed."""
    key = given[1:-1] if len(given) >= 2 and given[0] == given[-1] == '"' else given
    if not 1 <= len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        raise ValidationFailed(
            "The Idempotency-Key is not valid.", errors={"Idempotency-Key": ["Use 1 to 255 printable ASCII characters."]}
        )
    return key


def begin(*, principal: str, key: str, digest: str) -> Claim | StoredAnswer:
    """Claim a key for a request, or return the answer that was kept for it.

    Raises Conflict when the key was used for another request, when the first request is still being carried out
    (`retry_after`), and when its answer can no longer be read.
    """
    token = secrets.token_hex(16)
    associated = digest_request(principal, key, digest).encode()
    for _ in range(3):
        try:
            with transaction.atomic():
                row = IdempotencyKey.objects.create(
                    principal=principal, key=key, request_digest=digest, claim=token, claimed_at=now()
                )
            return _claimed(row.pk, token, associated)
        except IntegrityError:
            there = IdempotencyKey.objects.filter(principal=principal, key=key).first()
        if there is None:
            continue  # released between the two statements
        if there.request_digest != digest:
            raise Conflict("This Idempotency-Key was used for another request; choose a new one.", reason="key-reused")
        if there.status is not None:
            return _stored(there, associated)
        taken = IdempotencyKey.objects.filter(
            pk=there.pk, claim=there.claim, status__isnull=True, claimed_at__lt=now() - timedelta(seconds=TAKEOVER_SECONDS)
        ).update(claim=token, claimed_at=now())
        if taken:
            return _claimed(there.pk, token, associated)
        raise Conflict(
            "The first request with this Idempotency-Key is still being carried out.", reason="in-progress", retry_after=2
        )
    raise Conflict("Other requests use this Idempotency-Key; try again.", reason="in-progress", retry_after=2)


def prune_idempotency_keys(older_than: datetime) -> int:
    """Delete the keys first used before `older_than`; returns how many."""
    return IdempotencyKey.objects.filter(created_at__lt=older_than).delete()[0]


def _claimed(id: int, token: str, associated: bytes) -> Claim:
    _keeper.keep(id, token)
    return Claim(id, token, associated)


def _stored(row: IdempotencyKey, associated: bytes) -> StoredAnswer:
    try:
        body = _keyring(settings.SWITCHYARD.encryption_keys).open(bytes(row.body or b""), associated=associated)
    except DecryptionFailed:
        raise Conflict("The answer to this Idempotency-Key can no longer be read; the request was carried out.") from None
    if not body and not row.content_type and row.status != 204:
        raise Conflict("The answer to this Idempotency-Key was too long to keep; the request was carried out.")
    return StoredAnswer(status=int(row.status or 200), body=body, content_type=row.content_type)


@lru_cache(maxsize=4)
def _keyring(text: str) -> Keyring:
    return Keyring.parse(text, purpose=b"idempotency")


class _Keeper:
    """Renews the claims of this process, in a thread that lives while there are some older than a few seconds."""

    def __init__(self) -> None:
        self._claims: dict[int, str] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, id: int, token: str) -> None:
        """Renew a claim until it is dropped."""
        with self._lock:
            self._claims[id] = token
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="idempotency-keeper", daemon=True)
                self._thread.start()

    def drop(self, id: int) -> None:
        """Stop renewing a claim."""
        with self._lock:
            self._claims.pop(id, None)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(RENEW_SECONDS)
            with self._lock:
                claims = dict(self._claims)
                if not claims:
                    self._thread = None
                    break
            try:
                for id, token in claims.items():
                    IdempotencyKey.objects.filter(pk=id, claim=token).update(claimed_at=now())
            except Exception as error:  # noqa: BLE001 - the thread must outlive whatever a driver raises
                logger.warning("claims of idempotency keys could not be renewed: %s", type(error).__name__)
            finally:
                connections.close_all()


_keeper = _Keeper()
