"""The official kit for A2A 0.3: its categories as its own runner has them, over one transport or both."""

import os
import subprocess
import sys
from pathlib import Path

from conformance.kit import KitError, Report, read

HOW_TO_GET = (
    "No 0.3 kit: git clone -b 0.3.x https://github.com/a2aproject/a2a-tck DIR && python3 -m venv DIR/.venv && "
    "DIR/.venv/bin/pip install -e DIR pytest-html, then A2A_TCK_03=DIR make conformance (or --kit-03 DIR)"
)
# As in run_tck.py: of the mandatory tests those with these marks, of the other categories everything.
MARKS = "mandatory_jsonrpc or mandatory_protocol"
CATEGORIES = {
    "mandatory": "tests/mandatory",
    "capabilities": "tests/optional/capabilities",
    "quality": "tests/optional/quality",
    "features": "tests/optional/features",
    "transport-equivalence": "tests/optional/multi_transport",
}
# What belongs to one transport, and what only two of them can show.
SINGLE = ("mandatory", "capabilities", "quality", "features")
TRANSPORTS: dict[str, tuple[str, ...]] = {"jsonrpc": SINGLE, "rest": SINGLE, "jsonrpc,rest": ("transport-equivalence",)}
# So long the kit waits for an event; asker.py works for twice as long.
STREAMING_TIMEOUT_S = 2
TIMEOUT_S = 300.0


def find(named: str | None) -> Path | None:
    """The kit's folder, from the argument or A2A_TCK_03; None if neither names one that holds the kit."""
    folder = named or os.environ.get("A2A_TCK_03")
    if not folder or not (Path(folder) / CATEGORIES["mandatory"]).is_dir():
        return None
    return Path(folder).resolve()


def arguments(category: str, transports: str, host: str, junit: Path) -> list[str]:
    path, marks = CATEGORIES[category], ["-m", MARKS] if category == "mandatory" else []
    if category == "mandatory" and "jsonrpc" not in transports:
        path, marks = f"{path}/protocol", ["-m", "mandatory_protocol"]
    return [
        path,
        *marks,
        f"--sut-url={host}",
        "--test-scope=all",
        "--transports",
        transports,
        f"--junitxml={junit}",
        "-q",
        "--tb=line",
        "-p",
        "no:cacheprovider",
    ]


def run(kit: Path, host: str, reports: Path, transports: str) -> Report:
    """The kit's categories for these transports against the gateway whose card is at `host`."""
    reports.mkdir(parents=True, exist_ok=True)
    tests = []
    for category in TRANSPORTS[transports]:
        junit = reports / f"{category}.xml"
        _pytest(kit, arguments(category, transports, host, junit), junit)
        tests += list(read(junit))
    return Report(tests)


def _pytest(kit: Path, words: list[str], junit: Path) -> None:
    own = kit / ".venv" / "bin" / "python"
    command = [str(own if own.exists() else sys.executable), "-m", "pytest", *words]
    environment = {**os.environ, "TCK_STREAMING_TIMEOUT": str(STREAMING_TIMEOUT_S), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=kit, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise KitError(f"the 0.3 kit did not end within {TIMEOUT_S:.0f} s") from None
    if done.returncode not in (0, 1) or not junit.exists():
        raise KitError(f"the 0.3 kit did not run:\n{(done.stdout + done.stderr)[-2000:]}")
