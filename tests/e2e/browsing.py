"""A browser of few words: cookies, forms of the console, redirects that are looked at before they are followed."""

import http.cookiejar
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.product import Product


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass
class Page:
    """One answer."""

    status: int
    text: str
    location: str
    headers: dict[str, str] = field(default_factory=dict)


class Browser:
    """Somebody who is signed in to a product, at its address on localhost."""

    def __init__(self, product: Product, username: str = "", password: str = "") -> None:
        self.base = f"http://localhost:{product.port}"
        self._opener = urllib.request.build_opener(_Stay, urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        if username or password:
            self.sign_in(username, password)

    def sign_in(self, username: str, password: str) -> None:
        """Sign in at the console's door."""
        page = self.post("/admin/login/", {"username": username, "password": password, "next": "/admin/"})
        assert page.status == 302, page.text[:500]

    def get(self, url: str) -> Page:
        """Open an address; a redirect is not followed."""
        return self._open(urllib.request.Request(url if "://" in url else self.base + url))

    def post(self, path: str, form: dict[str, str]) -> Page:
        """Open a page and send the form that stands on it."""
        shown = self.get(path)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', shown.text)
        assert token is not None, f"{shown.status} {shown.text[:2000]}"
        body = urlencode({**form, "csrfmiddlewaretoken": token[1]}).encode()
        return self._open(urllib.request.Request(self.base + path, body, {"Referer": self.base + path}))

    def agree(self, authorization_url: str) -> str:
        """Go to the authorization server, which agrees at once; return the address that it leads back to."""
        page = self.get(authorization_url)
        assert page.status == 302, page.text
        return page.location

    def _open(self, request: urllib.request.Request) -> Page:
        try:
            with self._opener.open(request, timeout=40) as answer:
                return Page(answer.status, answer.read().decode(), "", _lower(answer.headers))
        except urllib.error.HTTPError as answer:
            return Page(answer.code, answer.read().decode(), answer.headers.get("Location", ""), _lower(answer.headers))


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
