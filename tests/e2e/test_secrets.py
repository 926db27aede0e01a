"""Canaries: what is secret goes in through every door and is found nowhere that the product writes or answers."""

import json
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests import services
from tests.e2e.support import ERAS, Client, audit_rows, connect, exchange, made, rest, unique
from tests.product import ROOT
from tests.support import eventually

PEER = Path(__file__).with_name("rogue_stdio.py")


def canary(what):
    """Return a secret that nothing else looks like."""
    return f"CANARY{what}{secrets.token_hex(12)}"


class Seeded:
    """A product into which canaries were put, and all that it answered while they were."""

    def __init__(self, product, rogue, directory):
        self.product, self.rogue = product, rogue
        self.secrets, self.answers = {}, []
        self.directory = directory
        self.sow()

    def secret(self, what):
        return self.secrets.setdefault(what, canary(what.replace(" ", "")))

    def rest(self, method, path, body=None, **options):
        answer = rest(self.product, method, path, body, **options)
        self.answers.append((f"{method} {path}", answer.body.decode(errors="replace") + json.dumps(answer.headers)))
        return answer

    def call(self, client, arguments):
        answer = client.call("act", arguments)
        self.answers.append((f"call {arguments['how']}", "" if arguments["how"] in ("echo", "leak") else answer.body.decode()))
        return answer

    def sow(self):
        self.slug, self.program = unique("canary"), unique("canary")
        made(self.rest("POST", "servers/", {
            "slug": self.slug, "transport": "http", "url": self.rogue.url, "timeout_seconds": 2,
            "headers": {"Authorization": f"Bearer {self.secret('header')}", "X-Api-Key": self.secret("second header")},
        }))  # fmt: skip
        made(self.rest("POST", "servers/", {
            "slug": self.program, "transport": "stdio", "command": sys.executable,
            "args": [str(PEER), str(self.directory / "ledger")], "env": {"SERVICE_TOKEN": self.secret("env")},
        }))  # fmt: skip
        self.rest(
            "POST",
            f"servers/{self.slug}/credentials/",
            {"kind": "header", "name": "X-Later", "value": self.secret("credential")},
        )
        self.rest(
            "PATCH",
            f"servers/{self.slug}/",
            {"headers": {"Authorization": f"Bearer {self.secret('header')}", "X-Changed": self.secret("changed header")}},
        )
        # refused ones are as secret
        self.rest(
            "POST",
            "servers/",
            {
                "slug": "Not A Slug",
                "transport": "http",
                "url": self.rogue.url,
                "headers": {"X-Key": self.secret("refused header")},
            },
        )
        self.rest(
            "POST",
            "servers/",
            {"slug": unique("x"), "transport": "http", "url": f"http://user:{self.secret('url password')}@127.0.0.1/mcp"},
        )
        self.rest(
            "POST",
            "servers/",
            {"slug": unique("x"), "transport": "http", "url": f"http://127.0.0.1/mcp?api_key={self.secret('url query')}"},
        )
        self.rest(
            "POST",
            "servers/test-connection/",
            {"transport": "http", "url": self.rogue.url, "headers": {"X-Key": self.secret("tested header")}},
        )
        self.rest("POST", "servers/import/", {"document": {"mcpServers": {unique("imported"): {
            "url": self.rogue.url, "headers": {"X-Key": self.secret("imported header")}}}}})  # fmt: skip
        self.rest("POST", f"servers/{self.slug}/clone/", {"slug": unique("clone")})
        self.rest("GET", "servers/export/")
        # people and keys
        self.rest("POST", "users/", {"username": unique("user"), "password": self.secret("password") + " long enough"})
        self.rest("POST", "users/", {"username": "", "password": self.secret("refused password") + " long enough"})
        key = made(rest(self.product, "POST", "api-keys/", {"name": unique("key"), "inherits_owner": True}))
        self.secrets["key"] = key["key"].rsplit("_", 1)[1] if key["key"].count("_") == 2 else key["key"][12:]
        self.key = key["key"]
        again = exchange(
            self.product, "POST", "/api/v1/api-keys/", json.dumps({"name": unique("kept"), "inherits_owner": True}).encode(),
            {**self.product.headers, "Content-Type": "application/json", "Idempotency-Key": unique("once")},
        )  # fmt: skip
        self.secrets["key kept for a repetition"] = made(again)["key"][12:]
        exchange(self.product, "GET", f"/mcp?access_token={self.secret('query')}")
        exchange(self.product, "GET", f"/api/v1/servers/?key={self.secret('rest query')}")
        exchange(self.product, "GET", "/api/v1/servers/", headers={"Authorization": f"Bearer {self.secret('wrong key')}"})
        exchange(
            self.product,
            "POST",
            "/mcp",
            b"{}",
            {"Authorization": f"Bearer sy_abcdefgh_{self.secret('wrong mcp key')}{'x' * 30}"},
        )
        exchange(
            self.product,
            "POST",
            "/mcp",
            b'{"x": "%s"' % self.secret("cut body").encode(),
            {**self.product.headers, "Content-Type": "application/json"},
        )
        page = exchange(self.product, "GET", "/admin/login/")
        cookie = page.headers.get("set-cookie", "").split(";")[0]
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.body.decode())
        if token:
            form = f"csrfmiddlewaretoken={token[1]}&username=admin&password={self.secret('login')}".encode()
            exchange(
                self.product,
                "POST",
                "/admin/login/",
                form,
                {
                    "Cookie": cookie,
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Referer": f"{self.product.base_url}/admin/login/",
                },
            )
        # calls
        eventually(lambda: "act" in Client(self.product, "modern", f"/mcp/{self.slug}").names(), within=25)
        for era in ERAS:
            client = connect(self.product, era, f"/mcp/{self.slug}", self.key)
            self.call(client, {"how": "ok", "password": self.secret("argument")})
            self.call(
                client,
                {
                    "how": "ok",
                    "api_key": self.secret("argument api key"),
                    "nested": [{"Authorization": f"Bearer {self.secret('nested argument')}"}],
                },
            )
            self.call(
                client, {"how": "ok", "note": f"curl -H 'Authorization: Bearer {self.secret('bearer in text')}' https://x"}
            )
            self.call(client, {"how": "leak", "mark": self.secret("result")[::-1]})
            self.call(client, {"how": "401", "password": self.secret("failing argument")})
            # the schema wants a string: the refusal must not repeat what was given
            client.call("act", {"how": "ok", "password": [self.secret("invalid argument")]})
            client.call("act", {"how": 5, "token": self.secret("other invalid argument")})
            client.call(f"no-such-{self.slug}", {"password": self.secret("unknown tool")})
        self.rest(
            "POST", f"tools/{self.slug}__act/call/", {"arguments": {"how": "ok", "password": self.secret("rest argument")}}
        )
        self.rest("POST", f"servers/{self.slug}/discover/")
        self.rest("POST", f"servers/{self.slug}/probe/")
        for path in (
            "servers/",
            f"servers/{self.slug}/",
            f"servers/{self.program}/",
            "api-keys/",
            "users/",
            "audit-events/?limit=200",
            "tools/",
            "statistics/",
        ):
            self.rest("GET", path)
        for path in ("/metrics", "/health/ready", "/api/schema/"):
            answer = exchange(self.product, "GET", path, headers=self.product.headers)
            self.answers.append((path, answer.body.decode(errors="replace")))


