"""Runs every static check and says which failed: formatting, lint, types, import floors, migrations, deployment, API schema."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PRODUCTION = {
    "DJANGO_SETTINGS_MODULE": "config.settings.production",
    "SWITCHYARD_PUBLIC_URL": "https://switchyard.example",
    "SWITCHYARD_TRUSTED_PROXIES": "10.0.0.0/8",
}
DJANGO = [sys.executable, "manage.py"]
CHECKS: dict[str, tuple[list[str], dict[str, str]]] = {
    "format": ([str(BIN / "ruff"), "format", "--check", "."], {}),
    "lint": ([str(BIN / "ruff"), "check", "."], {}),
    "imports": ([str(BIN / "lint-imports"), "--no-cache"], {}),
    "types": ([str(BIN / "mypy"), "apps", "config", "scripts"], {"DJANGO_SETTINGS_MODULE": "config.settings.test"}),
    "migrations": ([*DJANGO, "makemigrations", "--check", "--dry-run"], {"DJANGO_SETTINGS_MODULE": "config.settings.test"}),
    "deployment": ([*DJANGO, "check", "--deploy", "--fail-level", "WARNING"], PRODUCTION),
    "schema": ([*DJANGO, "spectacular", "--validate", "--fail-on-warn", "--file", os.devnull], PRODUCTION),
}


def main(wanted: list[str]) -> int:
    """Run the checks named, or all; return how many failed, at most 1."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="switchyard-check-") as home:
        base = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
        base |= {"SWITCHYARD_HOME": home, "PYTHONPATH": str(ROOT)}
        for name in wanted or CHECKS:
            command, environment = CHECKS[name]
            started = time.monotonic()
            done = subprocess.run(
                command, cwd=ROOT, env={**base, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            print(f"{name:11} {'ok' if done.returncode == 0 else 'FAILED'}  {time.monotonic() - started:.1f} s", flush=True)
            if done.returncode:
                failed.append(name)
                sys.stdout.write(done.stdout.decode(errors="replace"))
                sys.stdout.flush()
    if failed:
        print(f"static checks failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
