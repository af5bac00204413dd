"""Advisories about where a credential of the operator's goes, and whose credential an agent is shown."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.model.errors import GatewayError
from gateway.model.principal import Principal
from gateway.server.auth import Authenticator
from gateway.upstream.address import origin_of
from gateway.upstream.agent_credentials import Dressing
from gateway.upstream.answer import Answer
from gateway.upstream.egress import Egress
from gateway.upstream.oauth.client import ClientSettings, Grant
from gateway.upstream.oauth.grants import Grants
from gateway.upstream.secret import Secret
from tests.authority import authority, basic, guarded
from tests.journeys.test_agent_credentials import SECRET, api_key, hello, house, http, key
from tests.remote import Asked, ready, scripted
from tests.security.twins import Attacks, Attempt, each_of
from tests.serving import Gateway, message, running
from tests.tokenclient import OURS, client
from tests.upstream import loopback

pytestmark = pytest.mark.security


async def ask(gateway: Gateway, **headers: str) -> None:
    params = {"message": message("hi")}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    answer = await gateway.post(body, agent="far", **headers)
    assert answer.status_code == 200, answer.text  # JSON-RPC: an error is in the body


def shown(thief: loopback.Upstream) -> bool:
    """Whether the secret has reached it."""
    return any(SECRET in str(request.headers) for request in thief.requests)


# The attacks: each says of all its forms whether they got what they must not get.


async def the_callers_instead(data: Path) -> list[bool]:
    """The agent takes a header and a bearer token; the caller sends both."""
    schemes: Any = {"one": api_key("header", "X-Key"), "two": http("bearer")}
    needs: Any = [{"schemes": {"one": {"list": []}, "two": {"list": []}}}]
    async with house(data, key(data), schemes=schemes, requirements=needs) as (gateway, agent):
        await ready(gateway, "far")
        await ask(gateway, X_Key="mine")
        await ask(gateway, X_Upstream_Authorization="Bearer mine")
        key_header, bearer = (asked.headers for asked in agent.asked)
        return [key_header["x-key"] != SECRET, bearer["authorization"] != f"Bearer {SECRET}"]


REDIRECTS = ("301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect")


async def a_redirect(data: Path) -> list[bool]:
    got = []
    async with loopback.serve(loopback.always(loopback.answer())) as thief, house(data, key(data)) as (gateway, agent):
        await ready(gateway, "far")
        for status in REDIRECTS:

            async def redirect(asked: Asked, status: str = status) -> None:
                asked.whole(b"{}", status, location=f"{thief.url}/")

            agent.plays["SendMessage"] = redirect
            thief.requests.clear()
            await ask(gateway)
            got.append(shown(thief))
        assert len(agent.asked) >= len(REDIRECTS)
    return got


async def a_card_that_points_elsewhere(data: Path) -> list[bool]:
    async with loopback.serve(loopback.always(loopback.answer())) as thief, scripted() as agent:
        (data / "secret").write_text(SECRET)
        agent.plays["SendMessage"] = hello
        agent.card["supportedInterfaces"][0]["url"] = f"{thief.url}/"
        entry = f"agents:\n  far: {{card_url: '{agent.url}', public: true, credentials: {{{key(data)}}}}}\n"
        async with running(data, entry + "egress: {allow_loopback: true}\n") as gateway:
            await ready(gateway, "far")
            await ask(gateway)
        return [shown(thief)]


async def another_authorization_server(data: Path) -> list[bool]:
    """A tool server names another one than before, and so the attacker's token endpoint."""
    machine = ClientSettings(Grant.CLIENT_CREDENTIALS, "gw id", Secret(variable="SECRET"))
    async with authority() as by, authority() as thief, guarded(by) as server, client(server.url, data, machine) as one:
        await one.call()
        server.authority = thief
        one.later(60)
        with suppress(GatewayError):
            await one.call()
        secrets = [basic(each)[1] for each in thief.authorizations if each is not None]
        return [OURS["SECRET"] in secrets]


# The twins: what stands in the place of one defence.


def lets_the_caller_replace_it(patch: pytest.MonkeyPatch) -> None:
    sound, dressed = Authenticator.principal, Dressing.__call__
    callers: dict[str, str] = {}

    async def principal(self: Authenticator, headers: dict[bytes, bytes], *asked: Any) -> Principal:
        own = {b"x-key": "x-key", b"x-upstream-authorization": "authorization"}
        callers.clear()
        callers.update({name: headers[theirs].decode() for theirs, name in own.items() if theirs in headers})
        return await sound(self, headers, *asked)

    def dress(self: Dressing, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        there, sent = dressed(self, url, headers)
        return there, {**sent, **callers}

    patch.setattr(Authenticator, "principal", principal)
    patch.setattr(Dressing, "__call__", dress)


def follows_redirects(patch: pytest.MonkeyPatch) -> None:
    sound = Egress.request

    async def request(self: Egress, method: str, url: str, *sent: Any, **how: Any) -> Answer:
        answer = await sound(self, method, url, *sent, **how)
        there = answer.headers.get("location")
        return answer if there is None else await sound(self, method, there, *sent, **how)

    patch.setattr(Egress, "request", request)


def goes_to_any_origin(patch: pytest.MonkeyPatch) -> None:
    sound = Dressing.__call__

    def dress(self: Dressing, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        self._origin = origin_of(url)
        return sound(self, url, headers)

    patch.setattr(Dressing, "__call__", dress)


def is_bound_to_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Grants, "bound", lambda self, client_id: None)


ATTACKS: Attacks[Path] = {
    "callers": (the_callers_instead, lets_the_caller_replace_it),
    "redirect": (a_redirect, follows_redirects),
    "card": (a_card_that_points_elsewhere, goes_to_any_origin),
    "issuer": (another_authorization_server, is_bound_to_nobody),
}


@each_of(ATTACKS)
async def test_a_credential_is_where_it_belongs_and_is_not_with_its_broken_twin(
    tmp_path: Path, attempt: Attempt[Path]
) -> None:
    await attempt(tmp_path)
