"""Checkpoints by POST to an address; the body is the signed document itself."""

from yarl import URL

from apps.audit.checkpoints import web
from apps.audit.checkpoints.document import Checkpoint


class WebhookTarget:
    """Any 2xx answer means taken. The document carries its signature; two headers repeat what routes it."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = URL(url), name

    @property
    def name(self) -> str:
        """See `target.Target`."""
        return self._name

    def send(self, checkpoint: Checkpoint) -> None:
        """See `target.Target`."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Switchyard",
            "Switchyard-Checkpoint": str(checkpoint.number),
            "Switchyard-Key": checkpoint.key,
        }
        web.expect(*web.request("POST", self._url, headers, checkpoint.line + b"\n"))
