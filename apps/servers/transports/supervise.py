"""Runs one command and takes its whole family down with it.

A program of its own, started as `python -I -S supervise.py PARENT COMMAND ARGUMENT…`: it imports nothing of ours and
stays beside the command. It is the subreaper of everything the command starts, so that a process which left the
group or the session is found too. It ends the family when the command ends, when it gets SIGTERM, and when PARENT
dies, however that died (PR_SET_PDEATHSIG). Linux only; its exit code is the command's, 128 + n after signal n.
"""

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL."""
LAST_SECONDS = 5.0
"""How long killed processes may take to vanish (uninterruptible sleep) before this one leaves anyway."""
WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process; OSError when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def family() -> list[int]:
    """Return the ids of all living descendants of this process."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib would double the time to start
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state != b"Z":
                parents[int(entry)] = int(parent)
    ours = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in ours and pid not in ours}:
        ours |= found
    return sorted(ours - {os.getpid()})


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def reap(command: int) -> int | None:
    """Collect every child that has ended; return the command's exit code when it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == command:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended


def take_down(command: int) -> int | None:
    """End the whole family: SIGTERM, then SIGKILL; return the command's exit code if it ended in here."""
    code = None
    started = time.monotonic()
    signal_all(family(), signal.SIGTERM)
    while True:
        ended = reap(command)
        code = ended if ended is not None else code
        members = family()
        waited = time.monotonic() - started
        if not members or waited > GRACE_SECONDS + LAST_SECONDS:
            return code
        if waited > GRACE_SECONDS:
            signal_all(members, signal.SIGKILL)
        time.sleep(0.01)


def close_inherited() -> None:
    """Close every descriptor but the three pipes: the event loop leaves second ends of them open, and EOF would not be seen."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - see above
        if int(entry) > 2:
            try:
                os.close(int(entry))
            except OSError:  # the one of the listing itself
                continue


def become(argv: list[str], supervisor: int) -> None:
    """Turn this fresh child into the command; it dies with the supervisor."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == supervisor:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            os.execvp(argv[0], argv)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    os._exit(127)


def main() -> int:
    """Run the command that stands in the arguments; return its exit code."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM
    close_inherited()
    supervisor = os.getpid()
    command = os.fork()
    if command == 0:
        become(argv, supervisor)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    code = None
    while code is None:
        if signal.sigwait(WATCHED) == signal.SIGCHLD:
            code = reap(command)
        else:
            code = take_down(command)
            return 128 + signal.SIGTERM if code is None else code
    take_down(command)
    return code


if __name__ == "__main__":
    # No clean-up of the interpreter: it could only take time.
    os._exit(main())
