"""Commands that the gateway starts: what they see, what they may say, and that nothing of them is ever left."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model.errors import GatewayError, Reason
from gateway.upstream import process as subject
from gateway.upstream.mcp.limits import MIB
from gateway.upstream.process import Bounds, Command, Lines, Process, bubblewrap, environment, start
from gateway.upstream.secret import Secret
from tests.serving import ROOT

pytestmark = pytest.mark.security

PATIENCE = 20.0  # seconds; the machine may be busy, and nothing here waits so long when it works
BWRAP = Path("/usr/bin/bwrap")


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time to say how a command ended."""
    monkeypatch.setattr(subject, "MUTE_SECONDS", PATIENCE)


class Ear:
    """Hears what a command says."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.ends: list[bytes] = []
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def line(self, line: bytes) -> None:
        self.lines.put_nowait(line)

    def too_long(self, ends: bytes) -> None:
        self.ends.append(ends)

    def ended(self, why: str) -> None:
        self.end.set_result(why)

    async def hear(self) -> str:
        return (await asyncio.wait_for(self.lines.get(), PATIENCE)).decode()

    async def last(self) -> str:
        return await asyncio.wait_for(asyncio.shield(self.end), PATIENCE)


def python(code: str, **more: object) -> Command:
    return Command((sys.executable, "-I", "-S", "-u", "-c", textwrap.dedent(code)), **more)  # type: ignore[arg-type]


@asynccontextmanager
async def running(command: Command, ours: dict[str, str] | None = None) -> AsyncIterator[tuple[Process, Ear]]:
    ear = Ear()
    process = await start("child", command, ear, {**os.environ, **(ours or {})})
    try:
        yield process, ear
    finally:
        await asyncio.wait_for(process.stop(), PATIENCE)


async def until(holds: Callable[[], bool]) -> None:
    """For what the kernel tells nobody: that a process is no more."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # dead; its parent, in a container nobody of ours, has not asked yet


# What it can see and say.


async def test_a_command_gets_lines_and_gives_lines() -> None:
    echo = "import sys\nfor line in sys.stdin: print('<' + line.strip() + '>')"
    async with running(python(echo)) as (process, ear):
        process.write(b'{"a":1}')
        process.write(b'{"b":2}')
        assert [await ear.hear(), await ear.hear()] == ['<{"a":1}>', '<{"b":2}>']


async def test_a_command_sees_what_was_allowed_and_nothing_else_of_our_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" s3cret\n")
    command = Command(
        (sys.executable,),
        {"PLAIN": "x", "TOKEN": Secret(file=tmp_path / "token"), "KEY": Secret(variable="OUR_KEY", before="Bearer ")},
    )
    ours = {"PATH": "/bin", "HOME": "/home/me", "AWS_SECRET": "never", "OUR_KEY": "k", "PYTHONPATH": "/evil"}
    assert environment(command, ours) == {
        "PATH": "/bin",
        "HOME": "/home/me",
        "PLAIN": "x",
        "TOKEN": "s3cret",
        "KEY": "Bearer k",
    }


def test_a_secret_that_is_not_there_is_named_by_its_place_and_never_shown(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="cannot be read from the variable NO_SUCH"):
        environment(Command((), {"X": Secret(variable="NO_SUCH")}), {})
    with pytest.raises(GatewayError, match="cannot be read from the file"):
        environment(Command((), {"X": Secret(file=tmp_path / "none")}), {})
    assert "Bearer" not in repr(Secret(variable="X", before="Bearer "))


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("python3", "-c", "pass"), "is not an absolute path"),
        (("./x",), "is not an absolute path"),
        (("/no/such/program",), "is not a program"),
        ((str(Path(__file__)),), "is not a program"),
        (("/bin/sh; touch /tmp/x",), "is not a program"),
        ((sys.executable, "a\0b"), "NUL"),
        ((), "names no program"),
    ],
)
async def test_what_is_no_absolute_program_is_not_started(argv: tuple[str, ...], why: str) -> None:
    with pytest.raises(GatewayError, match=why) as caught:
        await start("child", Command(argv), Ear(), {})
    assert caught.value.reason is Reason.UNAVAILABLE


async def test_words_are_words_and_no_shell_reads_them() -> None:
    words = ("$(id)", "`id`", "; id", "&& id", "*", "'", "\n", "-x")
    show = python("import sys; print(sys.argv[1:])")
    async with running(Command((*show.argv, *words))) as (_, ear):
        assert await ear.hear() == repr(list(words))


