"""Advisories about what the gateway asks of others: whom it asks (SSRF), and how a request is put together.

Whether one got through is seen where it would arrive: whoever must not be asked listens, and nobody may come.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from gateway.core.gateway import Gateway as Core
from gateway.core.policy import RULES
from gateway.core.policy.rules import simple
from gateway.dialects.mcp import headers
from gateway.model.whom import EVERYBODY
from gateway.upstream import head
from gateway.upstream.address import EgressRules, Origin
from gateway.upstream.answer import Answer
from gateway.upstream.egress import Egress
from gateway.upstream.http1 import Connection
from gateway.upstream.pool import Pool
from tests.mcp import Door, configured, tool
from tests.mcp import scripted as tool_server
from tests.ports import reserved
from tests.remote import admin_agent, agents, card, ready, until
from tests.security.twins import Attack, Attacks, Attempt, Twin, broken_by, each_of
from tests.serving import ECHO, Gateway, message, running
from tests.upstream import tls
from tests.upstream.loopback import Request, Upstream, always, answer, serve

pytestmark = pytest.mark.security

PUBLIC = "127.0.0.9"  # an address that a gateway is allowed to call here; 127.0.0.1 is none


@pytest.fixture(autouse=True)
def _other_loopbacks() -> None:
    with socket.socket() as probe:
        try:
            probe.bind((PUBLIC, 0))
        except OSError:
            pytest.skip("only 127.0.0.1 is loopback on this machine")


async def send(gateway: Gateway, agent: str, **more: Any) -> None:
    """A message, whatever comes of it."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("hi"), **more}}
    await gateway.post(body, agent=agent)


# Paths. What an agent calls its task is a part of the address at which it is asked about it.

CLIMBING = ("..", ".", "../../../admin/keys", "x/../../../../admin", "..%2f..%2f..%2fadmin", "%2e%2e/%2e%2e/admin")
OWN = re.compile(
    r"GET (?:/card\.json|/inner/agents/far|/inner/agent(?:/v1)?/tasks/[^/]+|/inner/runs/[^/]+)"
    r"|POST (?:/inner/agent(?:/v1)?/message:send|/inner/runs)"
)


