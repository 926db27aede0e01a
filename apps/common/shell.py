"""Who types a command: the actor of everything that is done on the command line."""

import getpass

from apps.common.context import Actor


def operator() -> Actor:
    """Return the actor that the shell's user is: whoever may run commands here may do everything."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return Actor(kind="system", id="cli", label=f"command line ({name})", is_superuser=True, origin="cli")
