"""The settings under `oauth`, of tool servers and remote agents, made into what gets their tokens. A part of app.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from gateway.config import Config, ConfigError, OAuthEntry, RemoteAgent, Settings, Value
from gateway.model.errors import GatewayError, Reason
from gateway.model.login import Connection
from gateway.upstream.egress import Egress
from gateway.upstream.local import LoadError, load_object
from gateway.upstream.oauth.client import ClientSettings, Grant, IdentityProvider, Proofs
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.grants import Grants, connection_in
from gateway.upstream.oauth.source import TokenSource
from gateway.upstream.oauth.vault import CALLERS, SHARED, BadKey, KeySource, Vault
from gateway.upstream.oauth.vault_keys import CodeKms, CommandKms, GivenKey, OwnKey, WrappedKey
from gateway.upstream.process import Command
from gateway.upstream.secret import Secret

_KINDS = ("tools", "agents")


class Authorizations:
    """What is kept in one vault. All callers are the same client at an issuer: theirs is a redirect to the gateway, the
    operator's one to loopback."""

    def __init__(self, vault: Vault, egress: Egress, now: Callable[[], int]) -> None:
        self.vault = vault
        self._egress = egress
        self._now = now

    def source(
        self,
        upstream: str,
        settings: ClientSettings,
        discovery: Discovery,
        owner: str,
        *,
        subject: Callable[[str], str] | None = None,
        otherwise: str = "",
    ) -> TokenSource:
        """How one upstream's tokens are got for an owner; "" for what all callers share."""
        shared = owner in ("", SHARED)
        return TokenSource(
            upstream,
            settings,
            discovery,
            Grants(upstream, self.vault, owner or SHARED),
            self._egress,
            ours=os.environ,
            now=self._now,
            random=os.urandom,
            registrations=None if shared else Grants(upstream, self.vault, CALLERS),
            subject=subject,
            otherwise=otherwise,
        )


class Authorized:
    """Both vaults, of tool servers' tokens and of agents', under one key or each with its own beside it."""

    def __init__(self, settings: Settings, egress: Egress, now: Callable[[], int]) -> None:
        self._config = settings.config
        self._source = _source(settings)
        vaults: list[tuple[Vault, KeySource]] = []
        for name in ("oauth", "agent-oauth"):
            source: KeySource = self._source or OwnKey(settings.data / name / "key")
            vaults.append((Vault(settings.data / name, source), source))
        self._vaults = vaults
        self.tools, self.agents = (Authorizations(vault, egress, now) for vault, _ in vaults)
        self._started = False
        self._one = asyncio.Lock()

    async def start(self, config: Config | None = None) -> None:
        """Open them, where the file has something to keep there, or a key. Raises ConfigError, and nothing has changed
        then."""
        config = config or self._config
        agents = (each.credentials for each in config.agents.values() if isinstance(each, RemoteAgent))
        wanted = any(each.oauth for each in config.tools.values()) or any(each and each.oauth for each in agents)
        if self._started or not (wanted or self._source):
            return
        try:
            spare = [GivenKey(secret(each), os.environ).read() for each in self._config.vault.previous]
            for vault, _ in self._vaults:
                await vault.start(spare)
        except (BadKey, OSError) as error:
            hint = error.hint if isinstance(error, BadKey) else ""
            where = "kms" if self._config.vault.kms is not None else "key"
            raise ConfigError([self._config.problem(("vault", where), str(error), hint)]) from error
        self._started = True

    # Callers' own, as `Kept` has them.

    async def all(self) -> list[Connection]:
        found: list[Connection] = []
        for kind, (vault, _) in zip(_KINDS, self._vaults, strict=True):
            found += [connection_in(kind, name, tree) for name, tree in await vault.callers()]
        return sorted(found, key=lambda each: (each.owner or "", each.place))

    def forget(self, connection: Connection) -> None:
        kind, _, name = connection.id.partition(".")
        self._vaults[_KINDS.index(kind)][0].forget_file(name)

    async def rotate(self) -> int:
        """Seal everything with a new key; how many files that were. Raises GatewayError."""
        async with self._one:
            if not self._started:
                raise GatewayError(Reason.UNSUPPORTED_OPERATION, "Nothing is sealed here: no entry has oauth")
            try:
                return await self._rotated()
            except BadKey as error:
                raise GatewayError(Reason.INVALID_REQUEST, f"{error.reason}; {error.hint}") from error

    async def _rotated(self) -> int:
        made: dict[KeySource, bytes] = {}
        count = 0
        for vault, source in self._vaults:
            if source not in made:
                made[source] = await source.make()
                if vault.uses(made[source]):
                    raise BadKey("the key is the same as before", "put the new one in its place first")
        for vault, source in self._vaults:
            count += await vault.rotate(made[source])
        for vault, source in self._vaults:
            source.finish()
            vault.rotated()
        return count


def _source(settings: Settings) -> KeySource | None:
    """The key that the operator's file names. Raises ConfigError."""
    vault, config = settings.config.vault, settings.config
    if vault.key is not None:
        return GivenKey(secret(vault.key), os.environ)
    if vault.kms is None:
        return None
    path = settings.data / "vault-key.wrapped"
    if vault.kms.command is not None:
        words = vault.kms.command
        return WrappedKey(path, CommandKms(lambda what: Command((*words, what)), os.environ))
    try:
        found = load_object(vault.kms.run or "", vault.kms.options, base=config.base, needs=("wrap", "unwrap"))
    except LoadError as error:
        raise ConfigError([config.problem(("vault", "kms", "run"), error.reason, error.hint)]) from error
    return WrappedKey(path, CodeKms(found))


def client(entry: OAuthEntry) -> ClientSettings:
    return ClientSettings(
        Grant(entry.grant),
        entry.client_id,
        _place(entry.client_secret),
        entry.client_metadata,
        entry.issuer,
        tuple(entry.scopes),
        _place(entry.client_key),
        _place(entry.assertion),
        _provider(entry),
        Proofs(entry.dpop),
    )


def value_of(value: Value) -> str | Secret:
    return value.text if value.text is not None else secret(value)


def secret(value: Value) -> Secret:
    return Secret(value.file, value.variable, value.before)


def _provider(entry: OAuthEntry) -> IdentityProvider | None:
    found = entry.identity_provider
    if found is None:
        return None
    key, password, subject = map(_place, (found.client_key, found.client_secret, found.subject))
    return IdentityProvider(found.issuer, found.client_id, password, key, subject)


def _place(found: Value | None) -> Secret | None:
    return None if found is None else secret(found)
