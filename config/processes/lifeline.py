"""The pipes between the supervisor and a child: the child reports that it is ready, and notices when the supervisor is gone."""

import os
import signal
import threading
import time

from config.processes import tree

ORPHAN_SECONDS = 4.0
"""A child whose supervisor was killed ends by itself; after this long it is ended with all below it."""


def watch(fd: int) -> None:
    """End this process, as if by SIGTERM, once the supervisor's end of the pipe is closed."""
    os.set_inheritable(fd, False)
    threading.Thread(target=_wait, args=(fd,), name="lifeline", daemon=True).start()


def report_ready(fd: int) -> None:
    """Tell the supervisor that this process does its work now."""
    try:
        os.write(fd, b"ready\n")
    except BrokenPipeError:
        return


def _wait(fd: int) -> None:
    try:
        while os.read(fd, 1):
            pass
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    tree.kill(tree.below(recursive=True))
    os._exit(1)
