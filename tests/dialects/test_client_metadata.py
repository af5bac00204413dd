"""What clients say about themselves, and where people are sent: the rules, one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.oauth2.client_metadata import BadClient, document, is_client_id, registration
from gateway.dialects.oauth2.redirects import host_of, is_local, matches, policy_source, refusal

URL = "https://app.example/client.json"
GOOD: dict[str, Any] = {"client_id": URL, "redirect_uris": ["https://app.example/back"], "client_name": " A\x01  B "}


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example/back",
        "https://app.example/back?x=1&y=2",
        "http://127.0.0.1:1234/cb",
        "http://[::1]/cb",
        "http://localhost/cb",
        "com.example.app:/oauth",
        "com.example.app://host/oauth",
        "cursor://anysphere.cursor-retrieval/oauth/callback",
    ],
)
def test_redirects_that_a_client_may_have(uri: str) -> None:
    assert refusal(uri) is None
    assert matches(uri, [uri])


@pytest.mark.parametrize(
    "uri",
    [
        "http://app.example/back",
        "https://app.example/back#x",
        "https://user@app.example/back",
        "https:///back",
        "https:back",
        "/back",
        "",
        None,
        7,
        "javascript:alert(1)",
        "javascript://app.example/%0aalert(1)",
        "data:text/html,x",
        "data://x/y",
        "file:///etc/passwd",
        "myapp:/no-host",
        "https://app.example/a b",
        "https://app.example/\r\nx: y",
        "https://app.example/;report-uri",
        "https://app.example/'x'",
        'https://app.example/"x"',
        "https://äpp.example/",
        "https://app.example:99999/",
        "https://app.example/" + "x" * 2000,
    ],
)
def test_redirects_that_nobody_may_have(uri: Any) -> None:
    assert refusal(uri) is not None


def test_only_on_loopback_the_port_may_be_another() -> None:
    assert matches("http://127.0.0.1:5555/cb", ["http://127.0.0.1/cb"])
    assert matches("http://[::1]:5555/cb", ["http://[::1]:1/cb"])
    for uri, registered in (
        ("http://127.0.0.1:5555/other", "http://127.0.0.1/cb"),
        ("http://127.0.0.1:5555/cb?x=1", "http://127.0.0.1/cb"),
        ("http://localhost:5555/cb", "http://127.0.0.1/cb"),
        ("https://app.example:8443/cb", "https://app.example/cb"),
        ("https://127.0.0.1:8443/cb", "https://127.0.0.1/cb"),
    ):
        assert not matches(uri, [registered]), uri


def test_people_and_browsers_are_told_where_a_redirect_leads() -> None:
    for uri, host, source, local in (
        ("https://app.example:8443/back?x", "app.example:8443", "https://app.example:8443", False),
        ("http://127.0.0.1:5/cb", "127.0.0.1:5", "http://127.0.0.1:5", True),
        ("http://[::1]:5/cb", "[::1]:5", "http:", True),
        ("cursor://host/x", "cursor://host", "cursor:", True),
        ("com.example.app:/x", "com.example.app:", "com.example.app:", True),
    ):
        assert (host_of(uri), policy_source(uri), is_local(uri)) == (host, source, local)


def test_a_document_speaks_for_its_own_url_and_cleans_its_name() -> None:
    about = document(json.dumps(GOOD).encode(), URL)
    assert (about.name, about.method, about.grants) == ("A B", "none", ("authorization_code",))


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "https://app.example/other.json"},
        {"client_id": URL + "/"},
        {"client_id": None},
        {"client_secret": "x"},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"redirect_uris": ["http://app.example/back"]},
        {"redirect_uris": None},
        {"grant_types": ["client_credentials"]},
        {"grant_types": [1]},
        {"client_name": "x" * 20_000},
    ],
)
def test_documents_that_are_no_client(changed: dict[str, Any]) -> None:
    with pytest.raises(BadClient):
        document(json.dumps({**GOOD, **changed}).encode(), URL)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"client_id": 1, "client_id": 2}', b"\xff"])
def test_what_is_no_strict_json_object_is_no_metadata(body: bytes) -> None:
    for read in (registration, lambda data: document(data, URL)):
        with pytest.raises(BadClient):
            read(body)


@pytest.mark.parametrize(
    ("url", "good"),
    [
        (URL, True),
        ("https://app.example:8443/a/b?c=d", True),
        ("https://app.example", False),
        ("https://app.example/", False),
        ("http://app.example/x", False),
        ("https://APP.example/x", False),
        ("https://app.example/x#y", False),
        ("https://u:p@app.example/x", False),
        ("https://app.example/./x", False),
        ("https://app.example/x/..", False),
        ("https://app.example/%2e%2E/x", False),
        ("https://app.example:x/x", False),
        ("https://app.example/" + "x" * 1000, False),
    ],
)
def test_urls_that_may_be_a_clients_id(url: str, good: bool) -> None:
    assert is_client_id(url) is good
