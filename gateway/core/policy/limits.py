"""How much, how often, how deep: limits of whoever, on whatever, for each principal, agent, tool or conversation.

Rates are GCRA, so a full allowance is there at once and then comes back evenly. Calls, seconds and cost are counted in
windows that begin with the minute, hour or day (UTC). What windows hold is written down about once a second and read at
the start: a crash forgets a second, a restart nothing. Every refusal says truly when trying again will help.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.policy.actions import AGENT_VERBS
from gateway.core.policy.checks import Check, On
from gateway.core.policy.question import Question, Situation, Target
from gateway.model.errors import GatewayError, Reason
from gateway.model.governance import GovernanceStore, Usage
from gateway.model.principal import Principal
from gateway.model.trail import Trail
from gateway.model.value import value

log = logging.getLogger(__name__)

MAX_KEYS = 100_000  # of all limits together; beyond it those that were used longest ago begin afresh
MAX_REMEMBERED = 4_096  # which limits concern whom; as many as decisions are remembered
FLUSH_SECONDS = 1.0  # between two writes of what windows hold

_ROUNDING = 1 + 1e-9  # of costs such as 0.1, which no sum of doubles has exactly

_KEY = tuple[str, str]


@value
class Window:
    """At most `amount` of `what` ("calls", "seconds" or "cost") in each period of so many milliseconds."""

    what: str
    amount: float
    period: int


@value
class Rate:
    """`count` in each period of so many milliseconds, and up to `burst` at once."""

    count: float
    period: int
    burst: int

    @property
    def interval(self) -> float:
        return self.period / self.count


@value
class Limit:
    """`per` is what it is counted for: "principal", "caller", "agent", "tool", "conversation", or "" for all."""

    name: str
    checks: tuple[Check, ...] = field(hash=False)
    per: str = ""
    rate: Rate | None = None
    concurrency: int | None = None
    windows: tuple[Window, ...] = ()
    depth: int | None = None
    fan_out: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def concerns(self, question: Question) -> bool:
        return all(check.holds(question) for check in self.checks)

    @property
    def waits(self) -> bool:
        """Whether what a call takes of it cannot be told before its agent is known."""
        return self.per in ("agent", "tool") or any(window.what == "cost" for window in self.windows)


_Keys = tuple[tuple[Limit, str], ...]


@dataclass(slots=True)
class _Spent:
    until: int
    used: float


class Charge:
    """What one call has taken, of each limit once. `close` gives its places back and counts its seconds; once is
    enough."""

    __slots__ = ("_began", "_keys", "_limits")

    def __init__(self, limits: Limits, keys: tuple[tuple[Limit, str], ...], began: int) -> None:
        self._limits: Limits | None = limits
        self._keys = keys
        self._began = began

    def admit(self, who: Principal, verb: str, target: Target) -> None:
        """The call turns out to be about this, too: takes what it needs besides, as `Limits.admit` does."""
        if self._limits is not None:
            self._keys += self._limits.take(who, verb, target, self._keys)

    def close(self) -> None:
        limits, self._limits = self._limits, None
        if limits is not None:
            limits.release(self._keys, self._began)


class Limits:
    def __init__(self, store: GovernanceStore, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now
        self._limits: tuple[Limit, ...] = ()
        self._costs: tuple[tuple[On, float], ...] = ()
        self.skilled = False  # whether one of them tells one skill of an agent from another
        self._concern: dict[tuple[Principal, str, Target], tuple[Limit, ...]] = {}
        self._arrival: OrderedDict[_KEY, float] = OrderedDict()  # GCRA's theoretical arrival times
        self._inside: Counter[_KEY] = Counter()
        self._spent: OrderedDict[_KEY, _Spent] = OrderedDict()
        self._fans: OrderedDict[_KEY, int] = OrderedDict()
        self._dirty: set[_KEY] = set()
        self._writing: asyncio.Task[None] | None = None

    def use(self, limits: Iterable[Limit], costs: Iterable[tuple[On, float]]) -> None:
        """Other limits from now on; those that keep their name keep their count."""
        self._limits, self._costs = tuple(limits), tuple(costs)
        self._concern.clear()
        places = [check for limit in self._limits for check in limit.checks if isinstance(check, On)]
        self.skilled = any(on.skilled for on in (*places, *(on for on, _ in self._costs)))

    @property
    def any(self) -> bool:
        return bool(self._limits)

    def shown(self) -> Iterator[Mapping[str, Any]]:
        for limit in self._limits:
            yield limit.source

    def costs(self) -> Iterator[Mapping[str, Any]]:
        for on, cost in self._costs:
            yield {"on": list(on.patterns), "cost": cost}

    async def start(self) -> None:
        for row in await self._store.usage():
            if row.until > self._now():
                self._spent[row.limit, row.key] = _Spent(row.until, row.used)
        self._writing = asyncio.create_task(self._write_forever(), name="limit-usage")

    async def aclose(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})
            await self._write()

    def admit(self, who: Principal, verb: str, target: Target, conversation: str, trail: Trail | None) -> Charge | None:
        """Takes what the call needs of every limit that concerns it, or nothing. Raises OVERLOADED, with the time after
        which it will be admitted, or PERMISSION_DENIED where no time will help."""
        concerned = self._concerned(who, verb, target)
        if not concerned:
            return None
        keys = _keys(concerned, who, verb, target, conversation)
        return self._charged(keys, who, trail, self._cost(who, verb, target))

    def begin(self, who: Principal, verb: str) -> Charge:
        """The same for a call that names no agent: takes what can be told before it is known. What it needs besides,
        its charge takes then."""
        concerned = (limit for limit in self._concerned(who, verb, _UNKNOWN) if not limit.waits)
        return self._charged(_keys(concerned, who, verb, _UNKNOWN, ""), who, None, 1.0)

    def take(self, who: Principal, verb: str, target: Target, taken: _Keys) -> _Keys:
        """What was taken beside what the call has `taken` already."""
        keys = _keys(self._concerned(who, verb, target), who, verb, target, "")
        more = tuple(key for key in keys if key not in taken)
        self._charged(more, who, None, self._cost(who, verb, target))
        return more

    def _charged(self, keys: _Keys, who: Principal, trail: Trail | None, cost: float) -> Charge:
        now = self._now()
        if (refusal := self._refused(keys, who, trail, now, cost)) is not None:
            raise refusal
        for limit, key in keys:
            self._take(limit, key, trail, now, cost)
        return Charge(self, keys, now)

    def refusal(self, who: Principal, verb: str, target: Target) -> GatewayError | None:
        """What `admit` would raise now, of a caller's own call outside any conversation; nothing is taken."""
        keys = _keys(self._concerned(who, verb, target), who, verb, target, "")
        return self._refused(keys, who, None, self._now(), self._cost(who, verb, target))

    def _refused(self, keys: _Keys, who: Principal, trail: Trail | None, now: int, cost: float) -> GatewayError | None:
        refusals = (each for limit, key in keys for each in self._refusals(limit, key, who, trail, now, cost))
        return max(refusals, key=_wait, default=None)  # before that the others would refuse it

    def release(self, keys: tuple[tuple[Limit, str], ...], began: int) -> None:
        now = self._now()
        for limit, key in keys:
            if limit.concurrency is not None:
                self._inside[limit.name, key] -= 1
                if not self._inside[limit.name, key]:
                    del self._inside[limit.name, key]
            for window in limit.windows:
                if window.what == "seconds":
                    self._spend(limit, window, key, now, (now - began) / 1000)

    def used(self, name: str, question: Question) -> float:
        """The share of a limit that is used under the question's key: the fullest of its windows, or its places."""
        limit = next((limit for limit in self._limits if limit.name == name), None)
        if limit is None:
            return 0.0
        key = _key(limit.per, question.who, question.verb, question.target, question.situation.conversation)
        if key is None:
            return 0.0
        now = self._now()
        shares = [self._window(limit, window, key, now).used / window.amount for window in limit.windows]
        if limit.concurrency:
            shares.append(self._inside.get((limit.name, key), 0) / limit.concurrency)
        if limit.rate is not None:
            ahead = max(0.0, self._arrives(limit.name, key, limit.rate, now) - now)
            shares.append(ahead / (limit.rate.interval * limit.rate.burst))
        return max(shares, default=0.0)

    def _concerned(self, who: Principal, verb: str, target: Target) -> tuple[Limit, ...]:
        known = self._concern.get((who, verb, target))
        if known is None:
            question = Question(who, verb, target, {}, _ANYTIME)
            known = tuple(limit for limit in self._limits if limit.concerns(question))
            if len(self._concern) >= MAX_REMEMBERED:
                self._concern.clear()
            self._concern[who, verb, target] = known
        return known

    def _cost(self, who: Principal, verb: str, target: Target) -> float:
        question = Question(who, verb, target, {}, _ANYTIME)
        return next((cost for on, cost in self._costs if on.holds(question)), 1.0)

    def _refusals(
        self, limit: Limit, key: str, who: Principal, trail: Trail | None, now: int, cost: float
    ) -> Iterator[GatewayError]:
        if limit.depth is not None and who.hops > limit.depth:
            yield _never(limit, f"at most {limit.depth} hops")
        fans = 0 if trail is None else self._fans.get((limit.name, trail.task), 0)
        if limit.fan_out is not None and fans >= limit.fan_out:
            yield _never(limit, f"at most {limit.fan_out} calls of one task")
        if limit.concurrency is not None and self._inside.get((limit.name, key), 0) >= limit.concurrency:
            # When a place becomes free nobody can know; a second is what a short call takes.
            yield _later(limit, f"{limit.concurrency} at a time", 1.0)
        if limit.rate is not None:
            rate = limit.rate
            early = self._arrives(limit.name, key, rate, now) - (rate.burst - 1) * rate.interval - now
            if early > 0:
                yield _later(limit, f"{rate.count:g} in {_period(rate.period)}", early / 1000)
        for window in limit.windows:
            words = f"{window.amount:g} {window.what} in {_period(window.period)}"
            if window.what == "cost" and cost > window.amount:
                yield _never(limit, f"{words}, and one call costs {cost:g}")
            spent = self._window(limit, window, key, now)
            more = spent.used + cost > window.amount * _ROUNDING
            full = more if window.what == "cost" else spent.used >= window.amount
            if full:
                yield _later(limit, words, (spent.until - now) / 1000)

    def _take(self, limit: Limit, key: str, trail: Trail | None, now: int, cost: float) -> None:
        if limit.fan_out is not None and trail is not None:
            place = (limit.name, trail.task)
            _put(self._fans, place, self._fans.get(place, 0) + 1)
        if limit.concurrency is not None:
            self._inside[limit.name, key] += 1
        if limit.rate is not None:
            begin = max(self._arrives(limit.name, key, limit.rate, now), float(now))
            _put(self._arrival, (limit.name, key), begin + limit.rate.interval)
        for window in limit.windows:
            if window.what != "seconds":
                self._spend(limit, window, key, now, 1.0 if window.what == "calls" else cost)

    def _arrives(self, name: str, key: str, rate: Rate, now: int) -> float:
        """GCRA's theoretical arrival time. One that is further ahead than this rate ever brings it is of another rate,
        from before the file changed, or of a clock that has been set back, and is cut."""
        found, most = self._arrival.get((name, key), 0.0), now + rate.burst * rate.interval
        if found > most:
            found = self._arrival[name, key] = most
        return found

    def _window(self, limit: Limit, window: Window, key: str, now: int) -> _Spent:
        spent = self._spent.get((f"{limit.name} {window.what}", key))
        until = (now // window.period + 1) * window.period
        return spent if spent is not None and now < spent.until <= until else _Spent(until, 0.0)

    def _spend(self, limit: Limit, window: Window, key: str, now: int, amount: float) -> None:
        spent = self._window(limit, window, key, now)
        spent.used += amount
        place = (f"{limit.name} {window.what}", key)
        _put(self._spent, place, spent)
        self._dirty.add(place)

    async def _write_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._write()

    async def _write(self) -> None:
        dirty, self._dirty = self._dirty, set()
        rows = [
            Usage(name, key, spent.until, spent.used)
            for name, key in dirty
            if (spent := self._spent.get((name, key))) is not None
        ]
        if not rows:
            return
        try:
            await self._store.spend(rows, self._now())
        except GatewayError as error:
            self._dirty |= dirty
            log.warning("what is used of limits could not be written, trying again: %s", error.message)


_ANYTIME = Situation()
_UNKNOWN = Target("")  # what a call is about that names no agent, which patterns for all agents cover


def _key(per: str, who: Principal, verb: str, target: Target, conversation: str) -> str | None:
    """What a limit is counted under; None where it does not concern the call."""
    if not per:
        return ""
    if per == "principal":
        return f"{who.tenant}/{who.id}"
    if per == "caller":
        return f"{who.tenant}/{who.root.id}"
    if per == "conversation":
        return conversation or None
    return target.id if (per == "agent") is (verb in AGENT_VERBS) else None


def _keys(limits: Iterable[Limit], who: Principal, verb: str, target: Target, conversation: str) -> _Keys:
    found = ((limit, _key(limit.per, who, verb, target, conversation)) for limit in limits)
    return tuple((limit, key) for limit, key in found if key is not None)


def _put(table: OrderedDict[_KEY, Any], key: _KEY, what: Any) -> None:
    table[key] = what
    table.move_to_end(key)
    if len(table) > MAX_KEYS:
        table.popitem(last=False)


def _period(milliseconds: int) -> str:
    return {1_000: "a second", 60_000: "a minute", 3_600_000: "an hour", 86_400_000: "a day"}[milliseconds]


def _wait(refusal: GatewayError) -> float:
    return math.inf if refusal.retry_after is None else refusal.retry_after


def _never(limit: Limit, what: str) -> GatewayError:
    message = f"The limit {limit.name} does not allow this: {what}"
    return GatewayError(Reason.PERMISSION_DENIED, message, metadata={"limit": limit.name})


def _later(limit: Limit, what: str, seconds: float) -> GatewayError:
    wait = max(1, math.ceil(seconds))
    message = f"The limit {limit.name} is used up ({what}); try again in {wait} s"
    return GatewayError(Reason.OVERLOADED, message, metadata={"limit": limit.name}, retry_after=wait)
