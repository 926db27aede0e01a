"""The REST API of accounts, through the whole stack: keys, sessions, tenants, problems."""

import json

import pytest
from django.test import Client, RequestFactory

from apps.accounts.models import Role, Tenant, User
from apps.common.api.views import ScopedAPIView
from apps.common.context import current_scope
from tests.accounts.client import Api, problem
from tests.accounts.support import audited, everything
from tests.factories import PASSWORD, default_tenant, make_key, make_member, make_superuser, make_tenant, make_user, unique

pytestmark = pytest.mark.django_db


# Who calls.


def test_without_a_credential():
    body = problem(Api().get("api-keys/"), 401, "authentication-required")
    assert "Bearer" in body["detail"]
    answer = Api().get("api-keys/")
    assert answer["WWW-Authenticate"] == 'Bearer realm="switchyard"'


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Basic abc", "Bearer nonsense", "Bearer sy_abcdefgh_" + "a" * 43, "sy_abcdefgh_" + "a" * 43, ""],
)
def test_with_a_wrong_credential(header):
    problem(Api(Authorization=header).get("api-keys/"), 401, "authentication-required")


def test_a_key_is_never_read_from_the_address(root):
    text = root.headers["Authorization"].removeprefix("Bearer ")
    problem(Api().get(f"api-keys/?key={text}&access_token={text}"), 401, "authentication-required")


def test_a_key_bound_to_this_machine_is_refused_through_an_unknown_proxy():
    _, text = make_key(loopback_only=True)
    assert Api(text).get("api-keys/").status_code == 200
    problem(Api(text, **{"X-Forwarded-For": "127.0.0.1"}).get("api-keys/"), 401, "authentication-required")
    assert audited("auth.key_refused")[-1]["address"] == "0.0.0.0"


def test_a_session_needs_its_csrf_token(tenant, settings):
    user = make_user(tenant, "admin")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    assert client.get("/api/v1/roles/").status_code == 200
    answer = client.post("/api/v1/roles/", {"slug": "x"}, content_type="application/json")
    problem(answer, 403, "permission-denied")
    token = "a" * 32
    client.cookies[settings.CSRF_COOKIE_NAME] = token
    answer = client.post("/api/v1/roles/", {"slug": "x"}, content_type="application/json", headers={"X-CSRFToken": token})
    assert answer.status_code == 201
    assert audited("role.created")[-1]["origin"] == "rest"


def test_a_session_of_nobodys_member_is_refused():
    client = Client()
    client.force_login(make_user())
    problem(client.get("/api/v1/roles/"), 403, "permission-denied")


def test_a_key_without_rights_is_refused_and_recorded(tenant):
    _, text = make_key(make_user(tenant, "admin"), tenant)
    body = problem(Api(text).get("api-keys/"), 403, "permission-denied")
    assert body["rule"] == "default-deny"
    assert audited("access.refused")[-1]["action"] == "api_key.read"


# Which tenant.


def test_another_tenants_object_is_as_one_that_does_not_exist(api, root):
    foreign, _ = make_key(make_user(other := make_tenant()), other)
    foreign_role = Role.unscoped.filter(tenant=other).first()
    missing = "0198f0a0-0000-7000-8000-000000000000"
    for base, there in (
        ("api-keys", foreign.pk),
        ("api-keys", foreign.prefix),
        ("roles", foreign_role.pk),
        ("tenants", other.slug),
    ):
        for method in ("get", "patch", "delete"):
            answers = []
            for named in (there, missing):
                answer = getattr(api, method)(f"{base}/{named}/", {} if method == "patch" else None)
                if method == "delete" and base == "tenants":
                    problem(answer, 405, "method-not-allowed")
                    continue
                body = problem(answer, 404, "not-found")
                body.pop("instance")
                body.pop("request_id")
                answers.append(body)
            assert answers[:1] == answers[1:]
    foreign.refresh_from_db()
    assert foreign.revoked_at is None


