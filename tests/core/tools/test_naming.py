"""Names on a mount: injective, short, and back again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.tools.naming import MAX_NAME, Mount, Naming, expose, inner_uri, outer_uri, prefixed
from gateway.model.tool import Definition, Kind

SERVERS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
KEYS = st.text(st.sampled_from("abAB019_-./:+ \u00e9"), min_size=1, max_size=80)


def tool(server: str, name: str) -> Definition:
    return Definition.of(server, Kind.TOOL, {"name": name, "inputSchema": {"type": "object"}})


@given(SERVERS, KEYS)
def test_a_prefixed_name_is_one_that_every_client_takes(server: str, name: str) -> None:
    assert re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_NAME}}}", prefixed(server, name))


@given(st.lists(st.tuples(SERVERS, KEYS), unique=True, max_size=30))
def test_no_two_tools_have_one_name_and_each_name_leads_back(addresses: list[tuple[str, str]]) -> None:
    names = expose(Mount(""), [tool(server, name) for server, name in addresses])
    shown = {(each.server, each.key) for each in names.named.values()}
    hidden = {tuple(address.split("/", 1)) for group in names.collisions.values() for address in group}
    assert shown | hidden == set(addresses)
    assert not shown & hidden
    assert len({name.casefold() for name in names.named}) == len(names.named)
    assert all(len(group) > 1 for group in names.collisions.values())


@pytest.mark.security
@pytest.mark.parametrize(
    ("first", "second"),
    [(("a", "b__c"), ("a", "b__C")), (("x", "Send"), ("x", "send")), (("x", "SEND"), ("x", "sEnd"))],
)
def test_names_that_read_the_same_are_shown_to_nobody(first: tuple[str, str], second: tuple[str, str]) -> None:
    names = expose(Mount(""), [tool(*first), tool(*second), tool("y", "fine")])
    assert list(names.named) == ["y__fine"]
    assert list(names.collisions.values()) == [(f"{first[0]}/{first[1]}", f"{second[0]}/{second[1]}")] or list(
        names.collisions.values()
    ) == [(f"{second[0]}/{second[1]}", f"{first[0]}/{first[1]}")]


def test_long_names_that_differ_at_their_end_stay_different() -> None:
    long = "x" * 100
    assert prefixed("docs", long + "1") != prefixed("docs", long + "2")
    assert prefixed("docs", long + "1") == prefixed("docs", long + "1")


@given(SERVERS, st.text(st.sampled_from("abz:/+.-{}?#%é"), min_size=1, max_size=40))
def test_a_resource_is_found_again_by_its_uri(server: str, uri: str) -> None:
    assert inner_uri(outer_uri(server, uri)) == (server, uri)
    assert re.match(r"[a-z]", outer_uri(server, uri)) or uri.startswith("ui://")


@pytest.mark.parametrize("uri", ["file:///a", "ui://x", "", "A+x://y", "1a+x://y", "s.a+x://y", "no scheme"])
def test_a_uri_of_no_server_leads_nowhere(uri: str) -> None:
    assert inner_uri(uri) is None


def test_an_identity_mount_keeps_names_uris_and_order() -> None:
    mount = Mount("m", ("docs",), Naming.IDENTITY)
    names = expose(mount, iter([tool("docs", "z"), tool("docs", "a.b"), tool("other", "q")]))
    assert list(names.named) == ["z", "a.b"]
    assert mount.locate("file:///x") == ("docs", "file:///x")


def test_an_alias_mount_has_what_is_listed_and_nothing_else() -> None:
    mount = Mount("m", naming=Naming.ALIAS, aliases={"find": "docs/search", "look": "docs/search"})
    names = expose(mount, [tool("docs", "search"), tool("docs", "send")])
    assert {name: each.key for name, each in names.named.items()} == {"find": "search", "look": "search"}
    assert not mount.holds_server("docs")
