"""The process tree below the supervisor: who is in it, and how what was left behind is ended."""

import ctypes
import sys
from collections.abc import Iterable

import psutil

_PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 0.4
"""A process that was left behind has this long after SIGTERM."""


def adopt_orphans() -> None:
    """Become the parent of whatever a child leaves behind when it dies (Linux: prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def below(*, recursive: bool) -> set[psutil.Process]:
    """Return the children of this process or, with `recursive`, every process below it."""
    return set(psutil.Process().children(recursive=recursive))


def alive(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    """Return those that still run; a pid that another process has by now does not count."""
    found = set()
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process)
        except psutil.NoSuchProcess:
            continue
    return found


def end(processes: Iterable[psutil.Process]) -> None:
    """End processes and all below them: SIGTERM, and SIGKILL after `GRACE_SECONDS`."""
    whole = set(processes)
    for process in tuple(whole):
        try:
            whole |= set(process.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
    whole = alive(whole)
    for process in whole:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    if whole:
        kill(psutil.wait_procs(whole, timeout=GRACE_SECONDS)[1])


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes at once."""
    for process in alive(processes):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