@pytest.fixture(scope="module")
def seeded(start_for_module, rogue, tmp_path_factory):
    """A product of this module's own, with canaries in it, after it was stopped and started again."""
    product = start_for_module(services.DATABASE)
    it = Seeded(product, rogue, tmp_path_factory.mktemp("program"))
    it.files = written(product)
    return it


def written(product):
    """Return all that the product wrote: name → bytes."""
    found = {str(path): path.read_bytes() for path in product.home.rglob("*") if path.is_file()}
    found["printed"] = product.log_path.read_bytes()
    url = product.environment.get("DATABASE_URL")
    if url:
        import psycopg
        from psycopg import sql

        with psycopg.connect(url) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (table,) in tables:
                rows = connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))).fetchall()
                text = "\n".join(row[0] for row in rows)
                # bytea columns come as \\x…: read them as well
                plain = b"".join(bytes.fromhex(part) for part in re.findall(r"\\\\?x((?:[0-9a-f]{2})+)", text))
                found[f"table {table}"] = text.encode() + plain
        import redis

        with redis.Redis.from_url(product.environment["REDIS_URL"]) as store:
            for name in store.scan_iter():
                found[f"redis {name!r}"] = name + (store.dump(name) or b"")
    return found


def test_the_canaries_went_in(seeded):
    """Or the tests below prove nothing."""
    rogue = seeded.rogue
    assert len(seeded.secrets) >= 25
    assert any(one.headers.get("authorization") == f"Bearer {seeded.secrets['header']}" for one in rogue.arrivals)
    assert any(one.arguments.get("password") == seeded.secrets["argument"] for one in rogue.calls(how="ok"))
    assert any(one.arguments.get("mark") == seeded.secrets["result"][::-1] for one in rogue.calls(how="leak"))
    outcomes = audit_rows(seeded.product, "server = ? AND event_type = 'call.outcome'", seeded.slug)
    assert len(outcomes) >= 9
    assert "act" in json.dumps(made(rest(seeded.product, "GET", f"tools/?server={seeded.slug}")))


