"""Which agents there are: from the configuration and, by card URL, from the operator.

A remote agent that is down never stops anything: it stays registered as unhealthy and its card is fetched again
later. An id that is in both places belongs to the configuration; the stored one is shown as shadowed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.core.cardlog import CardLog
from gateway.core.gate import Gate
from gateway.core.policy import Target
from gateway.core.provenance import changes, refusal
from gateway.model.agent import Agent
from gateway.model.audit import AuditEntry
from gateway.model.card import AgentCard
from gateway.model.changes import DropAgent, DropCards, PutAgent, PutCard
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.ports import Directory, Fetched, Store, Write
from gateway.model.provenance import CardKeys, CardRecord, Standing, best
from gateway.model.rows import AgentRecord, Balance, RemoteSettings

log = logging.getLogger(__name__)

REFRESH_SECONDS = 300  # a card is looked at again this often; a conditional request costs next to nothing
RETRY_SECONDS = (5, 15, 60, 300)  # an unhealthy agent's card, with growing patience

_PINS = {"card_keys", "require_signature"}

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
RESERVED = frozenset(
    {"agents", "mcp", "acp", "admin", "oauth", "console", "tasks", "message", "livez", "readyz", "metrics", "v1"}
)


@dataclass(slots=True)
class Source:
    """A place of a remote agent's card, and what it had to say. An agent on several servers has one for each."""

    url: str
    etag: str | None = None
    card: AgentCard | None = None
    agent: Agent | None = None
    taken: CardRecord | None = None  # the card as it came
    refused: CardRecord | None = None  # a later one that was not taken
    problem: str | None = None  # why it is unhealthy, as a sentence
    failures: int = 0


@dataclass(slots=True)
class Registered:
    """One agent as the gateway knows it. `agent` and `card` are None while a remote card was never read."""

    id: str
    kind: str  # "local", "remote" or "tasks"
    gate: Gate
    agent: Agent | None = None
    card: AgentCard | None = None
    extended: AgentCard | None = None
    at: str = ""  # where the operator says it is, if it has no cards to look for
    behind: tuple[str, ...] = ()  # the servers of tools that it is a set of
    deadline: float = 900.0
    deduplicate: bool = True
    public: bool = False
    tenants: tuple[str, ...] = ()
    worker: str | None = None
    sources: tuple[Source, ...] = ()
    balance: Balance = Balance.ROUND_ROBIN
    trusted: bool = False
    card_keys: CardKeys | None = None  # they alone may sign its card
    require_signature: bool = False
    changed: int = 0  # when the card last changed, milliseconds since the epoch
    problem: str | None = None  # why it is unhealthy, as a sentence
    failures: int = 0
    record: AgentRecord | None = None
    target: Target = field(init=False)
    hashed: tuple[AgentCard | None, str | None] = (None, None)  # a card and its hash
    reachable: asyncio.Event = field(default_factory=asyncio.Event)  # set once there is an agent to run
    looked: asyncio.Event = field(default_factory=asyncio.Event)  # set once its cards have been looked for

    def __post_init__(self) -> None:
        self.target = Target(self.id, self.public, self.worker)

    @property
    def card_hash(self) -> str | None:
        """SHA-256 (hex) of the card that is in force."""
        if self.hashed[0] is not self.card and self.card is not None:
            self.hashed = (self.card, hashlib.sha256(self.card.wire()).hexdigest())
        return self.hashed[1]

    @property
    def card_url(self) -> str | None:
        return self.sources[0].url if self.sources else None

    @property
    def streaming(self) -> bool:
        """The gateway streams for every agent, whatever an upstream can do, unless the operator's own card says no."""
        return self.kind == "remote" or self.card is None or self.card.capabilities.streaming is not False

    @property
    def pushes(self) -> bool:
        return self.kind == "remote" or self.card is None or self.card.capabilities.push_notifications is not False

    def ready(self) -> Agent:
        """The agent to run. Raises UNAVAILABLE, retryable, while there is none."""
        if self.agent is None:
            raise GatewayError(
                Reason.UNAVAILABLE,
                f"Agent {self.id} cannot be reached yet: {self.problem or 'its card was not read'}",
                retry_after=5,
            )
        return self.agent


