"""The catalogue (tools, resources, templates, prompts, instructions), its discoveries, toolsets and grants."""

from apps.tools.models.definition import Definition, Instructions, Prompt, Resource, ResourceTemplate, Tool
from apps.tools.models.discovery import Discovery
from apps.tools.models.grant import Grant
from apps.tools.models.toolset import Toolset, ToolsetEntry

CATALOGUE: tuple[type[Definition], ...] = (Tool, Resource, ResourceTemplate, Prompt)
"""What servers offer, in the order of `domain.KINDS`."""
REVIEWED: tuple[type[Definition], ...] = (*CATALOGUE, Instructions)
"""All that is held and reviewed."""

__all__ = (
    "CATALOGUE",
    "REVIEWED",
    "Definition",
    "Discovery",
    "Grant",
    "Instructions",
    "Prompt",
    "Resource",
    "ResourceTemplate",
    "Tool",
    "Toolset",
    "ToolsetEntry",
)
