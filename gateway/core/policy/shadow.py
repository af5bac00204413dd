"""A policy that decides nothing: it is asked beside the one that does, and where it would decide otherwise is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.core.policy.question import Situation, Target, address
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import Principal
from gateway.model.value import value

log = logging.getLogger(__name__)

MAX_FLIPS = 1_000  # kinds of difference that are kept; a policy that differs in more is not nearly right


class Flip(NamedTuple):
    """One kind of difference. The rules are those that decided."""

    principal: str
    verb: str
    target: str
    verdict: Verdict
    rule: str
    would_be: Verdict
    by_rule: str


@value
class Flips:
    """How often each has happened, the latest last; `left_out` were too many."""

    seen: Mapping[Flip, int]
    left_out: int


class Shadow:
    """`skilled` says whether the rules that are tried out tell one skill of an agent from another."""

    def __init__(self, decide: Callable[..., Decision], skilled: Callable[[], bool]) -> None:
        self._decide = decide
        self.skilled = skilled
        self._seen: dict[Flip, int] = {}
        self._left_out = 0

    @property
    def flips(self) -> Flips:
        return Flips(dict(self._seen), self._left_out)

    def forget(self) -> None:
        """Other rules: what the old ones would have done is of no interest."""
        self._seen.clear()
        self._left_out = 0

    def compare(
        self,
        decision: Decision,
        who: Principal,
        verb: str,
        target: Target,
        arguments: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        situation: Situation | None,
    ) -> None:
        other = self._decide(who, verb, target, arguments, situation)
        if other.verdict is decision.verdict:
            return
        flip = Flip(who.id, verb, address(verb, target), decision.verdict, decision.rule, other.verdict, other.rule)
        count = self._seen.pop(flip, 0)
        if not count and len(self._seen) >= MAX_FLIPS:
            self._left_out += 1
            return
        self._seen[flip] = count + 1
        if not count:
            log.info("shadow policy: %s %s %s is %s (%s) and would be %s (%s)", *flip)