def test_lines_are_cut_the_same_however_they_come() -> None:
    data = b'{"a":1}\n\r\n{"b":"' + b"x" * 50 + b'"}\r\nend\n' + b"y" * 200 + b"\nafter\nunfinished"
    for size in (1, 2, 7, 64, len(data)):
        seen: list[bytes] = []
        long: list[bytes] = []
        lines = Lines(100, seen.append, long.append)
        for at in range(0, len(data), size):
            lines.feed(data[at : at + size])
        assert seen == [b'{"a":1}', b'{"b":"' + b"x" * 50 + b'"}', b"end", b"after"]
        assert len(long) == 1
        assert long[0].startswith(b"yyy")


async def test_a_line_without_end_is_thrown_away_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LINE_LIMIT", 10_000)
    flood = """
        import sys
        sys.stdout.write('{"id":7,' + 'x' * 3_000_000 + '}\\nafter\\n')
        sys.stdin.read()
    """
    async with running(python(flood)) as (_, ear):
        assert await ear.hear() == "after"
        (ends,) = ear.ends
        assert ends.startswith(b'{"id":7,')
        assert len(ends) < 10_000


async def test_of_stderr_the_last_lines_are_kept_and_a_few_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    flood = """
        import sys
        for n in range(20_000): sys.stderr.write(f'\\x1b[31mline {n}\\x07' + 'x' * 2000 + '\\n')
        sys.stderr.write('the last one\\n')
        print('done')
        sys.stdin.read()
    """
    caplog.set_level("INFO", "gateway.upstream.process")
    async with running(python(flood)) as (process, ear):
        assert await ear.hear() == "done"
        await until(lambda: process.stderr.tail == "the last one")
        assert len(process.stderr.lines) == subject.STDERR_LINES
        assert all(line.isprintable() and len(line) <= 500 for line in process.stderr.lines)
    logged = [record for record in caplog.records if "line" in record.getMessage()]
    assert 0 < len(logged) < 500


@pytest.mark.security
async def test_what_the_configuration_only_names_is_in_no_line_of_stderr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, pem, bearer = tmp_path / "key", tmp_path / "pem", "s3cr/t+word"
    key.write_text("k" * 300 + "0123456789\n")
    pem.write_text("-----BEGIN KEY-----\nMIIabcdef\nghijklmn\n-----END KEY-----\n")
    says = """
        import os, sys, urllib.parse
        sys.stderr.write(f"key {os.environ['KEY']} and {os.environ['AUTH']}\\n")
        sys.stderr.write(f"{os.environ['PEM']}\\n")
        sys.stderr.write("at /x?a=" + urllib.parse.quote(os.environ['AUTH'][7:], safe="") + "\\n")
        sys.stderr.write("." * 350)
        sys.stderr.flush()
        sys.stderr.write(os.environ['KEY'] + "." * 9000 + "\\n")
        sys.stderr.write(f"mode {os.environ['MODE']}\\n")
        sys.stdin.read()
    """
    environ = {"KEY": Secret(file=key), "PEM": Secret(file=pem), "MODE": "quiet",
               "AUTH": Secret(variable="OURS", before="Bearer ")}  # fmt: skip
    caplog.set_level("INFO", "gateway.upstream.process")
    async with running(python(says, environ=environ), {"OURS": bearer}) as (process, _):
        await until(lambda: process.stderr.tail == "mode quiet")
        lines = process.stderr.lines
    assert lines[0] == "key [KEY] and Bearer [AUTH]"
    assert set(lines[1:5]) == {"[PEM]"}
    assert lines[5] == "at /x?a=[AUTH]"
    assert lines[6].startswith("." * 350 + "[KEY]...")
    for secret in ("kkkk", "0123456789", bearer, "MIIabcdef", "ghijklmn"):
        assert secret not in "".join(lines) + caplog.text


async def test_a_command_that_never_reads_is_ended_before_it_fills_our_memory() -> None:
    async with running(python("import time; print('up'); time.sleep(1000)")) as (process, ear):
        await ear.hear()
        for _ in range(9):
            process.write(b"x" * 1_000_000)
        with pytest.raises(GatewayError, match="does not read"):
            process.write(b"x")
        assert "rules of stdio" in await ear.last()
        with pytest.raises(GatewayError, match="not running"):
            process.write(b"more")


# That nothing is left.

FAMILY = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    def say(name):
        os.write(1, f'{name} {os.getpid()}\\n'.encode())
    def child(name, *, session=False, fork=False):
        if os.fork() == 0:
            if session: os.setsid()
            if fork and os.fork(): os._exit(0)
            say(name)
            time.sleep(1000)
    child('child')
    child('leader', session=True)
    child('daemon', session=True, fork=True)
    say('main')
    sys.stdin.readline()