def test_nothing_that_was_written_holds_a_secret(seeded):
    found = [
        (what, name)
        for what, secret in seeded.secrets.items()
        for name, content in seeded.files.items()
        if secret.encode() in content
    ]
    assert not found, found


def test_no_answer_holds_a_secret(seeded):
    found = [(what, name) for what, secret in seeded.secrets.items() for name, text in seeded.answers if secret in text]
    assert not found, found


def test_no_export_holds_a_secret(seeded, tmp_path):
    for command in (["export_servers"], ["dumpdata", "--all"], ["audit", "verify"]):
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=seeded.product.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-1000:]
        found = [what for what, secret in seeded.secrets.items() if secret in done.stdout + done.stderr]
        assert not found, (command, found)


def test_samples_are_kept_without_what_is_secret(seeded):
    """The log is of use all the same: the redacted sample of a call is there."""
    rows = audit_rows(seeded.product, "server = ? AND event_type = 'call.intent'", seeded.slug)
    assert any('"how"' in json.dumps(row["details"]).replace("\\", "") for row in rows)
    assert all(len(row["details"].get("arguments_sha256", "")) == 64 for row in rows)


def test_the_callers_credential_never_goes_upstream(seeded):
    """An echo server sees its own credential, and nothing of the caller's request but the message."""
    keys = {seeded.key, seeded.product.key}
    for era in ERAS:
        client = connect(seeded.product, era, f"/mcp/{seeded.slug}", seeded.key)
        body = client.message("tools/call", {"name": "act", "arguments": {"how": "echo"}})
        session = client.session
        extra = {
            "Cookie": "sessionid=caller", "X-Caller": "caller", "Proxy-Authorization": "Basic Y2FsbGVy", "X-Api-Key": "caller",
            "X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "User-Agent": "caller", "Referer": "http://caller/",
        }  # fmt: skip
        # a key that is bound to this machine would be refused with X-Forwarded-For; this one is not
        answer = client.send(body, extra)
        seen = json.loads(answer.result["content"][0]["text"])
        text = json.dumps(seen["headers"])
        assert seen["headers"]["authorization"] == f"Bearer {seeded.secrets['header']}"
        assert not any(key in json.dumps(seen) for key in keys)
        assert "caller" not in text
        assert "203.0.113.9" not in text
        if session:
            assert session not in text
    for arrival in seeded.rogue.arrivals:
        assert not any(key in json.dumps(arrival.headers) or key.encode() in arrival.raw for key in keys)


@pytest.mark.once
@pytest.mark.slow
def test_what_is_generated_is_printed_once(start_for_module):
    """The first start prints the operator's password and key; they stand in no file, and no later start repeats them."""
    unsaid = {"SWITCHYARD_ADMIN_PASSWORD": "", "SWITCHYARD_ADMIN_KEY": ""}
    product = start_for_module("sqlite", has="nothing", environment=unsaid)
    printed = product.log()
    key = re.search(r"API key\s+(sy_\S+)", printed)[1]
    password = re.search(r"Password\s+(\S+)", printed)[1]
    assert len(password) >= 12
    for path in product.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert key.encode() not in content, path
            assert key[12:].encode() not in content, path
            assert password.encode() not in content, path
    assert product.stop() == 0
    product.log_path.write_text("")
    product.start(within=90)
    assert key not in product.log()
    assert password not in product.log()
    assert connect(product, "modern", key=key).ask("tools/list").status == 200
