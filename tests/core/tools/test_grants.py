"""Grants: whom they name, what they cover, which arguments they admit."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.policy import RULES, Policy, Target, matches
from gateway.core.tools.grants import Grant, Grants
from gateway.model.principal import ANONYMOUS, LOCAL, Kind, Principal

ANN = Principal(Kind.KEY, "ann")


def policy(*grants: Grant) -> Policy:
    return Policy((*RULES, Grants(grants)))


@pytest.mark.security
@pytest.mark.parametrize(
    ("pattern", "address", "covered"),
    [
        ("docs", "docs/search", True),
        ("docs/*", "docs/a/b", True),
        ("docs/se*", "docs/search", True),
        ("docs/se*", "docs/sSe", False),
        ("docs", "docs2/search", False),
        ("docs*", "docs2/search", True),
        ("*", "anything/at all", True),
        ("*/read_*", "files/read_all", True),
        ("d*/x", "docs/evil/x", False),
        ("docs/Search", "docs/search", False),
        ("docs/[sS]earch", "docs/Search", True),
    ],
)
def test_a_pattern_never_reaches_into_another_servers_name(pattern: str, address: str, covered: bool) -> None:
    assert matches(pattern, address) is covered


@pytest.mark.security
@pytest.mark.parametrize(
    "who",
    [
        Principal(Kind.KEY, "admin"),
        Principal(Kind.KEY, "ann2"),
        Principal(Kind.AGENT, "ann"),
        Principal(Kind.AGENT, "ann", "", ANN),
        Principal(Kind.KEY, "local"),
        Principal(Kind.KEY, "anonymous"),
        ANONYMOUS,
    ],
)
def test_a_grant_is_for_the_one_it_names_whatever_others_are_called(who: Principal) -> None:
    decided = policy(Grant("key:ann", ("docs",)))
    assert decided.decide(ANN, "tools/call", Target("docs/x")).allowed
    assert not decided.decide(who, "tools/call", Target("docs/x")).allowed


@pytest.mark.security
def test_a_role_is_what_a_verified_token_says_and_never_a_name() -> None:
    decided, target = policy(Grant("role:editor", ("docs",))), Target("docs/x")
    editor = Principal(Kind.OAUTH, "https://idp.example#1", roles=frozenset({"editor"}))
    assert decided.decide(editor, "tools/call", target).allowed
    others = [
        Principal(Kind.OAUTH, "https://idp.example#2", roles=frozenset({"editors", "role:editor"})),
        Principal(Kind.OAUTH, "https://idp.example#editor", scopes=frozenset({"editor"})),
        Principal(Kind.KEY, "editor"),
        Principal(Kind.AGENT, "helper", "", editor),
    ]
    assert not any(decided.decide(who, "tools/call", target).allowed for who in others)


def test_a_client_of_our_own_is_granted_by_its_name() -> None:
    robot = Principal(Kind.OAUTH, "gateway#robot")
    decided = policy(Grant("oauth:gateway#robot", ("docs",)))
    assert decided.decide(robot, "tools/call", Target("docs/x")).allowed
    assert not decided.decide(Principal(Kind.OAUTH, "gateway#robot2"), "tools/call", Target("docs/x")).allowed


def test_everybody_means_everybody_with_a_credential() -> None:
    decided = policy(Grant("*", ("docs",)))
    assert decided.decide(ANN, "tools/call", Target("docs/x")).allowed
    assert not decided.decide(ANONYMOUS, "tools/call", Target("docs/x")).allowed


def test_tools_prompts_and_resources_are_granted_each_for_itself() -> None:
    decided = policy(Grant("key:ann", tools=("docs",)))
    for verb in ("prompts/get", "resources/read", "completion/complete", "SendMessage", "ListServers", "ReloadTools"):
        assert not decided.decide(ANN, verb, Target("docs/x")).allowed, verb


def test_permissions_of_all_grants_count_together_and_alone_give_nothing() -> None:
    wanted = Target("docs/x", permissions=frozenset({"read", "write"}))
    both = policy(
        Grant("key:ann", ("docs",), permissions=frozenset({"read"})), Grant("*", permissions=frozenset({"write"}))
    )
    assert both.decide(ANN, "tools/call", wanted).allowed
    assert not policy(Grant("key:ann", ("docs",))).decide(ANN, "tools/call", wanted).allowed
    only = policy(Grant("key:ann", permissions=frozenset({"read", "write"})))
    assert not only.decide(ANN, "tools/call", wanted).allowed


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ({"folder": "public"}, True),
        ({"folder": "public", "other": 1}, True),
        ({"folder": 1}, True),
        ({"folder": None}, True),
        ({"folder": True}, False),
        ({"folder": 1.0}, False),
        ({"folder": "Public"}, False),
        ({"folder": ["public"]}, False),
    ],
)
def test_an_argument_is_compared_as_json_compares(arguments: Any, allowed: bool) -> None:
    decided = policy(Grant("key:ann", ("docs",), arguments={"folder": ("public", 1, None)}))
    assert decided.decide(ANN, "tools/call", Target("docs/x"), arguments).allowed is allowed


def test_of_two_grants_the_wider_one_is_enough() -> None:
    narrow = Grant("key:ann", ("docs",), arguments={"folder": ("public",)})
    decided = policy(narrow, Grant("key:ann", ("docs/read",)))
    assert decided.decide(ANN, "tools/call", Target("docs/read"), {"folder": "secret"}).allowed
    refused = decided.decide(ANN, "tools/call", Target("docs/write"), {"folder": "secret"})
    assert (refused.allowed, refused.rule) == (False, "grant-arguments")


def test_the_machines_own_credential_needs_no_grant() -> None:
    assert policy().decide(LOCAL, "tools/call", Target("docs/x"), {"any": 1}).allowed
