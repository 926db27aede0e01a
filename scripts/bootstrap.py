#!/usr/bin/env python3
"""Makes `.venv` with everything that requirements/ names, checked by hash; does nothing when it is up to date.

    python3 scripts/bootstrap.py [--dev] [--installer]

`--dev` adds what the tests need, `--installer` only the tools that compile requirements/. Needs nothing but Python's
standard library. An old Python, a directory that cannot be written and a failed download each end in one line on standard
error and exit code 1. The file must parse on Python 3.6, so that an old Python can say that it is old.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time

NEEDED = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "switchyard-stamp")
LOG = os.path.join(VENV, "install.log")
REQUIREMENTS = os.path.join(ROOT, "requirements")
DEFAULT_INDEX = "https://" + ".".join(("pypi", "org")) + "/simple"
HEARTBEAT = 5.0
"""Seconds between two lines of progress."""


class Failed(Exception):
    """The environment cannot be made; the message is one line for the person at the terminal."""


def say(text):
    """Print one line of progress."""
    print("switchyard: " + text, flush=True)


def check_python(version, executable):
    """Raise Failed when this Python is too old."""
    if tuple(version[:2]) < NEEDED:
        raise Failed(
            "Python {}.{} or newer is needed, {} is {}.{}. Name another one: make PYTHON=python3.11 ...".format(
                NEEDED[0], NEEDED[1], executable, version[0], version[1]
            )
        )


def check_writable(directory):
    """Raise Failed when files cannot be made in the directory."""
    probe = os.path.join(directory, ".switchyard-{}".format(os.getpid()))
    try:
        os.mkdir(probe)
        os.rmdir(probe)
    except OSError as error:
        raise Failed("cannot write to {}: {}. Clone into a directory of your own.".format(directory, error.strerror))


def wanted_stamp(levels):
    """Return the text that describes an up-to-date environment: its place, its Python and each level's digest."""
    lines = ["at {}".format(VENV), "python {}.{}".format(*sys.version_info[:2])]
    for level in levels:
        with open(os.path.join(REQUIREMENTS, level + ".txt"), "rb") as file:
            lines.append("{} {}".format(level, hashlib.sha256(file.read()).hexdigest()))
    return lines


def read_stamp():
    """Return the lines of the stamp, none when there is no usable environment."""
    try:
        with open(STAMP) as file:
            return file.read().splitlines() if os.access(PYTHON, os.X_OK) else []
    except OSError:
        return []


def run(arguments, what, environment=None):
    """Run a program with its output in the log, and say every few seconds that it is still at work. Raises Failed."""
    started = time.time()
    with open(LOG, "ab") as log:
        start = log.tell()
        try:
            process = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        except OSError as error:
            raise Failed("{} failed: {}: {}".format(what, arguments[0], error.strerror))
    try:
        said = started
        while process.poll() is None:
            time.sleep(0.05)
            if time.time() - said >= HEARTBEAT:
                said = time.time()
                say("  {:3.0f} s  {}".format(said - started, last_line(start) or what))
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode:
        raise Failed("{} failed: {} (all of it is in {})".format(what, error_line(start), LOG))


