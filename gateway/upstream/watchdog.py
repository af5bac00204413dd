"""Stands between the gateway and a command it started, so that nothing of the command ever outlives the gateway.

    python -I -S watchdog.py LIFELINE GRACE LIMITS PROGRAM [ARGUMENT…]

Run as a program of its own, never imported: standard library only, no threads, so that forking is safe. The command
gets stdin, stdout, stderr and the environment as they are; no byte of it passes through here. LIFELINE is the reading
end of a pipe whose writing end only the gateway holds. When that closes, because the gateway said so or because it
died by whatever signal, the command's process group gets SIGTERM and, GRACE seconds later, everything that descends
from it SIGKILL. The same happens when the command ends by itself and leaves children behind.

On Linux descendants cannot hide: whoever loses its parent becomes a child of this process (PR_SET_CHILD_SUBREAPER,
prctl(2)), also after setsid() and a double fork. Elsewhere only the process group is reached. If this process is
killed itself, the kernel kills the command (PR_SET_PDEATHSIG) and the gateway whoever is left of its session.

LIMITS are `name=number` with commas between. files and file_size hold for each process and are the kernel's
(getrlimit(2)). memory (bytes that are resident) and processes hold for the command's whole family, which is looked at
here a few times a second: the kernel's own limits count addresses that are merely reserved, of which a JavaScript
engine takes half a gigabyte at its start, and whatever else the user runs. More than that ends the command. What one
process may reserve is held to RESERVED more than memory, so that it cannot take the machine between two looks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# After SIGKILL nothing waits for anybody; this only gives the kernel time to say so.
LAST_SECONDS = 2.0
# Between two looks at the family. A fork bomb makes some thousand in that time, which a machine survives.
COUNT_SECONDS = 0.25
# Where the kernel does not list children, every process of the machine has to be looked at: less often.
SCAN_SECONDS = 0.5
# What a process may have reserved on top of its memory: node 24 has 573 MB at its start, 40 of them resident.
RESERVED = 1024 * 1024 * 1024

RESOURCES = {"reserved": resource.RLIMIT_DATA, "files": resource.RLIMIT_NOFILE, "file_size": resource.RLIMIT_FSIZE}


def main(words: list[str]) -> int:
    lifeline, grace, limits, argv = int(words[0]), float(words[1]), _limits(words[2]), words[3:]
    prctl = _prctl()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    awake, wake = os.pipe()
    for end in (awake, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    child = Child(_start(argv, prctl, limits, (lifeline, awake, wake)))
    for end in (0, 1):
        os.close(end)  # or the gateway would never see the command close its own
    try:
        _watch(child, lifeline, awake, limits)
    finally:
        _end(child, grace)
    return child.code


class Child:
    """The command. `status` is that of wait(2), None as long as it runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    @property
    def code(self) -> int:
        """As a shell has it: 128 and the number of the signal that killed it."""
        code = 0 if self.status is None else os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code

    def reap(self) -> None:
        """Bury whoever has died, strangers' children that became ours included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = status


def _limits(words: str) -> dict[str, int]:
    pairs = (word.partition("=") for word in words.split(",") if word)
    limits = {name: int(number) for name, _, number in pairs}
    return {**limits, "reserved": limits["memory"] + RESERVED} if "memory" in limits else limits


def _limit(limits: dict[str, int]) -> None:
    """Of this process and whatever it starts; nobody can raise them again. What is lower already stays."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # memory that holds secrets belongs in no file
    for name, which in RESOURCES.items():
        if name in limits:
            hard = resource.getrlimit(which)[1]
            most = limits[name] if hard == resource.RLIM_INFINITY else min(hard, limits[name])
            resource.setrlimit(which, (most, most))


def _prctl() -> Callable[..., int]:
    if sys.platform != "linux":
        return lambda *_: 0
    prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return prctl


