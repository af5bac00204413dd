"""The policy file: what each word of it means, and how decisions follow from it."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

import pytest

from gateway.config import ConfigError
from gateway.core.policy import MAX_MEMO, Policy, Question, Situation, Target
from gateway.core.policy.rules import DENIED
from gateway.core.tools.grants import Grant, Grants
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import ANONYMOUS, LOCAL, Kind, Principal
from gateway.policing import book

ANN = Principal(Kind.KEY, "ann")
BOB = Principal(Kind.KEY, "bob")
ROBOT = Principal(Kind.OAUTH, "gateway#robot")
EDITOR = Principal(Kind.OAUTH, "https://idp.example#7", roles=frozenset({"editor"}))
HELPER = ANN.delegate("helper")
DOCS = Target("docs/search")
LIBRARIAN = Target("librarian")


def policy(text: str, *grants: Grant) -> Policy:
    found = book(Grants(grants), text, "policy.yaml")
    return Policy(found.rules, found.hash)


def rule(what: str, verdict: str = "PASS") -> Policy:
    return policy(f"rules: [{{rule: r, {what}, verdict: {verdict}}}]")


def allowed(policy: Policy, who: Principal, verb: str = "tools/call", target: Target = DOCS, **arguments: Any) -> bool:
    return policy.decide(who, verb, target, arguments).allowed


@pytest.mark.security
@pytest.mark.parametrize(
    ("words", "those"),
    [
        ("ann", {ANN}),
        ("key:ann", {ANN}),
        ('"key:a*"', {ANN}),
        ("client:robot", {ROBOT}),
        ('"oauth:https://idp.example#7"', {EDITOR}),
        ('"role:editor"', {EDITOR}),
        ('"role:staff"', {ANN, ROBOT}),
        ("agent:helper", {HELPER}),
        ('"agent:*"', {HELPER}),
        ("local", {LOCAL}),
        ("anonymous", {ANONYMOUS}),
        ('"*"', {ANN, BOB, ROBOT, EDITOR, HELPER, LOCAL}),
        ("anybody", {ANN, BOB, ROBOT, EDITOR, HELPER, LOCAL, ANONYMOUS}),
        ("[bob, ann]", {ANN, BOB}),
        ("key:local", set()),
        ("key:anonymous", set()),
    ],
)
def test_a_word_for_principals_means_exactly_these(words: str, those: set[Principal]) -> None:
    decided = policy(
        f"{{defaults: false, roles: {{staff: [ann, client:robot]}}, rules: [{{rule: r, who: {words}, verdict: PASS}}]}}"
    )
    every = {ANN, BOB, ROBOT, EDITOR, HELPER, LOCAL, ANONYMOUS}
    assert {who for who in every if allowed(decided, who)} == those


@pytest.mark.security
def test_an_agent_has_none_of_its_callers_rights_unless_a_rule_says_for() -> None:
    assert not allowed(rule("who: ann"), HELPER)
    decided = rule("who: agent:helper, when: {for: ann}")
    assert allowed(decided, HELPER)
    assert not allowed(decided, BOB.delegate("helper"))
    assert not allowed(decided, Principal(Kind.AGENT, "helper"))


def test_rules_see_who_stands_in_between_and_how_many() -> None:
    deep = HELPER.delegate("clerk")
    via = rule("who: agent:clerk, when: {via: agent:helper}")
    assert allowed(via, deep)
    assert not allowed(via, ANN.delegate("clerk"))
    shallow = rule('who: "agent:*", when: {hops: {at_most: 1}}')
    assert allowed(shallow, HELPER)
    assert not allowed(shallow, deep)


@pytest.mark.parametrize(
    ("pattern", "verb", "target", "covered"),
    [
        ("docs", "tools/call", DOCS, True),
        ("docs/se*", "tools/call", DOCS, True),
        ("docs2", "tools/call", DOCS, False),
        ("agents/librarian", "SendMessage", LIBRARIAN, True),
        ("agents/lib*", "GetTask", LIBRARIAN, True),
        ("agents", "SendMessage", LIBRARIAN, True),
        ("librarian", "SendMessage", LIBRARIAN, False),
        ("agents/librarian", "SendMessage", Target("librarian", skill="find"), True),
        ("agents/librarian/find", "SendMessage", Target("librarian", skill="find"), True),
        ("agents/librarian/find", "SendMessage", Target("librarian", skill="burn"), False),
        ("agents/librarian/find", "SendMessage", LIBRARIAN, False),
        ("public", "SendMessage", Target("x", public=True), True),
        ("public", "SendMessage", Target("x"), False),
        ("gateway", "AddKey", Target("gateway"), True),
        ("docs", "resources/read", Target("docs/file:///etc/passwd"), True),
        ("'*'", "AddKey", Target("gateway"), True),
    ],
)
def test_a_pattern_covers_targets(pattern: str, verb: str, target: Target, covered: bool) -> None:
    assert allowed(rule(f"who: ann, on: {pattern}"), ANN, verb, target) is covered


@pytest.mark.parametrize(
    ("do", "verb", "covered"),
    [
        ("call", "SendMessage", True),
        ("call", "tools/call", True),
        ("call", "GetTask", False),
        ("use", "GetTask", True),
        ("use", "AddKey", False),
        ("register", "AddAgent", True),
        ("approve", "ApproveTools", True),
        ("administer", "AddKey", True),
        ("administer", "SendMessage", False),
        ("'resources/*'", "resources/read", True),
        ("[GetTask, call]", "GetTask", True),
        ("delegate", "SendMessage", False),
    ],
)
def test_an_action_is_a_name_a_pattern_or_a_group(do: str, verb: str, covered: bool) -> None:
    assert allowed(rule(f"who: ann, do: {do}"), ANN, verb, Target("x")) is covered


def test_to_delegate_is_to_call_on_somebodys_behalf() -> None:
    decided = rule("who: anybody, do: delegate")
    assert allowed(decided, HELPER, "SendMessage", LIBRARIAN)
    assert not allowed(decided, ANN, "SendMessage", LIBRARIAN)


@pytest.mark.security
@pytest.mark.parametrize(
    ("wanted", "sent", "admitted"),
    [
        ("public", "public", True),
        ("[public, 1, null]", 1, True),
        ("[public, 1]", True, False),
        ("[public, 1]", 1.0, False),
        ("[null]", None, True),
        ("[[1]]", [1], True),
        ("[[1]]", [True], False),
        ("{one_of: [{b: 1}]}", {"b": 1}, True),
        ("{one_of: [{b: 1}]}", {"b": True}, False),
        ("{one_of: [{b: 1}]}", {"b": 1, "c": 1}, False),
        ("{matches: '*@example.com'}", "a@example.com", True),
        ("{matches: '*@example.com'}", "a@example.com.evil", False),
        ("{matches: '*'}", 1, False),
        ("{matches: '[urgent] *?'}", "[urgent] now?", True),
        ("{matches: '[urgent] *?'}", "u now!", False),
        ("{at_least: 1, at_most: 10}", 10, True),
        ("{at_least: 1, at_most: 10}", 10.5, False),
        ("{at_most: 10}", "9", False),
        ("{at_most: 10}", True, False),
        ("{longest: 2}", "ab", True),
        ("{longest: 2}", ["a", "b", "c"], False),
        ("{longest: 2}", 12, False),
        ("{present: true}", None, True),
        ("{present: false}", None, False),
    ],
)
def test_an_argument_is_held_to_what_a_rule_wants(wanted: str, sent: Any, admitted: bool) -> None:
    assert allowed(rule(f"who: ann, when: {{arguments: {{a: {wanted}}}}}"), ANN, a=sent) is admitted


def test_an_argument_that_is_not_sent_is_nothing_that_was_asked_for() -> None:
    assert not allowed(rule("who: ann, when: {arguments: {a: [1]}}"), ANN)
    assert allowed(rule("who: ann, when: {arguments: {a: {present: false}}}"), ANN)
    nested = rule("who: ann, when: {arguments: {a.b: [1]}}")
    assert allowed(nested, ANN, a={"b": 1})
    assert not allowed(nested, ANN, a=[1])


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-11-26T21:59+01:00", False),
        ("2026-11-26T22:00+01:00", True),  # a Thursday
        ("2026-11-27T05:59+01:00", True),  # still Thursday's night
        ("2026-11-27T06:00+01:00", False),
        ("2026-11-27T23:00+01:00", False),
    ],
)
def test_a_span_of_time_may_go_over_midnight(moment: str, inside: bool) -> None:
    when = 'time: {days: [thu], from: "22:00", until: "06:00", zone: Europe/Berlin}'
    at = int(datetime.fromisoformat(moment).timestamp() * 1000)
    decided = rule(f"who: ann, when: {{{when}}}").decide(ANN, "tools/call", DOCS, {}, Situation(at))
    assert decided.allowed is inside


def test_the_first_rule_that_holds_decides() -> None:
    decided = policy(
        """
