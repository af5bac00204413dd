"""The vault of a test, opened with the key beside it."""

from __future__ import annotations

from pathlib import Path

from gateway.upstream.oauth.vault import Vault
from gateway.upstream.oauth.vault_keys import OwnKey


async def opened(folder: Path) -> Vault:
    vault = Vault(folder, OwnKey(folder / "key"))
    await vault.start()
    return vault
