"""Signing in to the console: scopes, tenants, and what the audit log hears of it."""

import pytest
from django.contrib.auth import authenticate
from django.http import HttpResponse, JsonResponse
from django.test import Client, RequestFactory

from apps.accounts import tenant_choice
from apps.accounts.middleware import ScopeMiddleware
from apps.accounts.models import Tenant
from apps.common.authorise import decide
from apps.common.context import current_scope
from apps.common.errors import NotFound
from tests.accounts.support import audited, everything
from tests.factories import PASSWORD, make_member, make_superuser, make_tenant, make_user

pytestmark = pytest.mark.django_db


def passing(user, *, session=None, method="get", **extra):
    """Let a request of a user pass the middleware; return the request and the scope that its view saw."""
    request = getattr(RequestFactory(), method)("/admin/", **extra)
    request.user = user
    request.session = {} if session is None else session
    seen = []

    def view(request):
        seen.append(current_scope())
        return HttpResponse()

    ScopeMiddleware(view)(request)
    assert current_scope() is None
    return request, seen[0]


def sign_in(username, password, **extra):
    client = Client()
    answer = client.post("/admin/login/", {"username": username, "password": password}, **extra)
    return client, answer


def test_sign_in_and_out_are_recorded_with_the_address():
    user = make_superuser()
    client, answer = sign_in(user.username, PASSWORD, REMOTE_ADDR="203.0.113.9")
    assert answer.status_code == 302
    login = audited("auth.login")[-1]
    assert (login["actor_id"], login["actor_label"], login["address"]) == (str(user.pk), user.username, "203.0.113.9")
    assert login["request_id"] == answer["X-Request-Id"]
    client.post("/admin/logout/")
    assert audited("auth.logout")[-1]["actor_id"] == str(user.pk)


@pytest.mark.parametrize("name", ["boss", "nobody", "x" * 500, "line\nfeed", ""])
def test_a_failed_sign_in_is_recorded_without_the_password(name):
    make_superuser("boss")
    assert authenticate(RequestFactory().get("/"), username=name, password="hunter2-hunter2") is None
    failed = audited("auth.login_failed")[-1]
    assert failed["outcome"] == "refused"
    assert failed["actor_kind"] == "anonymous"
    assert len(failed["object_label"]) <= 64
    assert failed["object_label"].isprintable()
    assert failed["object_label"][:20] == name.replace("\n", "?")[:20]
    assert "hunter2" not in everything()


def test_a_failed_sign_in_at_the_console_is_recorded():
    user = make_superuser()
    _, answer = sign_in(user.username, "wrong-" + PASSWORD)
    assert answer.status_code == 200
    assert audited("auth.login_failed")[-1]["object_label"] == user.username
    assert not audited("auth.login")


def test_a_password_changed_by_its_owner_is_recorded():
    user = make_superuser()
    before = len(audited("user.password_changed"))
    user.set_password("yet another pass phrase")
    user.save()
    assert len(audited("user.password_changed")) == before + 1
    user.save()
    assert len(audited("user.password_changed")) == before + 1


def test_nobody_signed_in_has_no_scope():
    from django.contrib.auth.models import AnonymousUser

    request, scope = passing(AnonymousUser())
    assert scope is None
    assert request.tenant is None
    inactive = make_user(make_tenant(), is_superuser=True)
    inactive.is_active = False
    assert passing(inactive)[1] is None


def test_a_member_works_in_their_tenant():
    tenant = make_tenant()
    user = make_user(tenant, "operator")
    request, scope = passing(user, REMOTE_ADDR="203.0.113.9")
    assert (scope.tenant_id, scope.every_tenant) == (str(tenant.pk), False)
    assert request.tenant == tenant
    actor = scope.actor
    assert (actor.kind, actor.id, actor.origin, actor.address) == ("user", str(user.pk), "admin", "203.0.113.9")


def test_a_member_of_several_works_in_the_first_or_the_chosen_one():
    first, second, foreign = make_tenant("aa-first"), make_tenant("bb-second"), make_tenant("cc-foreign")
    user = make_user(first)
    make_member(user, second)
    request, scope = passing(user)
    assert scope.tenant_id == str(first.pk)
    tenant_choice.choose_tenant(request, second.slug)
    assert passing(user, session=request.session)[1].tenant_id == str(second.pk)
    for not_theirs in (foreign.slug, foreign.pk, "missing", None):
        with pytest.raises(NotFound, match=r"^There is no such tenant\.$"):
            tenant_choice.choose_tenant(request, not_theirs)
    for session in ({"switchyard_tenant": str(foreign.pk)}, {"switchyard_tenant": "*"}, {"switchyard_tenant": "rubbish"}):
        scope = passing(user, session=session)[1]
        assert (scope.tenant_id, scope.every_tenant) == (str(first.pk), False)


def test_a_member_of_none_sees_no_rows():
    scope = passing(make_user())[1]
    assert (scope.tenant_id, scope.every_tenant) == (None, False)


def test_a_superuser_sees_every_tenant_or_the_chosen_one():
    boss = make_superuser()
    Tenant.objects.all().delete()
    only = make_tenant()
    assert passing(boss)[1].tenant_id == str(only.pk)
    second = make_tenant()
    request, scope = passing(boss)
    assert (scope.tenant_id, scope.every_tenant) == (None, True)
    tenant_choice.choose_tenant(request, second.pk)
    assert passing(boss, session=request.session)[1].tenant_id == str(second.pk)
    tenant_choice.choose_tenant(request, None)
    assert passing(boss, session=request.session)[1].every_tenant
    assert passing(boss, session={"switchyard_tenant": str(boss.pk)})[1].every_tenant


def test_the_scope_ends_when_the_view_fails():
    def view(request):
        raise RuntimeError("broken")

    request = RequestFactory().get("/")
    request.user, request.session = make_superuser(), {}
    with pytest.raises(RuntimeError):
        ScopeMiddleware(view)(request)
    assert current_scope() is None


def test_reading_requests_look_a_principal_up_once(django_assert_max_num_queries):
    tenant = make_tenant()
    user = make_user(tenant, "operator")
    answers = []

    def view(request):
        with django_assert_max_num_queries(2):
            answers.extend(
                decide(f"server.{verb}", tenant_id=tenant.pk).allowed for verb in ("read", "write", "delete", "admin")
            )
        return JsonResponse({})

    request = RequestFactory().get("/")
    request.user, request.session = user, {}
    ScopeMiddleware(view)(request)
    assert answers == [True, True, False, False]
