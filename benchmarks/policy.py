"""The policy alone: what one decision takes, under fifty rules that all speak of the same call.

    make bench ARGS=policy

`remembered`: asked before. `new`: a target that nobody asked about before. `arguments`: asked before, and the rule that
decides looks at arguments each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.core.policy import Policy, Situation, Target
from gateway.core.tools.grants import Grants
from gateway.model.principal import Kind, Principal
from gateway.policing import book

RULES = 50
ROUNDS, CALLS = 200, 200
GOALS = {"remembered": 0.2, "new": 2.0}  # µs


def policy() -> Policy:
    """Each rule is for one key and one role; those of every fifth look at arguments."""
    rules = [
        f"{{rule: r{n}, who: [team{n}, 'role:role{n}'], do: call, on: [agents/team{n}, 'team{n}/*'], verdict: PASS"
        + (", when: {arguments: {text: {longest: 100}}}}" if n % 5 == 4 else "}")
        for n in range(RULES)
    ]
    found = book(Grants(()), f"rules: [{', '.join(rules)}]", "policy.yaml")
    return Policy(found.rules, found.hash)


def measure() -> dict[str, float]:
    """Microseconds of one decision of each kind: the best round, because everything else on the machine only adds."""
    asked = policy()
    ann = Principal(Kind.OAUTH, "https://idp.example#ann", roles=frozenset({"staff", "role7"}))
    echo, there = Target("echo", public=True), Situation(1)
    four, fourth = Principal(Kind.KEY, "team4"), Target("team4")
    new = iter([Target(f"echo{n}", public=True) for n in range(ROUNDS * CALLS)])
    return {
        "remembered": best(lambda: asked.decide(ann, "SendMessage", echo)),
        "new": best(lambda: asked.decide(ann, "SendMessage", next(new))),
        "arguments": best(lambda: asked.decide(four, "SendMessage", fourth, {"text": "hello"}, there)),
    }


def best(decide: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(CALLS):
            decide()
        took.append(time.perf_counter() - began)
    return min(took) / CALLS * 1e6


def main() -> int:
    for name, took in measure().items():
        goal = f"   goal {GOALS[name]:g}" if name in GOALS else ""
        print(f"{name:>11} {took:6.2f} µs{goal}")
    return 0
