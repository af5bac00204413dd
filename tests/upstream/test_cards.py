"""Fetching cards: over the real egress where addresses matter, else over respx, which answers on cue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import pairwise

import httpx
import httpx2
import pytest
import respx

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import EgressRules
from gateway.upstream.cards import CARD_LIMIT, CardFetcher
from gateway.upstream.egress import Egress
from gateway.upstream.httpx2_transport import control_client
from tests.upstream.loopback import always, answer, canary, serve

CARD = b'{"name":"Echo","x-new":[1]}'
URL = "https://agent.example/card.json"
WELL_KNOWN = "https://agent.example/.well-known/agent-card.json"
OLDER = "https://agent.example/.well-known/agent.json"


@pytest.fixture
def net() -> Iterator[respx.Router]:
    with respx.mock(using="httpcore2", assert_all_called=True) as router:
        yield router


@pytest.fixture
async def cards() -> AsyncIterator[CardFetcher]:
    async with httpx2.AsyncClient() as client:
        yield CardFetcher(lambda trusted: client)


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(EgressRules()) as egress:
        yield egress


async def test_a_card_comes_as_bytes_and_tree_with_what_a_cache_needs(net: respx.Router, cards: CardFetcher) -> None:
    headers = {"etag": '"v1"', "last-modified": "Sat, 21 Nov 2026 08:00:00 GMT", "content-type": "text/plain"}
    route = net.get(URL).mock(httpx.Response(200, headers=headers, content=CARD))
    card = await cards.fetch(URL, trusted=False)
    assert (card.body, card.tree, card.not_modified) == (CARD, {"name": "Echo", "x-new": [1]}, False)
    assert (card.etag, card.last_modified) == ('"v1"', "Sat, 21 Nov 2026 08:00:00 GMT")
    assert card.final_url == URL
    assert "if-none-match" not in route.calls[0].request.headers


async def test_a_card_that_has_not_changed_is_not_sent_again(net: respx.Router, cards: CardFetcher) -> None:
    route = net.get(URL, headers={"if-none-match": '"v1"'}).mock(httpx.Response(304, headers={"etag": '"v1"'}))
    card = await cards.fetch(URL, etag='"v1"', trusted=False)
    assert card.not_modified
    assert (card.body, card.tree, card.etag) == (b"", {}, '"v1"')
    assert route.call_count == 1


@pytest.mark.parametrize("url", ["https://agent.example", "https://agent.example/"])
async def test_a_host_alone_means_its_well_known_card(net: respx.Router, cards: CardFetcher, url: str) -> None:
    net.get(WELL_KNOWN).mock(httpx.Response(200, content=CARD))
    assert (await cards.fetch(url, trusted=False)).final_url == WELL_KNOWN


async def test_an_older_agent_is_found_under_the_older_name(net: respx.Router, cards: CardFetcher) -> None:
    net.get(WELL_KNOWN).mock(httpx.Response(404))
    net.get(OLDER).mock(httpx.Response(200, content=CARD))
    assert (await cards.fetch("https://agent.example", trusted=False)).final_url == OLDER


async def test_a_host_without_a_card_is_told_by_the_current_name(net: respx.Router, cards: CardFetcher) -> None:
    net.get(WELL_KNOWN).mock(httpx.Response(404))
    net.get(OLDER).mock(httpx.Response(500))
    error = await failing(cards, "https://agent.example")
    assert error.message == f"{WELL_KNOWN} answered the card request with status 404"


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 404, 500, 503])
async def test_any_other_status_is_a_sentence(net: respx.Router, cards: CardFetcher, status: int) -> None:
    net.get(URL).mock(httpx.Response(status))
    error = await failing(cards, URL)
    assert error.reason is Reason.UPSTREAM_FAILED
    assert error.message == f"{URL} answered the card request with status {status}"


@pytest.mark.parametrize("location", ["/new.json", "https://agent.example/new.json", "//agent.example/new.json#x"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(net: respx.Router, cards: CardFetcher, status: int, location: str) -> None:
    net.get(URL).mock(httpx.Response(status, headers={"location": location}))
    net.get("https://agent.example/new.json").mock(httpx.Response(200, content=CARD))
    assert (await cards.fetch(URL, trusted=False)).final_url == "https://agent.example/new.json"


async def test_three_redirects_are_followed_and_a_fourth_is_not(net: respx.Router, cards: CardFetcher) -> None:
    route = net.get(url__startswith="https://agent.example/").mock(httpx.Response(302, headers={"location": URL}))
    error = await failing(cards, URL)
    assert error.message == "https://agent.example redirected the card request more than 3 times"
    assert route.call_count == 4


@pytest.mark.security
@pytest.mark.parametrize("location", ["http://agent.example/card.json", "http://127.0.0.1/"])
async def test_a_redirect_does_not_lead_from_https_to_http(
    net: respx.Router, cards: CardFetcher, location: str
) -> None:
    net.get(URL).mock(httpx.Response(302, headers={"location": location}))
    error = await failing(cards, URL)
    assert error.reason is Reason.EGRESS_REFUSED
    assert "from https to http" in error.message


@pytest.mark.security
@pytest.mark.parametrize("location", ["file:///etc/passwd", "https://u:p@agent.example/", "https://[::1", "data:,{}"])
async def test_a_redirect_to_no_plain_url_is_refused(net: respx.Router, cards: CardFetcher, location: str) -> None:
    net.get(URL).mock(httpx.Response(302, headers={"location": location}))
    error = await failing(cards, URL)
    assert error.reason is Reason.EGRESS_REFUSED
    assert "redirected the card request to a URL that is not called" in error.message


@pytest.mark.security
async def test_the_operators_trust_ends_where_the_origin_does(net: respx.Router) -> None:
    asked: list[tuple[str, bool]] = []

    def client_for(trusted: bool) -> httpx2.AsyncClient:
        note = partial(_note, asked, trusted)
        return httpx2.AsyncClient(event_hooks={"request": [note]})

    hops = [URL, "https://agent.example/b", "https://agent.example:444/c", "https://agent.example/d"]
    for here, there in pairwise(hops):
        net.get(here).mock(httpx.Response(302, headers={"location": there}))
    net.get(hops[-1]).mock(httpx.Response(200, content=CARD))
    await CardFetcher(client_for).fetch(URL, trusted=True)
    assert asked == list(zip(hops, [True, True, False, True], strict=True))


@pytest.mark.security
async def test_a_redirect_to_an_inner_address_is_refused_in_a_sentence(egress: Egress) -> None:
    cards = CardFetcher(lambda trusted: control_client(egress, trusted=trusted))
    async with canary() as bird, serve(always(answer(b"", "302 Found", location=bird.url))) as upstream:
        error = await failing(cards, f"{upstream.url}/card.json", trusted=True)
    assert error.reason is Reason.EGRESS_REFUSED
    assert error.message.startswith(f"{upstream.url} redirected the card request: {bird.url} has a loopback address")
    assert "egress.allow" in error.message


@pytest.mark.security
async def test_a_strangers_card_url_never_reaches_loopback(egress: Egress) -> None:
    cards = CardFetcher(lambda trusted: control_client(egress, trusted=trusted))
    async with canary() as bird:
        error = await failing(cards, bird.url)
    assert error.reason is Reason.EGRESS_REFUSED
    assert error.message.startswith(f"{bird.url} has a loopback address")


async def test_over_the_real_egress_a_card_arrives(egress: Egress) -> None:
    cards = CardFetcher(lambda trusted: control_client(egress, trusted=trusted))
    async with serve(always(answer(CARD, etag='"v1"'))) as upstream:
        card = await cards.fetch(upstream.url, trusted=True)
    assert (card.tree["name"], card.etag) == ("Echo", '"v1"')
    assert upstream.requests[0].line == "GET /.well-known/agent-card.json HTTP/1.1"
    assert upstream.requests[0].headers["accept"] == "application/json"


@pytest.mark.security
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff", b"[1]", b'"card"', b"null"])
async def test_what_is_not_one_strict_json_object_is_no_card(
    net: respx.Router, cards: CardFetcher, body: bytes
) -> None:
    net.get(URL).mock(httpx.Response(200, headers={"content-type": "application/json"}, content=body))
    error = await failing(cards, URL)
    assert error.reason is Reason.INVALID_AGENT_RESPONSE
    assert error.message.startswith(f"the card at {URL}")


@pytest.mark.security
async def test_a_card_has_at_most_a_mebibyte(net: respx.Router, cards: CardFetcher) -> None:
    filler = b" " * (CARD_LIMIT - len(CARD))
    net.get(URL).mock(httpx.Response(200, content=CARD + filler))
    assert len((await cards.fetch(URL, trusted=False)).body) == CARD_LIMIT
    net.get(URL).mock(httpx.Response(200, content=CARD + filler + b" "))
    error = await failing(cards, URL)
    assert error.reason is Reason.UPSTREAM_TOO_LARGE
    assert error.message == f"the card at {URL} has more than 1024 KiB, the most that is read"


@pytest.mark.parametrize(
    ("raised", "reason", "what"),
    [
        (httpx2.ReadTimeout("x"), Reason.UPSTREAM_TIMEOUT, "did not answer the card request in time"),
        (httpx2.ConnectTimeout("x"), Reason.UPSTREAM_TIMEOUT, "did not answer the card request in time"),
        (httpx2.ConnectError("x"), Reason.UPSTREAM_FAILED, "could not be reached"),
        (httpx2.RemoteProtocolError("x"), Reason.UPSTREAM_FAILED, "broke off its answer to the card request"),
    ],
)
async def test_a_plain_client_fails_in_our_words(
    net: respx.Router, cards: CardFetcher, raised: Exception, reason: Reason, what: str
) -> None:
    net.get(URL).mock(side_effect=raised)
    error = await failing(cards, URL)
    assert (error.reason, error.message) == (reason, f"agent.example {what}")


@pytest.mark.security
async def test_a_card_url_that_is_not_plain_http_is_refused(cards: CardFetcher) -> None:
    error = await failing(cards, "https://agent.example/card.json#x", trusted=True)
    assert error.reason is Reason.EGRESS_REFUSED


async def failing(cards: CardFetcher, url: str, *, trusted: bool = False) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await cards.fetch(url, trusted=trusted)
    return caught.value


async def _note(asked: list[tuple[str, bool]], trusted: bool, request: httpx2.Request) -> None:
    asked.append((str(request.url), trusted))