def test_a_superusers_key_names_the_tenant(root):
    other = make_tenant()
    made = root.post("roles/", {"slug": "there"}, X_Switchyard_Tenant=other.slug)
    assert made.json()["tenant"] == str(other.pk)
    made = root.post("roles/", {"slug": "home"})
    assert made.json()["tenant"] == str(default_tenant().pk)
    assert root.get("roles/there/").status_code == 404
    assert root.get("roles/there/", X_Switchyard_Tenant=other.slug).status_code == 200


def test_others_may_name_only_their_own(api, tenant):
    assert api.get("roles/", X_Switchyard_Tenant=tenant.slug).status_code == 200
    details = {
        problem(api.get("roles/", X_Switchyard_Tenant=slug), 404, "not-found")["detail"]
        for slug in (make_tenant().slug, "missing")
    }
    assert len(details) == 1


def test_a_superusers_session_sees_every_tenant():
    first, second = make_tenant(), make_tenant()
    client = Client()
    client.force_login(make_superuser())
    tenants = {row["tenant"] for row in client.get("/api/v1/roles/?limit=200").json()["results"]}
    assert {str(first.pk), str(second.pk)} <= tenants
    problem(client.get("/api/v1/roles/guest/"), 409, "conflict")


def test_a_member_of_two_names_the_second():
    first, second = make_tenant("aa"), make_tenant("bb")
    user = make_user(first, "admin")
    make_member(user, second, "admin")
    client = Client()
    client.force_login(user)
    tenants = {row["tenant"] for row in client.get("/api/v1/roles/", headers={"X-Switchyard-Tenant": "bb"}).json()["results"]}
    assert tenants == {str(second.pk)}


# Objects.


def test_a_key_is_made_shown_once_changed_and_revoked(api, tenant):
    made = api.post("api-keys/", {"name": "ci", "scopes": ["server.read"], "inherits_owner": True})
    assert made.status_code == 201
    body = made.json()
    text = body["key"]
    assert text.startswith(f"sy_{body['prefix']}_")
    assert Api(text).get("roles/").status_code == 403
    shown = api.get(f"api-keys/{body['prefix']}/").json()
    assert "key" not in shown
    assert shown == {name: value for name, value in body.items() if name != "key"} | {"updated_at": shown["updated_at"]} | {
        name: shown[name] for name in ("last_used_at", "last_used_from", "last_used_client")
    }
    assert api.patch(f"api-keys/{body['id']}/", {"name": "renamed"}).json()["name"] == "renamed"
    for _ in range(2):
        assert api.post(f"api-keys/{body['id']}/revoke/").json()["state"] == "revoked"
    assert api.delete(f"api-keys/{body['id']}/").status_code == 204
    problem(api.patch(f"api-keys/{body['id']}/", {"name": "back"}), 409, "conflict")
    problem(Api(text).get("roles/"), 401, "authentication-required")
    assert len(audited("api_key.revoked")) == 1
    assert text not in everything()


def test_people_and_their_roles(api, tenant):
    made = api.post("users/", {"username": "eve", "password": "correct horse battery", "roles": ["user"]})
    assert made.status_code == 201, made.content
    assert "password" not in made.json()
    assert b"pbkdf2" not in made.content
    user = User.objects.get(username="eve")
    assert user.check_password("correct horse battery")
    given = api.post("memberships/", {"user": "eve", "role": "auditor"})
    assert (given.json()["username"], given.json()["role_slug"]) == ("eve", "auditor")
    listed = api.get(f"memberships/?user={user.pk}").json()["results"]
    assert [row["role_slug"] for row in listed] == ["user", "auditor"]
    assert api.delete(f"memberships/{given.json()['id']}/").status_code == 204
    assert (
        api.patch("users/eve/", {"email": "eve@example.com", "password": "another pass phrase"}).json()["email"]
        == "eve@example.com"
    )
    assert User.objects.get(username="eve").check_password("another pass phrase")
    assert api.post("users/eve/deactivate/").json()["is_active"] is False
    assert api.post("users/eve/activate/").json()["is_active"] is True
    problem(api.patch("users/eve/", {"is_superuser": True}), 403, "superuser-required")
    body = problem(api.patch("users/eve/", {"email": "x@example.com", "password": "short"}), 400, "validation-failed")
    assert body["errors"]["password"]
    assert api.get("users/eve/").json()["email"] == "eve@example.com"
    assert api.delete("users/eve/").status_code == 204
    problem(api.get("users/eve/"), 404, "not-found")