rules:
  - {rule: small, who: ann, on: bank, when: {arguments: {amount: {at_most: 100}}}, verdict: PASS}
  - {rule: big, who: ann, on: bank, when: {arguments: {amount: {at_most: 10000}}}, verdict: ESCALATE}
  - {rule: never, who: anybody, on: bank, verdict: BLOCK, because: that is too much}
  - {rule: rest, who: ann, verdict: FLAG}
"""
    )
    bank = Target("bank/pay")
    found = [decided.decide(ANN, "tools/call", bank, {"amount": amount}) for amount in (1, 1000, 10**6)]
    assert [each.rule for each in found] == ["small", "big", "never"]
    assert [each.verdict for each in found] == [Verdict.PASS, Verdict.ESCALATE, Verdict.BLOCK]
    assert found[2].reason == "that is too much"
    assert decided.decide(ANN, "tools/call", DOCS).verdict is Verdict.FLAG
    assert decided.decide(LOCAL, "tools/call", bank).rule == "never"
    assert decided.decide(BOB, "tools/call", DOCS).rule == "default-deny"


def test_lists_show_what_some_arguments_would_do_for() -> None:
    decided = policy(
        """
rules:
  - {rule: narrow, who: ann, on: docs, when: {arguments: {folder: [public]}}, verdict: PASS}
  - {rule: asked, who: bob, on: docs, verdict: ESCALATE}
  - {rule: shut, who: anybody, on: docs, verdict: BLOCK}
