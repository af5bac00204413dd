"""What the operator has approved: the whole definition of each tool and prompt, by its hash.

What a server shows the first time is trusted with the server itself, unless the operator wants to see that too. What
is new, changed or renamed afterwards waits in quarantine: it is neither listed nor called until it is approved
(security.md T7; the "rug pull").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import partial

from gateway.core.audit import Ticket
from gateway.model.audit import AuditEntry, Decision, Verdict
from gateway.model.changes import DropPin, PutPin
from gateway.model.ports import Store, Write
from gateway.model.principal import MACHINE
from gateway.model.rows import PinRecord
from gateway.model.tool import Definition, Kind, digest
from gateway.model.toolcall import Waiting

PINNED = (Kind.TOOL, Kind.PROMPT)
"""What a model acts on. Lists of resources are content, and change as content does."""


# A mark beside the pins: the server was seen, be it with an empty list. What it shows after that is new.
_SEEN = "seen"

_FIRST = Decision(Verdict.PASS, "first-sight", "what a server shows the first time is trusted with the server itself")


class Quarantine(StrEnum):
    CHANGED = "changed"  # what is new or changed since the first sight waits
    NEW = "new"  # everything waits until it is approved
    OFF = "off"


class Pins:
    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now
        self._pins: dict[str, dict[tuple[Kind, str], PinRecord]] = {}

    async def start(self) -> None:
        for record in await self._store.pins():
            known = self._pins.setdefault(record.server, {})
            if record.kind != _SEEN:
                known[Kind(record.kind), record.key] = record

    async def judge(
        self, server: str, definitions: Iterable[Definition], mode: Quarantine
    ) -> tuple[list[Definition], list[Waiting]]:
        """What may be offered, and what waits. The first sight of a server is remembered here."""
        definitions = list(definitions)
        pinned = [each for each in definitions if each.kind in PINNED]
        if mode is Quarantine.OFF:
            return definitions, []
        if mode is Quarantine.CHANGED and server not in self._pins:
            await self._pin(server, pinned, partial(self._store.commit, records=(self._first(server),)))
        known = self._pins.get(server, {})
        waiting = [
            Waiting(each, _why(each, known), before.tree if (before := known.get((each.kind, each.key))) else None)
            for each in pinned
            if (pin := known.get((each.kind, each.key))) is None or pin.hash != each.hash
        ]
        held = {(each.definition.kind, each.definition.key) for each in waiting}
        return [each for each in definitions if (each.kind, each.key) not in held], waiting

    async def approve(self, server: str, definitions: Iterable[Definition], write: Write) -> None:
        await self._pin(server, definitions, write)

    def of(self, definitions: Iterable[Definition]) -> list[PinRecord]:
        """What was approved under their names."""
        found = (self._pins.get(each.server, {}).get((each.kind, each.key)) for each in definitions)
        return [pin for pin in found if pin is not None]

    def approved(self, server: str) -> list[Definition]:
        """Whatever was approved of it, as it was approved."""
        known = self._pins.get(server, {})
        return [Definition(server, kind, key, pin.tree, pin.hash) for (kind, key), pin in known.items()]

    async def forget(self, server: str) -> None:
        """The server is gone from the configuration: should it come back, it is seen for the first time."""
        records = self._pins.pop(server, {}).values()
        await self._store.commit(
            DropPin(server, _SEEN, ""), *(DropPin(server, each.kind, each.key) for each in records)
        )

    def servers(self) -> Iterable[str]:
        return tuple(self._pins)

    def _first(self, server: str) -> AuditEntry:
        now = self._now()
        ticket = Ticket(MACHINE, "PinTools", server, _FIRST, f"pin-{server}-{now}")
        return ticket.outcome(now, "ok")

    async def _pin(self, server: str, definitions: Iterable[Definition], write: Write) -> None:
        now = self._now()
        fresh = [PinRecord(server, each.kind, each.key, each.hash, each.tree, now) for each in definitions]
        seen = PinRecord(server, _SEEN, "", "", {}, now)
        await write(*(PutPin(pin) for pin in (seen, *fresh)))
        self._pins.setdefault(server, {}).update({(Kind(each.kind), each.key): each for each in fresh})


def _why(definition: Definition, known: dict[tuple[Kind, str], PinRecord]) -> str:
    if (definition.kind, definition.key) in known:
        return "changed"
    content = _content(definition.kind, definition.tree)
    for (kind, key), pin in known.items():
        if kind is definition.kind and _content(kind, pin.tree) == content:
            return f"the same as {key}, under another name"
    return "new"


def _content(kind: Kind, tree: dict[str, object]) -> str:
    return digest({name: each for name, each in tree.items() if name != kind.key})
