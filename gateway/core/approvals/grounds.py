"""What an approval stands on: the rule that stopped the call, where it goes, and who has agreed to it.

Rules may change while a call waits. An approval stands as long as the very call, decided anew, is stopped by the same
rule with the same terms, and whoever has approved it still may. Comments, and rules that do not decide this call,
change nothing. Where the rule looks at more than the call, at the time or at how much of a limit is used, it need not
hold any more when the call is made, as long as no other one stands in the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from gateway.core.approvals.said import message_call
from gateway.core.approvals.sites import Sites, site
from gateway.core.policy import Rule, Situation, Target
from gateway.core.policy.admission import MCP, Admission
from gateway.core.policy.approvers import approvers
from gateway.core.policy.interceptors import PAUSED
from gateway.core.policy.labels import RULE as RULE_OF_TWO
from gateway.core.policy.persons import Persons
from gateway.core.policy.spoken import spoken
from gateway.model.approval import Approval, ApprovalState, ApproveCall, Asked, EditCall, Said, Terms, Word, chain
from gateway.model.audit import Decision, Verdict
from gateway.model.call import SendMessage
from gateway.model.principal import Principal
from gateway.model.tool import Tree, digest

Inquire: TypeAlias = Callable[[str, str], tuple[str, Target]]
"""The verb and the target that policy is asked about, of a verb and an address."""

OTHER_RULES = "other rules hold since it was asked"
OTHER_EDIT = "what it was edited to is decided otherwise since"
OTHER_PEOPLE = "not all who approved it still may"

_VERBS = {Said.APPROVE: ApproveCall.verb, Said.EDIT: EditCall.verb}


def ground(decision: Decision) -> str:
    """SHA-256 (hex) of what stopped a call: the rule as its file has it, and what it asks for."""
    terms = decision.terms or Terms()
    asks = [terms.caller, terms.persons, terms.within_ms, terms.rule]
    return digest({"reason": decision.reason, "rule": decision.rule, "terms": asks})


class Grounds:
    def __init__(self, admission: Admission, inquire: Inquire, sites: Sites) -> None:
        self._admission = admission
        self._inquire = inquire
        self.sites = sites

    def asked(
        self, who: Principal, verb: str, target: str, arguments: Tree, decision: Decision, task: str = ""
    ) -> Asked:
        """A call that `decision` has stopped, as an approval has it."""
        where = site(self.sites.of(verb, target, who))
        return Asked(who, verb, target, arguments, decision.policy, task, ground(decision), where)

    def lost(self, approval: Approval) -> str:
        """Why it does not stand any more; "" while it does."""
        if why := self.sites.moved(approval):
            return why
        if not self._stopped(approval):
            return OTHER_RULES
        if approval.edited is not None and not self.fits(approval, approval.edited):
            return OTHER_EDIT
        if approval.state is ApprovalState.APPROVED and self.counting(approval) != approval.words:
            return OTHER_PEOPLE
        return ""

    def renewed(self, approval: Approval) -> Approval | None:
        """Of one that waits: the next revision, where others are asked now, or the word of somebody does not count any
        more."""
        words = self.counting(approval)
        whom = approvers(self._admission.policy.rules, approval.asked.target)
        if approval.state is not ApprovalState.WAITING or (words, whom) == (approval.words, approval.approvers):
            return None
        return approval.moved(ApprovalState.WAITING, words=words, approvers=whom)

    def counting(self, approval: Approval) -> tuple[Word, ...]:
        """Of what was said what still counts: the first word of each person who may answer."""
        first: dict[str, Word] = {}
        for word in approval.words:
            if self._may(approval, word):
                first.setdefault(self.persons.of(word.by), word)
        return tuple(first.values())

    @property
    def persons(self) -> Persons:
        return self._admission.persons

    def own(self, approval: Approval, id: str) -> bool:
        """Whether it is a call of this principal, or of the same person's, or made on their behalf."""
        asked = approval.asked.principal
        return any(self.persons.alike(id, each) for each in (asked.id, *chain(asked)))

    def _may(self, approval: Approval, word: Word) -> bool:
        """Whether somebody who has agreed could still do so."""
        if approval.terms.caller and self.persons.alike(word.by, approval.owner):
            return True
        if self.own(approval, word.by):
            return False
        who = Principal.of(word.by, approval.tenant)._replace(roles=word.roles, scopes=word.scopes)
        return self._admission.policy.again(who, _VERBS[word.said], Target(approval.asked.target)).allowed

    def fits(self, approval: Approval, arguments: Tree) -> bool:
        """Whether those who are asked about the call may let it be made with these arguments."""
        decision, terms = self.decide(approval, arguments), approval.terms
        if decision.verdict is not Verdict.ESCALATE:
            return decision.allowed
        asks = decision.terms or Terms()
        return (asks.caller, asks.persons) == (terms.caller, terms.persons)

    def target(self, approval: Approval) -> Target:
        """What the call is for."""
        return self._inquire(approval.asked.verb, approval.asked.target)[1]

    def decide(self, approval: Approval, arguments: Tree) -> Decision:
        """What the rules say now to the call with these arguments."""
        asked, context, sent = approval.asked, MCP, arguments
        verb, target = self._inquire(asked.verb, asked.target)
        if asked.verb == SendMessage.verb:
            call = message_call(replace(approval, edited=arguments))
            context, sent = call.message.context_id or "", dict(spoken(call))
        elif asked.verb != "tools/call":
            sent = {}
        if approval.rule == PAUSED:
            # Its server said so then; whether it still does is seen when the call is made.
            target = target._replace(destructive=True)
        situation: Situation | None = None
        if self._admission.needs_conversation and not asked.principal.hops:
            situation = self._admission.situation(asked.principal, context, None)
        return self._admission.again(asked.principal, verb, target, sent, situation)

    def _stopped(self, approval: Approval) -> bool:
        passing = self._passing(approval)
        if passing and not approval.held:
            return True  # it is decided anew when it is made, in the conversation that it belongs to
        decision = self.decide(approval, approval.asked.arguments)
        return ground(decision) == approval.asked.ground or (passing and decision.allowed)

    def _passing(self, approval: Approval) -> bool:
        """Whether the rule that stopped it is there as it was, and looks at more than the call."""
        if approval.rule == RULE_OF_TWO and not approval.terms.rule:
            return self._admission.labels.any
        return any(
            rule.momentary and ground(rule.decision) == approval.asked.ground
            for rule in self._admission.policy.rules
            if isinstance(rule, Rule) and rule.name == approval.rule
        )
