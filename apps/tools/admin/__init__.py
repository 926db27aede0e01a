"""Admin pages of the catalogue, toolsets and grants. Tools and toolsets are completed and registered by the console."""

from apps.tools.admin import definition, grant
from apps.tools.admin.definition import ToolAdmin
from apps.tools.admin.toolset import ToolsetAdmin

__all__ = ("ToolAdmin", "ToolsetAdmin", "definition", "grant")
