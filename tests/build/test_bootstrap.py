"""`scripts/bootstrap.py`: what it refuses, in one line, and how it brings pip where Python has none."""

import hashlib
import http.server
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path):
    """A small tree of its own with the script and requirement files that need nothing."""
    (tmp_path / "tree" / "scripts").mkdir(parents=True)
    (tmp_path / "tree" / "requirements").mkdir()
    shutil.copy(ROOT / "scripts" / "bootstrap.py", tmp_path / "tree" / "scripts")
    shutil.copy(ROOT / "Makefile", tmp_path / "tree")
    for level in ("installer", "runtime", "dev"):
        (tmp_path / "tree" / "requirements" / f"{level}.txt").write_text(f"# {level}\n")
    return tmp_path / "tree"


def module(tree):
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", tree / "scripts" / "bootstrap.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def run(tree, *arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    return subprocess.run(
        [sys.executable, "scripts/bootstrap.py", *arguments],
        cwd=tree, env={**environment, **variables}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_an_old_python_is_one_line(tree, monkeypatch, capsys):
    script = module(tree)
    monkeypatch.setattr(script.sys, "version_info", (3, 9, 2, "final", 0))
    assert script.main([]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("switchyard: Python 3.11 or newer is needed, ")
    assert " is 3.9. " in captured.err
    assert captured.err.count("\n") == 1
    assert not (tree / ".venv").exists()


def test_the_script_parses_on_an_old_python(tree):
    import ast

    ast.parse((tree / "scripts" / "bootstrap.py").read_text(), feature_version=(3, 6))


def test_make_without_python_is_one_line(tree):
    done = subprocess.run(
        ["make", "run", "PYTHON=python-of-nowhere"], cwd=tree, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "switchyard: python-of-nowhere is not installed; Python 3.11 or newer is needed"
    assert "Traceback" not in done.stderr


def _unprivileged():
    return {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    place = Path("/tmp") / f"switchyard-readonly-{os.getpid()}"
    (place / "scripts").mkdir(parents=True)
    try:
        shutil.copytree(ROOT / "requirements", place / "requirements")
        shutil.copy(ROOT / "scripts" / "bootstrap.py", place / "scripts")
        place.chmod(0o555)
        system = "/usr/bin/python3" if os.geteuid() == 0 else sys.executable  # our own may stand where others cannot read
        done = subprocess.run(
            [system, "-B", str(place / "scripts" / "bootstrap.py")],
            cwd="/", env={"PATH": os.defpath}, capture_output=True, text=True, timeout=60, check=False, **_unprivileged(),
        )  # fmt: skip
    finally:
        place.chmod(0o755)
        shutil.rmtree(place)
    assert done.returncode == 1
    assert done.stderr.startswith(f"switchyard: cannot write to {place}: Permission denied.")
    assert done.stderr.count("\n") == 1


def test_a_python_without_venv_is_one_line(tree, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "venv.py").write_text("raise ImportError('no venv here')\n")
    done = run(tree, PYTHONPATH=str(tmp_path / "broken"))
    assert done.returncode == 1
    assert done.stderr == "switchyard: this Python has no venv module; on Debian: apt-get install python3-venv\n"


def test_an_up_to_date_environment_is_left_alone(tree):
    script = module(tree)
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tree / ".venv" / "switchyard-stamp").write_text("\n".join(script.wanted_stamp(["runtime"])) + "\n")
    done = run(tree)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("change", ["requirements", "python", "place", "interpreter gone"])
def test_a_stamp_of_something_else_is_not_up_to_date(tree, change):
    script = module(tree)
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "python").symlink_to("/nowhere" if change == "interpreter gone" else sys.executable)
    stamp = "\n".join(script.wanted_stamp(["runtime"]))
    if change == "python":
        stamp = stamp.replace("python 3.", "python 2.")
    if change == "place":
        stamp = stamp.replace("at /", "at /else")
    (tree / ".venv" / "switchyard-stamp").write_text(stamp)
    if change == "requirements":
        (tree / "requirements" / "runtime.txt").write_text("# another\n")
    assert not set(script.wanted_stamp(["runtime"])) <= set(script.read_stamp())


PIP_MAIN = """
import os, pathlib, sys, sysconfig
assert sys.argv[1:4] == ["install", "--no-index", "--no-deps"], sys.argv
place = pathlib.Path(sysconfig.get_path("purelib"), "pip")
place.mkdir()
(place / "__main__.py").write_text("import sys; print('fake pip', sys.argv[1:])")
"""


@pytest.fixture
def index(tmp_path):
    """A package index on loopback that has one wheel, `pip 99.0`; gives its address and the wheel's digest."""
    served = tmp_path / "index"
    (served / "simple" / "pip").mkdir(parents=True)
    wheel = served / "files" / "pip-99.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip/__main__.py", PIP_MAIN)
    (served / "simple" / "pip" / "index.html").write_text(
        '<a href="../../files/pip-98.0-py3-none-any.whl#sha256=00">pip-98.0-py3-none-any.whl</a>'
        '<a data-requires-python="&gt;=3.9" href="../../files/pip-99.0-py3-none-any.whl#sha256=11">pip-99.0-py3-none-any.whl</a>'
    )

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(served))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple", hashlib.sha256(wheel.read_bytes()).hexdigest()
    server.shutdown()
    server.server_close()


@pytest.fixture
def without_ensurepip(tmp_path):
    """A PYTHONPATH on which ensurepip cannot be imported, as on a Debian without python3-venv."""
    place = tmp_path / "no-ensurepip"
    place.mkdir()
    (place / "ensurepip.py").write_text("raise ImportError('ensurepip is not available')\n")
    return str(place)


def test_pip_is_brought_from_the_index_where_python_has_none(tree, index, without_ensurepip):
    address, digest = index
    (tree / "requirements" / "installer.txt").write_text(f"pip==99.0 \\\n    --hash=sha256:{digest}\nuv==1 --hash=sha256:00\n")
    done = run(tree, PYTHONPATH=without_ensurepip, PIP_INDEX_URL=address)
    assert "no ensurepip: bringing pip 99.0 from 127.0.0.1" in done.stdout
    assert (tree / ".venv" / "lib").is_dir()
    log = (tree / ".venv" / "install.log").read_text()
    assert "fake pip ['install', '--require-hashes'" in log


def test_the_index_of_pips_configuration_is_used(tree, index, without_ensurepip, tmp_path):
    address, digest = index
    (tree / "requirements" / "installer.txt").write_text(f"pip==99.0 --hash=sha256:{digest}\n")
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {address}/\n")
    done = run(tree, PYTHONPATH=without_ensurepip, PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert "bringing pip 99.0 from 127.0.0.1" in done.stdout


def test_a_pip_with_another_hash_is_refused(tree, index, without_ensurepip):
    address, _ = index
    (tree / "requirements" / "installer.txt").write_text(f"pip==99.0 --hash=sha256:{'0' * 64}\n")
    done = run(tree, PYTHONPATH=without_ensurepip, PIP_INDEX_URL=address)
    assert done.returncode == 1
    assert "has not the hash that requirements/installer.txt allows" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((tree / ".venv").glob("lib/*/site-packages/pip"))


def test_an_index_that_cannot_be_reached_is_one_line(tree, without_ensurepip):
    (tree / "requirements" / "installer.txt").write_text(f"pip==99.0 --hash=sha256:{'0' * 64}\n")
    done = run(tree, PYTHONPATH=without_ensurepip, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert done.returncode == 1
    assert done.stderr.startswith("switchyard: cannot bring pip from http://127.0.0.1:9/simple/pip/: ")
    assert done.stderr.count("\n") == 1


def test_a_package_that_is_not_there_is_one_line_and_leaves_no_stamp(tree):
    (tree / "requirements" / "runtime.txt").write_text(f"no-such-package==1.0 --hash=sha256:{'0' * 64}\n")
    done = run(tree, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0", UV_HTTP_RETRIES="0")
    assert done.returncode == 1
    assert done.stderr.startswith("switchyard: installing packages failed: ")
    assert done.stderr.count("\n") == 1
    assert not (tree / ".venv" / "switchyard-stamp").exists()
