"""Secrets go in and never come out: not in answers, not in errors, not in events, not in what is kept for a repetition."""

import base64
import json

import pytest

from apps.accounts.models import APIKey
from apps.common.models import IdempotencyKey, OutboxEvent
from apps.servers.models import Credential
from tests.accounts.client import Api, problem
from tests.api.routes import routes
from tests.api.world import World
from tests.factories import make_key, make_user, unique

pytestmark = pytest.mark.django_db


def forms_of(secret: str) -> set[str]:
    """A secret as it is, and as an encoder might write it."""
    raw = secret.encode()
    return {secret, raw.hex(), base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}


def hidden_in(world: World) -> set[str]:
    """Everything that nobody may read."""
    sealed = [bytes(row.sealed) for row in Credential.unscoped.all()]
    digests = [bytes(row.digest) for row in APIKey.unscoped.all()]
    raw = {form for one in (*sealed, *digests) for form in (one.hex(), base64.b64encode(one).decode().rstrip("="))}
    return raw | {form for secret in world.secrets for form in forms_of(secret)}


def test_no_reading_route_shows_a_secret(world: World, root: Api):
    hidden = hidden_in(world)
    for route in routes():
        if route.method == "get":
            for named in world.named(route) if route.parameter else [""]:
                text = root.get(route.path(named)).content.decode()
                assert not [secret for secret in hidden if secret in text], route


def test_no_changing_route_shows_a_secret_again(world: World, root: Api):
    canary = unique("canary-value")
    path = f"servers/{world.server.slug}/"
    sent = [
        root.post("servers/", {"slug": "withheader", "transport": "http", "url": "http://127.0.0.1:1/", "headers": {"X-Key": canary}}),
        root.post("servers/", {"slug": "withenv", "transport": "stdio", "command": "true", "env": {"TOKEN": canary}, "args": ["--quiet"]}),
        root.patch(path, {"headers": {"Authorization": canary}}),
        root.post(f"{path}credentials/", {"kind": "header", "name": "X-Other", "value": canary}),
        root.post(f"{path}credentials/", {"kind": "header", "name": "X-Other\r\nX-More", "value": canary}),
        root.post(f"{path}credentials/", {"kind": "cookie", "name": "X", "value": canary}),
        root.post(f"{path}clone/", {"slug": "cloned"}),
        root.post("servers/test-connection/", {"transport": "http", "url": "http://127.0.0.1:1/", "headers": {"X-Key": canary}}),
        root.post("servers/import/", {"document": {"mcpServers": {"imp": {"url": "http://127.0.0.1:1/", "headers": {"X-Key": canary}}}}}),
        root.post("servers/import/", {"document": {"mcpServers": {"bad": {"url": "x", "headers": {"X-Key": canary, "": canary}}}}}),
        root.post(f"{path}probe/"), root.post(f"{path}discover/"), root.get("servers/export/"), root.get(path), root.get("servers/"),
        root.post("users/", {"username": "ida", "password": canary}), root.patch("users/ida/", {"password": canary + "2"}),
    ]  # fmt: skip
    assert [answer.status_code for answer in sent] == [
        201,
        201,
        200,
        200,
        400,
        400,
        201,
        200,
        200,
        200,
        200,
        200,
        200,
        200,
        200,
        201,
        200,
    ]
    for number, answer in enumerate(sent):
        assert canary not in answer.content.decode(), number
    assert canary not in json.dumps(list(OutboxEvent.objects.values_list("payload", flat=True)))
    exported = root.get("servers/export/").json()["mcpServers"]
    assert exported["withheader"]["headers"] == {"X-Key": "${WITHHEADER__X_KEY}"}


def test_a_keys_text_stands_in_the_creating_answer_alone(world: World, root: Api):
    name = unique("key")
    first = root.post("api-keys/", {"name": name}, Idempotency_Key=name)
    text = first.json()["key"]
    again = root.post("api-keys/", {"name": name}, Idempotency_Key=name)
    assert again.json() == first.json()
    assert APIKey.unscoped.filter(name=name).count() == 1
    secret = text.split("_", 2)[2]
    for route in ("api-keys/", f"api-keys/{first.json()['id']}/", f"api-keys/?prefix={first.json()['prefix']}"):
        assert secret not in root.get(route).content.decode()
    for answer in (
        root.patch(f"api-keys/{first.json()['id']}/", {"name": "x"}),
        root.post(f"api-keys/{first.json()['id']}/revoke/"),
    ):
        assert secret not in answer.content.decode()
    kept = IdempotencyKey.objects.get(key=name)
    assert secret.encode() not in bytes(kept.body)
    assert secret not in json.dumps(list(OutboxEvent.objects.values_list("payload", flat=True)))


def test_arguments_that_look_like_secrets_are_for_those_who_may_change_them(world: World, root: Api):
    canary = unique("canary-value")
    root.post("servers/", {"slug": "local", "transport": "stdio", "command": "true", "args": ["--api-key", canary]})
    guest = Api(make_key(make_user(world.tenant, "guest"), world.tenant, inherits_owner=True)[1])
    for client in (guest, root):
        shown = client.get("servers/local/")
        assert shown.json()["endpoints"][0]["args"] == ["--api-key", "…"]
        assert canary not in client.get("servers/").content.decode()
    problem(guest.get("servers/export/"), 403, "permission-denied")
    assert root.get("servers/export/").json()["mcpServers"]["local"]["args"] == ["--api-key", canary]


def test_errors_do_not_repeat_secrets_of_the_request(root: Api):
    canary = unique("canary-value")
    for body in (
        {"headers": {"X-Key": canary}},
        {"headers": {"": canary}},
        {"headers": [canary]},
        {"env": {"A=B": canary}},
        {"headers": {"Host": canary + "\n"}},
    ):
        answer = root.post("servers/", {"slug": "Wrong Slug", "transport": "http", "url": "http://127.0.0.1:1/", **body})
        assert answer.status_code == 400
        assert canary not in answer.content.decode()
