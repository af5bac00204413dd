"""What a rule asks before it decides. A rule holds when all its checks do; each can say why it does not.

`fixed` checks depend on the principal, the verb and the target alone, so their answers are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from fnmatch import fnmatchcase
from typing import Any, Protocol

from gateway.core.policy.actions import CALLS, DELEGATE, GROUPS, USE
from gateway.core.policy.patterns import AGENTS, compiled, covered, is_plain, starred
from gateway.core.policy.people import People
from gateway.core.policy.question import Question, place
from gateway.model.principal import Kind, Principal
from gateway.model.value import value
from gateway.model.whom import short

PUBLIC = "public"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Check(Protocol):
    """`field` is what the file calls it."""

    @property
    def field(self) -> str: ...

    @property
    def fixed(self) -> bool: ...

    def holds(self, question: Question) -> bool: ...

    def wants(self) -> str:
        """What it asks for, after the words "it needs"."""
        ...

    def mend(self, question: Question) -> str:
        """What would have to change for it to hold, as a request to whoever asked."""
        ...


class Who:
    field = "who"
    fixed = True

    def __init__(self, people: People) -> None:
        self.people = people

    def holds(self, question: Question) -> bool:
        if self.people.worker and question.target.worker == question.who.id:
            return True
        return self.people.include(question.who)

    def wants(self) -> str:
        return f"who: {self.people}"

    def mend(self, question: Question) -> str:
        return f"add {short(question.who)} to its who"


class Do:
    field = "do"
    fixed = True

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self.verbs = frozenset[str]().union(
            *(GROUPS.get(word, frozenset((word,))) for word in self.words if word != DELEGATE)
        )
        self._delegated = GROUPS[DELEGATE] if DELEGATE in self.words else frozenset[str]()
        self.by_verb = not self._delegated  # nothing but the verb matters

    @property
    def may_be(self) -> frozenset[str]:
        """The verbs that it can hold for."""
        return self.verbs | self._delegated

    def holds(self, question: Question) -> bool:
        return question.verb in self.verbs or (question.who.hops > 0 and question.verb in self._delegated)

    def wants(self) -> str:
        return f"do: {', '.join(self.words)}"

    def mend(self, question: Question) -> str:
        return f"add {question.verb} to its do"


_NAME_NO_SKILL = USE - CALLS


class On:
    """`lenient` is for rules that let through: whoever may use one skill may see the agent's card and its own tasks
    there, which name no skill."""

    field = "on"
    fixed = True

    def __init__(self, patterns: Iterable[str], *, lenient: bool = False) -> None:
        self.patterns = tuple(patterns)
        self._public = PUBLIC in self.patterns
        globs = [pattern for pattern in self.patterns if pattern != PUBLIC]
        self._all = "*" in globs
        self._covers = tuple(compiled(pattern) for pattern in globs)
        plain = [pattern for pattern in globs if is_plain(pattern)]
        self._plain = frozenset(pattern.partition("/")[::2] for pattern in plain)
        self._globs = tuple(compiled(pattern) for pattern in globs if pattern not in plain)
        skilled = [pattern for pattern in globs if fnmatchcase(f"{AGENTS}/x/x", _shape(pattern))]
        self.skilled = bool(skilled)
        self._agents = tuple(compiled(pattern.rpartition("/")[0]) for pattern in skilled) if lenient else ()

    def holds(self, question: Question) -> bool:
        if self._all or (self._public and question.target.public):
            return True
        at = server, name = place(question.verb, question.target)
        if server == AGENTS and "/" in name:
            return covered(self._covers, server, name)
        # Most patterns are plain words; many are as quick to look up as one.
        if at in self._plain or (self._globs and covered(self._globs, server, name)):
            return True
        return bool(self._agents) and question.verb in _NAME_NO_SKILL and covered(self._agents, server, name)

    def reaches(self, server: str) -> bool:
        """Whether it covers something of this server."""
        return any(fnmatchcase(server, pattern.partition("/")[0]) for pattern in self.patterns if pattern != PUBLIC)

    def reaches_agent(self, id: str | None, *, public: bool) -> bool:
        """Whether it covers this agent or a skill of it; None: some agent."""
        if public and self._public:
            return True
        shapes = (pattern.split("/") for pattern in self.patterns if pattern != PUBLIC)
        return any(
            fnmatchcase(AGENTS, server) and (id is None or not more or fnmatchcase(id, more[0]))
            for server, *more in shapes
        )

    def wants(self) -> str:
        return f"on: {', '.join(self.patterns)}"

    def mend(self, question: Question) -> str:
        if self._public:
            agent = question.address.startswith(f"{AGENTS}/")
            return f"set agents.{question.target.id}.public: true in the configuration" if agent else ""
        return f"add {question.address} to its on"


def _shape(pattern: str) -> str:
    """`agents/*/x` of whatever names an agent and a skill."""
    server, *names = pattern.split("/", 2)
    return f"{server}/*/*" if len(names) == 2 else "-"


class Behalf:
    """On whose behalf it is asked in the end: the caller at the outer end of the delegation chain."""

    field = "when.for"
    fixed = True

    def __init__(self, people: People) -> None:
        self._people = people

    def holds(self, question: Question) -> bool:
        return self._people.include(question.who.root)

    def wants(self) -> str:
        return f"for: {self._people}"

    def mend(self, question: Question) -> str:
        return f"add {short(question.who.root)} to its for"


class Via:
    """Who stands between the outer caller and whoever asks now."""

    field = "when.via"
    fixed = True

    def __init__(self, people: People) -> None:
        self._people = people

    def holds(self, question: Question) -> bool:
        return any(self._people.include(each) for each in chain(question.who)[1:])

    def wants(self) -> str:
        return f"via: {self._people}"

    def mend(self, question: Question) -> str:
        return f"ask through one of {self._people}"


class Hops:
    field = "when.hops"
    fixed = True

    def __init__(self, least: int | None, most: int | None) -> None:
        self._least, self._most = least or 0, most

    def holds(self, question: Question) -> bool:
        hops = question.who.hops
        return hops >= self._least and (self._most is None or hops <= self._most)

    def wants(self) -> str:
        most = "" if self._most is None else f" and at most {self._most}"
        return f"hops: at least {self._least}{most}"

    def mend(self, question: Question) -> str:
        return f"ask with {self.wants().removeprefix('hops: ')} hops between the first caller and the target"


class Scopes:
    """The access token with which it all began has all of these. Whoever came with another credential has none, and an
    agent of ours acts with the token of whoever asked it: what it may do never grows on the way."""

    field = "when.scopes"
    fixed = True

    def __init__(self, scopes: Iterable[str]) -> None:
        self.scopes = tuple(sorted(set(scopes)))
        self._wanted = frozenset(scopes)

    def holds(self, question: Question) -> bool:
        held = granted(question.who)
        return held is not None and self._wanted <= held

    def lacks(self, question: Question) -> frozenset[str]:
        """Those that the token does not have; none where there is no token that could have them."""
        held = granted(question.who)
        return frozenset() if held is None else self._wanted - held

    def wants(self) -> str:
        return f"scopes: {', '.join(self.scopes)}"

    def mend(self, question: Question) -> str:
        missing = sorted(self.lacks(question))
        return f"ask with an access token that has the {_named(missing)}, too" if missing else ""


def _named(scopes: list[str]) -> str:
    return f"scope {scopes[0]}" if len(scopes) == 1 else f"scopes {', '.join(scopes)}"


def granted(who: Principal) -> frozenset[str] | None:
    """The scopes that hold along the whole chain; None where it did not begin with an access token."""
    held: frozenset[str] | None = None
    for each in chain(who):
        if each.kind is Kind.AGENT:  # one of ours, which has no token of its own
            continue
        if each.kind is not Kind.OAUTH:
            return None
        held = each.scopes if held is None else held & each.scopes
    return held


@value
class Wanted:
    """What one argument must be. `one_of` compares as JSON does: true is not 1."""

    one_of: tuple[Any, ...] | None = None
    matches: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    longest: int | None = None
    present: bool | None = None

    def admits(self, there: bool, sent: Any) -> bool:
        if self.present is not None and there is not self.present:
            return False
        if self.one_of is not None and not any(same(sent, each) for each in self.one_of):
            return False
        if self.matches and not (isinstance(sent, str) and any(starred(each)(sent) for each in self.matches)):
            return False
        if self.longest is not None and not (isinstance(sent, str | list) and len(sent) <= self.longest):
            return False
        return self._in_bounds(sent)

    def _in_bounds(self, sent: Any) -> bool:
        if self.at_least is None and self.at_most is None:
            return True
        if isinstance(sent, bool) or not isinstance(sent, int | float):
            return False
        return (self.at_least is None or sent >= self.at_least) and (self.at_most is None or sent <= self.at_most)

    def __str__(self) -> str:
        words = [] if self.one_of is None else [f"one of {list(self.one_of)}"]
        words += [f"like {' or '.join(self.matches)}"] if self.matches else []
        words += [f"at least {self.at_least:g}"] if self.at_least is not None else []
        words += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        words += [f"at most {self.longest} long"] if self.longest is not None else []
        words += [] if self.present is None else ["there" if self.present else "left out"]
        return " and ".join(words)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are alike: true is not 1, nor is it anywhere inside."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(each, other[name]) for name, each in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


class Arguments:
    """Arguments of a tool or prompt; of a message `text`, `data` (its first data part) and `metadata`."""

    field = "when.arguments"
    fixed = False

    def __init__(self, wanted: Mapping[str, Wanted]) -> None:
        self._wanted = dict(wanted)

    def holds(self, question: Question) -> bool:
        return not self._wrong(question.arguments)

    def _wrong(self, arguments: Mapping[str, Any]) -> list[str]:
        return [
            f"{name} {wanted}"
            for name, wanted in self._wanted.items()
            if not wanted.admits(*_sent(arguments, name.split(".")))
        ]

    def wants(self) -> str:
        return "arguments: " + ", ".join(f"{name} {wanted}" for name, wanted in self._wanted.items())

    def mend(self, question: Question) -> str:
        return "send " + ", ".join(self._wrong(question.arguments))


def _sent(arguments: Any, path: list[str]) -> tuple[bool, Any]:
    """Whether it was sent, and what."""
    for name in path:
        if not isinstance(arguments, Mapping) or name not in arguments:
            return False, None
        arguments = arguments[name]
    return True, arguments


class Time:
    """`since` and `until` are minutes of a day; a span may go over midnight."""

    field = "when.time"
    fixed = False

    def __init__(self, days: Iterable[str], since: int, until: int, zone: tzinfo, zone_name: str) -> None:
        self._days = frozenset(DAYS.index(day) for day in days)
        self._since, self._until, self._zone, self._zone_name = since, until, zone, zone_name

    def holds(self, question: Question) -> bool:
        now = datetime.fromtimestamp(question.situation.at / 1000, self._zone)
        minute, day = now.hour * 60 + now.minute, now.weekday()
        if self._since <= self._until:
            inside = self._since <= minute < self._until
        else:
            inside = minute >= self._since or minute < self._until
            day = day if minute >= self._since else (day - 1) % 7  # the night belongs to the day it began on
        return inside and day in self._days

    def wants(self) -> str:
        days = ", ".join(DAYS[day] for day in sorted(self._days))
        return f"time: {days} from {_clock(self._since)} until {_clock(self._until)} in {self._zone_name}"

    def mend(self, question: Question) -> str:
        return f"ask at another time ({self.wants().removeprefix('time: ')})"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


class Labelled:
    """The conversation has gathered all of these labels."""

    field = "when.labels"
    fixed = False

    def __init__(self, labels: Iterable[str]) -> None:
        self._labels = frozenset(labels)

    def holds(self, question: Question) -> bool:
        return self._labels <= question.situation.labels

    def wants(self) -> str:
        return f"labels: {', '.join(sorted(self._labels))}"

    def mend(self, question: Question) -> str:
        missing = ", ".join(sorted(self._labels - question.situation.labels))
        return f"ask in a conversation that has the labels {missing}"


class Budget:
    """So much of a limit is used: `share` is 0 … 1."""

    field = "when.budget"
    fixed = False

    def __init__(self, limit: str, share: float) -> None:
        self._limit, self._share = limit, share

    def holds(self, question: Question) -> bool:
        return question.situation.used(self._limit, question) >= self._share

    def wants(self) -> str:
        return f"budget: {self._share:.0%} of the limit {self._limit} used"

    def mend(self, question: Question) -> str:
        return f"ask when {self._share:.0%} of the limit {self._limit} is used"


def chain(who: Principal) -> tuple[Principal, ...]:
    """Whoever asks now, then on whose behalf, up to the first caller."""
    found = [who]
    while found[-1].on_behalf_of is not None:
        found.append(found[-1].on_behalf_of)
    return tuple(found)
