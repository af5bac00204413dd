"""The list and the end of callers' authorizations (connections.py): of all for the operator, of their own for each.

They lie in files and not in the store. What is removed is gone here first; that its issuer hears of it is tried then,
and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gateway.core.act import Act
from gateway.core.audit import Recorder, Ticket
from gateway.core.connections import OWN, VISIT_MS, Find, owner_of
from gateway.core.standing import connection, standing
from gateway.core.tools.state import Sealer
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.login import Connection, Ending, Kept
from gateway.model.operation import ListConnections, RemoveConnection, RotateVaultKey
from gateway.model.ports import Store
from gateway.model.principal import Principal


class KeptConnections:
    def __init__(
        self,
        kept: Kept,
        find: Find,
        sealer: Sealer,
        store: Store,
        now: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._kept = kept
        self._find = find
        self._sealer = sealer
        self._store = store
        self._now = now
        self._new_id = new_id
        self.to_connect: Callable[[Principal], Sequence[tuple[str, str]]] = lambda who: ()  # names and links

    # For the operator.

    async def list(self, call: ListConnections, ticket: Ticket, entry: None) -> Sequence[Connection]:
        return [each for each in await self._kept.all() if _whose(each, call.of) and _where(each, call.at)]

    async def remove(self, call: RemoveConnection, act: Act, entry: None) -> Ending:
        return await self._removed(call.id, None, act)

    async def rotate(self, call: RotateVaultKey, ticket: Ticket, entry: None) -> int:
        """How many files are sealed with a new key."""
        await self._store.commit(records=(ticket.intent(self._now()),))
        return await self._kept.rotate()

    # For a person.

    async def own(self, who: Principal) -> Sequence[tuple[Connection, str]]:
        """Those of `who`, each with a word that removes it: for a while, and nothing else."""
        owner, until = owner_of(who), self._now() + VISIT_MS
        found = [each for each in await self._kept.all() if each.owner == owner]
        Recorder(self._store, self._now).note(self._ticket(who, ListConnections.verb), "ok")
        return [(each, self._sealer.seal({"r": each.id, "o": owner, "e": until})) for each in found]

    def others(self, who: Principal, found: Iterable[Connection]) -> Sequence[tuple[str, str]]:
        """What `who` may connect beside these: each name with its link."""
        there = {each.place.removeprefix("tools/") for each in found}
        return [(name, url) for name, url in self.to_connect(who) if name not in there]

    async def remove_own(self, word: str) -> Ending:
        """Raises INVALID_PARAMS for a word that is none, or too old; NOT_FOUND for what is gone."""
        claims = self._sealer.open(word)
        if claims is None or "r" not in claims or claims["e"] < self._now():
            raise invalid("ticket", "is too old, or none of this gateway; open your list again")
        tenant, _, id = claims["o"].partition("/")
        ticket = self._ticket(Principal.of(id, tenant), RemoveConnection.verb)
        act = Act(ticket, self._store, self._now, {})
        return await act.through(self._removed(claims["r"], claims["o"], act))

    def _ticket(self, who: Principal, verb: str) -> Ticket:
        return Ticket(who, verb, "gateway", OWN, self._new_id())

    async def _removed(self, id: str, owner: str | None, act: Act) -> Ending:
        kept = (each for each in await self._kept.all() if owner in (None, each.owner))
        found = next((each for each in kept if each.id == id), None)
        if found is None:
            raise GatewayError(Reason.NOT_FOUND, f"There is no connection {id!r}")
        act.before = standing([connection(found)])
        await act.begin()  # the issuer is told
        ending = await self._ended(found)
        await act.ended("ok", {})
        return ending

    async def _ended(self, found: Connection) -> Ending:
        accounts = self._find(found.place)
        if found.owner is None or accounts is None:
            self._kept.forget(found)
            return Ending.UNASKED
        try:
            return await accounts.end(found.owner)
        except GatewayError:  # an agent whose card was not read since the start
            self._kept.forget(found)
            return Ending.FAILED


def _whose(found: Connection, of: str | None) -> bool:
    """`of` is an id, or tenant and id; ids may hold a slash themselves."""
    return of is None or (found.owner is not None and of in (found.owner, found.owner.partition("/")[2]))


def _where(found: Connection, at: str | None) -> bool:
    return at is None or at in (found.place, found.place.partition("/")[2])
