"""What attackers found in products like this one, where it is about who may do what: each attack fails here, and its
broken twin, the same gateway without the one defence, shows that the attack would have been seen.

`advisories.toml` says which test stands for which advisory, wherever in the tests it is.
"""

from __future__ import annotations

import sqlite3
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.keys import KeyRing, fingerprint
from gateway.dialects.oauth2.access_token import Unverified, Verified
from gateway.model.errors import GatewayError
from gateway.model.principal import ANONYMOUS, LOCAL, Kind, Principal
from gateway.server.auth import Authenticator
from tests.security.twins import Twin, asks_for_no_owner, by_itself
from tests.serving import ECHO, ROOT, Gateway, message, running

pytestmark = pytest.mark.security

TABLE = Path(__file__).with_name("advisories.toml")
PAGE = ROOT / "docs" / "reference" / "advisories.md"
WRONG = "gw_" + "A" * 43

sound = Authenticator.principal


async def admitted(gateway: Gateway, headers: dict[str, str], path: str = "/admin/keys") -> bool:
    answer = await gateway.client.get(path, headers=headers)
    return answer.status_code == 200


# The attacks: each says whether it got what it must not get.


async def swallowed(gateway: Gateway) -> bool:
    """A wrong credential, where nobody at all would be let in as nobody."""
    answer = await gateway.post(
        {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("hi")}}, who=WRONG
    )
    return answer.status_code != 401


async def by_host(gateway: Gateway) -> bool:
    port = gateway.url.rpartition(":")[2]
    names = (f"127.0.0.1:{port}", f"localhost:{port}", "127.0.0.1", f"127.0.0.1:{port}/livez?", "localhost/agents#")
    return any([await admitted(gateway, {"Host": name}) for name in names])


WHO = (
    *("X-User", "X-Forwarded-User", "X-Remote-User", "Remote-User", "X-Auth-Request-User", "X-Forwarded-Email"),
    *("X-Caller-Subject", "X-Principal", "X-Forwarded-Client-Cert", "X-Internal-Auth", "X-Original-URL"),
    *("X-Rewrite-URL", "X-Upstream-Authorization", "X-Api-Key", "X-Tenant-Id", "X-Forwarded-Authorization"),
)


async def by_header(gateway: Gateway) -> bool:
    words = ("local", "local:local", "admin", f"Bearer {gateway.token}", gateway.token, "secret-api-key", "/livez")
    return any([await admitted(gateway, {name: word}) for name in WHO for word in words])


QUERIES = [
    f"{quote}{join}{truth}{end}"
    for quote in ("'", '"', "')", "x'", "%27")
    for join in (" OR ", " or ", "||", " UNION SELECT ", "/**/OR/**/")
    for truth in ("1=1", "'1'='1", "name='ann'", "name LIKE '%'", "true")
    for end in ("", " --", " #", ";--", "/*")
]


async def by_query(gateway: Gateway) -> bool:
    await gateway.key("ann")
    there = [await admitted(gateway, {"Authorization": f"Bearer {each}"}, "/agents") for each in QUERIES]
    return any(there)


async def anothers_task(gateway: Gateway) -> bool:
    ann, bob = await gateway.key("ann"), await gateway.key("bob")
    id = (await gateway.task("ask name", who=ann))["id"]
    verbs = ("GetTask", "CancelTask", "SubscribeToTask", "ListTaskPushNotificationConfigs")
    for verb in verbs:
        params = {"id": id, "taskId": id}
        body = {"jsonrpc": "2.0", "id": 1, "method": verb, "params": params}
        answer = await gateway.post(body, who=bob)
        if b'"error"' not in answer.content:
            return True
    return False


KNOWN = ("changeme", "admin", "secret", "password", "my-test-key", "secret-api-key", "sk-1234", "gw_test", "gateway")


async def by_a_known_secret(gateway: Gateway) -> bool:
    return any([await admitted(gateway, {"Authorization": f"Bearer {word}"}) for word in KNOWN])


# The twins: what stands in the place of one defence.


def nobody_instead(patch: pytest.MonkeyPatch) -> None:
    async def principal(self: Authenticator, *asked: Any) -> Principal:
        try:
            return await sound(self, *asked)
        except GatewayError:
            return ANONYMOUS

    patch.setattr(Authenticator, "principal", principal)


def believes_the_host(patch: pytest.MonkeyPatch) -> None:
    async def principal(self: Authenticator, headers: dict[bytes, bytes], *asked: Any) -> Principal:
        return LOCAL if headers[b"host"].startswith(b"127.0.0.1") else await sound(self, headers, *asked)

    patch.setattr(Authenticator, "principal", principal)


def believes_a_header(patch: pytest.MonkeyPatch) -> None:
    async def principal(self: Authenticator, headers: dict[bytes, bytes], *asked: Any) -> Principal:
        return LOCAL if headers.get(b"x-caller-subject") == b"local" else await sound(self, headers, *asked)

    patch.setattr(Authenticator, "principal", principal)


