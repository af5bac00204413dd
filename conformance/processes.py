"""The programs of a conformance run: the real gateway and the remote agent, each its own process."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from conformance import certificates, sut

CARDS = ("card", "extended_card")  # settings that name files, from the folder of the configuration
WITH_TLS = "127.0.0.2"  # the kit for 0.3 looks at no TLS where an address begins with 127.0.0.1
REMOTE = Path(__file__).with_name("a2a-remote.yaml")
START_S = 60.0
STOP_S = 15.0


class StartError(Exception):
    """A program did not come up; the message has the end of what it said."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def gateway(config: Path, folder: Path, *, anonymous: bool = True, grpc: bool = True) -> Iterator[str]:
    """The gateway with this configuration and a fresh data folder; its base URL. `anonymous`: callers need no
    credential; otherwise there is `credential`."""
    port = free_port()
    command = _serve(config, folder, port)
    command += ["--grpc-port", str(free_port())] if grpc else []
    command += ["--anonymous"] if anonymous else []
    base = f"http://127.0.0.1:{port}"
    with _running(command, f"{base}/readyz", folder / "gateway.log"):
        yield base


@contextmanager
def gateway_with_tls(config: Path, folder: Path) -> Iterator[str]:
    """The gateway on HTTPS, with the certificate that `certificate_file` names; callers need a credential."""
    port = free_port()
    base = f"https://{WITH_TLS}:{port}"
    certificate, key = certificate_file(folder), folder / "key.pem"
    certificates.make(WITH_TLS, certificate, key)
    own = variant(config, folder, public_url=base, tls={"cert": str(certificate), "key": str(key)})
    command = [*_serve(own, folder, port), "--host", WITH_TLS]
    with _running(command, f"{base}/readyz", folder / "gateway.log", certificate):
        yield base


def certificate_file(folder: Path) -> Path:
    """The certificate of the gateway that runs in `folder`; whoever calls it has to trust this."""
    return folder / "certificate.pem"


def variant(config: Path, folder: Path, **server: object) -> Path:
    """A copy of `config` in `folder` with other settings of `server`."""
    tree = yaml.safe_load(config.read_text("utf-8"))
    tree["server"] = {**tree["server"], **server}
    for each in tree["agents"].values():
        each.update({key: str((config.parent / each[key]).resolve()) for key in CARDS if key in each})
    copy = folder / "variant.yaml"
    copy.write_text(yaml.safe_dump(tree), "utf-8")
    return copy


def _serve(config: Path, folder: Path, port: int) -> list[str]:
    data = _data(folder)
    data.mkdir(parents=True)
    program = Path(sys.executable).with_name("gateway")
    return [str(word) for word in (program, "serve", "--config", config, "--port", port, "--data", data)]


def credential_file(folder: Path) -> Path:
    """Where the local credential of the gateway that runs in `folder` is."""
    return _data(folder) / "token"


def credential(folder: Path) -> str:
    return credential_file(folder).read_text("ascii").strip()


def _data(folder: Path) -> Path:
    return folder / "data"


@contextmanager
def agent(port: int, folder: Path, *, push: bool = False, version: str = "1.0") -> Iterator[str]:
    """The remote agent of sut.py; its base URL."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "conformance.sut", "--port", str(port), "--version", version]
    command += ["--push"] if push else []
    base = f"http://127.0.0.1:{port}"
    with _running(command, f"{base}/.well-known/agent-card.json", folder / "agent.log"):
        yield base


@contextmanager
def remote(folder: Path, version: str) -> Iterator[Path]:
    """That agent, speaking one version alone; the configuration of a gateway in front of it."""
    # Somebody may be using the port that the file names, so the agent gets another one, and so does the file.
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / REMOTE.name
    config.write_text(REMOTE.read_text("utf-8").replace(f"127.0.0.1:{sut.PORT}", f"127.0.0.1:{port}"), "utf-8")
    with agent(port, folder, version=version):
        yield config


@contextmanager
def behind_a_gateway(folder: Path, version: str) -> Iterator[str]:
    """That agent behind a gateway of its own; the gateway's base URL."""
    with remote(folder, version) as config, gateway(config, folder) as base:
        yield base


@contextmanager
def agent_program(command: list[str], port: int, log: Path) -> Iterator[None]:
    """An agent whose card is at that port of 127.0.0.1, as soon as it is there."""
    with _running(command, f"http://127.0.0.1:{port}/.well-known/agent-card.json", log):
        yield


@contextmanager
def acp_server(python: Path, program: Path, port: int, log: Path) -> Iterator[str]:
    """The agent server of fixtures/acp_server.py, in the interpreter that has its SDK; its URL."""
    base = f"http://127.0.0.1:{port}"
    with _running([str(python), str(program), str(port)], f"{base}/ping", log):
        yield base


@contextmanager
def tool_server(port: int, era: str, log: Path) -> Iterator[str]:
    """The tool server of fixtures/, speaking one era; its URL."""
    words = ["-m", "conformance.fixtures.tool_server", "--http", str(port), "--era", era]
    url = f"http://127.0.0.1:{port}/mcp"
    with _running([sys.executable, *words], url, log):
        yield url


@contextmanager
def old_tool_server(python: Path, port: int, log: Path) -> Iterator[str]:
    """The tool server on the SDK of before 2026-07-28, in the interpreter that has it; its URL."""
    url = f"http://127.0.0.1:{port}/mcp"
    program = Path(__file__).with_name("fixtures") / "legacy_tool_server.py"
    with _running([str(python), str(program), "--http", str(port)], url, log):
        yield url


@contextmanager
def _running(command: list[str], ready: str, log: Path, ca: Path | None = None) -> Iterator[None]:
    # A GATEWAY_… variable of the person's own shell would make it another configuration than the results say.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        except OSError as error:
            raise StartError(f"{command[0]}: {error.strerror}") from None
        try:
            _wait_until(ready, process, log, ca)
            yield
        finally:
            _stop(process)


def _wait_until(ready: str, process: "subprocess.Popen[bytes]", log: Path, ca: Path | None) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartError(f"ended at once with {process.returncode}:\n{_end_of(log)}")
        if _answers(ready, ca):
            return
        time.sleep(0.05)
    raise StartError(f"{ready} did not answer within {START_S:.0f} s:\n{_end_of(log)}")


def _answers(url: str, ca: Path | None) -> bool:
    try:
        # Nothing between us and loopback, whatever proxy the environment names.
        trusted = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), trusted)
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError:
        return not url.endswith("/readyz")  # a tool server has no answer to a bare GET, and says so
    except (urllib.error.URLError, OSError):
        return False


def _end_of(log: Path) -> str:
    return log.read_text("utf-8", errors="replace")[-2000:]


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
