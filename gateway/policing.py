"""The policy of the configuration: its file and the grants, made into the rules that the core decides by.

A part of app.py, in a room of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gateway.config import (
    ApprovalsEntry,
    ConfigError,
    LimitEntry,
    Origin,
    PolicyFile,
    Problem,
    RuleEntry,
    amount,
    did_you_mean,
    document_problem,
    parse_policy,
    read_document,
    span,
    zone_of,
)
from gateway.core.freezer import Freezer
from gateway.core.policy import RULES, Policy, Rule, Ruling
from gateway.core.policy.actions import GROUPS, VERBS
from gateway.core.policy.admission import Admission
from gateway.core.policy.book import Book
from gateway.core.policy.checks import (
    Arguments,
    Behalf,
    Budget,
    Check,
    Do,
    Hops,
    Labelled,
    On,
    Scopes,
    Time,
    Via,
    Wanted,
    Who,
)
from gateway.core.policy.interceptors import Pauses
from gateway.core.policy.limits import Limit, Rate, Window
from gateway.core.policy.people import People, Roles
from gateway.core.policy.persons import Persons
from gateway.core.policy.rules import FREEZE
from gateway.core.policy.shadow import Shadow
from gateway.core.tools.grants import Grants
from gateway.model.approval import HOUR_MS, Terms
from gateway.model.audit import Verdict
from gateway.model.errors import GatewayError, Reason
from gateway.model.whom import whole
from gateway.watching import Watch

log = logging.getLogger(__name__)


def book(grants: Grants, text: str | None = None, name: str = "policy", first: tuple[Ruling, ...] = ()) -> Book:
    """The rules that hold with this policy file (None: without one), behind those of `first`. Raises ConfigError with
    its problems."""
    mark = hashlib.sha256(repr(list(grants.shown())).encode())
    defaults: tuple[Ruling, ...] = (*RULES, grants)
    if text is None:
        return Book((*first, *defaults), mark.hexdigest()[:32])
    file, origin = parse_policy(text, name)
    problems = [*_unknown_actions("rules", file.rules, origin), *_unknown_actions("limits", file.limits, origin)]
    problems += [*_unknown_limits(file, origin), *_two_at_once(file, origin)]
    if problems:
        raise ConfigError(problems)
    mark.update(text.encode())
    rules = (*first, *_rules(file, origin), *(defaults if file.defaults else (grants,)))
    limits = tuple(_limit(entry, file.roles) for entry in file.limits)
    costs = tuple((On(entry.on), entry.cost) for entry in file.costs)
    labels, pauses, persons = tuple(_labels(file)), _pauses(file.approvals), Persons(file.people)
    return Book(rules, mark.hexdigest()[:32], name, limits, costs, labels, pauses, persons, file.people, file.roles)


def _rules(file: PolicyFile, origin: Origin) -> Iterator[Rule]:
    for index, entry in enumerate(file.rules):
        line = origin.line(("rules", index))
        source = entry.model_dump(mode="json", by_alias=True, exclude_unset=True)
        yield Rule(
            entry.rule,
            entry.because or f"the rule {entry.rule} says so",
            tuple(_checks(entry, file.roles)),
            Verdict(entry.verdict),
            (FREEZE,) if entry.freeze else (),
            _terms(entry, source),
            where=origin.name if line is None else f"{origin.name}:{line}",
            source=source,
        )


def _pauses(entry: ApprovalsEntry | None) -> Pauses | None:
    if entry is None:
        return None
    everybody = None if entry.pause is None else On(entry.pause)
    delegated = None if entry.pause_delegated is None else On(entry.pause_delegated)
    return Pauses(everybody, delegated, entry.destructive, _agreed(entry), _said(entry))


def _said(entry: ApprovalsEntry) -> Mapping[str, Any]:
    return {"destructive": True, **entry.model_dump(mode="json", exclude_unset=True)}


def _terms(entry: RuleEntry, source: Mapping[str, Any]) -> Terms | None:
    return replace(_agreed(entry), rule=_mark(source)) if entry.verdict == Verdict.ESCALATE else None


def _mark(source: Mapping[str, Any]) -> str:
    return hashlib.sha256(repr(source).encode()).hexdigest()


def _agreed(entry: RuleEntry | ApprovalsEntry) -> Terms:
    within = HOUR_MS if entry.within is None else span(entry.within)
    return Terms(entry.approver == "caller", entry.approvers or 1, within)


def _general(entry: RuleEntry | LimitEntry, roles: Roles) -> Iterator[Check]:
    yield Who(People(entry.who, roles))
    if "*" not in entry.do:
        yield Do(tuple(_actions(entry.do)))
    if "*" not in entry.on:
        yield On(entry.on, lenient=isinstance(entry, RuleEntry) and entry.verdict in ("PASS", "FLAG"))


def _checks(entry: RuleEntry, roles: Roles) -> Iterator[Check]:
    yield from _general(entry, roles)
    when = entry.when
    if when is None:
        return
    if when.behalf is not None:
        yield Behalf(People(when.behalf, roles))
    if when.via is not None:
        yield Via(People(when.via, roles))
    if when.hops is not None:
        yield Hops(when.hops.at_least, when.hops.at_most)
    if when.scopes is not None:
        yield Scopes(when.scopes)
    if when.labels:
        yield Labelled(when.labels)
    if when.budget is not None:
        yield Budget(when.budget.limit, when.budget.share)
    if when.arguments:
        yield Arguments({name: Wanted(**dict(each)) for name, each in when.arguments.items()})
    if when.time is not None:
        time = when.time
        yield Time(time.days, _minutes(time.since), _minutes(time.until), zone_of(time.zone), time.zone)


def _actions(words: Iterable[str]) -> Iterator[str]:
    """A pattern stands for the actions that it matches."""
    for word in words:
        yield from sorted(verb for verb in VERBS if fnmatchcase(verb, word)) if "*" in word else (word,)


def _unknown_actions(section: str, entries: Sequence[RuleEntry | LimitEntry], origin: Origin) -> Iterator[Problem]:
    names = [*GROUPS, *sorted(VERBS)]
    for index, entry in enumerate(entries):
        for place, word in enumerate(entry.do):
            known = VERBS if "*" in word else names  # a pattern stands for actions, and for no group of them
            if word != "*" and not any(fnmatchcase(name, word) for name in known):
                loc = (section, index, "do", place)
                yield document_problem(origin, loc, f"there is no action '{word[:80]}'", did_you_mean(word, names))


def _unknown_limits(file: PolicyFile, origin: Origin) -> Iterator[Problem]:
    known = [entry.limit for entry in file.limits]
    for index, entry in enumerate(file.rules):
        budget = None if entry.when is None else entry.when.budget
        if budget is not None and budget.limit not in known:
            hint = did_you_mean(budget.limit, known) if known else "there are no limits in this file"
            loc = ("rules", index, "when", "budget", "limit")
            yield document_problem(origin, loc, f"there is no limit '{budget.limit}'", hint)


def _two_at_once(file: PolicyFile, origin: Origin) -> Iterator[Problem]:
    """Persons who are meant to be the same principal."""
    whose: dict[str, str] = {}
    for person, words in file.people.items():
        for place, word in enumerate(words):
            if (other := whose.setdefault(whole(word), person)) != person:
                yield document_problem(origin, ("people", person, place), f"{word} is {other} already", "one person")


def _limit(entry: LimitEntry, roles: Roles) -> Limit:
    rate = None
    if entry.rate is not None:
        count, period = amount(entry.rate)
        rate = Rate(count, period, entry.burst or max(1, int(count)))
    windows = tuple(
        Window(what, *amount(said)) for what in ("calls", "seconds", "cost") if (said := getattr(entry, what))
    )
    return Limit(
        entry.limit,
        tuple(_general(entry, roles)),
        entry.per or "",
        rate,
        entry.concurrency,
        windows,
        entry.depth,
        entry.fan_out,
        entry.model_dump(mode="json", by_alias=True, exclude_unset=True),
    )


def _labels(file: PolicyFile) -> Iterator[tuple[str, On]]:
    for label, patterns in file.labels.model_dump(by_alias=True, exclude_none=True).items() if file.labels else ():
        yield label, On(patterns)


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def _lists(named: Mapping[str, Iterable[str]]) -> Mapping[str, list[str]]:
    return {name: list(words) for name, words in named.items()}


class Keeper:
    """Holds a policy to its file: read at the start, and again whenever it changes. A file that is wrong changes
    nothing, and says so until it is right. Limits and labels go to the `admission`; a shadow has none. `unasked` is
    told of each time the file was read because it had changed: the hash of the rules that hold now, and the problem."""

    verb = "ReloadPolicy"

    def __init__(
        self,
        policy: Policy,
        grants: Grants,
        freezer: Freezer,
        file: Path | None,
        changed: Callable[[], None],
        admission: Admission | None = None,
    ) -> None:
        self.problem: str | None = None
        self.people: Mapping[str, Any] = {}
        self.roles: Mapping[str, Any] = {}
        self.unasked: Callable[[str, str | None], None] = lambda policy, problem: None
        self._admission = admission
        self._policy = policy
        self._grants = grants
        self._freezer = freezer
        self._file = file
        self._changed = changed
        self._watch = Watch("policy-file", self._again)
        self._reading = asyncio.Lock()
        self._regranted = 0  # how often
        self._good: tuple[str, ...] = ()  # text and name of the file as it was when it was right
        self._use(self._read())

    @property
    def file(self) -> str | None:
        return None if self._file is None else str(self._file)

    def start(self) -> None:
        self._watch.start()

    async def aclose(self) -> None:
        await self._watch.aclose()

    async def reload(self) -> None:
        """Read it now, while calls go on: a thousand rules take a second. Raises INVALID_REQUEST with every problem of
        the file, and then the old rules hold on."""
        async with self._reading:
            try:
                self._use(await self._reread())
            except ConfigError as error:
                self._complain(error)
                raise GatewayError(Reason.INVALID_REQUEST, str(error)) from error
            self._changed()

    async def _reread(self) -> Book:
        grants = None
        while grants != self._regranted:  # else they changed meanwhile, and the hash of the rules is of them, too
            grants = self._regranted
            book = await asyncio.to_thread(self._read)
        return book

    def regrant(self) -> None:
        """The grants have changed; the file is as it was."""
        self._regranted += 1
        problem = self.problem
        self._use(self._made(*self._good))
        self.problem = problem

    def book(self, text: str, name: str) -> Book:
        """The rules that another text would make. Raises INVALID_REQUEST with what is wrong with it."""
        try:
            return self._made(text, name)
        except ConfigError as error:
            raise GatewayError(Reason.INVALID_REQUEST, str(error)) from error

    def _made(self, text: str | None = None, name: str = "policy") -> Book:
        return book(self._grants, text, name, (self._freezer,))

    def _read(self) -> Book:
        if self._file is None:
            return self._made()
        self._watch.read((self._file,))
        text, name = read_document(self._file)
        found = self._made(text, name)
        self._good = (text, name)
        return found

    def _use(self, book: Book) -> None:
        if self.problem is not None or book.hash != self._policy.hash:
            log.info("policy %s holds%s", book.hash, f", from {book.name}" if book.name else "")
        self.problem = None
        self.people, self.roles = _lists(book.people), _lists(book.roles)
        if self._admission is not None:  # first: who hears of other rules asks the admission
            self._admission.limits.use(book.limits, book.costs)
            self._admission.labels.use(book.labels)
            self._admission.interceptors.pauses = book.pauses
            self._admission.persons = book.persons
        self._policy.use(book.rules, book.hash)

    async def _again(self) -> None:
        with suppress(GatewayError):
            await self.reload()
        self.unasked(self._policy.hash, self.problem)

    def _complain(self, error: ConfigError) -> None:
        self.problem = str(error)
        log.error("the policy file is wrong, policy %s holds on:\n%s", self._policy.hash, error)


def shadowed(policy: Policy, grants: Grants, freezer: Freezer, file: Path) -> Keeper:
    """A second file, whose policy is asked beside `policy` and decides nothing."""
    candidate = Policy(situation=policy.situation)
    policy.shadow = shadow = Shadow(candidate.decide, lambda: candidate.skilled)
    freezer.changed.append(candidate.forget)
    return Keeper(candidate, grants, freezer, file, shadow.forget)
