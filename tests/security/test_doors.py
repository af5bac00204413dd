"""Advisories about a way past the look at who asks: other spellings of a path, of a header, of a place.

The gateway sees a trusted proxy at every connection, because behind one is where these attacks were made.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from gateway.core.keys import KeyRing
from gateway.core.policy.engine import Policy
from gateway.core.tools.views import Views
from gateway.dialects.forwarded_certificate import spiffe_id
from gateway.dialects.oauth2.access_token import Unverified
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import LOCAL, Principal
from gateway.server import head
from gateway.server.auth import Authenticator
from gateway.server.edge import EdgeProtocol
from gateway.server.oauth.keys import IssuerKeys
from tests import access_matrix
from tests.issuer import Issuer, SigningKey, issuing
from tests.mcp import Door, configured, modern, request, scripted, soon, tool
from tests.security.twins import Attacks, Attempt, each_of
from tests.serving import A2A, BOUND, ROOT, Gateway, running

pytestmark = [pytest.mark.security, pytest.mark.asyncio(loop_scope="module")]

CARD = f"card: {ROOT}/agent_cards/echo.json, public: true"
TASKS = "/agents/echo/tasks"  # nobody sees it without a credential
HEALTH = "/livez"  # which is open to everybody
PLANNER = "spiffe://example.org/ns/prod/sa/planner"


@dataclass(frozen=True)
class House:
    gateway: Gateway
    issuer: Issuer
    stranger: str = field(repr=False)

    async def status(self, target: str, *lines: str, method: str = "GET") -> int:
        """The answer to a request whose head is written here byte by byte."""
        host, port = self.gateway.client.base_url.host, self.gateway.client.base_url.port
        reader, writer = await asyncio.open_connection(host, port)
        try:
            head = (
                f"{method} {target} HTTP/1.1",
                f"Host: {host}:{port}",
                "Connection: close",
                "A2A-Version: 1.0",
                *lines,
            )
            writer.write("\r\n".join([*head, "", ""]).encode())
            said = await asyncio.wait_for(reader.readline(), BOUND)
            return int(said.split()[1])
        finally:
            writer.close()

    async def admits(self, target: str, *lines: str) -> bool:
        return await self.status(target, *lines) == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("doors")
    async with issuing() as issuer, scripted(tool("search"), tool("delete")) as docs:
        issuer.keys.append(SigningKey.make("second", "ES384"))
        config = f"""
server: {{trusted_proxies: [127.0.0.0/8]}}
auth:
  issuers: [{{issuer: '{issuer.url}', algorithms: [ES256]}}]
  client_certificates: {{trust_domains: [example.org]}}
  authorization_server: {{}}
agents:
  echo: {{run: "agents.echo:Echo", {CARD}}}
