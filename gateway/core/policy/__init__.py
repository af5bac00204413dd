"""May they? One engine for everything that can be done, deny by default.

`engine` decides, `rules` and `checks` are what it decides by, `explanation` says why.
"""

from __future__ import annotations

from gateway.core.policy.actions import USE, WORK
from gateway.core.policy.engine import MAX_MEMO, Policy
from gateway.core.policy.explanation import Explanation
from gateway.core.policy.patterns import matches
from gateway.core.policy.question import Question, Situation, Target, address
from gateway.core.policy.rules import DENIED, RULES, Rule, Ruling, Weighed

__all__ = [
    "DENIED",
    "MAX_MEMO",
    "RULES",
    "USE",
    "WORK",
    "Explanation",
    "Policy",
    "Question",
    "Rule",
    "Ruling",
    "Situation",
    "Target",
    "Weighed",
    "address",
    "matches",
]
