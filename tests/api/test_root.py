"""The root of the address: the console for people, and a word on what is served where there is none."""

import pytest
from django.test import Client

from config import asgi

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("method", ["get", "head"])
def test_the_root_leads_to_the_console(method):
    answer = getattr(Client(), method)("/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_nothing_else_is_done_at_the_root():
    assert Client().post("/").status_code == 405
    assert Client().get("/nothing-here").status_code == 404
    assert Client(headers={"Host": "elsewhere.example"}).get("/").status_code == 400


async def ask(path: str, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    """Ask the ASGI application."""
    sent = []

    async def send(message) -> None:
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    await asgi.application({"type": "http", "path": path, "method": method, "headers": []}, receive, send)
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


@pytest.mark.parametrize("path", ["/", "/admin/", "/api/v1/servers/", "/favicon.ico"])
async def test_a_gateway_says_what_it_serves(monkeypatch, path):
    monkeypatch.setattr(asgi, "console_here", False)
    monkeypatch.setattr(asgi, "gateway_here", True)
    status, headers, body = await ask(path)
    assert (status, headers[b"content-type"]) == (404, b"text/plain; charset=utf-8")
    assert int(headers[b"content-length"]) == len(body)
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"/mcp" in body
    assert b"/admin/" not in body
    assert (await ask(path, "HEAD"))[2] == b""


@pytest.mark.parametrize("path", ["/mcp", "/mcp/desk"])
async def test_a_web_process_says_that_it_has_no_gateway(monkeypatch, path):
    monkeypatch.setattr(asgi, "console_here", True)
    monkeypatch.setattr(asgi, "gateway_here", False)
    status, _, body = await ask(path, "POST")
    assert status == 404
    assert b"/admin/" in body
    assert b"/mcp" not in body
