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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from gateway.core.gate import Gate
from gateway.core.policy import Target
from gateway.model.agent import Agent
from gateway.model.card import AgentCard
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.ports import AgentRecord, Directory, DropAgent, PutAgent, Store

log = logging.getLogger(__name__)

REFRESH_SECONDS = 300  # a card is looked at again this often; a conditional request costs next to nothing
RETRY_SECONDS = (5, 15, 60, 300)  # an unhealthy agent's card, with growing patience

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
RESERVED = frozenset(
    {"agents", "mcp", "acp", "admin", "oauth", "console", "tasks", "message", "livez", "readyz", "metrics", "v1"}
)


@dataclass(slots=True)
class Registered:
    """One agent as the gateway knows it. `agent` and `card` are None while a remote card was never read."""

    id: str
    kind: str  # "local", "remote" or "tasks"
    gate: Gate
    agent: Agent | None = None
    card: AgentCard | None = None
    extended: AgentCard | None = None
    deadline: float = 900.0
    deduplicate: bool = True
    public: bool = False
    tenants: tuple[str, ...] = ()
    worker: str | None = None
    card_url: str | None = None
    trusted: bool = False
    etag: str | None = None
    changed: int = 0  # when the card last changed, milliseconds since the epoch
    problem: str | None = None  # why it is unhealthy, as a sentence
    failures: int = 0
    record: AgentRecord | None = None
    target: Target = field(init=False)
    hashed: tuple[AgentCard | None, str | None] = (None, None)  # a card and its hash
    reachable: asyncio.Event = field(default_factory=asyncio.Event)  # set once there is an agent to run

    def __post_init__(self) -> None:
        self.target = Target(self.id, self.public, self.worker)

    @property
    def card_hash(self) -> str | None:
        """SHA-256 (hex) of the card that is in force."""
        if self.hashed[0] is not self.card and self.card is not None:
            self.hashed = (self.card, hashlib.sha256(self.card.wire()).hexdigest())
        return self.hashed[1]

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
    def __init__(self, store: Store, directory: Directory, now: Callable[[], int]) -> None:
        self._store = store
        self._directory = directory
        self._now = now
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
        self._refresher = asyncio.create_task(self._refresh_forever(), name="card-refresh")

    async def aclose(self) -> None:
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.wait({self._refresher})
        for entry in self.all():
            if entry.agent is not None:
                await entry.agent.aclose()

    async def add(self, card_url: str, id: str | None, *, trusted: bool) -> Registered:
        """Register a remote agent; its card must be there and speak a binding we speak."""
        if id is not None:
            self._check_id(id)
        fetched = await self._directory.fetch(card_url, etag=None, trusted=trusted)
        if fetched.card is None:
            raise GatewayError(Reason.UPSTREAM_FAILED, f"{card_url} answered 'not modified' to a first request")
        id = id or slug(fetched.card.name)
        self._check_id(id)
        agent = self._directory.connect(id, fetched.card, card_url=card_url, trusted=trusted)
        now = self._now()
        record = AgentRecord(id, card_url, trusted, now, fetched.body, fetched.etag, now)
        self._check_id(id)  # again: the fetch took its time, and the name is taken from here on
        self.put(_entry(record, fetched.card, agent))
        try:
            await self._store.commit(PutAgent(record))
        except BaseException:
            del self._entries[id]
            raise
        return self._entries[id]

    async def remove(self, id: str) -> None:
        entry = self._entries.get(id)
        if id in self._shadowed:
            await self._store.commit(DropAgent(id))
            del self._shadowed[id]
            return
        if entry is None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no agent {id!r}")
        if entry.record is None:
            raise GatewayError(
                Reason.UNSUPPORTED_OPERATION,
                f"Agent {id!r} stands in the configuration file; remove it there",
            )
        await self._store.commit(DropAgent(id))
        del self._entries[id]
        if entry.agent is not None:
            await entry.agent.aclose()

    async def refresh(self, entry: Registered) -> None:
        """Read a remote card again. Failure makes the entry unhealthy and keeps what was known."""
        assert entry.card_url is not None
        try:
            fetched = await self._directory.fetch(entry.card_url, etag=entry.etag, trusted=entry.trusted)
            if self._entries.get(entry.id) is not entry:
                return  # removed meanwhile; what came must not bring it back
            if fetched.card is not None:
                entry.agent = self._directory.connect(
                    entry.id, fetched.card, card_url=entry.card_url, trusted=entry.trusted
                )
                entry.card, entry.etag, entry.changed = fetched.card, fetched.etag, self._now()
                entry.reachable.set()
                if entry.record is not None:
                    entry.record = replace(entry.record, card=fetched.body, etag=fetched.etag, fetched=entry.changed)
                    self._store.later(PutAgent(entry.record))
            entry.problem, entry.failures = None, 0
        except GatewayError as error:
            entry.problem = error.message
            entry.failures += 1
            log.warning("agent %s is unhealthy: %s", entry.id, error.message)
        except Exception:
            entry.problem = "its card could not be read; the log says why"
            entry.failures += 1
            log.exception("agent %s: refreshing its card failed", entry.id)

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
        entry = _entry(record, None, None)
        if record.card is not None:
            try:
                entry.card = AgentCard.model_validate_json(record.card)
                entry.agent = self._directory.connect(
                    record.id, entry.card, card_url=record.card_url, trusted=record.trusted
                )
            except (ValueError, GatewayError) as error:
                # A card that an older version accepted: fetch it afresh and say why until then.
                entry.card, entry.problem, entry.etag = None, str(error), None
        return entry

    async def _refresh_forever(self) -> None:
        due: dict[str, int] = {}
        while True:
            late = [entry for entry in self.all() if entry.card_url and self._now() >= due.get(entry.id, 0)]
            # Together: an agent that takes its ten seconds to fail must not keep the others waiting.
            await asyncio.gather(*(self.refresh(entry) for entry in late))
            for entry in late:
                due[entry.id] = self._now() + 1000 * _patience(entry)
            await asyncio.sleep(1)


def _entry(record: AgentRecord, card: AgentCard | None, agent: Agent | None) -> Registered:
    return Registered(
        id=record.id,
        kind="remote",
        gate=Gate(64, 256),
        agent=agent,
        card=card,
        card_url=record.card_url,
        trusted=record.trusted,
        etag=record.etag,
        changed=record.fetched,
        record=record,
    )


def _patience(entry: Registered) -> int:
    """Seconds until the card is looked at again."""
    if not entry.failures:
        return REFRESH_SECONDS
    return RETRY_SECONDS[min(entry.failures, len(RETRY_SECONDS)) - 1]


def slug(name: str) -> str:
    """An agent's id from its card's name: `Weather & Tides (EU)` becomes `weather-tides-eu`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:63].strip("-")
