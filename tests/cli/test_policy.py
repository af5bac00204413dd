"""policy, freeze, thaw and frozen: what each asks of the admin API, and how it shows the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.core.tools.grants import Grants
from gateway.policing import book
from tests.cli.conftest import Run
from tests.cli.fake_gateway import FakeGateway, Reply, refused

RULE = {
    "rule": "small", "who": ["role:clerk"], "do": ["tools/call"], "on": ["bank/pay"],
    "when": {"arguments": {"amount": {"at_most": 100}, "note": {"matches": ["a, b: *"]}}, "time": {"from": "08:00"}},
    "verdict": "PASS", "because": "true",
}  # fmt: skip
SHOWN = {
    "hash": "abc", "file": "/etc/policy.yaml", "problem": None,
    "rules": [{"frozen": "agent x", "by": "local:local", "reason": "why"}, RULE, {"grant": "ann", "tools": ["docs"]}],
    "labels": {"private-data": ["files", "mail/read*"]},
    "limits": [{"limit": "l", "who": ["*"], "rate": "6/minute", "per": "principal"}],
    "people": {"ann": ["ann", "client:anns"]}, "roles": {"clerk": ["ann", "client:robot"]},
    "costs": [{"on": ["agents/writer"], "cost": 5.0}],
}  # fmt: skip
FLIP = {
    "principal": "key:ann", "action": "SendMessage", "target": "agents/echo", "verdict": "PASS",
    "rule": "public-agents", "wouldBe": "BLOCK", "byRule": "quiet", "count": 2,
}  # fmt: skip
EXPLAINED = {
    "verdict": "BLOCK", "rule": "default-deny", "reason": "no rule allows this", "policy": "abc",
    "inputs": {"principal": "key:bob", "action": "tools/call", "target": "bank/pay", "arguments": {"amount": 1}},
    "lookedAt": [{"rule": "small", "where": "p.yaml:3", "verdict": "PASS", "missing": ["who: role:clerk"]}],
    "change": "add bob to its who (rule small, p.yaml:3)",
    "newRule": {"rule": "bob", "who": ["bob"], "do": ["tools/call"], "on": ["bank/pay"], "verdict": "PASS"},
}  # fmt: skip


def test_what_is_shown_can_be_saved_and_means_the_same(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/policy"] = Reply(SHOWN)
    result = gateway("policy", "show")
    assert result.out.startswith(
        "# policy abc, from /etc/policy.yaml\ndefaults: false\npeople:\n"
        '  ann: [ann, "client:anns"]\nroles:\n  clerk: [ann, "client:robot"]\nrules:\n  # - frozen: agent x\n'
    )
    made = book(Grants(()), result.out)
    assert [rule.name for rule in made.rules] == ["small", "grant"]
    assert next(iter(made.rules[0].shown())) == RULE
    assert [dict(limit.source) for limit in made.limits] == SHOWN["limits"]
    assert [(label, list(on.patterns)) for label, on in made.labels] == [("private-data", ["files", "mail/read*"])]
    assert made.people == {"ann": ("ann", "client:anns")}
    assert made.roles == {"clerk": ("ann", "client:robot")}
    assert [{"on": list(on.patterns), "cost": cost} for on, cost in made.costs] == SHOWN["costs"]
    assert json.loads(gateway("policy", "show", "--json").out) == SHOWN


def test_a_wrong_file_is_told_beside_the_rules_that_hold(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["GET /admin/policy"] = Reply({**SHOWN, "problem": "p.yaml:3: rules[0].who: is required"})
    result = gateway("policy", "show")
    assert "the rules below hold on:\np.yaml:3: rules[0].who: is required" in result.err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(172_800, "2 days"), (14_400, "4 hours"), (3600, "1 hour"), (300, "5 minutes"), (90, "90 seconds")],
)
def test_how_long_a_call_waits_for_an_approval_is_said_in_a_unit_that_people_use(
    gateway: Run, fake: FakeGateway, seconds: int, words: str
) -> None:
    approval = {"approvers": ["lea"], "byCaller": False, "needed": 1, "withinSeconds": seconds}
    fake.answers["POST /admin/policy:explain"] = Reply({**EXPLAINED, "approval": approval})
    result = gateway("policy", "explain", "--as", "a", "--do", "call", "--on", "b")
    assert f"It waits up to {words} for an approval by 1 of lea.\n" in result.out


def test_an_explanation_shows_inputs_rules_and_what_would_change_it(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["POST /admin/policy:explain"] = Reply(EXPLAINED)
    words = (
        "--as",
        "bob",
        "--do",
        "call",
        "--on",
        "bank/pay",
        "--with",
        '{"amount": 1}',
        "--role",
        "a",
        "--scope",
        "s",
        "--for",
        "ann",
        "--label",
        "private-data",
    )
    lines = gateway("policy", "explain", *words, "--at", "2026-11-26T09:30:00Z").out.splitlines()
    assert lines[0] == "BLOCK  default-deny: no rule allows this"
    assert '  arguments    {"amount": 1}' in lines
    assert "  small (p.yaml:3), PASS: missing who: role:clerk" in lines
    assert "To allow it: add bob to its who (rule small, p.yaml:3)." in lines
    assert lines[-5:] == [
        "  - rule: bob", "    who: [bob]", "    do: [tools/call]", "    on: [bank/pay]", "    verdict: PASS",
    ]  # fmt: skip
    assert fake.seen[0].body == {
        "principal": "bob", "action": "call", "target": "bank/pay", "arguments": {"amount": 1}, "roles": ["a"],
        "scopes": ["s"], "labels": ["private-data"], "for": "ann", "at": "2026-11-26T09:30:00Z",
    }  # fmt: skip


def test_a_limit_that_is_used_up_is_said_beside_the_verdict(gateway: Run, fake: FakeGateway) -> None:
    limit = {"limit": "few", "reason": "The limit few is used up; try again in 9 s", "retryAfter": 9.0}
    explained = {"verdict": "PASS", "change": "ask in 9 s, or change the limit few", "newRule": None, "limit": limit}
    fake.answers["POST /admin/policy:explain"] = Reply({**EXPLAINED, **explained})
    result = gateway("policy", "explain", "--as", "a", "--do", "call", "--on", "b")
    assert "It is refused all the same: The limit few is used up; try again in 9 s.\n" in result.out
    assert "To allow it: ask in 9 s, or change the limit few.\n" in result.out


@pytest.mark.parametrize("arguments", ["[1]", "{", "1"])
def test_arguments_are_an_object(gateway: Run, fake: FakeGateway, arguments: str) -> None:
    result = gateway("policy", "explain", "--as", "a", "--do", "call", "--on", "b", "--with", arguments)
    assert (result.code, fake.seen) == (2, [])
    assert "--with must be a JSON object" in result.err


def test_a_replay_lists_what_flips_and_counts_the_rest(gateway: Run, fake: FakeGateway, tmp_path: Path) -> None:
    answer = {"calls": 12, "same": 9, "unsure": 1, "flips": [FLIP]}
    fake.answers["POST /admin/policy:replay"] = Reply(answer)
    file = tmp_path / "new.yaml"
    file.write_text("rules: []\n")
    result = gateway("policy", "replay", file, "--last", "50")
    assert result.out.splitlines()[1].split() == [
        "key:ann", "SendMessage", "agents/echo", "PASS", "(public-agents)", "BLOCK", "(quiet)", "2",
    ]  # fmt: skip
    assert result.err == "12 calls: 9 would be decided alike, 2 otherwise, 1 cannot be told.\n"
    assert fake.seen[0].body == {"text": "rules: []\n", "name": str(file), "last": 50}
    assert json.loads(gateway("policy", "replay", file, "--json").out) == answer
    assert "cannot be read: No such file" in gateway("policy", "replay", tmp_path / "missing").err


def test_the_shadow_lists_what_it_would_have_decided_otherwise(gateway: Run, fake: FakeGateway) -> None:
    empty: dict[str, object] = {"file": "new.yaml", "problem": None, "flips": [], "leftOut": 0}
    fake.answers["GET /admin/policy/shadow"] = [
        Reply(empty),
        Reply({**empty, "flips": [FLIP], "leftOut": 3, "problem": "new.yaml:1: is wrong"}),
    ]
    assert "new.yaml has decided everything so far as the policy that holds." in gateway("policy", "shadow").err
    result = gateway("policy", "shadow")
    assert result.out.splitlines()[1].startswith("key:ann")
    assert "3 more calls would be decided otherwise." in result.err
    assert "new.yaml:1: is wrong" in result.err


def test_a_reload_says_what_holds_or_what_is_wrong(gateway: Run, fake: FakeGateway) -> None:
    fake.answers["POST /admin/policy:reload"] = [
        Reply(SHOWN),
        refused(400, "INVALID_ARGUMENT", "p.yaml:3: rules[0].who: is required"),
    ]
    assert gateway("policy", "reload").err == "Policy abc holds, from /etc/policy.yaml.\n"
    result = gateway("policy", "reload")
    assert (result.code, result.err) == (1, "gateway: p.yaml:3: rules[0].who: is required\n")


def test_freeze_thaw_and_what_is_frozen(gateway: Run, fake: FakeGateway) -> None:
    cold = {"kind": "principal", "name": "key:ann", "by": "local:local", "at": "2026-11-26T08:00:00.000Z", "reason": ""}
    fake.answers["POST /admin/frozen"] = Reply(cold, 201)
    fake.answers["GET /admin/frozen"] = [Reply({"frozen": [cold]}), Reply({"frozen": []})]
    fake.answers["POST /admin/frozen:thaw"] = Reply(None, 204)
    fake.answers["GET /admin/audit"] = Reply({"entries": [{"index": 1}]})
    result = gateway("freeze", "principal", "ann")
    assert "Frozen: principal key:ann. What it had in hand is stopped." in result.err
    assert "Nobody has called" not in result.err
    assert "thaw principal ann" in result.err
    assert fake.seen[0].body == {"kind": "principal", "name": "ann", "reason": None}
    assert gateway("frozen").out.splitlines()[1].split() == [
        "principal", "key:ann", "2026-11-26T08:00:00.000Z", "local:local", "-",
    ]  # fmt: skip
    assert gateway("frozen").err == "Nothing is frozen.\n"
    assert gateway("thaw", "principal", "ann").err == "The principal ann may work again.\n"
    assert gateway("freeze", "person", "ann").code == 2


def test_a_slip_in_the_name_of_whom_to_freeze_is_noticed(gateway: Run, fake: FakeGateway) -> None:
    cold = {"kind": "principal", "name": "key:anm", "by": "local:local", "at": "2026-11-26T08:00:00.000Z", "reason": ""}
    fake.answers["POST /admin/frozen"] = Reply(cold, 201)
    fake.answers["GET /admin/audit"] = Reply({"entries": []})
    assert "Nobody has called here as key:anm so far. Is it whom you mean?" in gateway("freeze", "principal", "anm").err
    fake.answers["GET /admin/audit"] = refused(403, "PERMISSION_DENIED", "You may not use ReadAudit here")
    assert "Nobody has called" not in gateway("freeze", "principal", "anm").err
