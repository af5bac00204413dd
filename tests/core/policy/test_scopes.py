"""Scopes of access tokens as a condition of rules: who has them, what is remembered, and what a refusal asks for."""

from __future__ import annotations

import itertools

import pytest

from gateway.config import ConfigError
from gateway.core.policy import MAX_MEMO, Policy, Target
from gateway.core.policy.refusals import Insufficient, refused
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import ANONYMOUS, LOCAL, Kind, Principal
from tests.core.policy.test_rules import ANN, LIBRARIAN, allowed, policy, rule

SEND = Target("docs/send")
READS = rule('who: "*", when: {scopes: [docs:read, docs:list]}')


def token(*scopes: str, name: str = "gateway#robot", roles: tuple[str, ...] = ()) -> Principal:
    return Principal(Kind.OAUTH, name, roles=frozenset(roles), scopes=frozenset(scopes))


def needs(policy: Policy, who: Principal, target: Target = SEND, verb: str = "tools/call") -> tuple[str, ...]:
    return policy.decide(who, verb, target).scopes


BOTH = token("docs:read", "docs:list")
WIDE = token("docs:read", "docs:list", "other")
HALF = token("docs:read")


# Who has scopes.


@pytest.mark.security
def test_a_rule_with_scopes_is_for_tokens_that_have_all_of_them() -> None:
    assert allowed(READS, BOTH)
    assert allowed(READS, WIDE)
    assert not allowed(READS, HALF)
    assert not allowed(READS, token())
    assert not allowed(READS, token("docs:rea", "docs:listing"))


@pytest.mark.security
@pytest.mark.parametrize("kind", [Kind.KEY, Kind.SPIFFE, Kind.ANONYMOUS, Kind.AGENT])
def test_no_other_credential_has_scopes_whatever_is_said_of_it(kind: Kind) -> None:
    who = Principal(kind, "ann", scopes=frozenset({"docs:read", "docs:list"}))
    decided = policy("{defaults: false, rules: [{rule: r, who: anybody, when: {scopes: [docs:read]}, verdict: PASS}]}")
    assert not allowed(decided, who)
    assert needs(decided, who) == ()
    assert not decided.known(who, "tools/call", SEND)


@pytest.mark.security
def test_the_machines_own_credential_needs_none_unless_the_defaults_are_left_out() -> None:
    assert allowed(READS, LOCAL)
    assert not allowed(
        policy('{defaults: false, rules: [{rule: r, who: "*", when: {scopes: [a]}, verdict: PASS}]}'), LOCAL
    )


@pytest.mark.security
def test_an_agent_acts_with_the_scopes_of_whoever_asked_and_never_with_more() -> None:
    assert allowed(READS, BOTH.delegate("helper").delegate("clerk"))
    assert not allowed(READS, HALF.delegate("helper"))
    assert not allowed(READS, ANN.delegate("helper"))
    own = Principal(Kind.AGENT, "helper", "", HALF, 1, scopes=BOTH.scopes)
    assert not allowed(READS, own)


@pytest.mark.security
def test_everybody_that_an_exchanged_token_speaks_of_has_to_have_them() -> None:
    actor = Principal(Kind.OAUTH, "gateway#planner", on_behalf_of=BOTH, hops=1, scopes=BOTH.scopes)
    assert allowed(READS, actor)
    assert not allowed(READS, actor._replace(scopes=HALF.scopes))
    assert not allowed(READS, actor._replace(on_behalf_of=HALF))


# What is remembered.


@pytest.mark.security
def test_a_decision_is_never_reused_for_the_same_principal_with_other_scopes() -> None:
    for one, other in itertools.permutations((BOTH, WIDE, HALF, token(), BOTH.delegate("a"), HALF.delegate("a")), 2):
        decided = rule('who: "*", when: {scopes: [docs:read, docs:list]}')
        for who in (one, other, one, other):
            assert allowed(decided, who) is (BOTH.scopes <= who.root.scopes), (one, other)


