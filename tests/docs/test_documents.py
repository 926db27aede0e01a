"""The documents say what is there: variables, commands, options, problem types, addresses, paths and links are checked."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import load_command_class
from django.urls import Resolver404, resolve

import apps
from apps.common.errors import SwitchyardError
from config import environment
from config.processes.roles import ROLES

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
READ = {"read", "_list", "_number"}
"""Functions of config/environment.py whose first argument is the name of a variable."""
WRITTEN = {"benchmarks/RESULTS.md", "benchmarks/PROOF.md"}
"""Files that a make target writes."""
WITHOUT_DJANGO = ("apps.workbench.servers", ".migrations", ".management")


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def document(request) -> Path:
    """Each Markdown document in turn."""
    return request.param


def variables_read() -> set[str]:
    """Return the variables that config/environment.py reads."""
    calls = [node for node in ast.walk(ast.parse(Path(environment.__file__).read_text())) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id in READ and call.args]
    return {node.value for node in named if isinstance(node, ast.Constant)}


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table after a heading, without its head."""
    part = text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands() -> dict[str, str]:
    """Return the management commands of this tree: name to app."""
    found = [*ROOT.glob("apps/*/management/commands/*.py"), *ROOT.glob("config/management/commands/*.py")]
    return {path.stem: ".".join(path.relative_to(ROOT).parts[:-3]) for path in found if path.stem != "__init__"}


def problems() -> set[type[SwitchyardError]]:
    """Return the class of every problem type that the product has."""
    for module in pkgutil.walk_packages(apps.__path__, "apps."):
        if not any(part in module.name for part in WITHOUT_DJANGO):
            importlib.import_module(module.name)
    found, open_classes = {SwitchyardError}, [SwitchyardError]
    while open_classes:
        subclasses = [one for one in open_classes.pop().__subclasses__() if one.__module__.startswith("apps.")]
        open_classes += subclasses
        found |= set(subclasses)
    return found


def options_of(command: str) -> set[str]:
    """Return the options of a command, those of its verbs included."""
    parser = load_command_class(commands()[command], command).create_parser("manage.py", command)
    known: set[str] = set()
    parsers = [parser]
    while parsers:
        for action in parsers.pop()._actions:
            known |= set(action.option_strings)
            if isinstance(action.choices, dict):
                parsers += action.choices.values()
    return known


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as they are made for Markdown."""
    headings = re.findall(r"(?m)^#+ (.+)$", path.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_document_is_there():
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert names >= {
        "README.md", "CHANGELOG.md", "CONTRIBUTING.md",
        "docs/api.md", "docs/architecture.md", "docs/operations.md", "docs/security.md",
    }  # fmt: skip


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_variable_is_documented_and_no_other():
    documented = {
        name for cells in rows(OPERATIONS, "## Environment variables") for name in re.findall(r"`([A-Z_]+)`", cells[0])
    }
    assert len(documented) > 20
    assert documented == variables_read()


def test_every_command_is_documented():
    assert {name for name in commands() if not re.search(rf"`manage\.py {name}\b", OPERATIONS)} == set()


def test_every_role_is_documented():
    assert {cells[0].strip("`") for cells in rows(OPERATIONS, "## Roles and scaling")} == set(ROLES)


def test_every_problem_type_is_documented_as_it_is():
    documented = sorted(tuple(cells) for cells in rows(API, "## Problems"))
    assert documented == sorted({(f"`{one.slug}`", str(one.status), str(one.jsonrpc_code), one.title) for one in problems()})
    assert len({slug for slug, *_ in documented}) == len(documented)


def test_commands_and_options_in_the_documents_exist(document):
    known = commands()
    wrong = []
    for name, rest in re.findall(r"manage\.py ([a-z_]+)([^`\n#|]*)", document.read_text()):
        if name not in known:
            wrong.append(name)
            continue
        wrong += [f"{name} {option}" for option in re.findall(r"--[a-z][a-z-]*", rest) if option not in options_of(name)]
    assert wrong == []


def test_make_targets_in_the_documents_exist(document):
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    named = re.findall(r"`make ([a-z-]+)[^`]*`|(?:^|&& |\$ )make ([a-z-]+)", document.read_text(), re.MULTILINE)
    assert {inline or block for inline, block in named} <= targets


def test_addresses_of_the_api_in_the_documents_exist(document):
    unknown = []
    text = document.read_text().replace("$CALL_ID", str(UUID(int=0)))
    for path in set(re.findall(r"/api/(?:v1/)?[a-z][A-Za-z0-9_/{}-]*/", text)):
        try:
            resolve(path)
        except Resolver404:
            unknown.append(path)
    assert unknown == []


def test_paths_in_the_documents_exist(document):
    named = re.findall(
        r"`((?:apps|benchmarks|config|docker|docs|requirements|scripts|templates|tests)/[\w./-]*)`", document.read_text()
    )
    assert [path for path in named if path not in WRITTEN and not (ROOT / path).exists()] == []


def test_links_and_images_of_the_documents_exist(document):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = document.parent / path if path else document
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def test_images_are_pictures_of_a_sensible_size():
    for image in (ROOT / "docs" / "images").iterdir():
        assert image.suffix != ".png" or image.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert image.stat().st_size < 600_000, image.name