def builds_its_query(patch: pytest.MonkeyPatch) -> None:
    async def principal(self: Authenticator, headers: dict[bytes, bytes], *asked: Any) -> Principal:
        said = headers[b"authorization"].decode().removeprefix("Bearer ")
        with sqlite3.connect(":memory:") as db:
            db.execute("CREATE TABLE api_key (name, secret)")
            db.execute("INSERT INTO api_key VALUES ('ann', 'x')")
            try:
                row = db.execute(f"SELECT name FROM api_key WHERE secret = '{said}'").fetchone()
            except sqlite3.Error:
                row = None
        return await sound(self, headers, *asked) if row is None else Principal(Kind.KEY, row[0])

    patch.setattr(Authenticator, "principal", principal)


def has_a_default(patch: pytest.MonkeyPatch) -> None:
    whole = KeyRing.known

    def known(self: KeyRing, mark: bytes) -> Principal | None:
        return LOCAL if mark == fingerprint(b"changeme") else whole(self, mark)

    patch.setattr(KeyRing, "known", known)


Attack = Callable[[Gateway], Awaitable[bool]]
ATTACKS: dict[str, tuple[Attack, Twin]] = {
    "swallowed": (swallowed, nobody_instead),
    "host": (by_host, believes_the_host),
    "header": (by_header, believes_a_header),
    "query": (by_query, builds_its_query),
    "owner": (anothers_task, asks_for_no_owner),
    "known-secret": (by_a_known_secret, has_a_default),
}


@by_itself
@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_fails_and_succeeds_against_its_broken_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, broken: bool
) -> None:
    attack, twin = ATTACKS[name]
    async with running(tmp_path, ECHO, anonymous=name == "swallowed") as gateway:
        if broken:
            twin(monkeypatch)
        assert await attack(gateway) is broken


AUTHORITY = ECHO.replace("{", "{{").replace("}", "}}") + (
    "server: {{public_url: '{url}'}}\nauth: {{authorization_server: {{}}}}\n"
)


def looks_at_no_issuer(patch: pytest.MonkeyPatch, url: str) -> None:
    patch.setattr(Unverified, "issuer", property(lambda self: url))


def looks_at_no_audience(patch: pytest.MonkeyPatch, _: str) -> None:
    patch.setattr(Verified, "meant_for_all", property(lambda self: True))


BLIND: dict[str, tuple[Callable[[pytest.MonkeyPatch, str], None], ...]] = {
    "sound": (),
    "no issuer": (looks_at_no_issuer,),
    "no audience": (looks_at_no_audience,),
    "twin": (looks_at_no_issuer, looks_at_no_audience),
}


@pytest.mark.parametrize("name", BLIND)
async def test_a_token_from_another_environment_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Both deployments have the same signing keys and the same client, as after a copy of the production data. Each of
    the two looks, at the issuer and at the audience, is enough by itself; the broken twin has neither."""
    async with running(tmp_path, AUTHORITY.format(url="https://staging.example")) as staging:
        made = await staging.client.post("/admin/clients", json={"id": "robot"}, headers=staging.bearer(None))
        basic = ("robot", made.json()["secret"])
        form = {"grant_type": "client_credentials"}
        given = await staging.client.post("/oauth/token", data=form, auth=basic)
        assert given.status_code == 200, given.text
        token = given.json()["access_token"]
        assert await admitted(staging, staging.bearer(token), "/agents")
    url = "https://production.example"
    async with running(tmp_path, AUTHORITY.format(url=url)) as production:
        for blinded in BLIND[name]:
            blinded(monkeypatch, url)
        assert await admitted(production, production.bearer(token), "/agents") is (name == "twin")


# The table.


def table() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))["advisory"]
    return found


def proof(each: dict[str, Any]) -> str:
    """Its test; or why there is none, and the test that keeps this true."""
    test = each.get("test") or each.get("checked")
    return "; ".join(filter(None, (each.get("not_here"), test and f"`{test}`")))


def page() -> str:
    rows = "\n".join(
        f"| {each['id']} | {each['found']} | {proof(each)} | {each.get('twin', '—')} |" for each in table()
    )
    return f"""# Advisories

<!-- Made by `python -m tests.security.test_advisories`; a test keeps it current. -->

What attackers have found in gateways, agents and tool servers, and the test that shows that it is not so here. The
*twin* is the gateway without the one defence: with it the attack succeeds, so the test can see it. A dash there: this
program has no such thing, and the test, if one is named, looks whether that is still so.

| advisory | what was found | test, or why there is none | twin |
|---|---|---|---|
{rows}
"""


def test_the_page_of_advisories_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.security.test_advisories"


def test_every_advisory_has_a_test_with_a_twin_or_a_reason() -> None:
    ids = [each["id"] for each in table()]
    assert len(set(ids)) == len(ids)
    for each in table():
        assert ("test" in each) is not ("not_here" in each), each["id"]
        named = each.get("test") or each.get("checked")
        assert named is not None, each["id"]
        file, _, name = named.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {name.partition('[')[0]}(" in text, each["id"]
        case = name.partition("[")[2].rstrip("]")
        assert not case or f'"{case}"' in text, each["id"]
        if "test" not in each:
            continue
        assert each["twin"], each["id"]
        assert "broken" in text or "defended" in text, each["id"]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