"""
    )
    assert decided.visible(ANN, "tools/call", DOCS)
    assert decided.visible(BOB, "tools/call", DOCS)
    assert not decided.visible(ROBOT, "tools/call", DOCS)
    assert not decided.visible(LOCAL, "tools/call", DOCS)


def test_the_default_rules_come_after_those_of_the_file_and_can_be_left_out() -> None:
    public = Target("x", public=True)
    text = "rules: [{rule: r, who: bob, verdict: BLOCK}]"
    assert allowed(policy(text), ANN, "SendMessage", public)
    assert not allowed(policy(text), BOB, "SendMessage", public)
    alone = policy("{defaults: false}", Grant("key:ann", ("docs",)))
    assert not allowed(alone, ANN, "SendMessage", public)
    assert not allowed(alone, LOCAL, "AddKey", Target("gateway"))
    assert allowed(alone, ANN)  # a grant is the operator's word too


def test_a_rule_may_forbid_what_a_grant_allows() -> None:
    decided = policy("rules: [{rule: r, who: ann, on: docs/search, verdict: BLOCK}]", Grant("key:ann", ("docs",)))
    assert not allowed(decided, ANN)
    assert allowed(decided, ANN, target=Target("docs/read"))


def test_every_decision_names_the_rules_that_it_follows_from() -> None:
    decided = policy("rules: [{rule: r, who: ann, when: {arguments: {a: [1]}}, verdict: PASS}]")
    found = [decided.decide(who, "tools/call", DOCS, {"a": 1}) for who in (ANN, BOB, LOCAL)]
    assert [each.policy for each in found] == [decided.hash] * 3
    assert decided.hash != policy("{}").hash != policy("{}", Grant("*", ("docs",))).hash


def test_what_is_remembered_is_bounded_and_forgotten_when_the_rules_change() -> None:
    decided = policy("rules: [{rule: r, who: ann, verdict: PASS}]")
    for index in range(MAX_MEMO + 10):
        decided.decide(ANN, "tools/call", Target(f"docs/{index}"))
    assert len(decided._memo) <= MAX_MEMO
    assert allowed(decided, ANN)
    other = book(Grants(()), "{}")
    decided.use(other.rules, other.hash)
    assert not allowed(decided, ANN)


def test_arguments_are_not_looked_at_where_no_rule_asks() -> None:
    def never() -> dict[str, Any]:
        raise AssertionError

    assert rule("who: ann").decide(ANN, "tools/call", DOCS, never) == Decision(
        Verdict.PASS, "r", "the rule r says so", (), rule("who: ann").hash
    )


# What is wrong with a file.

WRONG = {
    "rules: [{rule: r, who: ann, verdict: PASS, onn: docs}]": "policy.yaml:1: rules[0].onn: unknown key; did you "
    "mean 'on'?",
    "rules:\n  - {rule: r, who: ann, do: tool/call, verdict: PASS}": "policy.yaml:2: rules[0].do: there is no action "
    "'tool/call'; did you mean 'tools/call'?",
    "rules: [{rule: r, who: ann, verdict: MAYBE}]": "policy.yaml:1: rules[0].verdict: must be one of 'PASS', 'FLAG', "
    "'BLOCK', 'ESCALATE' or 'HALT'",
    "rules: [{rule: r, who: ann}]": "policy.yaml:1: rules[0].verdict: is required; verdict: What happens then.",
    "rules: [{rule: r, verdict: PASS}]": "policy.yaml:1: rules[0].who: is required; who: Whom it is about.",
    "rules: [{rule: r, who: [], verdict: PASS}]": "policy.yaml:1: rules[0].who: must have at least one entry",
    "rules: [{rule: r, who: 'a b', verdict: PASS}]": "policy.yaml:1: rules[0].who: 'a b' names nobody; a key's name, "
    "agent:NAME, client:NAME, user:NAME, oauth:ISSUER#SUBJECT, spiffe://DOMAIN/PATH, role:NAME, local, worker, "
    "anonymous, * for everybody with a credential, or anybody",
    "rules: [{rule: r, who: *, verdict: PASS}]": "policy.yaml:1: not YAML that the gateway reads: while scanning an "
    "alias, expected alphabetic or numeric character, but found ','",
    "rules: [{rule: r, who: ann, on: Docs, verdict: PASS}]": "policy.yaml:1: rules[0].on: 'Docs' is no target; "
    "agents/NAME, agents/NAME/SKILL, SERVER/TOOL, gateway, public or *",
    "rules: [{rule: r, who: ann, verdict: PASS, when: {time: {from: 25:00}}}]": "policy.yaml:1: "
    "rules[0].when.time.from: must be a time of day, HH:MM; in quotes, for example \"08:30\"",
    "rules: [{rule: r, who: ann, verdict: PASS, when: {time: {zone: Mars}}}]": "policy.yaml:1: "
    "rules[0].when.time.zone: there is no time zone 'Mars'; for example UTC or Europe/Berlin",
    "rules: [{rule: r, who: ann, verdict: PASS, when: {arguments: {a: {}}}}]": "policy.yaml:1: "
    "rules[0].when.arguments.a: asks for nothing; give values, or one of one_of, matches, at_least, at_most, longest, "
    "present",
    "rules: [{rule: r, who: ann, verdict: BLOCK, do: []}]": "policy.yaml:1: rules[0].do: must have at least one entry",
    "rules: [{rule: r, who: ann, verdict: BLOCK, do: 'cal*'}]": "policy.yaml:1: rules[0].do: there is no action "
    "'cal*'; did you mean 'call'?",
    "rules: [{rule: r, who: ann, verdict: BLOCK, when: {time: {days: []}}}]": "policy.yaml:1: rules[0].when.time.days: "
    "must have at least one entry",
    "rules: [{rule: r, who: ann, verdict: BLOCK, when: {time: {from: '09:00', until: '09:00'}}}]": "policy.yaml:1: "
    "rules[0].when.time: ends when it begins: it would never hold; leave both out for the whole day",
    "rules: [{rule: r, who: ann, verdict: PASS, when: {arguments: {a: {matches: []}}}}]": "policy.yaml:1: "
    "rules[0].when.arguments.a: has an empty list; give at least one entry",
    "rules: [{rule: r, who: ann, verdict: PASS, when: {arguments: {a: []}}}]": "policy.yaml:1: "
    "rules[0].when.arguments.a: has an empty list; give at least one entry",
    "rules: [{rule: r, who: ann, verdict: PASS, when: {arguments: {a: {at_least: 2, at_most: 1}}}}]": "policy.yaml:1: "
    "rules[0].when.arguments.a: at_least is more than at_most: nothing is both; swap them, or leave one out",
    "rules: [{rule: r, who: ann, verdict: PASS, when: {hops: {at_least: 2, at_most: 1}}}]": "policy.yaml:1: "
    "rules[0].when.hops: at_least is more than at_most: nothing is both; swap them, or leave one out",
    "rules: [{rule: r, who: ann, verdict: PASS}, {rule: r, who: bob, verdict: PASS}]": "policy.yaml:1: two rules are "
    "called r; every rule has a name of its own",
    "rules: [": "policy.yaml:1: not YAML that the gateway reads: while parsing a flow node, expected the node content, "
    "but found '<stream end>'",
    "[]": "policy.yaml:1: must be a mapping (key: value)",
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), WRONG.items())
def test_a_wrong_file_is_told_by_line_field_reason_and_what_to_do(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        policy(text)
    assert str(refused.value) == told


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        policy("rules:\n  - {rule: A, who: ann, verdict: PASS}\n  - {rule: b, who: ann, verdict: NO}\nmore: 1\n")
    assert [problem.line for problem in refused.value.problems] == [2, 3, 4]


@pytest.mark.security
def test_finding_rules_by_whom_they_name_changes_no_decision() -> None:
    """Against asking every rule in turn, over every principal, action and target, with the rules in many orders."""
    words = ("ann", "[bob, 'role:editor']", "'role:staff'", "'agent:*'", "'*'", "anybody", "worker", "client:robot")
    entries = [
        f"{{rule: r{place}, who: {who}, do: {do}, on: {on}, verdict: {verdict}}}"
        for place, (who, do, on, verdict) in enumerate(
            zip(
                words * 2,
                itertools.cycle(("call", "use", "delegate", "'*'", "AddKey")),
                itertools.cycle(("docs/se*", "agents/librarian", "'*'", "public", "gateway", "agents/librarian/find")),
                itertools.cycle(("PASS", "BLOCK", "ESCALATE")),
                strict=False,
            )
        )
    ]
    people = (ANN, BOB, ROBOT, EDITOR, HELPER, HELPER.delegate("clerk"), LOCAL, ANONYMOUS)
    targets = (
        DOCS,
        LIBRARIAN,
        LIBRARIAN._replace(skill="find"),
        Target("x", public=True, worker=BOB.id),
        Target("gateway"),
    )
    questions = list(itertools.product(people, ("tools/call", "SendMessage", "AddKey", "SubmitResult"), targets))
    for turn in range(0, len(entries), 3):
        rules = ", ".join(entries[turn:] + entries[:turn])
        decided = policy(
            f"{{roles: {{staff: [ann]}}, rules: [{rules}]}}",
            Grant("key:ann", ("docs/*",)),
            Grant("role:editor", ("docs",)),
        )
        for who, verb, target in questions:
            asked = Question(who, verb, target, {}, Situation())
            hold = (rule for rule in decided.rules if any(not each.missing for each in rule.weigh(asked)))
            decision = next((rule.judge(asked) for rule in hold), DENIED)
            assert decision is not None
            assert decided.decide(who, verb, target).rule == decision.rule, (turn, who.id, verb, target)
