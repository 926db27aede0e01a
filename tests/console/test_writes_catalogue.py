"""Writes go through services: reviews and toolsets."""

import re
from typing import Any

from django.urls import reverse

from apps.common.models import OutboxEvent
from apps.servers.models import Server
from apps.tools.models import Tool, Toolset, ToolsetEntry
from tests.console.pages import address
from tests.console.support import Recorded


def held(world) -> Tool:
    return (
        Tool.unscoped.filter(tenant=world["tenant"], state="held", definition__isnull=False).first()
        or Tool.unscoped.filter(tenant=world["tenant"], state="held").first()
    )


def test_approving_what_was_seen(operator, world):
    tool = held(world)
    page = operator.get(address(Tool, "change", tool.pk)).content.decode()
    assert "review" in page.lower()
    with Recorded() as seen:
        operator.post(address(Tool, "approve", tool.pk), {"digest": tool.pending_digest})
    tool.refresh_from_db()
    assert tool.state == "active"
    assert seen.types == ["tool.approved"]


def test_what_changed_since_one_looked_is_not_approved(operator, world):
    tool = held(world)
    answer = operator.post(address(Tool, "approve", tool.pk), {"digest": "0" * 64})
    assert answer.status_code == 200
    assert "since you looked" in answer.content.decode()
    tool.refresh_from_db()
    assert tool.state == "held"


def test_rejecting(operator, world):
    tool = held(world)
    with Recorded() as seen:
        operator.post(address(Tool, "reject", tool.pk), {"digest": tool.pending_digest})
    tool.refresh_from_db()
    assert tool.state == "rejected"
    assert seen.types == ["tool.rejected"]


def test_approving_everything_of_a_server(operator, world):
    tool = held(world)
    count = Tool.unscoped.filter(server=tool.server, state="held").count()
    with Recorded() as seen:
        operator.post(address(Server, "approve_everything", tool.server_id))
    assert not Tool.unscoped.filter(server=tool.server, state="held").exists()
    assert seen.types.count("tool.approved") == count


def test_approving_several(operator, world):
    chosen = [str(pk) for pk in Tool.unscoped.filter(tenant=world["tenant"], state="held").values_list("pk", flat=True)]
    operator.post(address(Tool, "changelist"), {"action": "approve_chosen", "_selected_action": chosen, "confirmed": "yes"})
    assert not Tool.unscoped.filter(pk__in=chosen, state="held").exists()


def test_setting_the_risk(operator, world):
    tool = Tool.unscoped.filter(tenant=world["tenant"]).first()
    with Recorded() as seen:
        operator.post(address(Tool, "rule", tool.pk), {"effects": "destructive"})
    tool.refresh_from_db()
    assert tool.effects == "destructive"
    assert seen.types == ["tool.effects_set"]


def test_those_who_only_read_change_nothing(staff, world):
    tool, server = held(world), world["servers"][0][0]
    for client in (staff["user"], staff["guest"], staff["auditor"]):
        for url in (
            address(Tool, "approve", tool.pk),
            address(Server, "pause", server.pk),
            address(Server, "discover", server.pk),
        ):
            assert client.post(url).status_code == 403
    tool.refresh_from_db()
    assert tool.state == "held"


def entries(*rows: tuple[Any, str, str, str, str]) -> dict[str, Any]:
    form: dict[str, Any] = {"entries-present": "1"}
    for position, member in enumerate(("server", "kind", "pattern", "rename", "description")):
        form[f"entries-{member}"] = [str(row[position]) for row in rows]
    return form


def active(world, number: int = 0) -> Tool:
    return Tool.unscoped.filter(tenant=world["tenant"], state="active").order_by("server__slug", "position")[number]


def test_composing_a_toolset(operator, world):
    one, two = active(world, 0), active(world, 1)
    form = {"slug": "triage", "name": "Triage", "description": "", "instructions": "Be brief."}
    form |= entries((one.server_id, "tool", one.name, "first", "The first."), (two.server_id, "tool", two.name, "", ""))
    with Recorded() as seen:
        answer = operator.post(reverse("admin:tools_toolset_add"), form)
    assert answer.status_code == 302
    toolset = Toolset.unscoped.get(slug="triage", tenant=world["tenant"])
    assert list(ToolsetEntry.unscoped.filter(toolset=toolset).values_list("pattern", "rename")) == [
        (one.name, "first"),
        (two.name, ""),
    ]
    assert seen.types == ["toolset.created"]
    page = operator.get(address(Toolset, "change", toolset.pk)).content.decode()
    assert "first" in page
    assert re.search(r"about \d+ tokens", page)
    assert "claude mcp add --transport http triage" in page


def test_two_tools_of_one_name_are_refused_in_words(operator, world):
    one, two = active(world, 0), active(world, 1)
    form = {"slug": "clash", "name": "", "description": "", "instructions": ""}
    form |= entries((one.server_id, "tool", one.name, "same", ""), (two.server_id, "tool", two.name, "same", ""))
    page = operator.post(reverse("admin:tools_toolset_add"), form).content.decode()
    assert "both be named same" in page
    assert not Toolset.unscoped.filter(slug="clash").exists()


def test_changing_the_entries(operator, world):
    toolset = Toolset.unscoped.get(slug="desk-1", tenant=world["tenant"])
    one = active(world)
    form = {"slug": toolset.slug, "name": toolset.name, "description": toolset.description, "instructions": ""}
    with Recorded() as seen:
        operator.post(address(Toolset, "change", toolset.pk), form | entries((one.server_id, "tool", one.name, "", "")))
    assert seen.types == ["toolset.updated"]
    assert ToolsetEntry.unscoped.filter(toolset=toolset).count() == 1


def test_the_editor_previews_without_saving(operator, world):
    one = active(world)
    before = OutboxEvent.objects.count()
    page = operator.post(
        reverse("admin:tools_toolset_preview"), entries((one.server_id, "tool", one.name, "shorter", ""))
    ).content.decode()
    assert "shorter" in page
    assert "tokens" in page
    assert OutboxEvent.objects.count() == before
    assert operator.get(reverse("admin:tools_toolset_preview")).status_code == 405


def test_the_editor_finds_what_is_in_force(operator, world):
    one = active(world)
    page = operator.get(reverse("admin:tools_toolset_offered"), {"q": f"{one.server.slug}__{one.name}"}).content.decode()
    assert one.name in page
    waiting = held(world)
    if waiting.definition is None:
        page = operator.get(
            reverse("admin:tools_toolset_offered"), {"q": f"{waiting.server.slug}__{waiting.name}"}
        ).content.decode()
        assert f'value="{waiting.name}"' not in page


def test_the_playground_says_why_a_tool_cannot_be_called(operator, staff, world):
    tool = held(world)
    play = reverse("admin:playground_call", args=[tool.pk])
    assert f"{tool.server.slug}__{tool.name} is held for review" in operator.post(play, {"arguments": "{}"}).content.decode()
    operator.post(address(Tool, "reject", tool.pk), {"digest": tool.pending_digest})
    assert "was rejected in review" in operator.post(play, {"arguments": "{}"}).content.decode()
    assert staff["guest"].post(play, {"arguments": "{}"}).status_code == 403
