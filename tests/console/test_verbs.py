"""Verbs ask first: nothing that changes anything answers GET by doing it, and every question says the consequence in numbers."""

import re

import pytest
from django.test import Client
from django.urls import reverse

from apps.common.context import SYSTEM, tenant_scope
from apps.common.models import OutboxEvent
from apps.servers.models import Server
from apps.tools.models import Grant, Tool
from tests.console.pages import address, registered

PLACES = ("actions_list", "actions_row", "actions_detail", "actions_submit_line")


def verbs():
    """Every action that has an address, with its page."""
    for model, page in registered():
        for place in PLACES:
            for name in page._extract_action_names(getattr(page, place)):
                yield model, page, place, name, getattr(page, name)


def test_every_action_asks_first_or_only_reads():
    seen = 0
    for model, _, place, name, action in verbs():
        seen += 1
        assert getattr(action, "asks", False) != getattr(action, "reads", False), (
            f"{model.__name__}.{place}.{name} neither asks nor only reads"
        )
        assert hasattr(action, "permission"), f"{name} names no permission"
        if getattr(action, "asks", False):
            assert action.dialog, f"{name} opens no dialog"
    assert seen > 25


def test_every_bulk_action_asks_first():
    for model, page in registered():
        for name in page.actions or ():
            action = getattr(page, name) if isinstance(name, str) else name
            assert getattr(action, "asks", False), f"{model.__name__}.{name}"
            assert action.allowed_permissions


def test_no_action_asks_for_permissions_during_a_system_check():
    for _, page, _, name, action in verbs():
        assert all("." not in permission for permission in getattr(action, "allowed_permissions", ())), (page, name)


def _one(model, tenant):
    with tenant_scope(tenant.pk, SYSTEM):
        if not hasattr(model, "unscoped"):
            return model.objects.first()
        rows = model.objects
        return rows.filter(state="held").first() or rows.first() if model is Tool else rows.first()


def test_get_changes_nothing(root, world, tenant):
    checked = 0
    before = OutboxEvent.objects.count()
    for model, _, place, name, _ in verbs():
        if place == "actions_list":
            answer = root.get(address(model, name))
        else:
            row = _one(model, tenant)
            if row is None:
                continue
            answer = root.get(address(model, name, row.pk))
        checked += 1
        assert answer.status_code in (200, 302), (model, name, answer.status_code)
        assert OutboxEvent.objects.count() == before, f"GET of {name} changed something"
    assert checked > 20


def test_every_question_is_a_form_with_a_token(root, world, tenant):
    for model, _, place, name, action in verbs():
        if not getattr(action, "asks", False):
            continue
        row = None if place == "actions_list" else _one(model, tenant)
        if place != "actions_list" and row is None:
            continue
        url = address(model, name, *([row.pk] if row is not None else []))
        for headers in ({}, {"HX-Request": "true"}):
            page = root.get(url, headers=headers).content.decode()
            assert 'method="post"' in page, name
            assert "csrfmiddlewaretoken" in page, name
            assert "Cancel" in page


def test_post_without_a_token_is_refused(superuser, world):
    client = Client(enforce_csrf_checks=True)
    client.force_login(superuser)
    server = world["servers"][0][0]
    assert client.post(address(Server, "pause", server.pk)).status_code == 403
    assert Server.unscoped.get(pk=server.pk).paused_at is None


@pytest.mark.parametrize(
    ("verb", "numbers"),
    [
        ("pause", r"stops \d+ tools? for \d+ keys?; \d+ calls? (is|are) in flight"),
        ("delete_it", r"removes \d+ tools? for \d+ keys?"),
        ("discover", r"\d+ tools? in force"),
    ],
)
def test_a_question_names_the_object_and_counts(verb, numbers, root, world):
    server = world["servers"][0][0]
    page = root.get(address(Server, verb, server.pk), headers={"HX-Request": "true"}).content.decode()
    assert server.slug in page
    assert re.search(numbers, page), page


def test_pausing_counts_the_keys_that_lose_it(root, world):
    server = world["servers"][1][0]
    page = root.get(address(Server, "pause", server.pk)).content.decode()
    live = [key for key in world["keys"] if key.inherits_owner is False]
    with tenant_scope(world["tenant"].pk, SYSTEM):
        granted = {grant.api_key_id for grant in Grant.objects.filter(api_key__in=live, kind="server", server=server)}
        patterns = {grant.api_key_id for grant in Grant.objects.filter(api_key__in=live, kind="tool")}
    assert f"for {len(granted | patterns)} key" in page


def test_a_verb_that_makes_no_sense_is_not_offered(root, world):
    server = world["servers"][0][0]
    page = root.get(address(Server, "change", server.pk)).content.decode()
    assert address(Server, "pause", server.pk) in page
    assert f'href="{address(Server, "resume", server.pk)}"' not in page


def test_a_dialog_goes_back_where_it_was_opened_and_nowhere_else(root, world):
    server = world["servers"][0][0]
    home = reverse("admin:index")
    answer = root.post(
        address(Server, "pause", server.pk), {"next": f"http://testserver{home}"}, headers={"HX-Request": "true"}
    )
    assert answer["HX-Redirect"].endswith(home)
    answer = root.post(address(Server, "resume", server.pk), {"next": "https://evil.example/"})
    assert answer["Location"] == address(Server, "change", server.pk)


def test_the_delete_page_of_django_counts_and_deletes_by_the_service(root, world):
    server = world["servers"][0][0]
    page = root.get(address(Server, "delete", server.pk)).content.decode()
    assert re.search(r"removes \d+ tools?", page)
    before = OutboxEvent.objects.filter(topic="audit").count()
    root.post(address(Server, "delete", server.pk), {"post": "yes"})
    assert not Server.unscoped.filter(pk=server.pk).exists()
    events = [row.payload["event_type"] for row in OutboxEvent.objects.filter(topic="audit").order_by("id")[before:]]
    assert "server.deleted" in events
