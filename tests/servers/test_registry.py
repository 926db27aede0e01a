"""The registry's verbs: what they write, what they refuse, and what they tell others."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from apps.common.context import SYSTEM, tenant_scope
from apps.common.errors import AddressRefused, Conflict, NotFound, PermissionDenied, TenantRequired, ValidationFailed
from apps.common.hooks_in_transaction import off, on
from apps.common.models import OutboxEvent
from apps.servers.models import Credential, Endpoint, Server
from apps.servers.services.registry import (
    clone_server,
    delete_credential,
    delete_server,
    delete_servers,
    pause_server,
    pause_servers,
    register_server,
    resume_server,
    resume_servers,
    set_credential,
    update_server,
)
from apps.servers.services.secrets import secrets_of
from tests.factories import as_user, make_tenant, make_user
from tests.servers.support import PRODUCT, PUBLIC, events, last_id, make_server, recorded, superuser_in

pytestmark = pytest.mark.django_db(databases="__all__")

CANARY = "canary-4711-secret-value"


def whole_outbox() -> str:
    return json.dumps(list(OutboxEvent.objects.values_list("payload", flat=True)))


@pytest.fixture
def hear():
    """Collect what is emitted inside transactions."""
    heard, handlers = [], []

    def listen(*names: str) -> list[tuple[str, dict]]:
        for name in names:

            def handler(_name=name, **facts) -> None:
                heard.append((_name, facts))

            handlers.append((name, handler))
            on(name, handler)
        return heard

    yield listen
    for name, handler in handlers:
        off(name, handler)


def test_registering_writes_the_server_its_endpoint_and_sealed_credentials(tenant, hear):
    heard = hear("server.registered")
    before = last_id()
    with superuser_in(tenant) as actor:
        server = register_server(
            slug="github", transport="http", url=PUBLIC, headers={"Authorization": f"Bearer {CANARY}"}, description="Code"
        )
    row = Server.unscoped.get(pk=server.pk)
    assert (row.slug, row.name, row.tenant_id, row.version, row.paused) == ("github", "github", tenant.pk, 1, False)
    assert Endpoint.unscoped.get(server=row).url == PUBLIC
    sealed = bytes(Credential.unscoped.get(server=row).sealed)
    assert CANARY.encode() not in sealed
    assert secrets_of(server.pk).headers == {"Authorization": f"Bearer {CANARY}"}
    assert [name for name, _ in heard] == ["server.registered"]
    assert heard[0][1]["server"].pk == server.pk
    [event] = [event for event in events(after=before) if event["object_kind"] == "server"]
    assert (event["event_type"], event["actor_id"], event["origin"]) == ("server.registered", actor.id, "admin")
    assert event["details"]["after"]["url"] == PUBLIC
    assert event["details"]["credentials"] == {"header": ["Authorization"], "env": []}
    mine = [change for change in events("changed", after=before) if change["kind"] == "server"]
    assert [change["id"] for change in mine] == [str(server.pk)]
    assert CANARY not in whole_outbox()


@pytest.mark.parametrize(
    ("slug", "field"),
    [
        ("", "slug"),
        ("Up", "slug"),
        ("a_b", "slug"),
        ("-a", "slug"),
        ("a--b", "slug"),
        ("x" * 41, "slug"),
        ("mcp", "slug"),
        ("sse", "slug"),
    ],
)
def test_a_slug_that_is_malformed_or_reserved_is_refused(tenant, slug, field):
    with superuser_in(tenant), pytest.raises(ValidationFailed) as caught:
        register_server(slug=slug, transport="http", url=PUBLIC)
    assert field in caught.value.extra["errors"]


def test_a_taken_slug_is_a_conflict_and_other_tenants_do_not_matter(tenant):
    make_server(tenant, "files")
    make_server(make_tenant(), "files")
    with superuser_in(tenant), pytest.raises(Conflict) as caught:
        register_server(slug="files", transport="http", url=PUBLIC)
    assert "slug" in caught.value.extra["errors"]
    assert Server.unscoped.filter(tenant=tenant).count() == 1


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_of_two_registrations_at_once_one_wins_and_the_other_is_a_conflict():
    tenant = make_tenant()

    def register(number: int) -> str:
        try:
            make_server(tenant, "contested", description=str(number))
        except Conflict:
            return "conflict"
        finally:
            connections.close_all()
        return "won"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(register, range(4))) == ["conflict"] * 3 + ["won"]
    assert Server.unscoped.filter(tenant=tenant).count() == 1


def test_a_subscriber_that_refuses_undoes_everything(tenant):
    def refuse(server):
        raise Conflict("A toolset has this slug.")

    on("server.registered", refuse)
    before = last_id()
    try:
        with superuser_in(tenant), pytest.raises(Conflict):
            register_server(slug="taken", transport="http", url=PUBLIC)
    finally:
        off("server.registered", refuse)
    assert not Server.unscoped.filter(tenant=tenant).exists()
    assert not [event for event in events(after=before) if event["event_type"] == "server.registered"]


def test_every_message_is_given_at_once(tenant):
    with superuser_in(tenant), pytest.raises(ValidationFailed) as caught:
        register_server(
            slug="Bad Slug",
            transport="http",
            url="ftp://example.com",
            headers={"Host": "x", "X-Good": "line\r\nInjected: 1"},
            timeout_seconds=0,
            review="perhaps",
        )
    errors = caught.value.extra["errors"]
    assert errors.keys() >= {"slug", "url", "headers", "timeout_seconds", "review"}
    assert len(errors["headers"]) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"transport": "http"},
        {"transport": "http", "url": PUBLIC, "command": "cat"},
        {"transport": "stdio", "url": PUBLIC},
        {"transport": "stdio", "command": "cat", "url": PUBLIC},
        {"transport": "carrier-pigeon", "url": PUBLIC},
        {"transport": "http", "url": PUBLIC, "env": {"A": "b"}},
        {"transport": "stdio", "command": "cat", "headers": {"A": "b"}},
        {"transport": "http", "url": PUBLIC, "args": ["x"]},
        {"transport": "http", "url": PUBLIC, "headers": {"A": 5}},
        {"transport": "http", "url": PUBLIC, "headers": ["A"]},
        {"transport": "http", "url": PUBLIC, "headers": {"X-A": "1", "x-a": "2"}},
        {"transport": "stdio", "command": "cat", "args": "-la"},
        {"transport": "stdio", "command": "cat", "args": 5},
        {"transport": "stdio", "command": "cat", "args": [1]},
        {"transport": "stdio", "command": "cat", "cwd": "relative"},
        {"transport": "stdio", "command": "   "},
        {"transport": "stdio", "command": None},
        {"transport": "stdio", "command": ["cat"]},
        {"transport": "http", "url": None},
        {"transport": "http", "url": {"a": 1}},
        {"transport": None, "url": PUBLIC},
        {"transport": "http", "url": PUBLIC, "description": None},
        {"transport": "http", "url": PUBLIC, "args": None},
        {"transport": "http", "url": PUBLIC, "cwd": None},
        {"transport": "http", "url": PUBLIC, "name": "x" * 121},
        {"transport": "stdio", "command": "cat", "cwd": 5},
        {"transport": "stdio", "command": "cat", "env": {"LD_PRELOAD": "/tmp/x.so"}},
        {"transport": "http", "url": PUBLIC, "max_concurrency": 0},
        {"transport": "http", "url": PUBLIC, "idle_seconds": "soon"},
    ],
)
def test_settings_that_do_not_fit_are_refused_and_nothing_is_written(tenant, fields):
    with superuser_in(tenant), pytest.raises(ValidationFailed) as caught:
        register_server(slug="odd", **fields)
    assert caught.value.extra["errors"]
    assert not Server.unscoped.filter(tenant=tenant).exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/mcp",
        "http://localhost:9/mcp",
        "http://[::1]/mcp",
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data",
        "http://192.168.1.1/mcp",
        "http://0x7f.1/mcp",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
    ],
)
def test_special_addresses_are_refused_and_the_refusal_is_recorded(tenant, configure, url):
    configure(allowed_networks=[])
    with recorded() as found, superuser_in(tenant), pytest.raises(AddressRefused):
        register_server(slug="inside", transport="http", url=url)
    refusals = [event for event in found if event["event_type"] == "access.refused"]
    assert [event["details"]["rule"] for event in refusals] == ["network"]
    assert not Server.unscoped.filter(tenant=tenant).exists()


def test_an_allowed_network_opens_its_addresses_also_for_an_update(tenant, configure):
    configure(allowed_networks=[])
    server = make_server(tenant)
    with superuser_in(tenant), pytest.raises(AddressRefused):
        update_server(server, url="http://127.0.0.1:9/mcp")
    configure(allowed_networks=["127.0.0.0/8"])
    with superuser_in(tenant):
        update_server(server, url="http://127.0.0.1:9/mcp")
    assert Endpoint.unscoped.get(server=server).url == "http://127.0.0.1:9/mcp"


def test_without_a_tenant_nothing_is_registered(db):
    with pytest.raises(TenantRequired):
        register_server(slug="lost", transport="http", url=PUBLIC)


def test_updating_records_before_and_after_and_what_did_not_change_is_left_out(tenant, hear):
    server = make_server(tenant, headers={"X-Key": CANARY})
    heard = hear("server.updated", "server.connection_changed")
    with recorded() as found, superuser_in(tenant):
        row = update_server(server, description="New", timeout_seconds=5, headers={"X-Key": None, "X-More": "m"})
    assert (row.description, row.timeout_seconds, row.version) == ("New", 5, 2)
    [event] = [event for event in found if event["event_type"] == "server.updated"]
    assert event["details"] == {
        "before": {"description": "", "timeout_seconds": 60},
        "after": {"description": "New", "timeout_seconds": 5},
        "headers": {"set": ["X-More"], "deleted": []},
    }
    assert [name for name, _ in heard] == ["server.updated", "server.connection_changed"]
    assert secrets_of(server.pk).headers == {"X-Key": CANARY, "X-More": "m"}
    assert CANARY not in whole_outbox()


def test_an_update_that_changes_nothing_leaves_no_trace(tenant):
    server = make_server(tenant, headers={"X-Key": CANARY}, description="Same")
    before, touched = last_id(), Server.unscoped.get(pk=server.pk).updated_at
    with superuser_in(tenant):
        after = last_id()
        update_server(server, description="Same", url=PUBLIC, headers={"X-Key": CANARY})
    assert last_id() == after
    assert after >= before
    assert Server.unscoped.get(pk=server.pk).updated_at == touched


def test_a_change_of_words_keeps_connections_a_change_of_address_renews_them(tenant):
    server = make_server(tenant)
    with superuser_in(tenant):
        assert update_server(server, description="x", review="accept").version == 1
        Endpoint.objects.filter(server=server).update(era="legacy", state="healthy")
        assert update_server(server, url=PUBLIC + "/2").version == 2
    endpoint = Endpoint.unscoped.get(server=server)
    assert (endpoint.era, endpoint.state) == ("", "unknown")


def test_slug_and_unknown_fields_cannot_be_changed(tenant):
    server = make_server(tenant)
    for fields in ({"slug": "other"}, {"builtin": True}, {"version": 9}, {"tenant_id": "x"}, {"paused_at": None}):
        with superuser_in(tenant), pytest.raises(ValidationFailed):
            update_server(server, **fields)


def test_headers_do_not_follow_to_another_origin_unless_a_superuser_says_so(tenant):
    server = make_server(tenant, headers={"Authorization": CANARY})
    operator = as_user(make_user(tenant, "admin"))
    with tenant_scope(tenant.pk, operator):
        with pytest.raises(ValidationFailed) as caught:
            update_server(server, url="https://93.184.215.99/mcp")
        assert "headers" in caught.value.extra["errors"]
        with pytest.raises(ValidationFailed):
            update_server(server, url="https://93.184.215.99/mcp", headers={"Authorization": None})
        update_server(server, url=PUBLIC + "/another/path")
        update_server(server, url="https://93.184.215.99/mcp", headers={"Authorization": "fresh"})
    assert secrets_of(server.pk).headers == {"Authorization": "fresh"}
    with superuser_in(tenant):
        update_server(server, url="https://93.184.215.98/mcp")
    assert secrets_of(server.pk).headers == {"Authorization": "fresh"}


def test_changing_the_transport_drops_what_belongs_to_the_other_kind(tenant):
    server = make_server(tenant, command="cat", args=["-"], env={"TOKEN": CANARY})
    with superuser_in(tenant):
        update_server(server, transport="http", url=PUBLIC, headers={"X-Key": "k"})
    endpoint = Endpoint.unscoped.get(server=server)
    assert (endpoint.command, endpoint.args, endpoint.url, endpoint.from_file) == ("", [], PUBLIC, False)
    assert secrets_of(server.pk).headers == {"X-Key": "k"}
    assert secrets_of(server.pk).env == {}


def test_keeping_a_value_that_is_not_there_is_refused(tenant):
    server = make_server(tenant)
    with superuser_in(tenant), pytest.raises(ValidationFailed):
        update_server(server, headers={"X-Key": None})


def test_a_concurrent_pause_survives_an_update_made_from_an_old_row(tenant):
    server = make_server(tenant)
    stale = Server.unscoped.get(pk=server.pk)
    with superuser_in(tenant):
        pause_server(server)
        update_server(stale, description="later")
    assert Server.unscoped.get(pk=server.pk).paused


def test_cloning_copies_settings_and_credentials_sealed_anew(tenant):
    server = make_server(tenant, "origin", headers={"X-Key": CANARY}, review="hold-all", timeout_seconds=7)
    with recorded() as found, superuser_in(tenant):
        clone = clone_server(server, "copy")
    assert (clone.slug, clone.review, clone.timeout_seconds, clone.paused) == ("copy", "hold-all", 7, False)
    assert secrets_of(clone.pk).headers == {"X-Key": CANARY}
    first, second = (bytes(row.sealed) for row in Credential.unscoped.filter(server__tenant=tenant))
    assert first != second
    [event] = [event for event in found if event["event_type"] == "server.cloned"]
    assert event["details"]["source_slug"] == "origin"
    with superuser_in(tenant), pytest.raises(Conflict):
        clone_server(server, "copy")


def test_pause_and_resume_are_told_once(tenant, hear):
    server = make_server(tenant)
    heard = hear("server.paused", "server.resumed")
    with recorded() as found, superuser_in(tenant):
        for _ in range(2):
            assert pause_server(server).paused
        for _ in range(2):
            assert not resume_server(server).paused
    kinds = [event["event_type"] for event in found if event["object_id"] == str(server.pk)]
    assert kinds == ["server.paused", "server.resumed"]
    assert [name for name, _ in heard] == ["server.paused", "server.resumed"]


def test_many_are_paused_resumed_and_deleted_together_or_not_at_all(tenant):
    mine = [make_server(tenant) for _ in range(3)]
    foreign = make_server(make_tenant())
    with superuser_in(tenant):
        assert all(row.paused for row in pause_servers(mine))
        assert not any(row.paused for row in resume_servers(mine))
        with pytest.raises(NotFound):
            pause_servers([*mine, foreign])
        assert not Server.objects.filter(paused_at__isnull=False).exists()
        with pytest.raises(NotFound):
            delete_servers([*mine, foreign])
        assert Server.objects.count() == 3
        delete_servers(mine)
    assert not Server.unscoped.filter(tenant=tenant).exists()


def test_deleting_tells_subscribers_while_the_rows_still_stand(tenant):
    seen = []

    def look(server):
        seen.append(Endpoint.unscoped.filter(server=server).count())

    server = make_server(tenant, headers={"X-Key": CANARY})
    on("server.deleting", look)
    try:
        with recorded() as found, superuser_in(tenant):
            delete_server(server)
    finally:
        off("server.deleting", look)
    assert seen == [1]
    assert not Credential.unscoped.filter(server=server.pk).exists()
    assert [event["event_type"] for event in found if event["object_id"] == str(server.pk)] == ["server.deleted"]
    with superuser_in(tenant), pytest.raises(NotFound):
        delete_server(server)


def test_a_server_of_another_tenant_does_not_exist(tenant):
    foreign = make_server(make_tenant())
    with superuser_in(tenant):
        for verb in (pause_server, resume_server, delete_server, update_server, lambda s: clone_server(s, "mine")):
            with pytest.raises(NotFound):
                verb(foreign)
        with pytest.raises(NotFound):
            set_credential(foreign, "header", "X-Key", "v")
        with pytest.raises(NotFound):
            delete_credential(foreign, "header", "X-Key")
    assert Server.unscoped.filter(pk=foreign.pk).exists()


@pytest.mark.parametrize("role", ["user", "guest", "auditor"])
def test_roles_without_the_right_are_refused_and_recorded(tenant, role):
    server = make_server(tenant, headers={"X-Key": "v"})
    actor = as_user(make_user(tenant, role))
    verbs = [
        lambda: register_server(slug="mine", transport="http", url=PUBLIC),
        lambda: update_server(server, description="x"),
        lambda: clone_server(server, "mine"),
        lambda: pause_server(server),
        lambda: resume_server(server),
        lambda: delete_server(server),
        lambda: set_credential(server, "header", "X-Key", "w"),
        lambda: delete_credential(server, "header", "X-Key"),
    ]
    for verb in verbs:
        with recorded() as found, tenant_scope(tenant.pk, actor), pytest.raises(PermissionDenied):
            verb()
        assert [event["event_type"] for event in found] == ["access.refused"]
        assert found[0]["actor_id"] == actor.id
    assert secrets_of(server.pk).headers == {"X-Key": "v"}


def test_a_built_in_server_is_the_products_own(tenant, configure):
    configure(allowed_networks=[])
    with superuser_in(tenant), pytest.raises(PermissionDenied):
        register_server(slug="fake", transport="http", url=PUBLIC, builtin=True)
    server = make_server(tenant, "system", url="http://127.0.0.1:8123/mcp", builtin=True, actor=PRODUCT)
    with superuser_in(tenant):
        for fields in ({"url": PUBLIC}, {"headers": {"X-Key": "v"}}):
            with pytest.raises(PermissionDenied):
                update_server(server, **fields)
        with pytest.raises(PermissionDenied):
            set_credential(server, "header", "X-Key", "v")
        with pytest.raises(Conflict):
            delete_server(server)
        with pytest.raises(Conflict):
            clone_server(server, "copy")
        assert update_server(server, timeout_seconds=3).timeout_seconds == 3
        assert pause_server(server).paused
    with tenant_scope(tenant.pk, SYSTEM):
        update_server(server, url="http://127.0.0.1:8124/mcp")
        delete_server(server)


def test_credentials_are_set_replaced_and_deleted(tenant):
    server = make_server(tenant)
    with recorded() as found, superuser_in(tenant):
        set_credential(server, "header", "X-Key", CANARY)
        set_credential(server, "header", "X-Key", CANARY)
        set_credential(server, "header", "x-key", "other")
        delete_credential(server, "header", "X-KEY")
        with pytest.raises(NotFound):
            delete_credential(server, "header", "X-Key")
    kinds = [event["event_type"] for event in found if event["object_id"] == str(server.pk)]
    assert kinds == ["credential.set", "credential.set", "credential.deleted"]
    assert secrets_of(server.pk).headers == {}
    assert Server.unscoped.get(pk=server.pk).version == 4
    assert CANARY not in whole_outbox()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("header", "X-Key", "a\r\nEvil: 1"),
        ("header", "X-Key", "a\x00b"),
        ("header", "X-Key", ""),
        ("header", "X-Key", None),
        ("header", "X-Key", 5),
        ("header", "X-Key", "é"),
        ("header", "X Key", "v"),
        ("header", "X-Key:", "v"),
        ("header", "", "v"),
        ("header", "Host", "evil"),
        ("header", "Connection", "close"),
        ("header", "transfer-encoding", "chunked"),
        ("header", "Mcp-Session-Id", "1"),
        ("header", "MCP-Protocol-Version", "1"),
        ("env", "X", "v"),
        ("cookie", "X", "v"),
    ],
)
def test_a_credential_that_would_break_the_request_is_refused(tenant, kind, name, value):
    server = make_server(tenant)
    with superuser_in(tenant), pytest.raises(ValidationFailed) as caught:
        set_credential(server, kind, name, value)
    assert caught.value.extra["errors"]
    assert not Credential.unscoped.filter(server=server).exists()


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "BASH_ENV", "1X", "A=B", "", "A B"])
def test_environment_that_injects_code_is_refused(tenant, name):
    server = make_server(tenant, command="cat")
    with superuser_in(tenant), pytest.raises(ValidationFailed):
        set_credential(server, "env", name, "v")


def test_secrets_in_arguments_stay_out_of_the_log(tenant):
    args = ["--api-key", CANARY, f"--token={CANARY}", "--header", f"Authorization: Bearer {CANARY}", "--port", "80"]
    with recorded() as found:
        make_server(tenant, command="cat", args=args)
    [event] = [event for event in found if event["event_type"] == "server.registered"]
    assert event["details"]["after"]["args"] == ["--api-key", "…", "--token=…", "--header", "Authorization: …", "--port", "80"]
    assert CANARY not in whole_outbox()
