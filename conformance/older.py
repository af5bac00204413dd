"""The official kit for A2A 0.3: its categories as its own runner has them, over one transport or both."""

import os
import subprocess
import sys
from pathlib import Path

from conformance.kit import CREDENTIAL_PLUGIN, FIXTURES, KitError, Report, read

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
    # A part of the capabilities, which the kit's own runner cannot choose alone.
    "guarded": "tests/optional/capabilities",
}
PARTS = {"guarded": "authentication or security or tls or https or certificate"}
# What belongs to one transport, and what only several can show.
SINGLE = ("mandatory", "capabilities", "quality", "features")
SEVERAL = ("transport-equivalence",)
# What there is to see only with TLS and where callers need a credential.
GUARDED = ("guarded",)
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")  # for httpx and ssl, and for requests
GRPC_PLUGIN = "kit_03_grpc"
# So long the kit waits for an event; asker.py works for twice as long.
STREAMING_TIMEOUT_S = 2
TIMEOUT_S = 300.0


def find(named: str | None) -> Path | None:
    """The kit's folder, from the argument or A2A_TCK_03; None if neither names one that holds the kit."""
    folder = named or os.environ.get("A2A_TCK_03")
    if not folder or not (Path(folder) / CATEGORIES["mandatory"]).is_dir():
        return None
    return Path(folder).resolve()


def arguments(category: str, transports: str, host: str, junit: Path, plugins: tuple[str, ...] = ()) -> list[str]:
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
        *(["-k", PARTS[category]] if category in PARTS else []),
        *(word for plugin in plugins for word in ("-p", plugin)),
    ]


def run(
    kit: Path,
    host: str,
    reports: Path,
    transports: str,
    categories: tuple[str, ...] = SINGLE,
    credential: Path | None = None,
    certificate: Path | None = None,
) -> Report:
    """These categories of the kit over these transports, against the gateway whose card is at `host`. With the file of
    a credential, the kit's clients show it; what it sends without them goes without one. `certificate`: the one to
    trust."""
    reports.mkdir(parents=True, exist_ok=True)
    plugins = ((GRPC_PLUGIN,) if "grpc" in transports else ()) + ((CREDENTIAL_PLUGIN,) if credential else ())
    tests = []
    for category in categories:
        junit = reports / f"{category}.xml"
        _pytest(kit, arguments(category, transports, host, junit, plugins), junit, credential, certificate)
        tests += list(read(junit))
    return Report(tests)


def _pytest(kit: Path, words: list[str], junit: Path, credential: Path | None, certificate: Path | None) -> None:
    own = kit / ".venv" / "bin" / "python"
    command = [str(own if own.exists() else sys.executable), "-m", "pytest", *words]
    environment = {
        **os.environ,
        "TCK_STREAMING_TIMEOUT": str(STREAMING_TIMEOUT_S),
        **({"KIT_CREDENTIAL": str(credential)} if credential else {}),
        **({variable: str(certificate) for variable in TRUST} if certificate else {}),
        "PYTHONPATH": f"{kit}{os.pathsep}{FIXTURES}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            command, cwd=kit, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise KitError(f"the 0.3 kit did not end within {TIMEOUT_S:.0f} s") from None
    if done.returncode not in (0, 1) or not junit.exists():
        raise KitError(f"the 0.3 kit did not run:\n{(done.stdout + done.stderr)[-2000:]}")