mounts:
  small: {{tools: [docs/search]}}
{configured("grants: [{to: '*', tools: [docs]}]", docs=docs)}"""
        async with running(folder, config) as gateway:
            await soon(Door(gateway).names)
            yield House(gateway, issuer, await gateway.key("stranger"))


# The attacks: each says of all its forms whether they got what they must not get.


async def with_a_fragment(house: House) -> list[bool]:
    return [await house.admits(f"{TASKS}{end}") for end in (f"#{HEALTH}", f"#/x{HEALTH}", f"?a#{HEALTH}")]


async def with_a_query(house: House) -> list[bool]:
    return [await house.admits(f"{TASKS}?{query}") for query in (HEALTH, f"a={HEALTH}", f"pageSize=1&x=1{HEALTH}")]


async def with_matrix_parameters(house: House) -> list[bool]:
    return [await house.admits(f"{TASKS};{end}") for end in (HEALTH, f"a=b{HEALTH}", f"a=b;c{HEALTH}")]


async def with_a_forwarded_path(house: House) -> list[bool]:
    names = ("X-Forwarded-Uri", "X-Original-URL", "X-Original-URI", "X-Rewrite-URL", "X-Forwarded-Path")
    return [await house.admits(TASKS, f"{name}: {HEALTH}") for name in names]


CHECKERS = ("GoogleHC/1.0", "kube-probe/1.31", "ELB-HealthChecker/2.0", "Envoy/HC", "Consul Health Check", "")


async def as_a_health_check(house: House) -> list[bool]:
    return [await house.admits(TASKS, f"User-Agent: {name}") for name in CHECKERS]


async def with_underscores(house: House) -> list[bool]:
    """The proxy takes off the header that it writes itself, under the name that it knows."""
    assert await house.admits(TASKS, f"X-Forwarded-Client-Cert: URI={PLANNER}")
    names = ("X_Forwarded_Client_Cert", "X-Forwarded-Client_Cert", "x_forwarded-client-cert")
    return [await house.admits(TASKS, f"{name}: URI={PLANNER}") for name in names]


async def with_two_values(house: House) -> list[bool]:
    """Of two clients in one header the first is what the caller wrote, and the second what the proxy has seen."""
    seen = "spiffe://elsewhere.org/me"
    forms = (f"URI={PLANNER},URI={seen}", f"URI={PLANNER};Hash=1, URI={seen}", f'URI="{PLANNER}",URI="{seen}"')
    got = [await house.admits(TASKS, f"X-Forwarded-Client-Cert: {form}") for form in forms]
    return [*got, await house.admits(TASKS, f"X-Forwarded-Client-Cert: URI={PLANNER};URI={seen}")]


async def at_no_place(house: House) -> list[bool]:
    """A mount that there is not, where the fallback would be all tools."""
    places = ("nosuch", "SMALL", "small.", "0x5ma11", "small%20", "none", "00000000000000000000000000000000")
    got = []
    for place in places:
        door = Door(house.gateway, place, who=house.stranger)
        answer = await door.post("tools/list", {"_meta": {}})
        got.append(answer.status_code != 404)
    return got


OPERATORS = re.compile(r"^\| `GET (/admin/[\w/]+)` \| 200 \| 403 \| 403 \| 403 \|", re.MULTILINE)


async def of_everything(house: House) -> list[bool]:
    """What the operator alone has, for anybody with a credential."""
    paths = set(OPERATORS.findall(access_matrix.PAGE.read_text(encoding="utf-8")))
    paths -= {"/admin/approvals"}  # which looks a second time, at who approves what
    assert len(paths) > 8
    headers = house.gateway.bearer(house.stranger)
    return [(await house.gateway.client.get(path, headers=headers)).status_code == 200 for path in paths]


async def after_it_was_revoked(house: House) -> list[bool]:
    """By its client alone, by the operator alone; at the door, which has seen it, and where it can be asked about."""
    http, operator = house.gateway.client, house.gateway.bearer(None)
    got = []
    for by in ("client", "operator"):
        id = f"robot-{os.urandom(4).hex()}"
        made = await http.post("/admin/clients", json={"id": id}, headers=operator)
        basic = (id, made.json()["secret"])
        given = await http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=basic)
        token = given.json()["access_token"]
        assert await house.admits(TASKS, f"Authorization: Bearer {token}")
        if by == "client":
            assert (await http.post("/oauth/revoke", data={"token": token}, auth=basic)).status_code == 200
            told = (await http.post("/oauth/introspect", data={"token": token}, auth=basic)).json()
            got.append(told["active"])
        else:
            assert (await http.delete(f"/admin/clients/{id}", headers=operator)).status_code == 204
        got.append(await house.admits(TASKS, f"Authorization: Bearer {token}"))
    return got


async def by_a_key_that_names_its_algorithm(house: House) -> list[bool]:
    """The issuer has a key for an algorithm that the operator does not allow; the key itself says that it is right."""
    good, other = house.issuer.keys
    assert await house.admits(TASKS, f"Authorization: Bearer {house.issuer.token(house.gateway.url, key=good)}")
    return [await house.admits(TASKS, f"Authorization: Bearer {house.issuer.token(house.gateway.url, key=other)}")]


TROUBLE = (ValueError("x"), KeyError("x"), RuntimeError("x"), TimeoutError(), OSError(5, "x"))


async def when_the_look_breaks(house: House) -> list[bool]:
    """What a credential is looked up with raises something that nobody expects, at each door."""
    http, got = house.gateway.client, []
    asked = {**A2A, "Authorization": "Bearer gw_" + "A" * 43}
    for trouble in TROUBLE:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KeyRing, "known", raising(trouble))
            answers = (
                await http.get(TASKS, headers=asked),
                await http.get("/admin/keys", headers=asked),
                await http.get("/acp/agents", headers=asked),
                await http.post("/agents/echo", json=request("ListTasks", {}), headers=asked),
                await Door(house.gateway, who="gw_" + "A" * 43).post("tools/list", modern()),
            )
        got += [answer.status_code < 400 and b'"error"' not in answer.content for answer in answers]
    return got


def raising(trouble: Exception) -> Any:
    def known(self: KeyRing, mark: bytes) -> Any:
        raise trouble

    return known


# The twins: what stands in the place of one defence.

_TARGET = b"x-whole-target"
_OPEN = re.compile(rb"/livez$")
sound = Authenticator.principal


def lets_in(patch: pytest.MonkeyPatch, whom: Callable[[dict[bytes, bytes]], bool]) -> None:
    async def principal(self: Authenticator, headers: dict[bytes, bytes], *asked: Any) -> Principal:
        return LOCAL if whom(headers) else await sound(self, headers, *asked)

    patch.setattr(Authenticator, "principal", principal)


def looks_for_a_pattern_in_the_whole_target(patch: pytest.MonkeyPatch) -> None:
    """What needs no credential is told by an expression over what was sent; what is served, by what is left of it
    without parameters and fragment."""
    whole = EdgeProtocol._scope

    def scope(self: EdgeProtocol, method: bytes, target: bytes, fields: dict[bytes, bytes]) -> Any:
        self.headers.append((_TARGET, target))
        path, mark, query = target.partition(b"#")[0].partition(b"?")
        return whole(self, method, path.partition(b";")[0] + mark + query, {**fields, _TARGET: target})

    patch.setattr(EdgeProtocol, "_scope", scope)
    patch.setattr(head, "judge_target", lambda target: None)
    lets_in(patch, lambda headers: _OPEN.search(headers[_TARGET]) is not None)


def believes_a_forwarded_path(patch: pytest.MonkeyPatch) -> None:
    lets_in(patch, lambda headers: HEALTH.encode() in headers.values())


def lets_health_checks_in(patch: pytest.MonkeyPatch) -> None:
    known = {name.encode() for name in CHECKERS}
    lets_in(patch, lambda headers: headers.get(b"user-agent", b"") in known)


def reads_underscores_as_hyphens(patch: pytest.MonkeyPatch) -> None:
    judge = head.judge_head

    def judged(method: bytes, version: str, target: bytes, headers: head.Headers, limits: head.EdgeLimits) -> Any:
        headers[:] = [(name.replace(b"_", b"-"), value) for name, value in headers]
        return judge(method, version, target, headers, limits)

    patch.setattr("gateway.server.edge.judge_head", judged)


def takes_the_first_of_two_values(patch: pytest.MonkeyPatch) -> None:
    def first(header: bytes) -> tuple[str, str] | None:
        return spiffe_id(re.split(rb"[,;]", header)[0])

    patch.setattr("gateway.server.certificates.spiffe_id", first)


def takes_trouble_for_a_yes(patch: pytest.MonkeyPatch) -> None:
    async def principal(self: Authenticator, *asked: Any) -> Principal:
        try:
            return await sound(self, *asked)
        except Exception:
            return LOCAL

    patch.setattr(Authenticator, "principal", principal)


def falls_back_to_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Views, "mount", lambda self, id: self.mounts.get(id, self.mounts[""]))


def allows_what_nobody_forbade(patch: pytest.MonkeyPatch) -> None:
    open_ = Decision(Verdict.PASS, "open", "everything is open by default")
    patch.setattr(Policy, "decide", lambda self, *asked: open_)


def does_not_ask_whether_it_was_revoked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.core.clients.Clients.is_revoked", lambda self, client, *ids: False)
    patch.setattr("gateway.core.clients.Clients.is_blocked", lambda self, id: False)


def takes_the_keys_word(patch: pytest.MonkeyPatch) -> None:
    check = IssuerKeys.check

    async def checked(self: IssuerKeys, parsed: Unverified) -> None:
        self._algorithms, self._tried = frozenset({parsed.alg}), 0.0
        await check(self, parsed)

    patch.setattr("gateway.server.oauth.issuers.check_header", lambda token, rules: None)
    patch.setattr(IssuerKeys, "check", checked)


ATTACKS: Attacks[House] = {
    "fragment": (with_a_fragment, looks_for_a_pattern_in_the_whole_target),
    "query": (with_a_query, looks_for_a_pattern_in_the_whole_target),
    "matrix": (with_matrix_parameters, looks_for_a_pattern_in_the_whole_target),
    "forwarded-path": (with_a_forwarded_path, believes_a_forwarded_path),
    "health-check": (as_a_health_check, lets_health_checks_in),
    "underscore": (with_underscores, reads_underscores_as_hyphens),
    "values": (with_two_values, takes_the_first_of_two_values),
    "trouble": (when_the_look_breaks, takes_trouble_for_a_yes),
    "place": (at_no_place, falls_back_to_everything),
    "everything": (of_everything, allows_what_nobody_forbade),
    "revoked": (after_it_was_revoked, does_not_ask_whether_it_was_revoked),
    "allow-list": (by_a_key_that_names_its_algorithm, takes_the_keys_word),
}


@each_of(ATTACKS)
async def test_no_spelling_is_a_way_in_and_each_is_with_its_broken_twin(house: House, attempt: Attempt[House]) -> None:
    await attempt(house)
