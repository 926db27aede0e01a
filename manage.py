#!/usr/bin/env python
"""Runs Switchyard's management commands."""

import os
import sys
from pathlib import Path


def settings_of_home() -> str:
    """Return the settings that the installation of this home was last served with, so that commands beside it judge alike."""
    home = os.environ.get("SWITCHYARD_HOME") or str(Path(__file__).resolve().parent / "var")
    try:
        named = (Path(home).expanduser() / "settings").read_text().strip()
    except (OSError, UnicodeDecodeError):
        named = ""
    return named if named in ("config.settings.development", "config.settings.production") else "config.settings.production"


def main() -> None:
    """Run the command named on the command line; what keeps it from starting is one line and exit code 1."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is what tells of an older one
        sys.exit(f"switchyard: Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    if sys.argv[1:2] == ["supervise"]:
        from config.processes.supervisor import main as supervise

        sys.exit(supervise(int(sys.argv[2])))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_of_home())
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit(f"switchyard: its packages are not installed for {sys.executable}; `make run` installs them")
    from config.environment import ConfigurationError
    from config.processes.errors import CannotStart

    try:
        execute_from_command_line(sys.argv)
    except (ConfigurationError, CannotStart) as error:
        sys.exit(f"switchyard: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