def test_strangers_cannot_be_named(api):
    stranger = make_user(make_tenant())
    for path, body in (("memberships/", {"role": "user"}), ("api-keys/", {"name": "x"})):
        field = "user" if path == "memberships/" else "owner"
        details = {
            problem(api.post(path, {**body, field: named}), 404, "not-found")["detail"]
            for named in (stranger.username, str(stranger.pk), "nobody")
        }
        assert details == {"There is no such user."}


def test_tenants_are_for_superusers(api, root, tenant):
    slug = unique("acme")
    problem(api.post("tenants/", {"slug": slug}), 403, "permission-denied")
    made = root.post("tenants/", {"slug": slug, "name": "Acme"})
    assert made.status_code == 201
    assert root.patch(f"tenants/{slug}/", {"sample_payloads": False}).json()["sample_payloads"] is False
    assert root.post(f"tenants/{slug}/deactivate/").json()["active"] is False
    assert root.post(f"tenants/{slug}/activate/").json()["active"] is True
    assert [row["slug"] for row in api.get("tenants/").json()["results"]] == [tenant.slug]
    assert slug in [row["slug"] for row in root.get("tenants/?limit=200").json()["results"]]


def test_roles(api):
    made = api.post("roles/", {"slug": "readers", "permissions": ["server.read"]})
    assert made.json()["name"] == "readers"
    assert api.patch("roles/readers/", {"permissions": ["server.read", "tool.read"]}).json()["permissions"] == [
        "server.read",
        "tool.read",
    ]
    problem(api.patch("roles/admin/", {"permissions": []}), 409, "conflict")
    body = problem(api.post("roles/", {"slug": "odd", "permissions": ["server.fly"]}), 400, "validation-failed")
    assert body["errors"]["permissions"]
    assert api.delete("roles/readers/").status_code == 204


# Bad input.


@pytest.mark.parametrize(
    ("raw", "slug"),
    [
        (b"", "validation-failed"),
        (b"{", "malformed-request"),
        (b"\xff\xfe{}", "malformed-request"),
        (b'{"slug": "a", "slug": "b"}', "malformed-request"),
        (b'{"slug": NaN}', "malformed-request"),
        (b'{"slug": Infinity}', "malformed-request"),
        (b"[" * 200_000, "malformed-request"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "malformed-request"),
        (b"[]", "validation-failed"),
        (b'"text"', "validation-failed"),
        (b"null", "validation-failed"),
        (b"{}", "validation-failed"),
        (b'{"slug": 7, "permissions": {}}', "validation-failed"),
        (b'{"slug": "x", "permisions": []}', "validation-failed"),
        (b'{"slug": "a\\u0000b"}', "validation-failed"),
        (b'{"slug": "a\\ud800b"}', "malformed-request"),
        (b'{"slug": "' + b"x" * 100 + b'"}', "validation-failed"),
    ],
)
def test_bodies_that_cannot_be(api, raw, slug):
    before = Role.unscoped.count()
    problem(api("POST", "roles/", raw=raw), 400, slug)
    assert Role.unscoped.count() == before
    assert api.get("roles/").status_code == 200


def test_a_body_too_large(api):
    problem(api("POST", "roles/", raw=b'{"slug": "' + b"x" * 5_000_000 + b'"}'), 413, "too-large")
    problem(api("POST", "roles/", raw=b'{"slug": "' + b"x" * 5_000_000 + b'"}', Idempotency_Key="k"), 413, "too-large")


def test_what_is_not_json(api):
    answer = api.client.post("/api/v1/roles/", {"slug": "x"}, headers=api.headers)
    problem(answer, 415, "unsupported-media-type")


