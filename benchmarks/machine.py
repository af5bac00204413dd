"""The machine: its class for the results, its cores for the programs, and what /proc says about a process."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("gateway", "uvicorn", "uvloop", "httptools", "starlette", "pydantic", "orjson", "msgspec")
PEERS = ("a2a-sdk", "opentelemetry-api", "sqlalchemy", "aiosqlite")

_PROC = Path("/proc")


def describe(folder: Path) -> dict[str, Any]:
    """The class of machine; never its name or its paths. `folder` is where the servers write."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(cores()),
        "memory_gib": round(memory / 2**30, 1),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "data_on": filesystem(folder),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    return {name: found for name in (*PACKAGES, *PEERS) if (found := _version(name)) is not None}


def cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(core: int | None) -> None:
    """Keeps this process, and what it starts from now on, on one core; where the system has a way to say so."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def filesystem(folder: Path) -> str | None:
    """The kind of file system: on tmpfs a commit costs nothing, and figures with one mean nothing."""
    try:
        mounts = [line.split()[1:3] for line in (_PROC / "mounts").read_text().splitlines()]
    except OSError:
        return None
    around = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(around)[1] if around else None


def cpu_seconds(pid: int) -> float | None:
    """Processor time of a process and all its threads so far."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    user, system = stat.rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def peak_memory_mib(pid: int) -> float | None:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", (_PROC / str(pid) / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


def _processor() -> str | None:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", (_PROC / "cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1].strip() if found else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
