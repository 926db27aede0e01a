"""docker/ says what the product understands: its variables, roles, secrets and files exist."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from config import environment
from config.processes.roles import ROLES

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service.get("image") == "switchyard"}


def test_every_role_has_a_service_and_there_are_two_gateways():
    roles = {name: service["command"] for name, service in OURS.items()}
    assert roles == {name: ["--role", name] for name in ("web", "gateway", "worker", "beat")}
    assert set(roles) <= set(ROLES)
    assert OURS["gateway"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_one_that_the_product_reads(name):
    source = Path(environment.__file__).read_text()
    known = set(re.findall(r'"([A-Z][A-Z_]+)"', source))
    for variable in OURS[name]["environment"]:
        assert variable.removesuffix("_FILE") in known, variable


def test_the_secrets_are_made_once_fit_and_are_kept_from_others(tmp_path, monkeypatch):
    shutil.copy(DOCKER / "secrets.sh", tmp_path)
    for _ in range(2):
        made = subprocess.run(["sh", str(tmp_path / "secrets.sh")], capture_output=True, text=True, timeout=60, check=True)
    secrets = tmp_path / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {path.name for path in secrets.iterdir()} == set(COMPOSE["secrets"])
    assert (secrets / "admin_password").read_text().strip() in made.stdout
    for variable in list(os.environ):
        if variable.startswith(("SWITCHYARD_", "DATABASE_", "REDIS_")):
            monkeypatch.delenv(variable)
    for variable, value in OURS["web"]["environment"].items():
        if "/run/secrets/" in value:
            monkeypatch.setenv(variable, value.replace("/run/secrets", str(secrets)))
        elif not value.startswith("$"):
            monkeypatch.setenv(variable, value)
    monkeypatch.setenv("SWITCHYARD_HOME", str(tmp_path / "home"))
    loaded = environment.load(tmp_path)
    assert loaded.postgres
    assert loaded.databases["default"]["HOST"] == "postgres"
    assert loaded.databases["default"]["PASSWORD"] == (secrets / "database_password").read_text().strip()
    assert not (tmp_path / "home").exists()


def test_the_image_copies_what_is_there_and_runs_as_an_ordinary_user():
    text = (DOCKER / "Dockerfile").read_text()
    for sources in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", text):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    assert re.search(r"(?m)^USER switchyard$", text)
    assert text.index("\nUSER ") < text.index("\nENTRYPOINT ")
