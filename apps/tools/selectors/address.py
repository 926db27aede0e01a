"""Where and under what name a tool is called through the gateway."""

from dataclasses import dataclass

from apps.common.errors import NotFound, ValidationFailed
from apps.tools.domain import full_name, visible
from apps.tools.models import Definition, Tool, Toolset
from apps.tools.selectors.contents import contents


@dataclass(frozen=True, slots=True)
class ToolAddress:
    """A tool as a toolset exposes it."""

    tenant_id: str
    toolset: str
    """Slug."""
    name: str


def tool_address(tool_id: object, *, toolset: str | None = None) -> ToolAddress:
    """Return where a tool of the tenant in force is called: in the toolset named, else in the one that came with its server.

    Raises NotFound for a tool that is not in view, and ValidationFailed when the toolset does not have it.
    """
    tool = Tool.objects.select_related("server").filter(pk=tool_id).first()
    if tool is None:
        raise NotFound("No such tool.")
    tenant_id = str(tool.tenant_id)
    if toolset is None or toolset == tool.server.slug:
        return ToolAddress(tenant_id, tool.server.slug, tool.name)
    row = Toolset.objects.filter(tenant_id=tool.tenant_id, slug=toolset).first()
    if row is None:
        raise NotFound(f"No such toolset: {toolset[:80]}.")
    for item in contents(row).items:
        if item.kind == "tool" and item.server_id == str(tool.server_id) and item.own_name == tool.name:
            return ToolAddress(tenant_id, toolset, item.name)
    raise ValidationFailed(f"The toolset {toolset} does not have {tool.name} of {tool.server.slug}.")


def not_in_force(tool: Tool | Definition) -> str:
    """Say why a tool that is in the catalogue cannot be called, to those who may see it there; nothing when it is in force."""
    reasons = {
        Definition.State.HELD: "is held for review: it is neither listed nor callable until somebody approves it.",
        Definition.State.REJECTED: "was rejected in review: it is neither listed nor callable unless somebody approves it.",
        Definition.State.REMOVED: "is no longer offered by its server.",
    }
    reason = reasons.get(Definition.State(tool.state), "")
    return reason and f"{visible(full_name(tool.server.slug, tool.name))} {reason}"