"""
STAY = FAMILY + "    time.sleep(1000)"
GIVE_UP = FAMILY + "    os.write(2, b'gave up' + bytes([10])); os._exit(3)"


async def family(ear: Ear) -> dict[str, int]:
    heard = [(await ear.hear()).split() for _ in range(4)]
    return {name: int(pid) for name, pid in heard}


async def test_children_of_children_that_ignore_every_polite_signal_end_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(subject, "GRACE_SECONDS", 0.2)
    async with running(python(STAY)) as (process, ear):
        pids = await family(ear)
        assert not any(map(gone, pids.values()))
        await process.stop()
        assert all(map(gone, pids.values()))
        assert gone(process.pid)


async def test_a_command_that_ends_by_itself_leaves_no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "GRACE_SECONDS", 0.2)
    async with running(python(GIVE_UP)) as (process, ear):
        pids = await family(ear)
        process.write(b"")
        assert await ear.last() == "ended with code 3: gave up"
        await until(lambda: all(map(gone, pids.values())))
        assert not process.alive


async def test_a_command_that_closes_its_output_and_lives_on_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "GRACE_SECONDS", 0.2)
    code = """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid())
        os.close(1)
        time.sleep(1000)
    """
    async with running(python(code)) as (_, ear):
        pid = int(await ear.hear())
        assert await ear.last() == "closed its output"
        await until(lambda: gone(pid))


async def test_a_command_that_has_ended_is_not_called_silent_because_its_end_is_known_late() -> None:
    code = "import sys; print('up'); sys.stdin.readline(); sys.exit('no licence')"
    async with running(python(code)) as (process, ear):
        await ear.hear()
        os.kill(process.pid, signal.SIGSTOP)  # the watchdog: on a busy machine it has not had its turn
        process.write(b"go")
        await until(lambda: refuses(process))
        assert not ear.end.done()
        os.kill(process.pid, signal.SIGCONT)
        assert await ear.last() == "ended with code 1: no licence"


def refuses(process: Process) -> bool:
    with suppress(GatewayError):
        process.write(b"more")
        return False
    return True


async def test_a_well_behaved_command_ends_when_its_input_does_and_is_not_killed() -> None:
    async with running(python("import sys; sys.stdin.read(); sys.stderr.write('bye' + chr(10))")) as (process, ear):
        await process.stop()
        await process.stop()
        assert process.stderr.tail == "bye"
        assert await ear.last() == "was stopped"


async def test_a_watchdog_that_is_killed_takes_its_family_along() -> None:
    async with running(python(STAY)) as (process, ear):
        pids = await family(ear)
        os.kill(process.pid, signal.SIGKILL)
        assert "ended with code -9" in await ear.last()
        # Whoever left the session has only the watchdog to fear: killing it is the one thing that can leave somebody.
        await until(lambda: gone(pids["main"]) and gone(pids["child"]))
        for name in ("leader", "daemon"):
            os.kill(pids[name], signal.SIGKILL)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_gateway_that_is_killed_leaves_nobody_behind(loop: str) -> None:
    gateway = f"""
import asyncio, os, sys
import uvloop
from gateway.upstream.process import Command, start

class Ear:
    def line(self, line): print(line.decode(), flush=True)
    def too_long(self, ends): pass
    def ended(self, why): pass

async def main():
    process = await start("child", Command((sys.executable, "-I", "-S", "-u", "-c", sys.argv[1])), Ear(), {{}})
    print("watchdog", process.pid, flush=True)
    await asyncio.sleep(1000)

{loop}.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", gateway, textwrap.dedent(STAY), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = {}
    for _ in range(5):
        name, pid = (await asyncio.wait_for(parent.stdout.readline(), PATIENCE)).split()
        pids[name] = int(pid)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await until(lambda: all(map(gone, pids.values())))


@pytest.mark.skipif(not BWRAP.exists(), reason="bubblewrap is not installed")
async def test_in_a_sandbox_a_command_sees_no_other_process_no_network_and_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("as it was")
    probe = f"""
        import os, socket
        seen = [name for name in os.listdir('/proc') if name.isdigit()]
        print('processes', len(seen))
        try:
            socket.create_connection(('127.0.0.1', {os.getpid() % 1000 + 20000}), 1)
        except OSError as error:
            print('network', error.errno)
        try:
            open({str(tmp_path / "file")!r}, 'w')
        except OSError as error:
            print('file', error.strerror)
    """
    sandbox = bubblewrap(str(BWRAP), readable=("/", str(ROOT)))  # wherever the checkout is, even in /tmp
    async with running(python(probe, sandbox=sandbox)) as (process, ear):
        first = await asyncio.wait_for(asyncio.shield(_either(ear)), PATIENCE)
        if first is None:
            pytest.skip(f"namespaces are not available here: {process.stderr.tail}")
        assert int(first.split()[1]) <= 3
        assert (await ear.hear()).startswith("network")
        assert await ear.hear() in ("file Read-only file system", "file No such file or directory")


