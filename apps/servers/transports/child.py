"""A stdio server's process: started without a shell, read line by line within bounds, ended with all its family."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from apps.common.errors import UpstreamUnavailable
from apps.servers.transports.floods import Flooded
from apps.servers.transports.wire import ENDS, ids_at

SUPERVISOR = Path(__file__).with_name("supervise.py")
TAIL_BYTES = 4096
"""How much of its last stderr is kept."""
SMALLEST_CAP = 1024 * 1024
"""A line may always have this many bytes, more when somebody waits for a larger answer."""
UNREAD_BYTES = 32 * 1024 * 1024
"""Input that the process has not read; beyond it, calls are refused."""
STOP_SECONDS, TERM_SECONDS = 2.0, 8.0
DRAIN_SECONDS = 1.0
"""For the pipes of a process that has ended to be read to their end."""
"""After the end of stdin comes SIGTERM; the supervisor kills 2 s after that, and we kill it at last."""
UNREAD_REPLIES = 1024 * 1024
"""Replies to the process's own requests that it has not read: far more than it can have asked in earnest."""
BLANK_LINES = 10_000
"""Empty lines in a row that are skipped; further ones are given out as lines."""
LOG_BYTES, LOG_SECONDS = 1024 * 1024, 0.1
"""How much stderr is read at a time; a process that writes more than 10 MB/s there has to wait."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server: PATH, HOME, LANG, TMPDIR and `extra`; nothing of Switchyard's own.

    The directory of our interpreter ends the PATH, so that programs installed with the product are found.
    """
    path = os.environ.get("PATH", os.defpath)
    kept = {"PATH": f"{path}{os.pathsep}{Path(sys.executable).parent}", "LANG": os.environ.get("LANG", "C.UTF-8")}
    kept["HOME"] = os.environ.get("HOME", "/")
    if "TMPDIR" in os.environ:
        kept["TMPDIR"] = os.environ["TMPDIR"]
    return {**kept, **extra}


def descendants(pid: int) -> list[int]:
    """Return the ids of everything that `pid` has started and that still runs, parents first.

    Reads the kernel's own lists of children: a walk over all of /proc would hold the loop on a busy machine.
    """
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        try:
            words = b" ".join(path.read_bytes() for path in Path(f"/proc/{parent}/task").glob("*/children"))
        except OSError:
            continue
        children = [int(word) for word in words.split()]
        found += children
        queue += children
    return found


