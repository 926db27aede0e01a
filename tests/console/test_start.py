"""What a start loads of the console: nothing before it serves, everything with the first page."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
sys.argv = ["manage.py", {command!r}]
import django
django.setup()
from django.contrib import admin
from apps.tools.models import Tool
print("apps.tools.admin" in sys.modules, admin.site.is_registered(Tool))
import config.urls
from django.urls import reverse
print(admin.site.is_registered(Tool), type(admin.site._registry[Tool]).__name__, reverse("admin:tools_tool_changelist"))
"""


def loaded(command: str, home: Path) -> list[str]:
    """Run the program as this command."""
    environment = {"DJANGO_SETTINGS_MODULE": "config.settings.production", "SWITCHYARD_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(command=command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("command", ["serve", "bootstrap", "run_process"])
def test_a_start_leaves_the_pages_for_later(tmp_path, command):
    assert loaded(command, tmp_path) == ["False False", "True ConsoleToolAdmin /admin/tools/tool/"]


@pytest.mark.parametrize("command", ["check", "shell"])
def test_other_commands_have_them_at_once(tmp_path, command):
    assert loaded(command, tmp_path) == ["True True", "True ConsoleToolAdmin /admin/tools/tool/"]
