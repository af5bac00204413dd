"""Finding the gateway and its credential, and what is said when either is not there."""

from __future__ import annotations

import os
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.exits import Stop
from gateway.cli.place import Place, data_folder
from gateway.config import Config, Flags, settle
from tests.cli.conftest import ROOT, Run, Start
from tests.cli.fake_gateway import FakeGateway, Reply
from tests.pki import terminated
from tests.upstream.tls import contexts

LIST = "GET /admin/keys"


def test_the_credential_of_the_data_folder_is_sent(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[LIST] = Reply({"keys": []})
    assert gateway("keys", "list").code == 0


def test_the_environment_comes_before_the_file(
    gateway: Run, fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers[LIST] = Reply({"keys": []})
    fake.token = "another"
    monkeypatch.setenv("GATEWAY_TOKEN", "another")
    assert gateway("keys", "list").code == 0


def test_an_option_names_another_data_folder(gateway: Run, fake: FakeGateway, tmp_path: Path) -> None:
    fake.answers[LIST] = Reply({"keys": []})
    fake.token = "elsewhere"
    (tmp_path / "token").write_text("elsewhere")
    assert gateway("keys", "list", "--data", tmp_path).code == 0


def test_a_refused_credential_says_where_it_was_looked_for(gateway: Run, fake: FakeGateway, data: Path) -> None:
    fake.token = "changed"
    result = gateway("keys", "list")
    assert result.code == 1
    assert "does not accept the credential" in result.err
    assert f"GATEWAY_TOKEN, then {data}/token" in result.err


def test_a_missing_credential_says_where_it_was_looked_for(gateway: Run, fake: FakeGateway, data: Path) -> None:
    (data / "token").unlink()
    result = gateway("keys", "list")
    assert result.code == 1
    assert "none was found" in result.err
    assert f"{data}/token" in result.err


def test_no_gateway_says_how_to_start_one_there(gateway: Run, monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        port = free.getsockname()[1]
        monkeypatch.setenv("GATEWAY_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("GATEWAY_DATA", str(data))
        result = gateway("tasks", "list")
    assert result.code == 4
    assert f"No gateway answers at http://127.0.0.1:{port}: connection refused." in result.err
    assert result.err.strip().endswith(f"gateway serve --port {port}")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", "http://x:port", "http://x?y", "http://u:p@x"])
def test_a_url_that_is_none_is_refused(gateway: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GATEWAY_URL", url)
    result = gateway("tasks", "list")
    assert result.code == 2
    assert "GATEWAY_URL must" in result.err
    assert "u:p" not in result.err


def test_something_that_is_no_gateway_is_told_apart(gateway: Run, fake: FakeGateway) -> None:
    fake.answers[LIST] = Reply("<html>502</html>", 502)
    result = gateway("keys", "list")
    assert result.code == 1
    assert "status 502 and not in the gateway's JSON. Is GATEWAY_URL right?" in result.err


@pytest.mark.security
def test_the_files_credential_never_crosses_a_network_in_clear_text(data: Path) -> None:
    with pytest.raises(Stop, match="not https"):
        Place("http://gw.example", data).credential()
    assert Place("https://gw.example", data).credential() == "local-credential"
    assert Place("http://[::1]:9", data).credential() == "local-credential"
    assert Place("http://gw.example", data, token="meant for it").token == "meant for it"


@pytest.mark.security
def test_a_proxy_of_the_environment_gets_nothing_meant_for_this_machine(
    gateway: Run, fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    fake.answers[LIST] = Reply({"keys": []})
    assert gateway("keys", "list").code == 0


def test_a_gateway_on_this_machine_with_a_certificate_of_ones_own_is_found(
    gateway: Run, fake: FakeGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake.answers[LIST] = Reply({"keys": []})
    server, _ = contexts(tmp_path, "127.0.0.1")
    with terminated(server, int(fake.url.rpartition(":")[2])) as port:
        monkeypatch.setenv("GATEWAY_URL", f"https://127.0.0.1:{port}")
        unknown = gateway("keys", "list")
        assert unknown.code == 4
        assert "is not trusted here" in unknown.err
        assert "SSL_CERT_FILE" in unknown.err
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trust.pem"))
        assert gateway("keys", "list").code == 0


@pytest.mark.security
@pytest.mark.parametrize("content", ["two\nlines", "nö", "a b", "\x1b"])
def test_a_credential_that_would_break_a_header_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(Stop, match="one line of printable characters"):
        Place(data=tmp_path).credential()


@pytest.mark.parametrize(
    "environ",
    [
        {"HOME": "/home/me"},
        {"HOME": "/home/me", "XDG_DATA_HOME": "/xdg"},
        {"HOME": "/home/me", "XDG_DATA_HOME": "relative"},
        {"HOME": "/home/me", "XDG_DATA_HOME": "/xdg", "GATEWAY_DATA": "here"},
        {"GATEWAY_DATA": "/srv/gw"},
    ],
)
@pytest.mark.parametrize("named", [None, Path("named"), Path("/named")])
def test_commands_and_server_find_the_same_data_folder(named: Path | None, environ: dict[str, str]) -> None:
    assert data_folder(named, environ) == settle(Config(), Flags(data=named), environ).data


def test_without_a_home_there_is_no_data_folder() -> None:
    assert data_folder(None, {}) is None


def test_token_prints_the_credential_alone(gateway: Run, data: Path) -> None:
    result = gateway("token", "--data", data)
    assert (result.code, result.out, result.err) == (0, "local-credential\n", "")


def test_token_says_where_there_is_none(gateway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "not the file's")
    result = gateway("token", "--data", tmp_path)
    assert (result.code, result.out) == (1, "")
    assert f"There is no credential at {tmp_path}/token." in result.err


def test_printed_commands_are_quoted_and_name_what_is_not_default(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_DATA", raising=False)
    assert Place("http://127.0.0.1:8080", data_folder(None, os.environ)).command("x").endswith("gateway x")
    place = Place("https://gw.example", Path("/a b"))
    words = shlex.split(place.command("send", "echo", "it's $(reboot)\nnow"))
    assert words[:2] == ["GATEWAY_URL=https://gw.example", "GATEWAY_DATA=/a b"]
    assert words[-3:] == ["send", "echo", "it's $(reboot) now"]


def test_the_program_is_named_as_this_folders_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / ".venv" / "bin" / "gateway"
    script.parent.mkdir(parents=True)
    script.touch()
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert Place().command("serve").endswith(".venv/bin/gateway serve")
    monkeypatch.chdir("/")
    assert str(script) in Place().command("serve") or str(script)[1:] in Place().command("serve")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("PATH", str(script.parent))
    assert Place().command("serve").endswith("gateway serve")
    assert str(script) not in Place().command("serve")


HEAVY = {
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "mcp",
    "pydantic",
    "orjson",
    "yaml",
    "grpc",
    "authlib",
    "asyncpg",
}


def loaded_after(*words: str, environ: dict[str, str] | None = None) -> set[str]:
    program = "import sys\nfrom gateway.cli import main\nmain(sys.argv[1:])\nprint(*sys.modules, file=sys.stderr)"
    process = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in process.stderr.splitlines()[-1].split()}


def test_help_imports_nothing_but_the_standard_library() -> None:
    assert not loaded_after("--help") & (HEAVY | {"httpx2"})


def test_send_imports_none_of_the_servers_libraries(fake: FakeGateway) -> None:
    fake.answers["SendStreamingMessage echo"] = Reply({"message": {"parts": [{"text": "ok"}]}})
    loaded = loaded_after("send", "echo", "hi")
    assert "httpx2" in loaded
    assert not loaded & HEAVY


def test_a_reader_that_has_seen_enough_is_no_error(start: Start, fake: FakeGateway) -> None:
    entry = {"id": "k", "name": "n" * 60, "prefix": "p", "created": 0, "revoked": None}
    fake.answers[LIST] = Reply({"keys": [entry] * 3000})
    process = start("keys", "list")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(20) == 141