class Child(asyncio.SubprocessProtocol):
    """One process. `on_line` gets each line of stdout, `on_large` the ids seen in a line that was too long (its bytes
    are dropped), `on_endless` hears of a line that does not end at all, `on_gone` the exit code, last of all and once."""

    def __init__(
        self,
        on_line: Callable[[bytes], None],
        on_large: Callable[[list[int]], None],
        on_endless: Callable[[], None],
        on_gone: Callable[[int | None], None],
    ) -> None:
        self._on_line = on_line
        self._on_large = on_large
        self._on_endless = on_endless
        self._on_gone = on_gone
        self.cap: Callable[[], int] = lambda: SMALLEST_CAP
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._head: bytes | None = None
        self._skipped = 0
        self._tail = bytearray()
        self._out: list[bytes] = []
        self._waiting = 0
        self._replied = 0
        self._blank = 0
        self._logged = 0
        self._stopping = False
        self.gone = asyncio.get_running_loop().create_future()
        self.pid = 0

    async def start(self, command: str, args: Sequence[str], cwd: str, extra: Mapping[str, str]) -> None:
        """Start it; UpstreamUnavailable when the command or the directory does not exist."""
        env = environment(extra)
        if cwd and not Path(cwd).is_dir():
            raise UpstreamUnavailable(f"The working directory {cwd} does not exist.")
        # A path is relative to the directory of the process, as a shell has it.
        program = shutil.which(str(Path(cwd, command).absolute()) if os.sep in command else command, path=env["PATH"])
        if program is None:
            raise UpstreamUnavailable(f"The command {command} was not found.")
        argv = (sys.executable, "-I", "-S", str(SUPERVISOR), str(os.getpid()), program, *args)
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: self, *argv, stdin=-1, stdout=-1, stderr=-1, cwd=cwd or None, env=env, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise UpstreamUnavailable(f"The command cannot be started: {getattr(error, 'strerror', None) or error}.") from None
        self._transport = transport
        self.pid = transport.get_pid()
        self._stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))

    def write(self, message: bytes) -> None:
        """Send one message; those of one turn of the loop leave together. UpstreamUnavailable when nobody reads them."""
        stdin = self._stdin
        if stdin is None or self._stopping or stdin.is_closing():
            raise UpstreamUnavailable("The server's process has ended.")
        if stdin.get_write_buffer_size() + self._waiting > UNREAD_BYTES:
            raise UpstreamUnavailable("The server's process does not read its input.")
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(message)
        self._waiting += len(message)

    def reply(self, message: bytes) -> None:
        """Send the answer to a request of the process's own; Flooded when it has left 1 MB of them unread.

        They are counted from the moment on at which it had read everything.
        """
        if not self._waiting and self._stdin is not None and not self._stdin.get_write_buffer_size():
            self._replied = 0
        if self._replied > UNREAD_REPLIES:
            raise Flooded("The server floods with requests: it makes them and does not read the replies.")
        self.write(message)
        self._replied += len(message)

    def hold_output(self) -> None:
        """Read no more of its stdout for now; what has been read already still comes."""
        self._pause(1)

    def go_on(self) -> None:
        """Read its stdout again."""
        self._resume(1)

    def _pause(self, fd: int) -> None:
        pipe = self._transport.get_pipe_transport(fd) if self._transport is not None else None
        if pipe is not None and not pipe.is_closing():
            cast("asyncio.ReadTransport", pipe).pause_reading()

    def _resume(self, fd: int) -> None:
        pipe = self._transport.get_pipe_transport(fd) if self._transport is not None else None
        if pipe is not None and not pipe.is_closing():
            cast("asyncio.ReadTransport", pipe).resume_reading()

    def _flush(self) -> None:
        """Write what has gathered."""
        out, self._out, self._waiting = self._out, [], 0
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(b"\n".join(out) + b"\n")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take output: lines of stdout, the tail of stderr."""
        if fd == 2:
            self._tail += data[-TAIL_BYTES:]
            del self._tail[:-TAIL_BYTES]
            self._log_pace(len(data))
            return
        buffer = self._buffer
        if b"\n" not in data:
            buffer += data
            self._bound()
            return
        *lines, rest = (bytes(buffer) + data if buffer else data).split(b"\n")
        self._buffer = bytearray(rest)
        if self._head is not None:
            ids = ids_at(self._head, lines.pop(0)[-ENDS:])
            self._head, self._skipped = None, 0
            self._on_large(ids)
        cap = self.cap()
        for line in lines:
            if len(line) > cap:
                self._on_large(ids_at(line[:ENDS], line[-ENDS:]))
            elif line and not line.isspace():
                self._blank = 0
                self._on_line(line)
            else:
                self._blank += 1
                if self._blank > BLANK_LINES:
                    self._on_line(line)
        self._bound()

    def _log_pace(self, size: int) -> None:
        """Slow down a process that floods its stderr, which would keep the loop at work and gain nobody anything."""
        if not self._logged:
            asyncio.get_running_loop().call_later(LOG_SECONDS, self._log_again)
        before = self._logged
        self._logged += size
        if before <= LOG_BYTES < self._logged:
            self._pause(2)

    def _log_again(self) -> None:
        if self._logged > LOG_BYTES:
            self._resume(2)
        self._logged = 0

    def _bound(self) -> None:
        """Let go of the bytes of an unfinished line that is too long; report one that never ends."""
        cap = self.cap()
        if len(self._buffer) <= (cap if self._head is None else ENDS * 64):
            return
        if self._head is None:
            self._head = bytes(self._buffer[:ENDS])
        self._skipped += len(self._buffer) - ENDS
        del self._buffer[:-ENDS]
        if self._skipped > 4 * cap and not self._stopping:
            self._on_endless()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """A server that has closed its stdout has left; it need not live on."""
        if fd == 1 and not self._stopping and not self.gone.done():
            asyncio.get_running_loop().call_later(0.2, self._leave)

    def _leave(self) -> None:
        """End a process without a stdout."""
        if not self.gone.done():
            self.terminate()

    def process_exited(self) -> None:
        """The supervisor has ended; that its family has not yet, is so only if somebody killed it."""
        self._stopping = True
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._let_go)

    def _let_go(self) -> None:
        """End who still holds the pipes of a process that is gone."""
        if not self.gone.done() and self._transport is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended and its pipes are drained."""
        if not self.gone.done():
            self.gone.set_result(None)
            self._on_gone(self._transport.get_returncode() if self._transport is not None else None)

    def tail(self) -> str:
        """Return the last 4 kB of its stderr, without control characters."""
        text = self._tail.decode("utf-8", "replace")
        return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text).strip()

    def memory(self) -> int:
        """Return the resident memory of the command and its family, in bytes (0 when it has ended)."""
        pages = 0
        for pid in descendants(self.pid):
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
            except (OSError, IndexError, ValueError):
                continue
        return pages * os.sysconf("SC_PAGE_SIZE")

    def terminate(self) -> None:
        """Send SIGTERM to the supervisor, which ends the family."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and its whole family now."""
        self._stopping = True
        for pid in descendants(self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the supervisor if it is still there."""
        if self._transport is not None and self._transport.get_returncode() is None:
            try:
                self._transport.send_signal(number)
            except ProcessLookupError:
                return

    async def stop(self) -> None:
        """End it politely: end of stdin, after 2 s SIGTERM, then SIGKILL; returns when all of it is gone."""
        self._stopping = True
        if self._transport is None or self.gone.done():
            return
        if self._stdin is not None:
            if self._out:
                self._flush()
            self._stdin.close()
        for act, seconds in ((None, STOP_SECONDS), (self.terminate, TERM_SECONDS), (self._destroy, 2.0)):
            if act is not None:
                act()
            done, _ = await asyncio.wait({self.gone}, timeout=seconds)
            if done:
                break
        self._transport.close()

    def _destroy(self) -> None:
        """The supervisor itself hangs: kill the family, then it."""
        self.kill()
        self._signal(signal.SIGKILL)