def test_what_strangers_make_up_does_not_fill_the_memory() -> None:
    for number in range(MAX_MEMO + 10):
        assert needs(READS, token(f"s{number}")) == ("docs:list", "docs:read")
    assert len(READS._memo) <= MAX_MEMO
    assert len(READS._stamped) <= MAX_MEMO


# What a refusal asks for.


def test_a_refusal_names_all_scopes_of_the_rule_and_no_others() -> None:
    decision = READS.decide(HALF, "tools/call", SEND)
    assert decision == Decision(
        Verdict.BLOCK,
        "default-deny",
        "no rule allows this; the rule r would with the scopes docs:list docs:read",
        policy=READS.hash,
        scopes=("docs:list", "docs:read"),
    )
    told = refused(decision, HALF, "tools/call", "docs/send")
    assert isinstance(told, Insufficient)
    assert told.message == "docs/send needs an access token with the scopes: docs:list docs:read"
    assert told.metadata == {"scope": "docs:list docs:read"}


def test_of_several_rules_the_one_that_needs_fewest_more_is_named() -> None:
    decided = policy("""
rules:
  - {rule: all, who: "*", when: {scopes: [a, b, c]}, verdict: PASS}
  - {rule: two, who: "*", when: {scopes: [x, y]}, verdict: PASS}
  - {rule: one, who: "*", when: {scopes: [z]}, verdict: PASS}
""")
    assert needs(decided, token()) == ("z",)
    assert needs(decided, token("x")) == ("x", "y")
    assert needs(decided, token("a", "b")) == ("a", "b", "c")
    assert allowed(decided, token("z"))


@pytest.mark.security
@pytest.mark.parametrize(
    "missed",
    [
        "who: ann",
        'who: "role:editor"',
        'who: "*", do: resources/read',
        'who: "*", on: docs/search',
        'who: "*", when: {hops: {at_least: 1}}',
        'who: "*", when: {for: ann}',
        'who: "*", when: {via: agent:helper}',
        'who: "*", when: {arguments: {to: [me]}}',
        'who: "*", when: {labels: [private-data]}',
    ],
)
def test_nothing_is_asked_for_where_more_than_scopes_is_missing(missed: str) -> None:
    words = missed.replace("when: {", "when: {scopes: [a], ") if "when" in missed else missed + ", when: {scopes: [a]}"
    assert needs(rule(words), token()) == ()


def test_what_is_sent_decides_whether_scopes_would_help() -> None:
    decided = rule('who: "*", when: {scopes: [a], arguments: {to: [me]}}')
    assert decided.decide(token(), "tools/call", SEND, {"to": "me"}).scopes == ("a",)
    assert decided.decide(token(), "tools/call", SEND, {"to": "you"}).scopes == ()
    assert decided.known(token(), "tools/call", SEND)


@pytest.mark.security
@pytest.mark.parametrize("verdict", ["BLOCK", "HALT"])
def test_scopes_do_not_help_against_a_rule_that_stands_before(verdict: str) -> None:
    decided = policy(f"""
rules:
  - {{rule: never, who: "*", on: docs/send, verdict: {verdict}}}
  - {{rule: may, who: "*", on: docs, when: {{scopes: [a]}}, verdict: PASS}}
""")
    assert needs(decided, token()) == ()
    assert not decided.known(token(), "tools/call", SEND)
    assert needs(decided, token(), Target("docs/search")) == ("a",)
    assert not allowed(decided, token("a"), target=SEND)


def test_scopes_help_against_a_block_that_stands_behind_and_never_soften_a_halt() -> None:
    text = """
rules:
  - {{rule: may, who: "*", when: {{scopes: [a]}}, verdict: PASS}}
  - {{rule: not, who: "*", on: docs/send, {when}verdict: {verdict}, because: no}}
"""
    blocked = policy(text.format(when="", verdict="BLOCK")).decide(token(), "tools/call", SEND)
    assert (blocked.rule, blocked.scopes) == ("not", ("a",))
    assert blocked.reason == "no; the rule may would with the scopes a"
    sometimes = policy(text.format(when="when: {arguments: {x: [1]}}, ", verdict="BLOCK"))
    assert sometimes.decide(token(), "tools/call", SEND, {"x": 1}).scopes == ("a",)
    halted = policy(text.format(when="", verdict="HALT")).decide(token(), "tools/call", SEND)
    assert (halted.verdict, halted.scopes) == (Verdict.HALT, ())