def test_methods_addresses_and_hosts(api):
    answer = api.put("roles/admin/", {})
    problem(answer, 405, "method-not-allowed")
    problem(api.get("nothing/"), 404, "not-found")
    problem(api.get("/api/nothing"), 404, "not-found")
    problem(api.get("roles/", Host="evil.example"), 400, "malformed-request")
    problem(api.get("roles/", Accept="image/png"), 406, "not-acceptable")
    for odd in ("roles/%00/", "roles/a%00b/", "roles/..%2f..%2f/", "roles/%F0%9F%98%80/", "roles/" + "x" * 3000 + "/"):
        problem(api.get(odd), 404, "not-found")


def test_filters_that_cannot_be(api):
    for query in (
        "builtin=perhaps&limit=0",
        "limit=201",
        "limit=-1",
        "limit=x",
        "limit=99999999999999999999",
        "cursor=rubbish",
        "cursor=e30",
    ):
        problem(api.get(f"roles/?{query}"), 400, "validation-failed")
    problem(api.get("memberships/?user=rubbish"), 400, "validation-failed")


def test_an_unforeseen_failure_says_nothing_of_itself(tenant, caplog):
    class Broken(ScopedAPIView):
        def get(self, request):
            raise RuntimeError("the secret is hunter2")

    request = RequestFactory().get("/api/v1/broken/", headers={"Authorization": f"Bearer {make_key()[1]}"})
    request.request_id = "1234567890abcdef"
    answer = Broken.as_view()(request).render()
    answer["X-Request-Id"] = request.request_id
    assert json.loads(answer.content)["type"].endswith("/internal-error")
    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert json.loads(answer.content)["request_id"] == "1234567890abcdef"
    assert b"hunter2" not in answer.content
    assert any("hunter2" in str(record.exc_info) for record in caplog.records)
    assert current_scope() is None


def test_security_headers_are_on_every_answer(api):
    for answer in (
        api.get("roles/"),
        api.get("nothing/"),
        Api().get("roles/"),
        Client().get("/admin/login/"),
        api.get("/api/schema/"),
    ):
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Referrer-Policy"] == "same-origin"
        assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer["X-Frame-Options"] == "DENY"
        assert "camera=()" in answer["Permissions-Policy"]
        assert answer["X-Request-Id"]
        assert "Access-Control-Allow-Origin" not in answer
    assert api.get("roles/")["Cache-Control"] == "no-store"
    assert api.get("roles/")["Content-Security-Policy"].startswith("default-src 'none'")


# The schema.


def test_the_schema_describes_it(django_user_model):
    answer = Client().get("/api/schema/?format=json")
    assert answer.status_code == 200
    schema = answer.json()
    assert schema["info"]["title"] == "Switchyard"
    assert "Problem" in schema["components"]["schemas"]
    operation = schema["paths"]["/api/v1/api-keys/"]["post"]
    assert "application/problem+json" in operation["responses"]["default"]["content"]
    assert "Idempotency-Key" in [parameter["name"] for parameter in operation["parameters"]]
    assert {"apiKey", "session"} <= set(schema["components"]["securitySchemes"])
    assert schema["paths"]["/api/v1/roles/{id}/"]["get"]["parameters"][0]["schema"] == {"type": "string"}


def test_the_sign_in_password_is_what_the_factories_say():
    assert make_user(make_tenant()).check_password(PASSWORD)
    assert Tenant.objects.exists()


def test_messages_within_lists_are_told_by_place():
    from apps.common.api.problems import _details

    nested = {"entries": [{}, {"pattern": ["No."], "x": ["There is no such field."]}], "name": ["Short.", "Dull."]}
    assert _details(nested) == {
        "entries.1.pattern": ["No."],
        "entries.1.x": ["There is no such field."],
        "name": ["Short.", "Dull."],
    }
    assert _details(["Nothing fits."]) == {"non_field_errors": ["Nothing fits."]}
