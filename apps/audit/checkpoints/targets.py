"""Where checkpoints go: `SWITCHYARD_CHECKPOINTS`, read once at the start. Nothing over HTTP or in the console changes it."""

import hashlib
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, unquote, urlsplit

from apps.audit.checkpoints.target import AwsCredentials, Target

_FORMS = "use file:///path, syslog://host:514, syslog+tcp://host:601, syslog+tls://host:6514, https://…, or s3://bucket/prefix?region=…"
_PORTS = {"syslog": 514, "syslog+tcp": 601, "syslog+tls": 6514}


def parse_targets(texts: Sequence[str], aws: AwsCredentials | None = None) -> tuple[Target, ...]:
    """Return the places that addresses name. Raises ValueError with a line that says what to use."""
    targets = tuple(_parse(text, aws) for text in texts)
    if len({target.name for target in targets}) != len(targets):
        raise ValueError("the same place stands there twice")
    return targets


def _parse(text: str, aws: AwsCredentials | None) -> Target:
    from apps.audit.checkpoints.file import FileTarget
    from apps.audit.checkpoints.s3 import S3Target
    from apps.audit.checkpoints.syslog import SyslogTarget
    from apps.audit.checkpoints.webhook import WebhookTarget

    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"not an address; {_FORMS}") from None
    if "@" in parts.netloc:
        raise ValueError("an address may not hold a user name or password")
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and len(parts.path) > 1:
        return FileTarget(unquote(parts.path))
    if parts.scheme in _PORTS and parts.hostname and parts.path in ("", "/"):
        return SyslogTarget(parts.scheme, parts.hostname, port or _PORTS[parts.scheme])
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")):
        return WebhookTarget(text, _shown(text))
    if parts.scheme == "s3" and parts.netloc:
        options = dict(parse_qsl(parts.query))
        if options.keys() - {"region", "endpoint"} or not options.get("region"):
            raise ValueError(
                "s3: use s3://bucket/prefix?region=eu-central-1, with &endpoint=https://… where it is not Amazon's"
            )
        if aws is None:
            raise ValueError("s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are missing")
        return S3Target(parts.netloc, parts.path.strip("/"), _options(options), aws)
    raise ValueError(f"“{parts.scheme or text[:40]}” is no place for checkpoints; {_FORMS}")


def _options(options: Mapping[str, str]) -> tuple[str, str]:
    return options["region"], options.get("endpoint", "").rstrip("/")


def _shown(text: str) -> str:
    """Return an address without its query, which may hold a secret; what stands for it tells two apart."""
    parts = urlsplit(text)
    mark = f"?{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{mark}"[:300]
