"""The key that seals others' authorizations: where it comes from, what a wrong one does, how it changes."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ConfigError, parse
from tests.authority import Guarded, authority, guarded
from tests.journeys.test_mcp_oauth import login
from tests.mcp import Door
from tests.remote import command
from tests.serving import ROOT, Gateway, running

pytestmark = pytest.mark.security

KMS = """#!{python}
import base64, sys
sys.path.insert(0, {root!r})
from tests.kms import Kms
data = base64.b64decode(sys.stdin.readline())
print(base64.b64encode(getattr(Kms({folder!r}), sys.argv[1])(data)).decode(), flush=True)
"""


def configuration(server: Guarded, vault: str = "") -> str:
    return f'tools:\n  docs: {{url: "{server.url}", oauth: {{}}}}\negress: {{allow_loopback: true}}\n{vault}\n'


def make(path: Path) -> bytes:
    """A key in a file, as `openssl rand -base64 32` writes it."""
    key = os.urandom(32)
    path.write_bytes(base64.b64encode(key) + b"\n")
    return key


def by_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    make(folder / "key")
    return f"vault: {{key: {{file: {folder}/key}}}}"


def by_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VAULT_KEY", os.urandom(32).hex())
    return "vault: {key: {variable: VAULT_KEY}}"


def by_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / "master").write_text("the master key")
    return f"vault: {{kms: {{run: 'tests.kms:Kms', with: {{folder: '{folder}'}}}}}}"


def by_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / "master").write_text("the master key")
    program = folder / "kms"
    program.write_text(KMS.format(python=sys.executable, root=str(ROOT), folder=str(folder)))
    program.chmod(0o700)
    return f"vault: {{kms: {{command: [{program}]}}}}"


How = Callable[[Path, pytest.MonkeyPatch], str]
HOWS = pytest.mark.parametrize("how", [by_file, by_variable, by_code, by_command], ids=lambda how: how.__name__)


async def works(gateway: Gateway) -> bool:
    result = await Door(gateway).call("docs__hello")
    return bool(result["content"][0]["text"] == "hello")


def sealed(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data / "oauth").iterdir() if path.is_file()}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    return folder


@HOWS
async def test_the_key_is_the_operators_and_lies_nowhere_with_what_it_seals(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    vault, data = how(keys, monkeypatch), tmp_path / "data"
    async with authority() as by, guarded(by) as server:
        async with running(data, configuration(server, vault)) as gateway:
            await login(gateway)
            assert await works(gateway)
        assert "key" not in sealed(data)
        async with running(data, configuration(server, vault)) as gateway:
            assert await works(gateway)
        assert len(by.asked) == 1, "nobody was asked twice"
        kept = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
        assert not any(secret.encode() in kept for secret in by.secrets)


@HOWS
async def test_tokens_from_before_move_under_the_new_key_and_the_old_one_goes(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    data = tmp_path / "data"
    async with authority() as by, guarded(by) as server:
        async with running(data, configuration(server)) as gateway:
            await login(gateway)
        assert "key" in sealed(data)
        before = sealed(data)["docs.shared"]
        async with running(data, configuration(server, how(keys, monkeypatch))) as gateway:
            assert await works(gateway)
        assert len(by.asked) == 1
        assert "key" not in sealed(data)
        assert sealed(data)["docs.shared"] != before


async def refused(data: Path, config: str) -> str:
    with pytest.raises(ConfigError) as error:
        async with running(data, config):
            raise AssertionError("it has started")
    return str(error.value)


@pytest.mark.parametrize("how", [by_file, by_code, by_command], ids=lambda how: how.__name__)
async def test_a_wrong_key_stops_the_start_and_loses_nothing(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    vault, data = how(keys, monkeypatch), tmp_path / "data"
    key = next(path for path in (keys / "key", keys / "master") if path.exists())
    right = key.read_bytes()
    async with authority() as by, guarded(by) as server:
        async with running(data, configuration(server, vault)) as gateway:
            await login(gateway)
        before = sealed(data)
        make(key)
        said = await refused(data, configuration(server, vault))
        assert "vault." in said
        assert (
            ("is not the key of what is sealed" in said) or ("failed to unwrap: " in said) or ("ended without" in said)
        ), said
        assert sealed(data) == before
        key.write_bytes(right)
        async with running(data, configuration(server, vault)) as gateway:
            assert await works(gateway)
        assert len(by.asked) == 1


async def test_a_key_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server:
        async with running(tmp_path, configuration(server)) as gateway:
            await login(gateway)
        key = tmp_path / "oauth" / "key"
        kept = key.read_bytes()
        key.unlink()
        before = sealed(tmp_path)
        assert "is gone" in await refused(tmp_path, configuration(server))
        assert sealed(tmp_path) == before
        key.write_bytes(kept)
        async with running(tmp_path, configuration(server)) as gateway:
            assert await works(gateway)


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "cannot be read"), ("", "cannot be read"), ("c2hvcnQ=", "no key of 32 bytes"), ("é" * 40, "no key of 32")],
    ids=["no file", "empty", "short", "no base64"],
)
async def test_what_is_no_key_is_said_with_the_line(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "k").write_text(text)
    said = await refused(tmp_path, f"agents: {{}}\nvault: {{key: {{file: {tmp_path}/k}}}}\n")
    assert words in said
    assert "line 2" in said or ":2" in said
    assert not text or text not in said


@pytest.mark.parametrize(
    ("kms", "words"),
    [
        ("{run: 'tests.kms:Nothing'}", "has no 'Nothing'"),
        ("{run: 'tests.kms:hashlib'}", "has no method wrap"),
        ("{run: 'tests.kms:Lazy'}", "gave back the key as it was"),
        ("{command: [/nowhere/kms]}", "is not a program"),
        ("{command: [/bin/false]}", "the key service's command"),
        ("{command: [/bin/cat, /dev/null]}", "the key service"),
    ],
    ids=["no attribute", "no methods", "wraps nothing", "no program", "fails", "says nothing"],
)
async def test_a_key_service_that_does_not_work_stops_the_start(tmp_path: Path, kms: str, words: str) -> None:
    async with authority() as by, guarded(by) as server:
        said = await refused(tmp_path, configuration(server, f"vault: {{kms: {kms}}}"))
        assert words in said, said
        assert "vault.kms" in said
        assert not (tmp_path / "vault-key.wrapped").exists()


@pytest.mark.parametrize(
    "vault",
    [
        "{key: 0123456789abcdef}",
        "{key: {file: k}, kms: {run: 'a:b'}}",
        "{kms: {}}",
        "{kms: {command: [kms]}}",
        "{previous: [secret]}",
    ],
    ids=["in the file", "two of them", "empty", "no path", "an old one in the file"],
)
def test_settings_that_contradict_each_other_are_refused(vault: str) -> None:
    with pytest.raises(ConfigError):
        parse(f"vault: {vault}\n", base=ROOT)


@pytest.mark.parametrize("how", [None, by_file, by_code, by_command], ids=lambda how: how.__name__ if how else "own")
async def test_everything_is_sealed_anew_while_the_gateway_works(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, how: How | None
) -> None:
    vault, data = "" if how is None else how(keys, monkeypatch), tmp_path / "data"
    async with authority() as by, guarded(by) as server:
        async with running(data, configuration(server, vault)) as gateway:
            await login(gateway)
            before = sealed(data)
            if how is by_file:
                assert "same as before" in (await rotate(gateway))["error"]["message"]
                make(keys / "key")
            assert (await rotate(gateway))["sealed"] == 1
            after = sealed(data)
            assert after["docs.shared"] != before["docs.shared"]
            assert after.get("key") != before.get("key") or how is not None
            assert await works(gateway)
            entries = [entry for entry in await gateway.record() if entry.verb == "RotateVaultKey"]
            assert [entry.outcome for entry in entries][-2:] == ["begun", "ok"]
        async with running(data, configuration(server, vault)) as gateway:
            assert await works(gateway)
        assert len(by.asked) == 1


async def rotate(gateway: Gateway) -> Any:
    answer = await gateway.client.post("/admin/vault:rotate-key", headers=gateway.bearer(None))
    return answer.json()


async def test_a_rotation_that_was_cut_off_is_finished_at_the_next_start(tmp_path: Path) -> None:
    """As far as any file says: the key that follows is there, and some files are under it, some are not."""
    async with authority() as by, guarded(by) as server:
        async with running(tmp_path, configuration(server)) as gateway:
            await login(gateway)
            first = sealed(tmp_path)
            assert (await rotate(gateway))["sealed"] == 1
        second, folder = sealed(tmp_path), tmp_path / "oauth"
        (folder / "key").write_bytes(first["key"])
        (folder / "key.next").write_bytes(second["key"])
        (folder / ".check").write_bytes(first[".check"])
        (folder / "mail.shared").write_bytes(b"x" * 40)  # nothing opens this one, and it stays
        async with running(tmp_path, configuration(server)) as gateway:
            assert await works(gateway)
        assert sealed(tmp_path)["key"] == second["key"]
        assert "key.next" not in sealed(tmp_path)
        assert sealed(tmp_path)["mail.shared"] == b"x" * 40
        assert len(by.asked) == 1


async def test_a_key_that_was_changed_between_two_runs_is_named_as_the_previous_one(tmp_path: Path, keys: Path) -> None:
    data = tmp_path / "data"
    make(keys / "old")
    make(keys / "new")
    async with authority() as by, guarded(by) as server:
        async with running(data, configuration(server, f"vault: {{key: {{file: {keys}/old}}}}")) as gateway:
            await login(gateway)
        new = f"vault: {{key: {{file: {keys}/new}}"
        assert "vault.previous" in await refused(data, configuration(server, new + "}"))
        both = configuration(server, f"{new}, previous: [{{file: {keys}/old}}]}}")
        async with running(data, both) as gateway:
            assert await works(gateway)
        (keys / "old").unlink()
        async with running(data, configuration(server, new + "}")) as gateway:
            assert await works(gateway)
        assert len(by.asked) == 1


async def test_the_command_line_rotates_the_key(tmp_path: Path) -> None:
    async with authority() as by, guarded(by) as server, running(tmp_path, configuration(server)) as gateway:
        await login(gateway)
        done = await asyncio.to_thread(command, tmp_path, "vault", "rotate-key", url=gateway.url)
        assert done.returncode == 0
        assert done.stdout == "1 files are sealed with the new key. The one before opens nothing any more.\n"


async def test_who_keeps_nothing_has_no_key(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert "Nothing is sealed here" in (await rotate(gateway))["error"]["message"]
    assert not (tmp_path / "oauth").exists()
    assert not (tmp_path / "agent-oauth").exists()
