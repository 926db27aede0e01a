"""A request's headers: never changed once made, so that the bytes of a head can be made once and sent many times."""

from collections.abc import Iterable, Mapping

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from apps.common.errors import UpstreamUnavailable

_KEPT = 16
"""Heads that one object keeps: a client of one endpoint has one or two."""
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class RequestHeaders:
    """Headers that cannot be changed, only copied with changes. Keep one object for requests that are alike."""

    __slots__ = ("_heads", "fields")

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict(fields))
        self._heads: dict[tuple[str, URL], bytes] = {}

    def changed(self, fields: Mapping[str, str], without: Iterable[str] = ()) -> "RequestHeaders":
        """Return a copy in which `fields` stand and those named by `without` do not."""
        copy = self.fields.copy()
        for name in without:
            copy.popall(name, None)
        for name, value in fields.items():
            copy[name] = value
        return RequestHeaders(copy)

    def head(self, method: str, url: URL, host: str) -> bytes:
        """Return a request's head without Content-Length and the empty line; `host` is what its Host header says.

        Raises UpstreamUnavailable for what HTTP cannot carry.
        """
        head = self._heads.get((method, url))
        if head is None:
            head = _head_of(method, url.raw_path_qs, host, self.fields)
            if len(self._heads) >= _KEPT:
                self._heads.clear()
            self._heads[method, url] = head
        return head


def _head_of(method: str, target: str, host: str, fields: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    for name, value in fields.items():
        if not name or not _TOKEN.issuperset(name) or any(mark in value for mark in "\r\n\x00"):
            raise UpstreamUnavailable(f"The request to {host} cannot be sent: a header is not valid.")
        lines.append(f"{name}: {value}")
    if any(mark <= " " or mark == "\x7f" for mark in target):
        raise UpstreamUnavailable(f"The request to {host} cannot be sent: its address is not valid.")
    return ("\r\n".join(lines) + "\r\n").encode()