def test_what_goes_on_anyhow_asks_for_nothing() -> None:
    for verdict in ("PASS", "FLAG", "ESCALATE"):
        decided = policy(f"""
rules:
  - {{rule: better, who: "*", when: {{scopes: [a]}}, verdict: PASS}}
  - {{rule: usual, who: "*", verdict: {verdict}}}
""")
        assert decided.decide(token(), "tools/call", SEND) == Decision(
            Verdict(verdict),
            "usual",
            "the rule usual says so",
            policy=decided.hash,
            terms=decided.rules[1].decision.terms,  # type: ignore[attr-defined]
        )
        assert decided.decide(token("a"), "tools/call", SEND).rule == "better"


def test_what_belongs_to_a_call_asks_for_the_same_scopes() -> None:
    assert READS.presumed(BOTH, "tools/call", SEND).allowed
    assert READS.presumed(HALF, "tools/call", SEND).scopes == ("docs:list", "docs:read")
    with_arguments = rule('who: "*", when: {scopes: [a], arguments: {to: [me]}}')
    assert with_arguments.presumed(token(), "tools/call", SEND).scopes == ("a",)


@pytest.mark.security
def test_a_target_is_known_by_rules_that_want_scopes_but_not_open() -> None:
    assert READS.known(HALF, "tools/call", SEND)
    assert not READS.visible(HALF, "tools/call", SEND)
    assert not READS.silent(HALF, "tools/call", SEND)
    for who in (ANN, ANONYMOUS, ANN.delegate("helper")):
        assert not READS.known(who, "tools/call", SEND)


# Explanations and files.


def test_an_explanation_names_the_missing_scopes_as_the_smallest_change() -> None:
    found = READS.explain(HALF, "tools/call", SEND)
    assert found.change == "ask with an access token that has the scope docs:list, too (rule r, policy.yaml:1)"
    assert found.inputs["scopes"] == ["docs:read"]
    assert found.looked_at[0].missing == ("scopes: docs:list, docs:read",)
    assert READS.explain(BOTH, "tools/call", SEND).change is None
    assert "scope" not in str(READS.explain(ANN, "tools/call", SEND).change)


def test_an_explanation_names_the_rule_that_the_refusal_means() -> None:
    decided = policy("""
rules:
  - {rule: all, who: "*", when: {scopes: [a, b]}, verdict: PASS}
  - {rule: one, who: "*", when: {scopes: [z]}, verdict: PASS}
""")
    found = decided.explain(token("q"), "SendMessage", LIBRARIAN)
    assert found.decision.scopes == ("z",)
    assert found.change == "ask with an access token that has the scope z, too (rule one, policy.yaml:4)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{rule: r, who: "*", when: {scopes: []}, verdict: PASS}', "must have at least one entry"),
        ('{rule: r, who: "*", when: {scopes: ["a b"]}, verdict: PASS}', "must be a scope"),
        ("{rule: r, who: '*', when: {scopes: ['a\"']}, verdict: PASS}", "must be a scope"),
        (f'{{rule: r, who: "*", when: {{scopes: {list(range(33))}}}, verdict: PASS}}', "scopes"),
        ('{rule: r, who: "*", when: {scopes: [a]}, verdict: BLOCK}', "scopes allow, and cannot forbid"),
        ('{rule: r, who: "*", when: {scopes: [a]}, verdict: HALT}', "scopes allow, and cannot forbid"),
    ],
)
def test_a_file_that_asks_for_impossible_scopes_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        policy(f"rules:\n  - {text}\n")
    assert said in str(refusal.value)
    assert "policy.yaml:2" in str(refusal.value)


def test_one_scope_may_be_written_without_a_list() -> None:
    assert allowed(rule('who: "*", when: {scopes: a}'), token("a"))