@dataclass
class Inner:
    """An agent beside other applications on one origin, behind a proxy that resolves paths before it looks whose they
    are. It calls its tasks as it likes."""

    dialect: str
    task: str

    async def play(self, asked: Request, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path, base = asked.line.split()[1], f"http://{asked.headers['host']}/inner/agent"
        tree = self._described(base) if path.endswith(("/card.json", "/agents/far")) else self._told(path)
        writer.write(answer(json.dumps(tree).encode(), content_type="application/json"))

    def _described(self, base: str) -> Any:
        made = card(base, name="far", streaming=False)
        if self.dialect == "acp":
            return {"name": "far", "description": "A", "input_content_types": ["*/*"], "metadata": {}}
        if self.dialect == "0.3":
            del made["supportedInterfaces"]
            return {**made, "protocolVersion": "0.3.0", "url": base, "preferredTransport": "HTTP+JSON"}
        interface = {"url": base, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"}
        return {**made, "supportedInterfaces": [interface]}

    def _told(self, path: str) -> Any:
        """A new task goes on; whoever asks after it hears that it has ended."""
        begins = path.endswith((":send", "/runs"))
        if self.dialect == "acp":
            about: dict[str, Any] = {
                "agent_name": "far",
                "session_id": None,
                "output": [],
                "created_at": "2026-01-01T00:00:00Z",
            }
            return {**about, "run_id": self.task, "status": "in-progress" if begins else "completed"}
        state = "TASK_STATE_WORKING" if begins else "TASK_STATE_COMPLETED"
        task = {"id": self.task, "contextId": "c", "status": {"state": state}}
        return {"task": task} if begins else task


async def an_id_that_climbs(data: Path) -> list[bool]:
    async with AsyncExitStack() as stack:
        there: dict[str, Upstream] = {}
        for dialect in ("1.0", "0.3", "acp"):
            for number, id in enumerate(CLIMBING):
                name = f"a{dialect.replace('.', '')}-{number}"
                there[name] = await stack.enter_async_context(serve(Inner(dialect, id).play))
        urls = {name: up.url + ("/inner/agents/far" if "acp" in name else "/card.json") for name, up in there.items()}
        gateway = await stack.enter_async_context(running(data, agents(**urls)))
        await ready(gateway, *there)
        await asyncio.gather(*(send(gateway, name) for name in there))
        for up in there.values():
            assert len(up.requests) >= 2  # the card and the message
        return [any(not OWN.fullmatch(_resolved(each)) for each in up.requests) for up in there.values()]


def _resolved(asked: Request) -> str:
    verb, target, _ = asked.line.split()
    return f"{verb} {posixpath.normpath(unquote(unquote(target)))}"


def puts_ids_in_as_they_are(patch: pytest.MonkeyPatch) -> None:
    for module in ("gateway.dialects.a2a_v1.upstream", "gateway.dialects.a2a_v03.upstream", "gateway.upstream.acp"):
        patch.setattr(f"{module}.segment", lambda text: text)


# Webhooks: a caller says whom the gateway tells.

INSIDE = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0", "inner.test")


def resolves(patch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Names that end in .test have these addresses, one after the other, the last for ever; gives who was asked for."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **how: Any) -> Any:
        if not str(host).endswith(".test"):
            return await real(host, port, **how)
        asked.append(host)
        return await real(answers[min(len(asked), len(answers)) - 1], port, type=socket.SOCK_STREAM)

    patch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


async def a_webhook_inside(data: Path, patch: pytest.MonkeyPatch) -> list[bool]:
    """Registered in each of the three ways, in both versions. What is refused at once is not tried; of the name it is
    known only when it is resolved."""
    resolves(patch, "127.0.0.1")
    async with serve(always(answer()), host="0.0.0.0") as inside, running(data, ECHO) as gateway:
        task = (await gateway.task("ask"))["id"]
        for number, host in enumerate(INSIDE):
            url = f"http://{host}:{inside.port}"
            inline = {"configuration": {"taskPushNotificationConfig": {"url": f"{url}/sent-{number}"}}}
            await send(gateway, "echo", **inline)
            older = {"pushNotificationConfig": {"url": f"{url}/older-{number}"}}
            await _older(gateway, {"configuration": older})
            config = {"taskId": task, "url": f"{url}/made-{number}", "id": str(number)}
            await gateway.rpc("CreateTaskPushNotificationConfig", config)
        await gateway.task("hi", taskId=task)
        ways = [f"/{way}-{number}" for way in ("sent", "older", "made") for number in range(len(INSIDE))]

        def told() -> set[str]:
            return {each.line.split()[1] for each in inside.requests}

        async def tried() -> bool:
            """All were told; or, of each way, the name was tried in vain."""
            return told() == set(ways) or len(await _failed(gateway)) == 3

        await until(tried)
        assert told() <= set(ways)
        return [way in told() for way in ways]


async def _older(gateway: Gateway, more: Any) -> None:
    said = {"kind": "message", "messageId": message("x")["messageId"], "role": "user"}
    params = {"message": {**said, "parts": [{"kind": "text", "text": "hi"}]}, **more}
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": params}
    answered = await gateway.post(body, A2A_Version="0.3")
    assert answered.status_code == 200


async def _queues(gateway: Gateway) -> list[dict[str, Any]]:
    queues: list[dict[str, Any]] = (await gateway.client.get("/admin/push", headers=gateway.bearer(None))).json()[
        "queues"
    ]
    return queues


async def _failed(gateway: Gateway) -> list[dict[str, Any]]:
    """The pushes that were tried in vain."""
    return [each for each in await _queues(gateway) if each["problem"]]


async def _tried(gateway: Gateway, *hooks: Upstream) -> bool:
    """Whether each of these webhooks was told something, and nothing waits that was not tried."""
    return all(hook.requests for hook in hooks) and all(each["problem"] for each in await _queues(gateway))


async def a_redirect_inside(data: Path) -> list[bool]:
    """The webhooks are where they may be, and send on."""
    async with AsyncExitStack() as stack:
        inside, hooks = [], []
        gateway = await stack.enter_async_context(running(data, ECHO + ALLOWED))
        for status in ("301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
            up = await stack.enter_async_context(serve(always(answer())))
            hook = await stack.enter_async_context(serve(always(answer(b"", status, location=up.url)), host=PUBLIC))
            config = {"url": f"http://{PUBLIC}:{hook.port}/"}
            await send(gateway, "echo", configuration={"taskPushNotificationConfig": config})
            inside.append(up)
            hooks.append(hook)
        await until(lambda: _tried(gateway, *hooks))
        return [bool(each.connections) for each in inside]


ALLOWED = f"egress: {{allow: ['{PUBLIC}']}}\n"


def admits_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EgressRules, "judge", lambda self, *asked, **how: None)
    patch.setattr(EgressRules, "admits", lambda self, *asked, **how: True)


def follows_redirects(patch: pytest.MonkeyPatch) -> None:
    sound = Egress.request

    async def request(self: Egress, method: str, url: str, *sent: Any, **how: Any) -> Answer:
        answered = await sound(self, method, url, *sent, **how)
        there = answered.headers.get("location")
        return answered if there is None else await sound(self, method, there, *sent, **{**how, "trusted": True})

    patch.setattr(Egress, "request", request)


async def a_name_with_two_answers(data: Path, patch: pytest.MonkeyPatch) -> list[bool]:
    """The first answer may be called, the second may not; a client that resolves again connects to the second."""
    with reserved() as port:
        async with (
            serve(always(answer()), host=PUBLIC, port=port) as outside,
            serve(always(answer()), port=port) as inside,
            running(data, ECHO + ALLOWED) as gateway,
        ):
            resolves(patch, PUBLIC, "127.0.0.1")
            config = {"url": f"http://rebinding.test:{port}/"}
            await send(gateway, "echo", configuration={"taskPushNotificationConfig": config})
            await until(lambda: _tried(gateway, inside if inside.requests else outside))
            return [bool(inside.connections)]


def resolves_again(patch: pytest.MonkeyPatch) -> None:
    sound = Pool._addresses

    async def addresses(self: Pool, origin: Origin) -> Any:
        judged, called = await sound(self, origin), await sound(self, origin)
        return [one._replace(place=two.place) for one, two in zip(judged, called, strict=True)]

    patch.setattr(Pool, "_addresses", addresses)


# Cards: an agent says where it is.


async def a_card_that_points_inside(data: Path) -> list[bool]:
    """Its own place the operator named; every other one is somebody's word."""
    async with AsyncExitStack() as stack:
        inside = [await stack.enter_async_context(serve(always(answer()))) for _ in range(5)]
        jsonrpc, rest, older, rpc, moved = inside
        described = [
            _interfaces(("JSONRPC", f"{jsonrpc.url}/")),
            _interfaces(("HTTP+JSON", f"{rest.url}/")),
            {**_interfaces(), "protocolVersion": "0.3.0", "url": f"{older.url}/", "preferredTransport": "JSONRPC"},
            _interfaces(("GRPC", f"127.0.0.1:{rpc.port}")),
        ]
        del described[2]["supportedInterfaces"]
        answers = [answer(json.dumps(each).encode(), content_type="application/json") for each in described]
        answers.append(answer(b"", "302 Found", location=f"{moved.url}/card.json"))
        theirs = [await stack.enter_async_context(serve(always(each))) for each in answers]
        urls = {f"far{number}": f"{each.url}/card.json" for number, each in enumerate(theirs)}
        gateway = await stack.enter_async_context(running(data, agents(**urls)))

        async def looked_at() -> bool:
            shown = [await admin_agent(gateway, name) for name in urls]
            return all(each["card"] or each["reason"] for each in shown)

        await until(looked_at)
        await asyncio.gather(*(send(gateway, name) for name in urls))
        return [bool(each.connections) for each in inside]


def _interfaces(*places: tuple[str, str]) -> dict[str, Any]:
    named = [{"protocolBinding": binding, "protocolVersion": "1.0", "url": url} for binding, url in places]
    return {**card("http://x", streaming=False), "supportedInterfaces": named}


# Who may have the gateway fetch something, and what it never fetches.


async def a_fetch_for_any_key(data: Path) -> list[bool]:
    """Whoever has a key names a document for the gateway to load. They may not; and if they might, their word would not
    lead inside."""
    asks: list[tuple[str, Callable[[str], dict[str, str]]]] = [
        ("/admin/agents", lambda url: {"cardUrl": url}),
        ("/admin/agents", lambda url: {"cardUrl": url, "id": "mine", "keysUrl": url}),
        ("/admin/cards:verify", lambda url: {"cardUrl": url}),
    ]
    got = []
    async with running(data, ECHO) as gateway:
        ann = gateway.bearer(await gateway.key("ann"))
        for path, body in asks:
            async with serve(always(answer())) as inside:
                await gateway.client.post(path, json=body(f"{inside.url}/card.json"), headers=ann)
                got.append(bool(inside.connections))
    return got


def lets_everybody_register(patch: pytest.MonkeyPatch) -> None:
    verbs = ("AddAgent", "VerifyCard")
    patch.setattr("gateway.policing.RULES", (*RULES, simple("agents", "anybody known may", EVERYBODY, verbs)))
    admits_everything(patch)


async def an_address_in_what_is_said(data: Path) -> list[bool]:
    """Messages, arguments and resources name addresses; whoever they are for may look there, the gateway does not."""
    got = []
    async with tool_server(tool("fetch")) as docs:
        config = ECHO + configured("grants: [{to: ann, tools: [docs], resources: [docs]}]", docs=docs)
        async with running(data, config) as gateway:
            await gateway.app.tools.servers.settled()
            ann = await gateway.key("ann")
            door = Door(gateway, who=ann)
            for number in range(5):
                async with serve(always(answer())) as inside:
                    url = f"{inside.url}/latest/meta-data"
                    match number:
                        case 0:
                            said = message("x", parts=[{"url": url, "mediaType": "text/plain"}])
                            await gateway.rpc("SendMessage", {"message": said}, who=ann)
                        case 1:
                            await gateway.rpc("SendMessage", {"message": message("x", extensions=[url])}, who=ann)
                        case 2:
                            await door.ask("tools/call", {"name": "docs__fetch", "arguments": {"url": url}})
                        case 3:
                            await door.ask("resources/read", {"uri": url})
                        case _:
                            await door.ask("prompts/get", {"name": "docs__none", "arguments": {"schema": url}})
                    got.append(bool(inside.connections))
    return got


def fetches_what_is_named(patch: pytest.MonkeyPatch) -> None:
    sound = Core.handle

    async def handle(self: Core, call: Any, who: Any) -> Any:
        async with Egress(EgressRules(allow_loopback=True)) as egress:
            for url in re.findall(r"http://[\d.:]+/latest[a-z-]*", repr(call)):
                await egress.request("GET", url, None, {}, timeout=5)
        return await sound(self, call, who)

    patch.setattr(Core, "handle", handle)


def patching(attack: Callable[[Path, pytest.MonkeyPatch], Awaitable[list[bool]]]) -> Attack[Path]:
    """An attack from a world that has to be made up: names that lead elsewhere."""

    async def attacked(data: Path) -> list[bool]:
        with pytest.MonkeyPatch.context() as patch:
            return await attack(data, patch)

    return attacked


ATTACKS: Attacks[Path] = {
    "climbing": (an_id_that_climbs, puts_ids_in_as_they_are),
    "webhook": (patching(a_webhook_inside), admits_everything),
    "redirect": (a_redirect_inside, follows_redirects),
    "rebinding": (patching(a_name_with_two_answers), resolves_again),
    "card": (a_card_that_points_inside, admits_everything),
    "loader": (a_fetch_for_any_key, lets_everybody_register),
    "named": (an_address_in_what_is_said, fetches_what_is_named),
}


@each_of(ATTACKS)
async def test_nobody_is_asked_who_must_not_be_but_by_the_broken_twin(tmp_path: Path, attempt: Attempt[Path]) -> None:
    await attempt(tmp_path)


# Headers. An argument of a call becomes one (`x-mcp-header`), as a path or a query of it would elsewhere.

SPLITTING = ("a\r\nX-Injected: 1", "\r\nX-Injected: 1", "a\r\nAuthorization: Bearer mine\r\nX-Injected: 1")
QUEST: Any = {"type": "object", "properties": {"quest": {"type": "string", "x-mcp-header": "Quest"}}}


def wraps_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(headers, "wrap", lambda text: text)


def looks_at_no_line_ends(patch: pytest.MonkeyPatch) -> None:
    def made(method: str, target: str, authority: str, fields: tuple[tuple[str, str], ...]) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in (("host", authority), *fields))
        return f"{method} {target} HTTP/1.1\r\n{lines}".encode()

    patch.setattr(head, "_head", made)


BLIND: dict[str, tuple[Twin, ...]] = {
    "sound": (),
    "no wrapping": (wraps_nothing,),
    "no look": (looks_at_no_line_ends,),
    "twin": (wraps_nothing, looks_at_no_line_ends),
}


@pytest.mark.parametrize("name", BLIND)
async def test_an_argument_makes_no_header_of_its_own_but_in_the_broken_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What a header could not hold is wrapped, and a head with a line end too many is not sent: each is enough."""
    for blinded in BLIND[name]:
        blinded(monkeypatch)
    async with tool_server(tool("ask", inputSchema=QUEST)) as docs, running(tmp_path, configured(docs=docs)) as gateway:
        await gateway.app.tools.servers.settled()
        got = []
        for value in SPLITTING:
            docs.raw.clear()
            await _through_the_admin_api(gateway, value)
            got.append(any("x-injected" in sent for sent in docs.raw))
    assert got == [name == "twin"] * len(SPLITTING)


async def _through_the_admin_api(gateway: Gateway, value: str) -> None:
    """The call has no headers of its own there that could disagree."""
    body = {"name": "docs/ask", "arguments": {"quest": value}}
    await gateway.client.post("/admin/tools:call", json=body, headers=gateway.bearer(None))


# Two names, one address: what was opened and checked for one of them is not for the other.


def lends_by_address(patch: pytest.MonkeyPatch) -> None:
    sound = Pool.take

    def take(self: Pool, origin: Origin) -> Connection | None:
        neighbour = next((each for each in self._hosts if each.port == origin.port), origin)
        return sound(self, origin) or sound(self, neighbour)

    patch.setattr(Pool, "take", take)


@broken_by(lends_by_address)
async def test_a_connection_to_one_name_carries_no_request_for_another_but_in_the_broken_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """Both names lead to one server, whose certificate is for the first of them alone."""
    shows, _ = tls.contexts(tmp_path, "first.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trust.pem"))
    resolves(monkeypatch, "127.0.0.1")
    described = answer(
        json.dumps(card("https://first.test", streaming=False)).encode(), content_type="application/json"
    )
    async with (
        serve(always(described), tls=shows) as one,
        running(tmp_path, agents(far=f"https://first.test:{one.port}/card.json")) as gateway,
    ):
        await ready(gateway, "far")
        asked = len(one.requests)
        other = {"cardUrl": f"https://second.test:{one.port}/card.json", "id": "other"}
        added = await gateway.client.post("/admin/agents", json=other, headers=gateway.bearer(None))
        assert (added.status_code == 201) is broken, added.text
        assert broken or "certificate" in added.text
        assert (len(one.requests) > asked) is broken
