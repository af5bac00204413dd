"""Certificates that are renewed while the gateway runs: its own, the authorities of its clients, and what it shows to
agents. Real handshakes, by authorities of the test's own."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from tests.journeys.test_agent_certificates import MTLS, shown
from tests.journeys.test_agent_credentials import hello
from tests.journeys.test_grpc import SERVICE
from tests.pki import Ca, serial, terminated
from tests.remote import Process, card, process, ready, scripted, until
from tests.serving import BOUND, ECHO, running

pytestmark = [pytest.mark.security, pytest.mark.requirement("tls.renewed")]

BOTH = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
HEAD = "GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{}\r\n"
CHANGED = "the files have changed and cannot be used"


class Town:
    """A gateway that ends TLS, and its files. `trust` is the client's context."""

    def __init__(self, folder: Path, port: int, *, asks: bool = False) -> None:
        self.port = port
        self.taken_up: bool | None = None  # whether the last client that was let in came by its session
        self.ca = Ca(folder)
        self.cert, self.key = self.ca.gives("gateway")
        self.client_ca = folder / "clients.pem"
        if asks:
            shutil.copy(self.ca.ca, self.client_ca)
        more = f", client_ca: {self.client_ca}" if asks else ""
        tls = f"tls: {{cert: {self.cert}, key: {self.key}{more}}}"
        self.config = f"server: {{public_url: 'https://127.0.0.1:{port}', {tls}}}\n{ECHO}"

    def trust(self, pair: tuple[Path, Path] | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca.ca)
        if pair is not None:
            context.load_cert_chain(*pair)
        if version is not None:
            context.maximum_version = version
        return context

    def connect(self, tls: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=BOUND)
        try:
            return tls.wrap_socket(raw, server_hostname="127.0.0.1", session=session)
        except BaseException:
            raw.close()
            raise

    def serial(self, tls: ssl.SSLContext | None = None) -> int:
        """Of what a new connection is shown."""
        with self.connect(tls or self.trust()) as connection:
            return number(connection)

    def asked(self, connection: ssl.SSLSocket, path: str = "/livez", *headers: str) -> tuple[int, Any]:
        """A request on this connection."""
        lines = "".join(f"{header}\r\n" for header in headers)
        connection.sendall(HEAD.format(path, self.port, lines).encode())
        file = connection.makefile("rb")
        line = file.readline()
        if not line:
            raise ConnectionResetError
        length = 0
        while (header := file.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return int(line.split()[1]), json.loads(file.read(length))

    def let_in(self, tls: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
        """Whether a client gets an answer: its session, which it could take up again."""
        try:
            with self.connect(tls, session) as connection:
                said = self.asked(connection)[0]
                self.taken_up = connection.session_reused
                return connection.session if said == 200 else None
        except (ssl.SSLError, ConnectionError):
            return None

    def renewals(self, process: Process) -> list[tuple[str, str]]:
        """What the record says of them, the oldest first: object and outcome."""
        path = "/admin/audit?action=RenewCertificate"
        with self.connect(self.trust()) as connection:
            _, page = self.asked(connection, path, f"Authorization: Bearer {process.token}")
        return [(entry["object"], entry["outcome"]) for entry in page["entries"]][::-1]


def number(connection: ssl.SSLSocket) -> int:
    found = connection.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    folder = tmp_path / "pki"
    folder.mkdir()
    return folder


def test_new_connections_have_the_new_certificate_and_those_that_are_there_go_on(
    tmp_path: Path, pki: Path, port: int
) -> None:
    town = Town(pki, port)
    with process(tmp_path, town.config, port=port) as gateway, town.connect(town.trust()) as before:
        first = serial(town.cert)
        assert town.serial() == number(before) == first
        for _ in range(2):
            town.ca.gives("gateway")
            assert serial(town.cert) != first

            def renewed() -> bool:
                assert town.asked(before)[0] == 200
                return town.serial() == serial(town.cert)

            gateway.until(renewed)
        assert number(before) == first
        gateway.until(lambda: town.renewals(gateway) == [("server.tls", "ok")] * 2)
        before.close()
        assert gateway.stop() == (0, "")


@pytest.mark.parametrize("wrong", ["another's key", "half a certificate", "nothing"])
def test_files_that_do_not_fit_change_nothing_and_say_so(tmp_path: Path, pki: Path, port: int, wrong: str) -> None:
    town = Town(pki, port)
    with process(tmp_path, town.config, port=port) as gateway:
        first, text = serial(town.cert), town.cert.read_bytes()
        if wrong == "another's key":
            shutil.copy(town.ca.gives("other")[1], town.key)
        else:
            town.cert.write_bytes(text[: len(text) // 2] if wrong == "half a certificate" else b"")
        gateway.until(lambda: town.renewals(gateway) == [("server.tls", "INVALID_REQUEST")])
        assert town.serial() == first
        town.ca.gives("gateway")
        gateway.until(lambda: town.serial() == serial(town.cert) != first)
        code, said = gateway.stop()
        assert (code, f"server.tls: {CHANGED}" in said) == (0, True), said
        assert "PRIVATE" not in said


def test_files_that_are_gone_for_a_moment_are_no_reason_to_stop(tmp_path: Path, pki: Path, port: int) -> None:
    town = Town(pki, port)
    with process(tmp_path, town.config, port=port) as gateway:
        first = serial(town.cert)
        town.key.unlink()
        gateway.until(lambda: town.renewals(gateway) == [("server.tls", "INVALID_REQUEST")])
        assert town.serial() == first
        town.ca.gives("gateway")
        gateway.until(lambda: town.serial() == serial(town.cert) != first)


@BOTH
@pytest.mark.requirement("tls.no-session-outlives-its-trust")
def test_clients_of_an_authority_that_is_not_trusted_any_more_are_refused(
    tmp_path: Path, pki: Path, port: int, version: ssl.TLSVersion
) -> None:
    """Nor do they come in by a session that began before (RFC 8446 §2.2)."""
    town = Town(pki, port, asks=True)
    other = Ca(pki, "other")
    old, new = town.trust(town.ca.gives("ann"), version), town.trust(other.gives("bob"), version)
    nobody = town.trust(None, version)
    with process(tmp_path, town.config, port=port) as gateway:
        session = town.let_in(old)
        assert session is not None
        assert town.let_in(old, session)
        assert town.taken_up
        assert not town.let_in(new)
        assert not town.let_in(nobody)
        shutil.copy(other.ca, town.client_ca)
        gateway.until(lambda: town.let_in(new))
        assert not town.let_in(old, session)
        assert not town.let_in(old)
        assert not town.let_in(nobody)
        town.client_ca.write_text("nonsense")
        gateway.popen.terminate()
        assert gateway.popen.wait(30) == 0


def test_authorities_that_cannot_be_read_let_nobody_in_who_was_not_let_in(tmp_path: Path, pki: Path, port: int) -> None:
    town = Town(pki, port, asks=True)
    known, unknown = town.trust(town.ca.gives("ann")), town.trust(Ca(pki, "other").gives("bob"))
    with process(tmp_path, town.config, port=port) as gateway:
        assert town.let_in(known)
        town.client_ca.write_text("")
        assert gateway.popen.stderr is not None
        line = next(line for line in iter(gateway.popen.stderr.readline, "") if "server.tls" in line)
        assert CHANGED in line
        assert town.let_in(known)
        assert not town.let_in(unknown)
        assert not town.let_in(town.trust())


async def test_the_grpc_port_follows(tmp_path: Path, pki: Path, port: int) -> None:
    town = Town(pki, port, asks=True)
    other = Ca(pki, "other")
    ann, bob = town.ca.gives("ann"), other.gives("bob")
    async with running(tmp_path, town.config, port=port, grpc_port=0) as gateway:
        assert gateway.app.grpc is not None
        where = f"127.0.0.1:{gateway.app.grpc.port}"

        async def let_in(pair: tuple[Path, Path]) -> bool:
            """Over a channel of its own: gRPC shares connections between those that are alike."""
            key, cert = pair[1].read_bytes(), pair[0].read_bytes()
            credentials = grpc.ssl_channel_credentials(town.ca.ca.read_bytes(), key, cert)
            own = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.secure_channel(where, credentials, own) as channel:
                call: Callable[..., Any] = channel.unary_unary(f"/{SERVICE}/ListTasks")
                try:
                    await call(b"", timeout=BOUND)
                except grpc.aio.AioRpcError as error:
                    return error.code() is not grpc.StatusCode.UNAVAILABLE
            return True

        def shown() -> int:
            tls = town.trust(ann)
            tls.set_alpn_protocols(["h2"])
            with (
                socket.create_connection(("127.0.0.1", int(where.rpartition(":")[2])), timeout=BOUND) as raw,
                tls.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
            ):
                return number(connection)

        assert await asyncio.to_thread(shown) == serial(town.cert)
        assert (await let_in(ann), await let_in(bob)) == (True, False)
        town.ca.gives("gateway")

        async def renewed() -> bool:
            return await asyncio.to_thread(shown) == serial(town.cert)

        await until(renewed)
        shutil.copy(other.ca, town.client_ca)
        await until(lambda: let_in(bob))
        assert not await let_in(ann)
        # HTTP has followed, too, on the loop of asyncio itself.
        assert await asyncio.to_thread(town.let_in, town.trust(bob))
        assert not await asyncio.to_thread(town.let_in, town.trust(ann))


async def test_agents_are_shown_the_new_certificate(
    tmp_path: Path, pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next call is on a connection of its own, though the one before would be good for seconds."""
    ca, seen = Ca(pki), list[int]()
    pair = ca.gives("gateway")
    async with scripted() as agent:
        with terminated(ca.asking(), int(agent.url.rpartition(":")[2]), seen) as port:
            agent.url = f"https://127.0.0.1:{port}"
            agent.plays["SendMessage"] = hello
            agent.card = card(agent.url, **MTLS)
            entry = f"{{card_url: '{agent.url}', public: true, credentials: {{{', '.join(shown(pair, ca))}}}}}"
            async with running(tmp_path, f"agents: {{far: {entry}}}\n") as gateway:
                await ready(gateway, "far")

                async def calls() -> list[int]:
                    answer = await gateway.task("hi", agent="far")
                    assert answer["status"]["state"] == "TASK_STATE_COMPLETED"
                    return seen

                first = serial(pair[0])
                assert set(await calls()) == {first}
                with caplog.at_level(logging.INFO):
                    shutil.copy(ca.gives("other")[1], pair[1])

                    async def said() -> bool:
                        await calls()
                        return f"agents.far.credentials: {CHANGED}" in caplog.text

                    await until(said)
                assert set(seen) == {first}
                ca.gives("gateway")

                async def renewed() -> bool:
                    return serial(pair[0]) in await calls()

                await until(renewed)
                seen.clear()
                await calls()
                assert set(seen) <= {serial(pair[0])}
                entries = [entry for _, entry in await gateway.app.store.audit(0, 1000)]
                told = [(each.target, each.outcome) for each in entries if each.verb == "RenewCertificate"]
                assert told[-2:] == [("agents.far.credentials", "INVALID_REQUEST"), ("agents.far.credentials", "ok")]
