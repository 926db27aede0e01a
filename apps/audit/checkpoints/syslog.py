"""Checkpoints by syslog: RFC 5424 messages over UDP (RFC 5426), TCP (RFC 6587, counted octets) or TLS (RFC 5425)."""

import contextlib
import os
import socket
import ssl

from apps.audit.checkpoints.document import Checkpoint
from apps.audit.checkpoints.target import SEND_SECONDS, TargetFailed

_PRIORITY = 13 * 8 + 5
"""Facility 13 (log audit), severity notice."""
_DATAGRAM = 60_000
_CLOSING_SECONDS = 2.0
"""Servers that end a connection do it within this time; one that keeps it open has not refused."""


class SyslogTarget:
    """Sends each checkpoint as one message. UDP tells nobody of a loss; a gap shows in the numbers."""

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self._scheme, self._host, self._port = scheme, host, port

    @property
    def name(self) -> str:
        """See `target.Target`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{self._port}"[:300]

    def send(self, checkpoint: Checkpoint) -> None:
        """See `target.Target`."""
        message = b"<%d>1 %b %b switchyard %d checkpoint - %b" % (
            _PRIORITY, checkpoint.time.encode(), socket.gethostname().encode("ascii", "replace")[:255] or b"-", os.getpid(),
            checkpoint.line,
        )  # fmt: skip
        try:
            if self._scheme == "syslog":
                self._datagram(message)
            else:
                self._stream(b"%d %b" % (len(message), message))
        except (OSError, ssl.SSLError) as error:
            raise TargetFailed(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error

    def _datagram(self, message: bytes) -> None:
        if len(message) > _DATAGRAM:
            raise TargetFailed("the checkpoint is too long for UDP; use syslog+tcp://")
        family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sender:
            sender.settimeout(SEND_SECONDS)
            sender.connect(address)
            sender.send(message)

    def _stream(self, message: bytes) -> None:
        with socket.create_connection((self._host, self._port), SEND_SECONDS) as plain:
            sender = plain
            if self._scheme == "syslog+tls":
                sender = ssl.create_default_context().wrap_socket(plain, server_hostname=self._host)
            with sender:
                sender.settimeout(SEND_SECONDS)
                sender.sendall(message)
                # syslog answers nothing: what can be learned is that the peer has read all of it, or broke off
                if self._scheme == "syslog+tcp":
                    sender.shutdown(socket.SHUT_WR)
                    sender.settimeout(_CLOSING_SECONDS)
                    with contextlib.suppress(TimeoutError):
                        sender.recv(1)