class Registry:
    def __init__(self, store: Store, directory: Directory, now: Callable[[], int], new_id: Callable[[], str]) -> None:
        self._store = store
        self._directory = directory
        self._now = now
        self._log = CardLog(now, new_id)
        self.when_changed: list[Callable[[], None]] = []  # of where agents are, and what their cards say
        self._entries: dict[str, Registered] = {}
        self._shadowed: dict[str, AgentRecord] = {}
        self._refresher: asyncio.Task[None] | None = None

    def get(self, id: str) -> Registered | None:
        return self._entries.get(id)

    def all(self) -> Iterable[Registered]:
        return tuple(self._entries.values())

    def shadowed(self) -> Iterable[AgentRecord]:
        return tuple(self._shadowed.values())

    def put(self, entry: Registered) -> None:
        self._entries[entry.id] = entry
        if entry.agent is not None:
            entry.reachable.set()
        if entry.agent is not None or not entry.sources:
            entry.looked.set()
        self._tell()

    def _tell(self) -> None:
        for told in self.when_changed:
            told()

    @staticmethod
    def unknown(id: str) -> Registered:
        """A stand-in for an agent whose tasks are still there though it is not."""
        return Registered(id=id, kind="remote", gate=Gate(1, 1))

    async def start(self) -> None:
        """Adds the stored agents with the cards they last had and begins to look after all remote cards."""
        for record in await self._store.agents():
            if record.id in self._entries:
                self._shadowed[record.id] = record
            else:
                self.put(self._revive(record))
        taken = {(card.agent, card.card_url): card for card in await self._store.cards()}
        for entry in self.all():
            for source in entry.sources:
                source.taken = taken.get((entry.id, source.url))
        self._refresher = asyncio.create_task(self._refresh_forever(), name="card-refresh")

    async def aclose(self) -> None:
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.wait({self._refresher})
        for entry in self.all():
            if entry.agent is not None:
                await entry.agent.aclose()

    async def add(
        self, card_url: str, id: str | None, settings: RemoteSettings, *, trusted: bool, write: Write
    ) -> Registered:
        """Register a remote agent; its card must be there and speak a binding we speak. Its replicas may come later."""
        if id is not None:
            self._check_id(id)
        fetched = await self._directory.fetch(card_url, etag=None, trusted=trusted, keys=settings.card_keys)
        if fetched.card is None:
            raise GatewayError(Reason.UPSTREAM_FAILED, f"{card_url} answered 'not modified' to a first request")
        id = id or slug(fetched.card.name)
        self._check_id(id)
        now = self._now()
        record = AgentRecord(id, card_url, trusted, now, fetched.body, fetched.etag, now, settings)
        entry = _entry(record)
        source = entry.sources[0]
        self._take(entry, source, fetched)
        assert source.taken is not None
        entry.agent, entry.card = source.agent, source.card
        self._check_id(id)  # again: the fetch took its time, and the name is taken from here on
        self.put(entry)
        try:
            await write(PutAgent(record), DropCards(id), PutCard(source.taken))
        except BaseException:
            del self._entries[id]
            raise
        if settings.replicas:
            await self.refresh(entry)
        return self._entries[id]

    async def change(self, id: str, changes: Mapping[str, Any], write: Write) -> Registered:
        """Say something else about a registered agent. Its cards are read again: when one of a new server, or with new
        keys any one, cannot be had or may not be taken (UPSTREAM_FAILED), nothing has changed."""
        entry, before = self._stored(id, "change it there")
        after = replace(before, settings=replace(before.settings, **changes))
        was = (entry.sources, entry.balance, entry.card_keys, entry.require_signature)
        known = {source.url: source for source in entry.sources}
        # Without the tag: a card that is the same as before is looked at with other eyes now.
        kept = {url: replace(known[url], etag=None) for url in _urls(after) if url in known}
        entry.record, entry.sources = after, tuple(kept.get(url) or Source(url) for url in _urls(after))
        _settle(entry, after.settings)
        await self._refreshed(entry)  # nobody is told before it is settled
        looked = [each for each in entry.sources if each.url not in known or changes.keys() & _PINS]
        problem = next((source.problem for source in looked if source.problem is not None), None)
        if problem is None:
            entry.agent = self._joined(entry)
            cards = [PutCard(source.taken) for source in entry.sources if source.taken is not None]
            try:
                await write(PutAgent(entry.record), DropCards(id), *cards)
            except BaseException:
                self._restore(entry, before, was)
                raise
            self._tell()
            return entry
        self._restore(entry, before, was)
        raise GatewayError(Reason.UPSTREAM_FAILED, f"{problem}; nothing has been changed")

    def _restore(self, entry: Registered, record: AgentRecord, was: tuple[Any, ...]) -> None:
        entry.record = record
        entry.sources, entry.balance, entry.card_keys, entry.require_signature = was
        entry.agent, entry.problem = self._joined(entry), _problem(entry)
        self._store.later(PutAgent(record))

    def _joined(self, entry: Registered) -> Agent | None:
        """All that can be reached of an agent, as one."""
        agents = [source.agent for source in entry.sources if source.agent is not None]
        return self._directory.balance(agents, entry.balance) if len(agents) > 1 else next(iter(agents), None)

    def _stored(self, id: str, otherwise: str) -> tuple[Registered, AgentRecord]:
        """An agent that was registered while the gateway ran."""
        entry = self._entries.get(id)
        if entry is None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no agent {id!r}")
        if entry.record is None:
            what = f"Agent {id!r} stands in the configuration file; {otherwise}"
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, what)
        return entry, entry.record

    async def remove(self, id: str, write: Write) -> None:
        if id in self._shadowed:
            await write(DropAgent(id))
            del self._shadowed[id]
            return
        entry, _ = self._stored(id, "remove it there")
        await write(DropAgent(id), DropCards(id))
        del self._entries[id]
        if entry.agent is not None:
            await entry.agent.aclose()

    async def look(self, card_url: str, keys: CardKeys | None, *, trusted: bool) -> CardRecord:
        """A card and its signatures; its agent need not be registered. Raises GatewayError when there is none."""
        fetched = await self._directory.fetch(card_url, etag=None, trusted=trusted, keys=keys)
        now, findings = self._now(), fetched.findings
        return CardRecord("", card_url, fetched.source, now, fetched.received, best(findings), findings)

    async def accept(self, id: str) -> Registered:
        """Read an agent's card again and take it though the one before was signed. Raises GatewayError when it is
        refused for another reason, or cannot be had."""
        entry = self._entries.get(id)
        if entry is None or not entry.sources:
            raise GatewayError(Reason.NOT_FOUND, f"There is no remote agent {id!r}")
        await self.refresh(entry, whatever_was_before=True)
        for source in entry.sources:
            if source.problem is not None:
                raise GatewayError(Reason.INVALID_AGENT_RESPONSE, source.problem)
        return entry

    async def refresh(self, entry: Registered, *, whatever_was_before: bool = False) -> None:
        """Read a remote agent's cards again. Failure makes the entry unhealthy and keeps what was known."""
        if await self._refreshed(entry, whatever_was_before=whatever_was_before):
            self._tell()

    async def _refreshed(self, entry: Registered, *, whatever_was_before: bool = False) -> bool:
        """Whether one of them says something else."""
        read = [self._read(entry, source, whatever_was_before) for source in entry.sources]
        changed = await asyncio.gather(*read)
        entry.looked.set()
        if self._entries.get(entry.id) is not entry:
            return False  # removed meanwhile; what came must not bring it back
        agent = self._joined(entry) if any(changed) or entry.agent is None else None
        if agent is not None:
            entry.agent = agent
            self._show(entry, next(source for source in entry.sources if source.card is not None))
            entry.reachable.set()
        entry.problem = _problem(entry)
        entry.failures = max(source.failures for source in entry.sources)
        return any(changed)

    def _show(self, entry: Registered, source: Source) -> None:
        """Callers see the card of the first source that has one."""
        assert source.card is not None
        if entry.card is None or changes(entry.card, source.card):
            entry.card = source.card
            entry.changed = self._now() if source.taken is None else source.taken.changed

    async def _read(self, entry: Registered, source: Source, whatever_was_before: bool) -> bool:
        """Whether the card there says something else than it did, or something for the first time."""
        # A signature is looked at each time: its key may have been withdrawn though the card is the same.
        signed = source.taken is not None and source.taken.verdict is Standing.VERIFIED
        etag = None if signed or whatever_was_before else source.etag
        changed = False
        try:
            fetched = await self._directory.fetch(
                source.url, etag=etag, trusted=entry.trusted, keys=entry.card_keys, agent=entry.id
            )
            if fetched.card is not None and self._entries.get(entry.id) is entry:
                changed = self._take(entry, source, fetched, whatever_was_before=whatever_was_before)
            source.problem, source.failures, source.refused = None, 0, None
        except GatewayError as error:
            source.problem = error.message
            source.failures += 1
            log.warning("agent %s is unhealthy: %s", entry.id, error.message)
        except Exception:
            source.problem = "its card could not be read; the log says why"
            source.failures += 1
            log.exception("agent %s: refreshing its card failed", entry.id)
        return changed

    def _take(self, entry: Registered, source: Source, fetched: Fetched, *, whatever_was_before: bool = False) -> bool:
        """Use a card that was fetched, if it may be used. Raises GatewayError, and nothing has changed then."""
        card, now = fetched.card, self._now()
        assert card is not None
        before, told = source.taken, changes(source.card, card) if source.card is not None else ()
        changed, kept = (now, told) if told or before is None else (before.changed, before.changes)
        seen = CardRecord(
            *(entry.id, source.url, fetched.source, now, fetched.received, best(fetched.findings), fetched.findings),
            *(changed, kept),
        )
        required = entry.require_signature or entry.card_keys is not None
        why = refusal(seen, None if whatever_was_before else before, required=required)
        ours = self._entries.get(entry.id) is entry
        if why is not None:
            if ours and not _alike(source.refused, seen):
                self._store.later(records=(self._log.refused(before, seen, why, entry.card_hash),))
            source.refused = seen
            raise GatewayError(Reason.INVALID_AGENT_RESPONSE, why)
        if source.agent is None or told:
            source.agent = self._directory.connect(entry.id, card, card_url=source.url, trusted=entry.trusted)
            for line in told:
                log.info("agent %s: its card at %s has changed: %s", entry.id, source.url, line)
        new = source.card is None or bool(told)
        if ours and (new or not _alike(before, seen) or source.etag != fetched.etag):
            # What an operator accepts is recorded as that.
            told_of = (told or before is None or before.verdict is not seen.verdict) and not whatever_was_before
            records = (self._log.taken(before, seen, entry.card_hash),) if told_of else ()
            self._keep(entry, source, fetched, seen, records)
        source.taken, source.refused = seen, None
        source.card, source.etag = card, fetched.etag
        return new

    def _keep(
        self, entry: Registered, source: Source, fetched: Fetched, seen: CardRecord, records: Sequence[AuditEntry]
    ) -> None:
        self._store.later(PutCard(seen), records=records)
        if entry.record is not None and source is entry.sources[0]:
            entry.record = replace(entry.record, card=fetched.body, etag=fetched.etag, fetched=seen.changed)
            self._store.later(PutAgent(entry.record))

    def _check_id(self, id: str) -> None:
        if not _LABEL.fullmatch(id):
            raise invalid(
                "id", f"{id!r} is no name of lower-case letters, digits and hyphens (1 to 63); give --id NAME"
            )
        if id in RESERVED:
            raise invalid("id", f"{id!r} is reserved for a path of the gateway; give another with --id NAME")
        if id in self._entries:
            raise GatewayError(
                Reason.ALREADY_EXISTS,
                f"An agent named {id!r} is registered already; give another name with --id NAME",
            )

    def _revive(self, record: AgentRecord) -> Registered:
        entry = _entry(record)
        source = entry.sources[0]
        if record.card is not None:
            try:
                source.card = AgentCard.model_validate_json(record.card)
                source.agent = self._directory.connect(
                    record.id, source.card, card_url=record.card_url, trusted=record.trusted
                )
                entry.card, entry.agent = source.card, source.agent
            except (ValueError, GatewayError) as error:
                # A card that an older version accepted: fetch it afresh and say why until then.
                source.card, source.etag, entry.problem = None, None, str(error)
        return entry

    async def _refresh_forever(self) -> None:
        due: dict[str, int] = {}
        while True:
            late = [entry for entry in self.all() if entry.sources and self._now() >= due.get(entry.id, 0)]
            # Together: an agent that takes its ten seconds to fail must not keep the others waiting.
            await asyncio.gather(*(self.refresh(entry) for entry in late))
            for entry in late:
                due[entry.id] = self._now() + 1000 * _patience(entry)
            await asyncio.sleep(1)


