"""Remote agents that want to see a certificate: real handshakes, by an authority of the test's own (RFC 8446)."""

from __future__ import annotations

import datetime
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ConfigError
from tests.journeys.test_agent_credentials import hello
from tests.pki import Ca, terminated
from tests.remote import Scripted, admin_agent, card, ready, scripted, until
from tests.serving import Gateway, message, running

pytestmark = [pytest.mark.security, pytest.mark.requirement("a2a.upstream.mtls")]

MTLS: Any = {
    "securitySchemes": {"cert": {"mtlsSecurityScheme": {}}},
    "securityRequirements": [{"schemes": {"cert": {}}}],
}
BOTH = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
EXPIRED = datetime.timedelta(days=-1)


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    folder = tmp_path / "pki"
    folder.mkdir()
    return folder


@asynccontextmanager
async def demanding(tls: ssl.SSLContext, *, mute: bool = False) -> AsyncIterator[Scripted]:
    """An agent that nobody reaches without a certificate, its card neither. A `mute` server says not why."""
    async with scripted(tls=tls if mute else None) as agent:
        port = int(agent.url.rpartition(":")[2])
        with nullcontext(port) if mute else terminated(tls, port) as port:
            agent.url = f"https://127.0.0.1:{port}"
            agent.plays["SendMessage"] = hello
            agent.card = card(agent.url, **MTLS)
            yield agent


def entry(agent: Scripted, *credentials: str) -> str:
    given = f", credentials: {{{', '.join(credentials)}}}" if credentials else ""
    return f"agents:\n  far: {{card_url: '{agent.url}', public: true{given}}}\n"


def shown(pair: tuple[Path, Path], ca: Ca) -> tuple[str, ...]:
    return f"cert: {pair[0]}", f"cert_key: {pair[1]}", f"ca: {ca.ca}"


async def why(gateway: Gateway) -> str:
    """Why the agent cannot be reached."""

    async def told() -> Any:
        return (await admin_agent(gateway, "far")).get("reason")

    return str(await until(told))


@BOTH
async def test_a_certificate_of_the_operators_opens_the_door(
    tmp_path: Path, pki: Path, version: ssl.TLSVersion
) -> None:
    ca = Ca(pki)
    async with (
        demanding(ca.asking(version=version)) as agent,
        running(tmp_path, entry(agent, *shown(ca.gives("gateway"), ca))) as gateway,
    ):
        await ready(gateway, "far")
        task = await gateway.task("hi", agent="far")
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert len(agent.asked) == 1


@BOTH
@pytest.mark.parametrize("mute", [False, True], ids=["with an alert", "mute"])
@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        ("none", "certificate required|handshake failure"),
        ("stranger's", "unknown ca"),
        ("expired", "certificate expired"),
    ],
    ids=["none", "stranger's", "expired"],
)
async def test_what_is_wrong_with_the_certificate_is_said(
    tmp_path: Path, pki: Path, version: ssl.TLSVersion, kind: str, alert: str, *, mute: bool
) -> None:
    ca = Ca(pki)
    pairs = {"stranger's": lambda: Ca(pki, "other").gives("them"), "expired": lambda: ca.gives("old", life=EXPIRED)}
    credentials = shown(pairs[kind](), ca) if kind in pairs else (f"ca: {ca.ca}",)
    async with (
        demanding(ca.asking(version=version), mute=mute) as agent,
        running(tmp_path, entry(agent, *credentials)) as gateway,
    ):
        said = await why(gateway)
        words = "wants another client certificate" if mute else f"the gateway's client certificate: ({alert})"
        assert re.search(words, said), said
        assert str(pki) not in said
        assert agent.asked == []


async def test_a_call_that_is_refused_for_its_certificate_is_an_upstream_error_and_not_sent_twice(
    tmp_path: Path, pki: Path
) -> None:
    """The card is anybody's here, and only the agent asks."""
    ca = Ca(pki)
    async with demanding(ca.asking()) as behind, scripted() as agent:
        agent.card = {**behind.card}
        credentials = (*shown(ca.gives("old", life=EXPIRED), ca), f"origin: '{behind.url}'")
        text = entry(agent, *credentials) + "egress: {allow_loopback: true}\n"
        async with running(tmp_path, text) as gateway:
            await ready(gateway, "far")
            error = await gateway.error("SendMessage", {"message": message("hi")}, agent="far")
            assert "did not accept the gateway's client certificate: certificate expired" in error["message"]
            assert error["data"][0]["reason"] == "UPSTREAM_FAILED"
            assert (behind.asked, agent.asked) == ([], [])


async def test_an_agent_that_cannot_be_verified_gets_nothing(tmp_path: Path, pki: Path) -> None:
    ca = Ca(pki)
    async with demanding(ca.asking()) as agent:
        cert, key = ca.gives("gateway")
        async with running(tmp_path, entry(agent, f"cert: {cert}", f"cert_key: {key}")) as gateway:
            assert "certificate that is not accepted" in await why(gateway)
            assert agent.asked == []


@pytest.mark.parametrize("wrong", ["no file", "another's key", "no certificate", "no authority"])
async def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path, pki: Path, wrong: str) -> None:
    ca = Ca(pki)
    cert, key = ca.gives("gateway")
    if wrong == "no file":
        cert.unlink()
    elif wrong == "another's key":
        key.write_bytes(ca.gives("other")[1].read_bytes())
    elif wrong == "no certificate":
        cert.write_text("hello")
    else:
        ca.ca.write_text("hello")
    given = ", ".join(shown((cert, key), ca))
    text = f"agents:\n  far: {{card_url: 'https://far.example', credentials: {{{given}}}}}\n"
    with pytest.raises(ConfigError) as refused:
        async with running(tmp_path, text):
            raise AssertionError("it has started")
    assert "agents.far.credentials" in str(refused.value)
    assert "PRIVATE" not in str(refused.value)
