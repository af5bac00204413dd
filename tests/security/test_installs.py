"""Advisories about secrets that are the same everywhere, or that come out of a manual."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from gateway.config import ConfigError
from gateway.core.keys import PREFIX, KeyRing, fingerprint
from gateway.dialects.oauth2.signature import SignKey
from gateway.model.principal import LOCAL
from gateway.model.problems import StartError
from gateway.upstream.oauth.vault_keys import GivenKey, decoded
from gateway.upstream.secret import settle
from tests.security.twins import Attacks, Attempt, each_of
from tests.serving import ECHO, ROOT, Gateway, running

pytestmark = pytest.mark.security

AUTHORITY = f"{ECHO}server: {{public_url: 'https://gateway.example'}}\nauth: {{authorization_server: {{}}}}\n"
PLACEHOLDERS = (
    "my-test-key-but-now-longer-than-32-bytes",
    "change-me-to-a-long-random-string-0123456789",
    "changeme" * 5,
    "gw_" + "A" * 43,
)


async def admitted(gateway: Gateway, credential: str) -> bool:
    answer = await gateway.client.get("/agents", headers={"Authorization": f"Bearer {credential}"})
    return answer.status_code == 200


# The attacks: each says of all its forms whether they got what they must not get.


async def with_a_placeholder(folder: Path) -> list[bool]:
    """The operator has copied it from an example, and did not change it."""
    got = []
    for word in (PLACEHOLDERS[0], PLACEHOLDERS[-1]):
        data = folder / word
        data.mkdir()
        (data / "token").write_text(word)
        got.append(await serves(data, ECHO, word))
    key = base64.b64encode(b"changeme" * 4).decode()
    (folder / "key").write_text(key)
    return [*got, await serves(folder / "vault", f"{ECHO}vault: {{key: {{file: {folder}/key}}}}", None)]


async def serves(data: Path, config: str, word: str | None) -> bool:
    """Whether a gateway starts there, and lets in who shows the word."""
    try:
        async with running(data, config) as gateway:
            return await admitted(gateway, word or gateway.token)
    except (StartError, ConfigError) as error:
        return "can be guessed" not in str(error)


async def with_ones_own(folder: Path) -> list[bool]:
    """The attacker starts the same program, and tries what it makes: its credential, and a token that it signs."""
    async with running(folder / "mine", AUTHORITY) as mine:
        own = mine.token, await robots(mine)
        assert [await admitted(mine, each) for each in own] == [True, True]
    async with running(folder / "theirs", AUTHORITY) as theirs:
        await robots(theirs)
        return [await admitted(theirs, each) for each in own]


async def robots(gateway: Gateway) -> str:
    """An access token of the client `robot`, which both have."""
    made = await gateway.client.post("/admin/clients", json={"id": "robot"}, headers=gateway.bearer(None))
    basic = ("robot", made.json()["secret"])
    given = await gateway.client.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=basic)
    token: str = given.json()["access_token"]
    return token


WORDS = re.compile(r"[A-Za-z0-9_+/.-]{32,}")


async def with_what_is_published(folder: Path) -> list[bool]:
    """Every word of our own pages, examples and settings that is long enough for it, and what people try first."""
    files = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*"), *ROOT.glob("*.md"), ROOT / "Makefile"]
    files += ROOT.glob("gateway/config/*.py")
    texts = (file.read_text(encoding="utf-8", errors="ignore") for file in files if file.is_file())
    words = {word for text in texts for word in WORDS.findall(text)}
    assert len(words) > 50
    async with running(folder / "data", ECHO) as gateway:
        return [any([await admitted(gateway, word) for word in {*words, *PLACEHOLDERS, "admin", "changeme"}])]


# The twins: what stands in the place of one defence.


def takes_any_secret(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.credential._guessable", lambda token: False)
    patch.setattr(GivenKey, "read", lambda self: decoded(settle(self._secret, self._ours)))


def makes_the_same_everywhere(patch: pytest.MonkeyPatch) -> None:
    key = SignKey.make("ES256")
    patch.setattr(SignKey, "make", lambda algorithm: key)
    patch.setattr("gateway.credential.make_secret", lambda: PREFIX + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG")


def has_one_from_its_manual(patch: pytest.MonkeyPatch) -> None:
    known = KeyRing.known
    marks = {fingerprint(word.encode()) for word in PLACEHOLDERS}
    patch.setattr(KeyRing, "known", lambda self, mark: LOCAL if mark in marks else known(self, mark))


ATTACKS: Attacks[Path] = {
    "placeholder": (with_a_placeholder, takes_any_secret),
    "own": (with_ones_own, makes_the_same_everywhere),
    "published": (with_what_is_published, has_one_from_its_manual),
}


@each_of(ATTACKS)
async def test_nobody_knows_a_secret_of_another_install_but_of_its_broken_twin(
    tmp_path: Path, attempt: Attempt[Path]
) -> None:
    await attempt(tmp_path)