def _entry(record: AgentRecord) -> Registered:
    first, *others = _urls(record)
    entry = Registered(
        id=record.id,
        kind="remote",
        gate=Gate(64, 256),
        sources=(Source(first, record.etag), *map(Source, others)),
        trusted=record.trusted,
        changed=record.fetched,
        record=record,
    )
    _settle(entry, record.settings)
    return entry


def _urls(record: AgentRecord) -> tuple[str, ...]:
    return tuple(dict.fromkeys((record.card_url, *record.settings.replicas)))


def _settle(entry: Registered, settings: RemoteSettings) -> None:
    entry.balance = settings.balance
    entry.card_keys, entry.require_signature = settings.card_keys, settings.require_signature


def _problem(entry: Registered) -> str | None:
    """An agent is as well as the best of its servers."""
    problems = [source.problem for source in entry.sources]
    return problems[0] if all(problems) else None


def _alike(one: CardRecord | None, other: CardRecord) -> bool:
    return one is not None and (one.verdict, one.body) == (other.verdict, other.body)


def _patience(entry: Registered) -> int:
    """Seconds until the card is looked at again."""
    if not entry.failures:
        return REFRESH_SECONDS
    return RETRY_SECONDS[min(entry.failures, len(RETRY_SECONDS)) - 1]


def slug(name: str) -> str:
    """An agent's id from its card's name: `Weather & Tides (EU)` becomes `weather-tides-eu`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:63].strip("-")
