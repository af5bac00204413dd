"""/admin on a listener of its own: nowhere else, with the same credentials and policy, and found by the commands."""

from __future__ import annotations

import re
import signal
import stat
from pathlib import Path

import httpx2
import pytest
from starlette.routing import Route

from gateway.server.admin import Admin
from tests.journeys.test_startup import refused
from tests.remote import Process, command, process
from tests.serving import ECHO

OWN = "server: {admin: '127.0.0.1:0'}\n"


def routes() -> list[tuple[str, str]]:
    """Every verb and path of the admin API."""
    unused = object()
    made = Admin(unused, unused, unused, unused).routes()  # type: ignore[arg-type]
    assert all(isinstance(route, Route) for route in made)
    return [(verb, re.sub(r"\{\w+:int\}", "7", route.path)) for route in made for verb in sorted(route.methods or ())]


def told(process: Process) -> str:
    """Where the admin API is, as the start says."""
    assert process.popen.stdout is not None
    return next(line.split()[-1] for line in iter(process.popen.stdout.readline, "") if line.startswith("  admin: "))


def client(url: str) -> httpx2.Client:
    path = url.removeprefix("unix:") if url.startswith("unix:") else None
    return httpx2.Client(
        base_url="http://localhost" if path else url,
        transport=httpx2.HTTPTransport(uds=path) if path else None,
        trust_env=False,
    )


@pytest.mark.security
@pytest.mark.parametrize("kind", ["address", "socket"])
def test_the_admin_api_is_there_and_nowhere_else(tmp_path: Path, kind: str) -> None:
    own = OWN if kind == "address" else f"server: {{admin: 'unix:{tmp_path}/admin.sock'}}\n"
    with process(tmp_path, ECHO + own) as running:
        url = told(running)
        token = {"Authorization": f"Bearer {(tmp_path / 'token').read_text().strip()}"}
        with client(running.url) as public, client(url) as admin:
            for verb, path in routes():
                assert public.request(verb, path, headers=token).status_code == 404, (verb, path)
                assert admin.request(verb, path).status_code == 401, (verb, path)
            assert admin.get("/admin/keys", headers=token).status_code == 200
            made = admin.post("/admin/keys", json={"name": "ann"}, headers=token)
            ann = {"Authorization": f"Bearer {made.json()['key']}"}
            assert admin.get("/admin/keys", headers=ann).status_code == 403
            assert public.get("/agents", headers=ann).status_code == 200
            for path in ("/agents", "/", "/mcp", "/agents/echo", "/.well-known/agent-card.json", "/acp/ping"):
                assert admin.post(path, json={}, headers=token).status_code in (404, 405), path
            assert admin.get("/readyz").status_code == public.get("/readyz").status_code == 200
            assert admin.get("/admin/keys", headers={**token, "Host": "evil.example"}).status_code == 421
            assert admin.get("/admin/keys", headers={**token, "Origin": running.url}).status_code == 403


@pytest.mark.parametrize("kind", ["address", "socket"])
def test_the_commands_find_it(tmp_path: Path, kind: str) -> None:
    own = OWN if kind == "address" else f"server: {{admin: 'unix:{tmp_path}/admin.sock'}}\n"
    with process(tmp_path, ECHO + own) as running:
        told(running)
        listed = command(tmp_path, "agents", "list", url=running.url)
        assert (listed.returncode, "echo" in listed.stdout) == (0, True), listed
        assert command(tmp_path, "send", "echo", "hi", url=running.url).stdout == "hi\n"
        elsewhere = command(tmp_path, "frozen", url=running.url, GATEWAY_ADMIN_URL=running.url)
        assert elsewhere.stderr == "gateway: There is nothing at this path\n"
        running.popen.send_signal(signal.SIGTERM)
        assert running.popen.wait(30) == 0
    assert not (tmp_path / "admin.sock").exists()
    with process(tmp_path, ECHO) as again:  # without the setting, nobody looks there any more
        assert command(tmp_path, "agents", "list", url=again.url).returncode == 0


def test_a_socket_is_its_owners_and_one_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    own = f"server: {{admin: 'unix:{path}'}}\n"
    with process(tmp_path, ECHO + own) as running:
        told(running)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        running.popen.kill()
        running.popen.wait(30)
    assert path.exists()
    with process(tmp_path, ECHO + own) as running:
        told(running)
        assert command(tmp_path, "frozen", url=running.url).stderr == "Nothing is frozen.\n"
        (tmp_path / "other").mkdir()
        said = refused(tmp_path / "other", ECHO + own)
    assert said.startswith(f"{path}: cannot listen: Address already in use")


RULES = [
    ("server: {admin: '10.0.0.1:9'}", "server.tls: is required to serve /admin on 10.0.0.1, beyond loopback"),
    (
        "server: {admin: '0.0.0.0:0', trusted_proxies: [10.0.0.0/8]}",
        "auth.issuers: nobody could be told apart on 0.0.0.0, beyond loopback",
    ),
    (
        "server: {admin: '0.0.0.0:0', trusted_proxies: [10.0.0.0/8]}\nauth: {anonymous: true}",
        "server.admin: is refused with /admin on 0.0.0.0, beyond loopback",
    ),
    ("server: {admin: '9090'}", "server.admin: must be HOST:PORT or unix:/PATH"),
    ("server: {admin: 'unix:admin.sock'}", "server.admin: must be unix: and an absolute path"),
    ("server: {admin: 'unix:/nowhere/admin.sock'}", "cannot listen: No such file or directory"),
]


@pytest.mark.security
@pytest.mark.parametrize(
    ("config", "sentence"), RULES, ids=[sentence.split(":")[0] + str(n) for n, (_, sentence) in enumerate(RULES)]
)
def test_the_rules_of_the_start_hold_for_it(tmp_path: Path, config: str, sentence: str) -> None:
    assert sentence in refused(tmp_path, ECHO + config + "\n")
