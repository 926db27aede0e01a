"""Checkpoints as objects of an S3 bucket, by PUT with Signature Version 4 (header form, payload signed).

Each has a key of its own, `<prefix>/<number>-<digest>.json`, so that none takes another's place; with object lock none can go.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from yarl import URL

from apps.audit.checkpoints import web
from apps.audit.checkpoints.document import Checkpoint
from apps.audit.checkpoints.target import AwsCredentials

_ALGORITHM = "AWS4-HMAC-SHA256"


class S3Target:
    """A bucket at Amazon, or at anything that speaks its API (`endpoint`, addressed by path)."""

    def __init__(self, bucket: str, prefix: str, place: tuple[str, str], credentials: AwsCredentials) -> None:
        self._bucket, self._prefix, self._credentials = bucket, prefix, credentials
        self._region, endpoint = place
        by_path = bool(endpoint) or "." in bucket
        base = endpoint or f"https://{'' if by_path else bucket + '.'}s3.{self._region}.amazonaws.com"
        self._base = f"{base}/{bucket}" if by_path else base

    @property
    def name(self) -> str:
        """See `target.Target`."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")[:300]

    def send(self, checkpoint: Checkpoint) -> None:
        """See `target.Target`."""
        body = checkpoint.line + b"\n"
        key = f"{self._prefix}/{checkpoint.number:012d}-{checkpoint.digest[:16]}.json".lstrip("/")
        url = URL(f"{self._base}/{quote(key, safe='/-_.~')}", encoded=True)
        headers = signed_headers(
            "PUT", url, body, credentials=self._credentials, region=self._region, at=datetime.now(UTC),
            headers={"content-type": "application/json"},
        )  # fmt: skip
        web.expect(*web.request("PUT", url, headers, body))


def signed_headers(
    method: str,
    url: URL,
    body: bytes,
    *,
    credentials: AwsCredentials,
    region: str,
    at: datetime,
    headers: Mapping[str, str],
    service: str = "s3",
) -> dict[str, str]:
    """Return the headers of a request with its `Authorization` (Signature Version 4); the URL has no query."""
    moment, day, digest = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d"), web.digest(body)
    default = {"http": 80, "https": 443}[url.scheme]
    host = f"[{url.raw_host}]" if ":" in (url.raw_host or "") else url.raw_host or ""
    signed = {
        **{name.lower(): value.strip() for name, value in headers.items()},
        "host": host if url.port == default else f"{host}:{url.port}",
        "x-amz-content-sha256": digest,
        "x-amz-date": moment,
    }
    if credentials.session_token:
        signed["x-amz-security-token"] = credentials.session_token
    names = sorted(signed)
    lines = [method, url.raw_path, "", *(f"{name}:{signed[name]}" for name in names), "", ";".join(names), digest]
    scope = f"{day}/{region}/{service}/aws4_request"
    wanted = "\n".join([_ALGORITHM, moment, scope, web.digest("\n".join(lines).encode())])
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    signature = hmac.new(key, wanted.encode(), hashlib.sha256).hexdigest()
    authorization = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    sent = {name: value for name, value in signed.items() if name != "host"}
    return {**sent, "Authorization": authorization}
