"""The one place where a process starts: commands from the operator's configuration that speak in lines.

What holds for each of them, whoever it is for:

* **What runs** is an absolute path and a list of words; no shell, no search in PATH, no text of a caller.
* **What it sees** of our environment is a short list of names and what the operator adds. Values can come from a file
  or from our own environment, so that the configuration holds no secret.
* **It never outlives us.** `watchdog.py` stands between: it ends the command and everything that descends from it when
  we ask for it, when the command ends by itself, and when we are killed.
* **What it takes** of the machine is bounded: memory, open files, sizes of files, processes (`Bounds`).
* **What it says** is bounded: a line of stdout has a size, what waits in stdin has one, of stderr the last part is
  kept and a few lines a second reach the log, both without the values that the operator only named.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path, PurePath
from typing import Protocol, cast

from gateway.model.errors import GatewayError, Reason
from gateway.model.value import value
from gateway.upstream.secret import Secret, hiding, settle

log = logging.getLogger(__name__)

# Of our own environment. What finds programs, files, the language and the time zone, and nothing that is a secret.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "USER", "LOGNAME")
# The size of a whole answer elsewhere; a mebibyte would refuse honest images.
LINE_LIMIT = 4 * 1024 * 1024
# What may wait for a command that does not read: two large requests, then it counts as hung.
UNREAD_LIMIT = 8 * 1024 * 1024
# Seconds between asking a command to end (its stdin closes) and SIGTERM.
ASK_SECONDS = 1.0
# And between SIGTERM and SIGKILL.
GRACE_SECONDS = 2.0
# Between the end of a command and the end of its words, which are still in the pipes.
EXIT_SECONDS = 0.1
# Between the end of stdout and the end of the command, which most often has ended: its watchdog has to come to it.
MUTE_SECONDS = 1.0
# Lines of stderr: those kept for whoever asks what went wrong, and those that reach the log in a second.
STDERR_LINES = 100
STDERR_PER_SECOND = 20
STDERR_WIDTH = 500
# Of a line, before it is cut: a secret that were cut in two would not be found in it.
STDERR_LINE = 8192
# Exit codes of a command that the watchdog ended.
_OURS = (128 + signal.SIGTERM, 128 + signal.SIGKILL)
# The head and the tail of a line that was too long, for whoever wants to know whose it was.
_ENDS = 4096

# What a program that was killed for a limit cannot say itself.
_KILLED_FOR = {128 + signal.SIGXFSZ: " (it wrote a file larger than limits.file_size)"}

_WATCHDOG = str(Path(__file__).with_name("watchdog.py"))


@value
class Bounds:
    """The most that a command may take; None: no limit. `memory` (resident bytes) and `processes` are those of the
    command and all that descends from it, together; `files` is what one process may have open, `file_size` bytes of one
    file."""

    # Servers in Python or JavaScript take 50 to 150 MiB, with a package runner in front 250. Memory that several have
    # leaked is what takes a machine down.
    memory: int | None = 512 * 1024 * 1024
    # What programs were written for since select(2); a leak shows before it is the machine's.
    files: int | None = 1024
    # npx, a shell, node and a browser's dozen; not a fork bomb.
    processes: int | None = 64
    # A log that nobody rotates fills a disk that the gateway needs.
    file_size: int | None = 1024 * 1024 * 1024

    @property
    def word(self) -> str:
        """For watchdog.py."""
        pairs = {name: getattr(self, name) for name in ("memory", "files", "processes", "file_size")}
        return ",".join(f"{name}={number}" for name, number in pairs.items() if number is not None)


@value
class Command:
    """What the operator wrote down. `argv[0]` is an absolute path; `environ` is added to what is inherited.
    `sandbox` are words in front of `argv`, such as `bubblewrap()` makes them."""

    argv: tuple[str, ...]
    environ: Mapping[str, str | Secret] = field(default_factory=dict, hash=False)
    folder: str | None = None
    sandbox: tuple[str, ...] = ()
    bounds: Bounds = Bounds()

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.sandbox, *self.argv)

    def problem(self) -> str | None:
        """Why it cannot be started, None if it can. Looks at the file system."""
        if not self.argv:
            return "names no program"
        for program in {self.argv[0], self.words[0]}:
            if not os.path.isabs(program):
                return f"{program!r} is not an absolute path"
            if not os.path.isfile(program) or not os.access(program, os.X_OK):
                return f"{program!r} is not a program that can be run"
        if any("\0" in word for word in self.words):
            return "holds a NUL character"
        return None


def bubblewrap(
    program: str, *, network: bool = False, writable: Sequence[str] = (), readable: Sequence[str] = ("/",)
) -> tuple[str, ...]:
    """Words that run a command in namespaces of its own (bubblewrap, bwrap(1)): `readable` folders read-only,
    `writable` ones as they are, in /tmp only what is named there, no network unless asked for, no other processes to be
    seen."""
    words = [program, "--unshare-all", "--die-with-parent", "--new-session"]
    if network:
        words.append("--share-net")
    # Later mounts lie on top of earlier ones: what is above /tmp comes before it is emptied, what is in it after.
    above = [folder for folder in readable if PurePath("/tmp").is_relative_to(folder)]
    for folder in above:
        words += ["--ro-bind", folder, folder]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for folder in readable:
        if folder not in above:
            words += ["--ro-bind", folder, folder]
    for folder in writable:
        words += ["--bind", folder, folder]
    return (*words, "--")


def environment(command: Command, ours: Mapping[str, str]) -> dict[str, str]:
    """What the command finds in its environment. Raises GatewayError(UNAVAILABLE) for a value that is not there."""
    inherited = {name: ours[name] for name in INHERITED if name in ours}
    return inherited | {name: settle(each, ours) for name, each in command.environ.items()}


class Lines:
    """Cuts bytes into lines, however they come. A line of more than `limit` bytes is thrown away as it comes; what is
    kept of it, its beginning and its end, goes to `too_long`."""

    def __init__(self, limit: int, line: Callable[[bytes], None], too_long: Callable[[bytes], None]) -> None:
        self._limit = limit
        self._line = line
        self._too_long = too_long
        self._parts: list[bytes] = []
        self._size = 0
        self._head: bytes | None = None  # of a line that is already too long

    def feed(self, data: bytes) -> None:
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._add(part)
            self._end()
        if rest:
            self._add(rest)

    def _add(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)
        if self._size <= self._limit:
            return
        whole = b"".join(self._parts)
        if self._head is None:
            self._head = whole[:_ENDS]
        self._parts = [whole[-_ENDS:]]
        self._size = self._limit  # the next byte comes here again

    def _end(self) -> None:
        line, head = b"".join(self._parts), self._head
        self._parts, self._size, self._head = [], 0, None
        if head is not None:
            self._too_long(head + b" ... " + line)
        elif line := line.removesuffix(b"\r"):
            self._line(line)


class Stderr:
    """The last lines that a command wrote to stderr; a few of them a second go to the log. `hide` takes out of a line
    what nobody may see."""

    def __init__(self, name: str, now: Callable[[], float], hide: Callable[[str], str] = str) -> None:
        self._name = name
        self._hide = hide
        self._now = now
        self._kept: deque[str] = deque(maxlen=STDERR_LINES)
        self._second = 0.0
        self._logged = 0
        self._silent = 0
        self._lines = Lines(STDERR_LINE, self._take, self._take)

    def feed(self, data: bytes) -> None:
        self._lines.feed(data)

    @property
    def tail(self) -> str:
        """What it said last, one line."""
        return self._kept[-1] if self._kept else ""

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self._kept)

    def _take(self, line: bytes) -> None:
        text = plain(self._hide(line.decode("utf-8", "replace"))[:STDERR_WIDTH])
        self._kept.append(text)
        now = self._now()
        if now - self._second >= 1.0:
            if self._silent:
                log.info("%s wrote %d more lines to stderr", self._name, self._silent)
            self._second, self._logged, self._silent = now, 0, 0
        if self._logged < STDERR_PER_SECOND:
            self._logged += 1
            log.info("%s: %s", self._name, text)
        else:
            self._silent += 1


def plain(text: str) -> str:
    """Text that can be shown anywhere: what is not printable, escape sequences of terminals included, becomes `?`."""
    return "".join(each if each.isprintable() else "?" for each in text)


class Listener(Protocol):
    """Whoever the command talks to. Called from the event loop; must neither wait nor raise."""

    def line(self, line: bytes) -> None:
        """One line of stdout, without its end and never empty."""
        ...

    def too_long(self, ends: bytes) -> None:
        """A line with more than LINE_LIMIT bytes was thrown away; these are its beginning and its end."""
        ...

    def ended(self, why: str) -> None:
        """Nothing more will come: stdout was closed or the command ended. Called once, with half a sentence."""
        ...


class Process:
    """A running command. Made by `start`."""

    def __init__(self, name: str, listener: Listener, hide: Callable[[str], str] = str) -> None:
        self.name = name
        self.stderr = Stderr(name, asyncio.get_running_loop().time, hide)
        self._listener = listener
        self._lines = Lines(LINE_LIMIT, listener.line, listener.too_long)
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._lifeline: int | None = None
        self._gone = asyncio.Event()
        self._told = False
        self._mute = False
        self._stopping: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether it can still be talked to."""
        return not self._told

    @property
    def pid(self) -> int:
        """Of the watchdog: the first process of the group."""
        assert self._transport is not None
        return self._transport.get_pid()

    def write(self, line: bytes) -> None:
        """Send one line (without its end). Raises GatewayError(UPSTREAM_FAILED) when nobody reads there any more."""
        if self._stdin is None or self._told or self._mute:
            raise GatewayError(Reason.UPSTREAM_FAILED, f"{self.name} is not running", metadata={"delivered": "no"})
        if self._stdin.get_write_buffer_size() > UNREAD_LIMIT:
            self.kill()
            raise GatewayError(Reason.UPSTREAM_FAILED, f"{self.name} does not read what it is sent")
        self._stdin.write(line + b"\n")

    async def stop(self) -> None:
        """Close its stdin, which is how a server is asked to end (stdio, shutdown), and then make it end. Returns when
        there is nothing left of it; may be called twice, and goes on when its caller is canceled."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    def kill(self) -> None:
        """End it without asking; `stop` waits for that."""
        self._cut()
        self._tell("was stopped because it does not follow the rules of stdio")

    async def _stop(self) -> None:
        self._tell("was stopped")
        if self._stdin is not None:
            self._stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), ASK_SECONDS)
        self._cut()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), GRACE_SECONDS + 3.0)
        if not self._gone.is_set():
            _sweep(self.pid)  # the watchdog itself is stuck
            await self._gone.wait()

    def _cut(self) -> None:
        """The watchdog sees it and ends the command."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._listener.ended(why)

    def _mute_for_good(self) -> None:
        self._tell(f"closed its output{self._said}")

    @property
    def _said(self) -> str:
        return f": {self.stderr.tail}" if self.stderr.tail else ""

    # What the protocol below reports.

    def started(self, transport: asyncio.SubprocessTransport, lifeline: int) -> None:
        self._transport = transport
        self._stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))  # uvloop's is of no such class
        self._lifeline = lifeline

    def not_started(self, lifeline: int) -> None:
        """Whoever has the lifeline lets go of it, once."""
        if self._transport is None:
            os.close(lifeline)
        else:
            self._cut()

    def received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self.stderr.feed(data)
        elif not self._told:
            self._lines.feed(data)

    def closed(self, fd: int) -> None:
        if fd == 1:
            self._mute = True
            self._cut()  # a server that can no longer answer is of no use, alive or not
            # Mostly it has ended, and in a moment its code and its last words will be known.
            asyncio.get_running_loop().call_later(MUTE_SECONDS, self._mute_for_good)

    def exited(self) -> None:
        self._cut()
        assert self._transport is not None
        code = self._transport.get_returncode()
        if code is None or code < 0:
            _sweep(self.pid)
        if self._mute:
            self._ended(code)
        else:
            # What it wrote last is still in the pipes: on a busy machine the end can be known before the words.
            asyncio.get_running_loop().call_later(EXIT_SECONDS, self._ended, code)

    def _ended(self, code: int | None) -> None:
        assert self._transport is not None
        if self._mute and code in _OURS:
            self._mute_for_good()  # that is why the watchdog ended it
        else:
            self._tell(f"ended with code {code}{_KILLED_FOR.get(code or 0, '')}{self._said}")
        self._gone.set()
        self._transport.close()


