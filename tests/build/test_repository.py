"""Rules for the whole tree that no linter knows."""

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 500
FORBIDDEN = {
    "a directory of one machine": r"/work/(?:main|plan|shared)|/root/\.|/tmp/uvenv",
    "a package registry's host name": r"pypi\.(?:org)|pythonhosted\.(?:org)|registry\.(?:npmjs)",
    "a word about how the code came to be": r"(?i)\b(?:claude session|as an ai|language model wrote|before-stop|the lead's|helper report)\b",
    "an unfinished place": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
}
ALLOWED = {"tests/build/test_repository.py"}


def tracked(*suffixes: str) -> list[Path]:
    """Return the files of the tree as a clone would have them."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name and (not suffixes or name.endswith(suffixes))]
    return [path for path in paths if path.is_file()]


def test_no_module_is_longer_than_500_lines():
    modules = [path for path in tracked(".py") if path.relative_to(ROOT).parts[0] in ("apps", "config")]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules if "migrations" not in path.parts
    }
    assert len(lengths) > 50
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_the_tree_says_nothing_that_does_not_belong_to_the_product():
    found = []
    for path in tracked():
        name = str(path.relative_to(ROOT))
        if name in ALLOWED or name.startswith("requirements/"):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}: {what}: {match.group()}" for what, pattern in FORBIDDEN.items() for match in re.finditer(pattern, text)
        ]
    assert found == []


def test_requirements_are_exact_and_hashed():
    for level in ("installer", "runtime", "dev"):
        text = (ROOT / "requirements" / f"{level}.txt").read_text().replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert lines
        assert [line for line in lines if "==" not in line or "--hash=sha256:" not in line] == []
        assert "://" not in text
        for line in (ROOT / "requirements" / f"{level}.in").read_text().splitlines():
            if line and not line.startswith(("#", "-c")):
                assert re.match(r"^[a-z0-9-]+(\[[a-z]+\])?==[0-9][0-9a-z.]*$", line), line
                pinned = re.sub(r"\[.*\]", "", line)
                assert re.search(rf"(?m)^{re.escape(pinned)}\s", text), line