def log_lines(start):
    """Return what was logged since a position, one clean line each."""
    with open(LOG, "rb") as log:
        log.seek(start)
        text = log.read().decode("utf-8", "replace")
    return [line.strip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", text)) if line.strip()]


def last_line(start):
    """Return the newest line of the log, shortened."""
    lines = log_lines(start)
    return lines[-1][:100] if lines else ""


def error_line(start):
    """Return the line of the log that says most about a failure."""
    lines = log_lines(start)
    marked = [line for line in lines if re.match(r"(?i)(error|fatal|.*\berror:)", line)]
    return (marked or lines or ["no output"])[-1][:300]


def pinned(name):
    """Return the version and the allowed SHA-256 digests of a package from requirements/installer.txt."""
    with open(os.path.join(REQUIREMENTS, "installer.txt")) as file:
        text = file.read().replace("\\\n", " ")
    found = re.search(r"^{}==(\S+)(.*)$".format(re.escape(name)), text, re.MULTILINE)
    if found is None:
        raise Failed("requirements/installer.txt does not name {}".format(name))
    return found.group(1), set(re.findall(r"sha256:([0-9a-f]{64})", found.group(2)))


def configured_index():
    """Return the package index: PIP_INDEX_URL, else pip's configuration files, else the public index."""
    address = os.environ.get("PIP_INDEX_URL")
    if not address:
        import configparser

        places = ["/etc/pip.conf", os.path.join(sys.prefix, "pip.conf")]
        places += [os.path.expanduser(place) for place in ("~/.pip/pip.conf", "~/.config/pip/pip.conf")]
        if os.environ.get("PIP_CONFIG_FILE"):
            places.append(os.environ["PIP_CONFIG_FILE"])
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(places)
        except configparser.Error as error:
            raise Failed("pip's configuration cannot be read: {}".format(str(error).splitlines()[0]))
        for section in ("install", "global"):
            if parser.has_option(section, "index-url"):
                address = parser.get(section, "index-url")
                break
    return (address or DEFAULT_INDEX).strip().rstrip("/")


def open_url(address):
    """Open an address, trusting also the certificates that pip is told to trust. Raises OSError."""
    import ssl
    import urllib.request

    context = ssl.create_default_context()
    authority = os.environ.get("PIP_CERT") or os.environ.get("REQUESTS_CA_BUNDLE")
    if authority:
        context.load_verify_locations(authority)
    handler = urllib.request.HTTPSHandler(context=context)
    request = urllib.request.Request(address, headers={"Accept": "text/html", "User-Agent": "switchyard-bootstrap"})
    return urllib.request.build_opener(handler).open(request, timeout=60)


def bring_pip():
    """Download pip's wheel from the package index, check its hash and install it into `.venv`. Raises Failed."""
    import html
    import urllib.parse

    version, digests = pinned("pip")
    name = "pip-{}-py3-none-any.whl".format(version)
    page = configured_index() + "/pip/"
    say(
        "this Python has no ensurepip: bringing pip {} from {}".format(
            version, urllib.parse.urlsplit(page).netloc.split("@")[-1]
        )
    )
    try:
        with open_url(page) as answer:
            page, text = answer.geturl(), answer.read().decode("utf-8", "replace")
        links = [html.unescape(link) for link in re.findall(r"""href\s*=\s*["']([^"']+)["']""", text)]
        matching = [link for link in links if link.split("#")[0].rsplit("/", 1)[-1] == name]
        if not matching:
            raise Failed("{} is not on {}".format(name, page))
        with open_url(urllib.parse.urljoin(page, matching[0].split("#")[0])) as answer:
            wheel = answer.read()
    except (OSError, ValueError) as error:
        raise Failed("cannot bring pip from {}: {}".format(page, error))
    if hashlib.sha256(wheel).hexdigest() not in digests:
        raise Failed("{} from {} has not the hash that requirements/installer.txt allows".format(name, page))
    place = os.path.join(VENV, name)
    with open(place, "wb") as file:
        file.write(wheel)
    run([PYTHON, os.path.join(place, "pip"), "install", "--no-index", "--no-deps", place], "installing pip")
    os.unlink(place)


def make_venv():
    """Make an empty `.venv` with pip in it. Raises Failed."""
    say("making .venv with Python {}.{}.{}".format(*sys.version_info[:3]))
    shutil.rmtree(VENV, ignore_errors=True)
    os.mkdir(VENV)
    try:
        import venv
    except ImportError:
        raise Failed("this Python has no venv module; on Debian: apt-get install python3-venv")
    del venv
    run([sys.executable, "-m", "venv", "--without-pip", VENV], "making .venv")
    if subprocess.call(
        [sys.executable, "-c", "import ensurepip; ensurepip.version()"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ):
        bring_pip()
    else:
        run([PYTHON, "-m", "ensurepip", "--default-pip"], "installing pip")


def pip_install(levels):
    """Install the levels with pip, by hash. Raises Failed."""
    files = [part for level in levels for part in ("-r", os.path.join(REQUIREMENTS, level + ".txt"))]
    pip = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--require-hashes",
        "--prefer-binary",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
    ]
    run(pip + files, "installing packages")


def uv_environment():
    """Return the environment in which uv uses the index that pip is configured with."""
    environment = dict(os.environ)
    environment.setdefault("UV_DEFAULT_INDEX", configured_index())
    authority = os.environ.get("PIP_CERT") or os.environ.get("REQUESTS_CA_BUNDLE")
    if authority:
        environment.setdefault("SSL_CERT_FILE", authority)
    environment["UV_NO_CONFIG"] = "1"
    environment.setdefault("UV_SYSTEM_CERTS", "1")  # as pip: the certificates that this machine trusts
    environment["VIRTUAL_ENV"] = VENV
    return environment


def uv_install(levels):
    """Install the levels with uv, by hash. Raises Failed."""
    files = [part for level in levels for part in ("-r", os.path.join(REQUIREMENTS, level + ".txt"))]
    uv = [os.path.join(VENV, "bin", "uv"), "pip", "install", "--python", PYTHON, "--require-hashes"]
    home = os.path.expanduser("~")
    if not (os.path.isdir(home) and os.access(home, os.W_OK)):
        uv.append("--no-cache")
    run(uv + files, "installing packages", uv_environment())


def install(levels):
    """Install the levels, with uv where it works here and else with pip. Raises Failed."""
    names = {name for level in levels for name in re.findall(r"(?m)^([a-z0-9]\S*)==", read_text(level))}
    say("installing {} packages, each checked by hash (10 to 120 s)".format(len(names)))
    try:
        pip_install(["installer"])
        uv_install(levels)
    except Failed as error:
        say("the quick way failed, going on with pip: {}".format(error))
        pip_install(levels)


def read_text(level):
    """Return a requirement file's text."""
    with open(os.path.join(REQUIREMENTS, level + ".txt")) as file:
        return file.read()


def bootstrap(levels):
    """Make `.venv` hold the levels. Raises Failed."""
    check_python(sys.version_info, sys.executable)
    have = read_stamp()
    if set(wanted_stamp(levels)) <= set(have):
        return
    check_writable(ROOT)
    import fcntl

    lock = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("waiting for another bootstrap of this directory")
        fcntl.flock(lock, fcntl.LOCK_EX)
    have = read_stamp()
    if set(wanted_stamp(levels)) <= set(have):
        return
    started = time.time()
    if os.path.isdir(VENV):
        if not os.access(VENV, os.W_OK):
            raise Failed("cannot write to {}: it belongs to another user. Remove it, or run as that user.".format(VENV))
    if have[:2] != wanted_stamp([]):
        make_venv()
        have = []
    # what was installed before stays: `make run` after `make test` keeps the tests' packages
    present = [line.split()[0] for line in have[2:]]
    levels = [level for level in ("runtime", "dev", "installer") if level in levels or level in present]
    if os.path.exists(STAMP):
        os.unlink(STAMP)
    install(levels)
    with open(STAMP + ".new", "w") as file:
        file.write("\n".join(wanted_stamp(levels)) + "\n")
    os.rename(STAMP + ".new", STAMP)
    say("environment ready after {:.0f} s".format(time.time() - started))


def main(arguments):
    """Do what the arguments say; return the exit code."""
    levels = ["installer"] if arguments == ["--installer"] else ["runtime", "dev"] if arguments == ["--dev"] else ["runtime"]
    if arguments not in ([], ["--dev"], ["--installer"]):
        sys.stderr.write("usage: bootstrap.py [--dev | --installer]\n")
        return 2
    try:
        bootstrap(levels)
    except Failed as error:
        sys.stderr.write("switchyard: {}\n".format(error))
        return 1
    except OSError as error:
        sys.stderr.write(
            "switchyard: {}: {}\n".format(error.filename or "the environment cannot be made", error.strerror or error)
        )
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("switchyard: interrupted; the next run goes on from here\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