def _sweep(session: int) -> None:
    """Kill a whole session: the last resort, for when somebody killed the watchdog, which would have done it."""
    with contextlib.suppress(OSError):
        os.killpg(session, signal.SIGKILL)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = entry.read_text("latin-1").rpartition(")")[2].split()  # proc(5); the name may hold anything
            if int(fields[3]) == session:
                os.kill(int(entry.parent.name), signal.SIGKILL)


class _Pipes(asyncio.SubprocessProtocol):
    def __init__(self, process: Process, lifeline: int) -> None:
        self._process = process
        self._lifeline = lifeline

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Here, and not after the start was awaited: a command that ends at once is reported before that.
        self._process.started(cast(asyncio.SubprocessTransport, transport), self._lifeline)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._process.received(fd, data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._process.closed(fd)

    def process_exited(self) -> None:
        self._process.exited()


async def start(name: str, command: Command, listener: Listener, ours: Mapping[str, str]) -> Process:
    """Start `command`; `name` is what messages call it, `ours` the environment of the gateway itself.

    Raises GatewayError(UNAVAILABLE) for a command that cannot be started. Each start is logged; its words are not,
    since people put secrets there."""
    if problem := command.problem():
        raise GatewayError(Reason.UNAVAILABLE, f"The command of {name} {problem}")
    environ = environment(command, ours)
    process = Process(name, listener, hiding(command.environ, ours))
    watched, lifeline = os.pipe()
    try:
        private = (str(watched), str(GRACE_SECONDS), command.bounds.word)
        words = (sys.executable, "-I", "-S", _WATCHDOG, *private, *command.words)
        await asyncio.get_running_loop().subprocess_exec(
            lambda: _Pipes(process, lifeline),
            *words,
            env=environ,
            cwd=command.folder or "/",
            pass_fds=(watched,),
            start_new_session=True,
        )
    except OSError as error:
        process.not_started(lifeline)
        message = f"The command of {name} cannot be started: {error.strerror}"
        raise GatewayError(Reason.UNAVAILABLE, message) from error
    except BaseException:
        process.not_started(lifeline)
        raise
    finally:
        os.close(watched)
    log.info("started %s as process %d: %s", name, process.pid, command.argv[0])
    return process