def _start(argv: list[str], prctl: Callable[..., int], limits: dict[str, int], private: tuple[int, ...]) -> int:
    before = os.getpid()
    child = os.fork()
    if child:
        with contextlib.suppress(OSError):
            os.setpgid(child, child)  # here too: whoever of the two comes first
        return child
    try:
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != before:
            os._exit(127)  # it died before the line above could have told us
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        for end in private:
            os.close(end)
        _limit(limits)
        os.execv(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _watch(child: Child, lifeline: int, awake: int, limits: dict[str, int]) -> None:
    """Until the command has ended, the gateway wants it to, or its family is larger than it may be."""
    pause = None
    if ("memory" in limits or "processes" in limits) and os.path.isdir("/proc/self"):
        pause = (COUNT_SECONDS if os.path.exists(_CHILDREN.format(os.getpid(), os.getpid())) else SCAN_SECONDS) * 1000
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(awake, select.POLLIN)
    while child.status is None:
        ready = [fd for fd, _ in poll.poll(pause)]
        if awake in ready:
            told = os.read(awake, 512)
            child.reap()
            if any(number != signal.SIGCHLD for number in told):
                return
        if lifeline in ready:
            return
        if not ready and (problem := _excess(limits)) is not None:
            os.write(2, f"{problem}\n".encode())
            return


def _end(child: Child, grace: float) -> None:
    _signal_group(child.pid, signal.SIGTERM)
    _wait_for_all(child, grace)
    deadline = time.monotonic() + LAST_SECONDS
    while time.monotonic() < deadline:
        _signal_group(child.pid, signal.SIGKILL)
        for pid in _children():
            _signal(pid, signal.SIGKILL)
        # Whoever is killed hands its children to us, so this is asked again until nobody is left.
        if _wait_for_all(child, 0.05):
            return


def _wait_for_all(child: Child, seconds: float) -> bool:
    """Whether there is nobody left to wait for."""
    deadline = time.monotonic() + seconds
    while True:
        child.reap()
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        select.select([], [], [], min(left, 0.01))


def _excess(limits: dict[str, int]) -> str | None:
    """What the family has too much of, in a sentence."""
    most = limits.get("processes")
    family = _family(most)
    if most is not None and len(family) > most:
        return f"{len(family)} processes at the same time, where {most} are allowed (limits.processes)"
    if "memory" in limits:
        used, allowed = sum(map(_resident, family)) >> 20, limits["memory"] >> 20
        if used > allowed:
            return f"{used} MiB of memory, where {allowed} are allowed (limits.memory)"
    return None


def _family(most: int | None) -> list[int]:
    """Who descends from us; nobody is looked for beyond `most`."""
    listed = os.path.exists(_CHILDREN.format(os.getpid(), os.getpid()))
    parents = {} if listed else _parents()
    found: list[int] = []
    left = [os.getpid()]
    while left and (most is None or len(found) <= most):
        pid = left.pop()
        children = _listed(pid) if listed else parents.get(pid, [])
        found += children
        left += children
    return found


def _children() -> list[int]:
    """Our children, orphans that became ours included. Linux only; elsewhere the process group is all there is."""
    return _parents().get(os.getpid(), [])


# Of one thread (CONFIG_PROC_CHILDREN, proc(5)); most kernels have it.
_CHILDREN = "/proc/{}/task/{}/children"


def _listed(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(_CHILDREN.format(pid, thread), encoding="ascii") as file:
                found += map(int, file.read().split())
    return found


def _parents() -> dict[int, list[int]]:
    """Who has which children, of all processes that can be seen."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit() and (fields := _stat(int(name))):
            found.setdefault(int(fields[1]), []).append(int(name))
    return found


def _resident(pid: int) -> int:
    """Bytes of memory that a process has; shared pages count for each that shares them."""
    fields = _stat(pid)
    return int(fields[21]) * resource.getpagesize() if fields else 0


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold anything (proc(5)). Empty for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(leader, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
