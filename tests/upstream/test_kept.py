"""What a vault tells about what is kept in it for single callers: the same, wherever its key comes from."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.model.login import Connection
from gateway.upstream.oauth.client import Client
from gateway.upstream.oauth.grants import Grants, Identity, connection_in, held
from gateway.upstream.oauth.token_endpoint import Token
from gateway.upstream.oauth.vault import CALLERS, KeySource, Vault
from gateway.upstream.oauth.vault_keys import CodeKms, GivenKey, OwnKey, WrappedKey
from gateway.upstream.secret import Secret
from tests.kms import Kms

CLIENT = Client("gw", "s3cret", "client_secret_basic", "https://gw.example/oauth/connected")
TOKEN = Token("access-canary", "refresh-canary", 60, ("read",))


def _given(folder: Path) -> KeySource:
    (folder / "given").write_text(base64.b64encode(os.urandom(32)).decode())
    return GivenKey(Secret(file=folder / "given"), {})


def _wrapped(folder: Path) -> KeySource:
    (folder / "master").write_bytes(os.urandom(32))
    return WrappedKey(folder / "wrapped", CodeKms(Kms(str(folder))))


SOURCES: dict[str, Callable[[Path], KeySource]] = {
    "beside it": lambda folder: OwnKey(folder / "oauth" / "key"),
    "given": _given,
    "wrapped": _wrapped,
}


@pytest.fixture(params=sorted(SOURCES))
async def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Vault:
    made = Vault(tmp_path / "oauth", SOURCES[request.param](tmp_path))
    await made.start()
    return made


def kept(vault: Vault, owner: str, token: Token = TOKEN, server: str = "docs") -> Grants:
    grants = Grants(server, vault, owner)
    grants.hold(held("https://as.example", "https://docs.example/mcp", CLIENT, token, ("read", "write"), 1_000))
    return grants


async def told(vault: Vault) -> list[Connection]:
    return [connection_in("tools", name, tree) for name, tree in await vault.callers()]


async def test_callers_are_told_apart_and_what_is_shared_is_nobodys(vault: Vault) -> None:
    kept(vault, "shared")
    Grants("docs", vault, CALLERS).register("https://as.example", CLIENT)
    assert await told(vault) == []
    kept(vault, "/key:ann")
    kept(vault, "acme/key:ann")
    kept(vault, "/key:ann", server="mail")
    found = await told(vault)
    assert sorted((each.owner or "", each.place) for each in found) == [
        ("/key:ann", "tools/docs"),
        ("/key:ann", "tools/mail"),
        ("acme/key:ann", "tools/docs"),
    ]
    assert len({each.id for each in found}) == 3
    assert (vault.has("docs", "/key:ann"), vault.has("docs", "/key:bob")) == (True, False)


async def test_what_is_told_has_no_secret_and_the_scopes_and_the_beginning_outlive_a_renewal(vault: Vault) -> None:
    grants = kept(vault, "/key:ann")
    (before,) = await told(vault)
    assert (before.scopes, before.since, before.expires, before.refreshable) == (("read",), 1_000, 61_000, True)
    assert grants.held is not None
    grants.hold(grants.held.renewed(Token("other-canary", None, None, None), 50_000, None))
    (after,) = await told(vault)
    assert (after.scopes, after.since, after.expires, after.refreshable) == (("read",), 1_000, None, True)
    assert "canary" not in str((before, after))
    assert "s3cret" not in str((before, after))


async def test_scopes_of_which_nothing_was_said_are_those_that_were_asked_for(vault: Vault) -> None:
    kept(vault, "/key:ann", Token("access-canary", None, None, None))
    (found,) = await told(vault)
    assert (found.scopes, found.refreshable) == (("read", "write"), False)


async def test_a_login_at_an_identity_provider_is_told_until_there_is_a_token(vault: Vault) -> None:
    grants = Grants("docs", vault, "/key:ann")
    grants.identify(Identity("https://idp.example", "gw", "id-canary", "refresh-canary", 90_000))
    (found,) = await told(vault)
    assert (found.issuer, found.scopes, found.since, found.refreshable) == ("https://idp.example", (), None, True)
    assert "canary" not in str(found)


async def test_what_is_forgotten_is_told_no_more_and_held_by_nobody(vault: Vault) -> None:
    ann, bob = kept(vault, "/key:ann"), kept(vault, "/key:bob")
    (hers,) = (each for each in await told(vault) if each.owner == "/key:ann")
    vault.forget_file(hers.id.partition(".")[2])
    assert [each.owner for each in await told(vault)] == ["/key:bob"]
    assert ann.held is None
    assert bob.held is not None
    vault.forget_file("nosuch.ab12")


async def test_other_keys_change_nothing_of_it(vault: Vault, tmp_path: Path) -> None:
    kept(vault, "/key:ann")
    before = await told(vault)
    await vault.rotate(os.urandom(32))
    vault.rotated()
    assert await told(vault) == before
    locked = Vault(tmp_path / "oauth", OwnKey(tmp_path / "nowhere"))
    (found,) = [connection_in("tools", name, tree) for name, tree in await locked.callers()]
    assert (found.id, found.owner, found.issuer) == (before[0].id, None, None), "there, and not to be read"
