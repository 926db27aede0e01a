"""Secrets that stand in a command's arguments are shown to those alone who may change the command."""

import pytest

from apps.servers.models import Server
from tests.console.conftest import ROLES
from tests.console.pages import address
from tests.tools.support import make_server

CANARY = "CANARYstdioArgument"


@pytest.fixture
def program(tenant):
    server = make_server(tenant)
    endpoint = server.endpoints.get()
    endpoint.command, endpoint.args = "python3", ["--token", CANARY, f"--api-key={CANARY}", "-v"]
    endpoint.save()
    return server


@pytest.mark.parametrize("role", ROLES)
def test_only_superusers_see_them(role, staff, program):
    for page in (address(Server, "changelist"), address(Server, "change", program.pk)):
        answer = staff[role].get(page, follow=True)
        assert CANARY not in answer.content.decode(), (role, page)
    for export in ("/api/v1/servers/export/", f"/api/v1/servers/{program.pk}/"):
        assert CANARY not in staff[role].get(export, follow=True).content.decode(), (role, export)


def test_a_superuser_does(root, program, tenant):
    assert CANARY in root.get(address(Server, "change", program.pk)).content.decode()
    assert CANARY in root.get("/api/v1/servers/export/", headers={"X-Switchyard-Tenant": tenant.slug}).content.decode()


def test_an_operator_can_still_change_the_rest(operator, program):
    page = address(Server, "change", program.pk)
    form = operator.get(page).context["adminform"].form
    fields = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    fields["args"] = "\n".join(fields.get("args") or [])
    fields = {name: value for name, value in fields.items() if value is not None and value is not False}
    operator.post(page, {**fields, "timeout_seconds": "17"})
    program.refresh_from_db()
    assert program.timeout_seconds == 17
    assert program.endpoints.get().args[1] == CANARY
