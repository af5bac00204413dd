"""A start that cannot be: one sentence each, with what to do, exit code 2 and no traceback. Real processes."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.remote import PROGRAM, command, environment, process
from tests.serving import BOUND, ECHO, ROOT

CARD = f"{ROOT}/agent_cards/echo.json"


def refused(data: Path, config: str | None = None, *flags: str) -> str:
    """What `gateway serve` says on standard error."""
    words = ["serve", "--port", "0", *flags]
    if config is not None:
        (data / "gateway.yaml").write_text(config)
        words += ["--config", "gateway.yaml"]
    ended = command(data, *words)
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    said: str = ended.stderr
    assert said.endswith("\n")
    return said.removesuffix("\n")


FILES = [
    ("agents: [", r"gateway\.yaml:1: .*"),
    ("agents:\n  echo: {run: 'a:b', card: x.json, publik: true}\n", r"gateway\.yaml:2: agents\.echo\.publik: .*public"),
    ("sever: {}\n", r"gateway\.yaml:1: sever: .*server"),
    (
        f"agents:\n  echo:\n    run: nowhere:Echo\n    card: {CARD}\n",
        r"gateway\.yaml:3: agents\.echo\.run: cannot import nowhere: .*; modules are looked for beside",
    ),
    (
        f"agents:\n  echo:\n    run: agents.echo:Ehco\n    card: {CARD}\n",
        r"gateway\.yaml:3: agents\.echo\.run: agents\.echo has no 'Ehco'; it has .*Echo",
    ),
    (
        f"agents:\n  echo:\n    run: agents.echo:Echo\n    card: {CARD}\n    with: {{loud: true}}\n",
        r"gateway\.yaml:3: agents\.echo\.run: `with` does not fit",
    ),
    (
        "agents:\n  echo:\n    run: agents.echo:Echo\n    card: missing.json\n",
        r"gateway\.yaml:4: agents\.echo\.card: cannot read .*missing\.json: No such file",
    ),
    (
        "agents:\n  echo:\n    run: agents.echo:Echo\n    card: gateway.yaml\n",
        r"gateway\.yaml:4: agents\.echo\.card: gateway\.yaml is not strict JSON: .*; correct the file",
    ),
]


@pytest.mark.parametrize(("config", "pattern"), FILES)
def test_a_file_that_is_wrong_is_said_with_line_field_and_remedy(tmp_path: Path, config: str, pattern: str) -> None:
    said = refused(tmp_path, config)
    assert re.match(pattern, said), said
    assert "\n" not in said
    assert "; " in said or "not YAML" in said


def test_a_module_that_breaks_is_named_with_what_it_raised(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    said = refused(tmp_path, f"agents:\n  x:\n    run: broken:x\n    card: {CARD}\n")
    assert said.startswith("gateway.yaml:3: agents.x.run: broken failed while it was imported: ZeroDivisionError")


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    said = refused(tmp_path, None, "--config", "none.yaml")
    assert "none.yaml" in said
    assert "\n" not in said


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(tmp_path, ECHO, "--port", str(port))
        assert said == (
            f"127.0.0.1:{port}: cannot listen: Address already in use — "
            "choose another with --host and --port, or stop what listens there"
        )
        assert not (tmp_path / "gateway.db").exists()


def test_a_grpc_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(tmp_path, ECHO, "--grpc-port", str(port))
        assert said == (
            f"127.0.0.1:{port}: cannot listen for gRPC — choose another with --grpc-port, or stop what listens there"
        )


def test_data_that_another_process_works_on_is_said_with_its_pid(tmp_path: Path) -> None:
    with process(tmp_path, ECHO) as gateway:
        said = refused(tmp_path, ECHO)
        assert f"in use by process {gateway.popen.pid}" in said
        assert "--data" in said
        assert "\n" not in said
        assert gateway.call("GET", "/readyz").status_code == 200


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root may write everywhere")
def test_a_data_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """As nobody when the tests run as root, whom no mode stops."""
    data = tmp_path / "data"
    data.mkdir(mode=0o555)
    words = [str(PROGRAM), "serve", "--port", "0", "--data", str(data)]
    said = _unprivileged(words, tmp_path)
    assert said.startswith(f"{data}: cannot keep data there: Permission denied — choose a folder with --data DIR")


def _unprivileged(words: list[str], cwd: Path) -> str:
    if os.geteuid() == 0:
        # A folder of root's may be closed to others on the way; only what the program itself reaches matters here.
        drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        probe = subprocess.run([*drop, str(PROGRAM), "--version"], capture_output=True, check=False)
        reach = subprocess.run([*drop, "ls", str(cwd)], capture_output=True, check=False)
        if probe.returncode or reach.returncode:
            drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]  # root's id without root's powers
        words = [*drop, *words]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=2 * BOUND, cwd="/", env=environment(cwd))
    assert ended.returncode == 2, ended
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_data_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(tmp_path, ECHO, "--data", str(tmp_path / "file"))
    assert "cannot keep data there" in said
    assert "--data DIR" in said


def test_a_database_of_a_newer_program_is_said(tmp_path: Path) -> None:
    with process(tmp_path, ECHO) as gateway:
        gateway.stop()
    with sqlite3.connect(tmp_path / "gateway.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    said = refused(tmp_path, ECHO)
    assert "written by a newer gateway (format 99" in said
    assert "Start that version again" in said


def test_a_database_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"not a database at all" * 100)
    said = refused(tmp_path, ECHO)
    assert "is not a sound gateway database" in said
    assert "move the file away" in said


MOUNT = ["unshare", "--mount", "sh", "-c"]


@pytest.mark.skipif(
    subprocess.run([*MOUNT, "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False).returncode != 0,
    reason="a small disk needs the right to mount one",
)
@pytest.mark.parametrize("kib", [4, 12, 64])
def test_a_full_disk_is_said(tmp_path: Path, kib: int) -> None:
    """On a disk of its own that is too small, first for the credential, then for the database."""
    line = f'mount -t tmpfs -o size={kib}k tmpfs "{tmp_path}" && exec "{PROGRAM}" serve --port 0 --data "{tmp_path}"'
    ended = subprocess.run(
        [*MOUNT, line], capture_output=True, text=True, timeout=2 * BOUND, cwd="/", env=environment(tmp_path)
    )
    assert ended.returncode == 2, ended
    assert "Traceback" not in ended.stderr
    assert re.search(r"no space left", ended.stderr, re.IGNORECASE), ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_public_listener_asks_for_what_it_needs(tmp_path: Path) -> None:
    said = refused(tmp_path, ECHO, "--host", "0.0.0.0")
    assert "server.public_url: is required to listen on 0.0.0.0" in said
    said = refused(tmp_path, "server: {public_url: 'https://gw.example'}\n", "--host", "0.0.0.0", "--anonymous")
    assert "--anonymous: is refused on 0.0.0.0" in said


PUBLIC = "server: {public_url: 'https://gw.example', "
PROXIED = PUBLIC + "trusted_proxies: [192.0.2.1]}\n" + ECHO


def test_nothing_listens_in_the_clear_beyond_loopback(tmp_path: Path) -> None:
    said = refused(tmp_path, PUBLIC + "drain_seconds: 1}\n" + ECHO, "--host", "0.0.0.0")
    assert said == (
        "gateway.yaml:1: server.tls: is required to listen on 0.0.0.0, beyond loopback; "
        "set it, or server.trusted_proxies to the addresses of the proxy that ends TLS"
    )


def test_nothing_listens_beyond_loopback_where_nobody_could_be_told_apart(tmp_path: Path) -> None:
    assert refused(tmp_path, PROXIED, "--host", "0.0.0.0") == (
        "auth.issuers: nobody could be told apart on 0.0.0.0, beyond loopback — name an identity provider there, "
        "or make a key first, on 127.0.0.1: gateway keys add NAME"
    )
    with process(tmp_path, ECHO) as gateway:
        key = gateway.call("POST", "/admin/keys", json={"name": "ada"}).json()
        gateway.stop()
    with process(tmp_path, PROXIED, "--host", "0.0.0.0") as gateway:
        gateway.stop()
    with process(tmp_path, ECHO) as gateway:
        assert gateway.call("DELETE", f"/admin/keys/{key['id']}").status_code == 204
        gateway.stop()
    assert "nobody could be told apart" in refused(tmp_path, PROXIED, "--host", "0.0.0.0")


OURS = PROXIED + "auth: {authorization_server: {%s}}\n"
EMPTY = (
    "auth.authorization_server: nobody could be told apart on 0.0.0.0, beyond loopback: it has no client of its own, "
    "no user who may log in, and no identity provider — make one first, on 127.0.0.1: gateway clients add NAME, "
    "or gateway users add NAME where users is true; or name a provider under login"
)


@pytest.mark.parametrize(
    "about",
    ["", "users: true", "registration: open", "client_documents: ['*']"],
    ids=["bare", "users", "open", "documents"],
)
def test_an_authorization_server_that_knows_nobody_tells_nobody_apart(tmp_path: Path, about: str) -> None:
    assert refused(tmp_path, OURS % about, "--host", "0.0.0.0") == EMPTY


MADE = {
    "a client": ("/admin/clients", {"id": "agent-7"}, "DELETE", "/admin/clients/agent-7", ""),
    "a user": (
        "/admin/users",
        {"name": "ann", "password": "a long enough one"},
        "DELETE",
        "/admin/users/ann",
        "users: true",
    ),
}


@pytest.mark.parametrize("who", MADE)
def test_it_tells_apart_whoever_was_made_there_as_long_as_they_are(tmp_path: Path, who: str) -> None:
    path, body, verb, gone, about = MADE[who]
    local = ECHO + "auth: {authorization_server: {users: true}}\n"
    with process(tmp_path, local) as gateway:
        assert gateway.call("POST", path, json=body).status_code == 201
        gateway.stop()
    with process(tmp_path, OURS % about, "--host", "0.0.0.0") as gateway:
        gateway.stop()
    if who == "a user":  # who may not log in any more
        assert refused(tmp_path, OURS % "", "--host", "0.0.0.0") == EMPTY
    with process(tmp_path, local) as gateway:
        assert gateway.call(verb, gone).status_code == 204
        gateway.stop()
    assert refused(tmp_path, OURS % about, "--host", "0.0.0.0") == EMPTY


def test_a_client_that_acts_only_for_people_tells_nobody_apart_without_them(tmp_path: Path) -> None:
    with process(tmp_path, ECHO + "auth: {authorization_server: {}}\n") as gateway:
        body = {"id": "desk", "grants": ["device_code"], "public": True}
        assert gateway.call("POST", "/admin/clients", json=body).status_code == 201
        gateway.stop()
    assert refused(tmp_path, OURS % "", "--host", "0.0.0.0") == EMPTY


def test_a_login_elsewhere_tells_people_apart(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("login-secret-of-the-gateway")
    login = f"login: {{issuer: 'https://idp.example', client_id: gw, client_secret_file: {tmp_path}/secret}}"
    with process(tmp_path, OURS % login, "--host", "0.0.0.0") as gateway:
        gateway.stop()


def certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1 that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_the_gateway_ends_tls_itself(tmp_path: Path, port: int) -> None:
    certificate(tmp_path)
    own = f"https://127.0.0.1:{port}"
    text = f"server: {{public_url: '{own}', tls: {{cert: cert.pem, key: key.pem}}}}\n{ECHO}"
    with process(tmp_path, text, port=port) as gateway:
        assert gateway.url == own
        trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        with httpx2.Client(verify=trust, trust_env=False) as client:
            assert client.get(f"{own}/livez").json() == {"status": "ok"}
            card = client.get(f"{own}/agents/echo/.well-known/agent-card.json").json()
            assert card["supportedInterfaces"][0]["url"].startswith(own)
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"http://127.0.0.1:{port}/livez", trust_env=False)


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    text = "server: {public_url: 'https://127.0.0.1:1', tls: {cert: cert.pem, key: key.pem}}\n" + ECHO
    assert "gateway.yaml:1: server.tls: cannot be used: No such file" in refused(tmp_path, text)
    certificate(tmp_path)
    (tmp_path / "key.pem").write_text("nonsense")
    assert "gateway.yaml:1: server.tls: cannot be used" in refused(tmp_path, text)


def test_the_second_start_is_quick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with process(tmp_path) as gateway:
        gateway.stop()
    seconds = []
    for _ in range(2):
        with process(tmp_path) as gateway:
            seconds.append(gateway.seconds)
            gateway.stop()
    with capsys.disabled():
        print(f" [warm start: {min(seconds):.2f} s]", end="")
    assert min(seconds) <= 2  # the promise is 1 s; a processor whose caches others use, too, takes longer


def test_the_data_of_a_start_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with process(data, ECHO):
        for name in ("token", "curl-header", "gateway.db"):
            assert (data / name).stat().st_mode & 0o077 == 0, name