async def _either(ear: Ear) -> str | None:
    line = asyncio.ensure_future(ear.lines.get())
    ended = asyncio.ensure_future(ear.last())
    await asyncio.wait((line, ended), return_when=asyncio.FIRST_COMPLETED)
    if line.done():
        return line.result().decode()
    line.cancel()
    return None


async def test_a_command_that_is_over_before_anybody_looked_is_noticed() -> None:
    asyncio.get_running_loop().call_soon(time.sleep, 0.6)  # as on a busy machine: between its start and its pipes
    async with running(python("import sys; sys.exit('no licence')")) as (_, ear):
        assert await ear.last() == "ended with code 1: no licence"


# What it may take.


SMALL = Bounds(memory=160 * MIB, files=32, processes=8, file_size=MIB)
TAKES = {
    "memory": ("import time; x = b'x' * 300 * 2**20; time.sleep(600)", "where 160 are allowed (limits.memory)"),
    "all memory": ("x = bytearray(2 * 2**30)", "MemoryError"),
    "files": ("kept = [open('/dev/null') for _ in range(200)]", "Too many open files"),
    "file_size": ("open('large', 'wb').write(b'x' * 2**21)", "File too large"),
    "core": ("import os; os.abort()", ""),  # how it ends is not the point: what it leaves behind is
}


@pytest.mark.requirement("stdio.limits")
@pytest.mark.parametrize("what", TAKES)
async def test_a_command_takes_no_more_of_the_machine_than_it_may(what: str, tmp_path: Path) -> None:
    code, end = TAKES[what]
    async with running(python(code, bounds=SMALL, folder=str(tmp_path))) as (_, ear):
        assert end in await ear.last()
    assert set(os.listdir(tmp_path)) <= {"large"}, "a core"


@pytest.mark.requirement("stdio.limits")
async def test_a_program_that_does_not_hear_why_it_was_killed_is_explained(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); open('large', 'wb').write(b'x' * 2**21)"
    async with running(python(code, bounds=SMALL, folder=str(tmp_path))) as (_, ear):
        assert "larger than limits.file_size" in await ear.last()


@pytest.mark.requirement("stdio.limits")
async def test_a_command_that_starts_too_many_processes_is_ended_with_all_of_them() -> None:
    code = """
        import os, signal, time
        for _ in range(200):
            if not os.fork():
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                print(os.getpid())
                time.sleep(600)
        time.sleep(600)
    """
    async with running(python(code, bounds=SMALL)) as (_, ear):
        pids = [int(await ear.hear())]
        assert "where 8 are allowed (limits.processes)" in await ear.last()
        pids += [int(each) for each in ear.lines._queue]  # type: ignore[attr-defined]
    assert len(pids) > 8
    for pid in pids:
        await until(lambda pid=pid: gone(pid))  # type: ignore[misc]


@pytest.mark.requirement("stdio.limits")
async def test_memory_is_that_of_the_whole_family_and_what_is_only_reserved_does_not_count() -> None:
    code = """
        import mmap, os, sys, time
        reserved = mmap.mmap(-1, 600 * 2**20, mmap.MAP_PRIVATE)  # as node does at its start
        print("there")
        time.sleep(1.2)
        print("still there")
        for _ in range(3):
            if not os.fork():
                mine = b"x" * 50 * 2**20
                time.sleep(600)
        time.sleep(600)
    """
    async with running(python(code, bounds=SMALL)) as (_, ear):
        assert [await ear.hear(), await ear.hear()] == ["there", "still there"]
        assert "where 160 are allowed (limits.memory)" in await ear.last()


async def test_as_many_processes_as_it_may_have_are_no_reason() -> None:
    code = """
        import os, sys, time
        for _ in range(7):
            if not os.fork():
                time.sleep(600)
        time.sleep(0.8)
        print("there")
        sys.stdin.read()
    """
    async with running(python(code, bounds=SMALL)) as (_, ear):
        assert await ear.hear() == "there"


async def test_what_is_not_limited_stays_as_it_is() -> None:
    show = python("import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE))")
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with running(replace(show, bounds=Bounds(None, None, None, None))) as (_, ear):
        assert await ear.hear() == f"{ours} (0, 0)"
    async with running(replace(show, bounds=Bounds(files=2**40))) as (_, ear):
        assert await ear.hear() == f"{(ours[1], ours[1])} (0, 0)"
