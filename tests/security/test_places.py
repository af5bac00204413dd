"""Advisories about where the gateway goes, and with what in its hand, when a card, a name or a body says so."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from gateway.model.principal import LOCAL
from gateway.server.auth import Authenticator
from gateway.upstream import address, head
from gateway.upstream.address import EgressRules
from tests.journeys.test_agent_credentials import SECRET, api_key, hello, house, key
from tests.ports import reserved
from tests.remote import Asked, ready, scripted
from tests.security.twins import Attacks, Attempt, each_of
from tests.serving import ECHO, Gateway, message, running
from tests.upstream import loopback

pytestmark = pytest.mark.security


async def ask(gateway: Gateway, agent: str = "far") -> Any:
    return await gateway.rpc("SendMessage", {"message": message("hi")}, agent=agent)


# The attacks: each says of all its forms whether they got what they must not get.


async def a_name_that_changes_its_mind(data: Path) -> list[bool]:
    """When the agent is asked for the first time its name is that of a good address; for the second time it is that of
    this machine, where something listens on the same port."""
    looks: list[str] = []

    async def lookup(host: str, port: int, **more: Any) -> Any:
        looks.append(host)
        where = "127.0.0.2" if len(looks) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (where, port))]

    async def closing(asked: Asked) -> None:
        task = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"task": task}}).encode()
        asked.whole(body, connection="close")
        asked.end()

    canary = loopback.always(loopback.answer())
    async with AsyncExitStack() as stack:
        port = stack.enter_context(reserved())
        agent = await stack.enter_async_context(scripted())
        await stack.enter_async_context(loopback.serve(agent.play, host="127.0.0.2", port=port))
        inside = await stack.enter_async_context(loopback.serve(canary, port=port))
        agent.plays["SendMessage"] = closing
        agent.card["supportedInterfaces"][0]["url"] = f"http://rebind.test:{port}/"
        entry = f"agents:\n  far: {{card_url: '{agent.url}', public: true}}\negress: {{allow: ['127.0.0.2']}}\n"
        async with running(data, entry) as gateway:
            await ready(gateway, "far")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
                assert "result" in await ask(gateway)
                await ask(gateway)
        assert len(looks) == 2
        return [inside.connections > 0]


CARRIED = (
    "http://100.64.0.1/",
    "http://100.100.100.200/",
    "http://[2002:7f00:1::1]/",
    "http://[2002:a9fe:a9fe::]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[fec0::1]/",
    "http://192.0.0.192/",
    "http://198.18.0.1/",
    "http://[::127.0.0.1]/",
    "http://[2001:0:7f00:1::]/",
)


async def addresses_that_carry_others(data: Path) -> list[bool]:
    """As a webhook, which is stored now and called later. The task has ended, so nobody calls anything here."""
    async with running(data, ECHO) as gateway:
        id = (await gateway.task("count 1"))["id"]
        params = ({"taskId": id, "url": url} for url in CARRIED)
        return ["result" in await gateway.rpc("CreateTaskPushNotificationConfig", each) for each in params]


async def a_plugin_from_a_url(data: Path) -> list[bool]:
    """Without a credential, to everything that takes something: does the gateway fetch it, or even run it?"""
    async with loopback.serve(loopback.always(loopback.answer(b"open('ran', 'w')"))) as thief, running(data) as gateway:
        routes = gateway.app.asgi._inside._rest.routes  # type: ignore[attr-defined]
        paths = {each.path for each in routes if isinstance(each, Route) and "POST" in (each.methods or ())}
        assert len(paths) > 30
        url = f"{thief.url}/plugin.py"
        names = ("cardUrl", "url", "path", "source", "plugin", "module", "run", "uri", "command", "server")
        bodies: list[dict[str, Any]] = [{"name": "mine", "enabled": True, "path": url}, dict.fromkeys(names, url)]
        for path in sorted({*paths, "/api/plugins", "/plugins", "/admin/plugins"}):
            for body in (*bodies, *({name: url} for name in names)):
                await gateway.client.post(path.replace("{id}", "mine"), json=body)
        return [thief.connections > 0]


NAMES = ("Host", "X-Key: 1\r\nX-Evil")


async def a_header_of_the_cards_choice(data: Path) -> list[bool]:
    """The card names the header that the operator's key goes into: one that frames the request, or two at once."""
    got = []
    for number, name in enumerate(NAMES):
        folder = data / str(number)
        folder.mkdir()
        needs: Any = [{"schemes": {"one": {"list": []}}}]
        schemes: Any = {"one": api_key("header", name)}
        async with house(folder, key(folder), schemes=schemes, requirements=needs) as (gateway, agent):
            agent.plays["SendMessage"] = hello
            await ready(gateway, "far")
            await ask(gateway)
            got.append(any(SECRET in (each.headers["host"], each.headers.get("x-evil")) for each in agent.asked))
    return got


# The twins: what stands in the place of one defence.


def looks_at_names_once(patch: pytest.MonkeyPatch) -> None:
    """When they are registered; what they mean when they are called is not asked again."""
    patch.setattr(EgressRules, "admits", lambda self, address, port, *, named: True)


_LIST = [
    ip_network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16")
]
_LIST += [ip_network(each) for each in ("::1/128", "fc00::/7", "fe80::/10")]


def has_a_list_of_what_is_private(patch: pytest.MonkeyPatch) -> None:
    def kind(found: address.Address) -> str | None:
        return "private" if any(ip_address(str(found)) in network for network in _LIST) else None

    patch.setattr(address, "_kind", kind)


def asks_for_no_credential(patch: pytest.MonkeyPatch) -> None:
    async def principal(self: Authenticator, *asked: Any) -> Any:
        return LOCAL

    patch.setattr(Authenticator, "principal", principal)


def writes_any_header(patch: pytest.MonkeyPatch) -> None:
    def made(method: str, target: str, authority: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        fields = {"host": authority, "accept": "*/*", **dict(headers)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {target} HTTP/1.1\r\n{lines}".encode()

    patch.setattr(head, "_head", made)


ATTACKS: Attacks[Path] = {
    "rebinding": (a_name_that_changes_its_mind, looks_at_names_once),
    "carried": (addresses_that_carry_others, has_a_list_of_what_is_private),
    "plugin": (a_plugin_from_a_url, asks_for_no_credential),
    "header-name": (a_header_of_the_cards_choice, writes_any_header),
}


@each_of(ATTACKS)
async def test_nobody_sends_the_gateway_where_it_must_not_go_but_its_broken_twin(
    tmp_path: Path, attempt: Attempt[Path]
) -> None:
    await attempt(tmp_path)
