"""What the detectors find, and what they leave alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from gateway.checks.detectors import DETECTORS, GROUPS
from gateway.checks.patterns import IN_A_THREAD, named, own
from gateway.core.compliance.held import Held, settled, uncut
from gateway.core.compliance.profile import redacted
from gateway.model.compliance import Finding, Place, Subject
from tests.core.compliance.test_held import chunk, spoken

# Put together here, so that no scanner of repositories takes them for real.
FOUND = {
    "private-key": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "aws-access-key": "AKIA" + "IOSFODNN7EXAMPLE",
    "github-token": "ghp_" + "a1B2" * 9,
    "gitlab-token": "glpat-" + "x" * 20,
    "slack-token": "xoxb-" + "1234567890-abc",
    "slack-webhook": "https://hooks.slack.com/services/" + "T0/B0/" + "x" * 20,
    "google-api-key": "AIza" + "S" * 35,
    "google-oauth-secret": "GOCSPX-" + "a" * 28,
    "anthropic-key": "sk-ant-" + "api03-" + "a" * 30,
    "openai-key": "sk-proj-" + "a" * 24 + "T3BlbkFJ" + "b" * 24,
    "stripe-key": "sk_live_" + "a1b2c3d4e5",
    "npm-token": "npm_" + "a" * 36,
    "pypi-token": "pypi-AgE" + "I" * 60,
    "hugging-face-token": "hf_" + "a" * 34,
    "sendgrid-key": "SG." + "a" * 22 + "." + "b" * 43,
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0." + "c" * 20,
    "url-password": "hunter2",
    "bearer-token": "abcdef0123456789",
    "gateway-key": "gw_" + "k" * 43,
    "email": "ada.lovelace@mail.example.org",
    "card-number": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "us-ssn": "536-90-4399",
    "phone": "+49 (30) 901820",
    "ip-address": "203.0.113.9",
}
AROUND = {
    "url-password": "postgres://ada:{}@db.example/x",
    "bearer-token": "Authorization: Bearer {}",
}
INNOCENT = [
    "The task took 4111 ms and 1111 tries.",
    "4111 1111 1111 1112",  # the last digit does not fit
    "999.1.1.1 and 1.2.3",
    "DE89 3704 0044 0532 0130 05",
    "000-12-3456",
    "order 536-90-43991",
    "user at example dot org, or @ada",
    "sk-learn and sk-etchbook, AKIA is a name",
    "https://example.org/a:b@c is no login, ftp://example.org:21/x neither",
    "2026-11-21T08:00:00.000Z 16093103485ba6dd5e20f589cf381b76",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "0000 0000 0000 0000",
]


async def see(text: str, *names: str) -> list[Finding]:
    check = named(names or GROUPS)
    return [*await check.find(Subject(Place.MESSAGE, "echo", {"parts": [{"text": text}]}))]


async def found(text: str, *names: str) -> list[tuple[str, str]]:
    return [(each.what, text[start:stop]) for each in await see(text, *names) for start, stop in each.spans]


def test_every_detector_has_an_example() -> None:
    assert FOUND.keys() == DETECTORS.keys()


@pytest.mark.parametrize("name", FOUND)
async def test_a_detector_finds_exactly_the_thing_itself(name: str) -> None:
    for text in (AROUND.get(name, "{}"), "it is " + AROUND.get(name, "{}") + ", really"):
        assert (name, FOUND[name]) in await found(text.format(FOUND[name]), name)


def pieces(text: str) -> Iterator[list[str]]:
    """The ways in which a model may say it: so many characters at a time, words with the space before or behind them,
    in two."""
    for size in range(1, 8):
        yield [text[at : at + size] for at in range(0, len(text), size)]
    yield re.findall(r"\s*\S+", text)
    yield re.findall(r"\S+\s*", text)
    yield from ([text[:at], text[at:]] for at in range(1, len(text)))


@pytest.mark.parametrize("name", FOUND)
async def test_a_detector_finds_it_however_a_stream_is_cut(name: str) -> None:
    text = "it is " + AROUND.get(name, "{}").format(FOUND[name]) + " and really no more than that"
    for cut in pieces(text):
        held, said = Held(), list[str]()
        for index, piece in enumerate(cut):
            event = chunk(piece, append=index > 0)
            whole = held.joined(event) or ""
            spans = [span for each in await see(whole, name) for span in each.around or each.spans]
            said += spoken(list(held.take(event, uncut(whole, settled(whole), spans))))
        said += spoken(list(held.release()))
        assert "".join(said) == text
        assert any([(name, FOUND[name]) in await found(each, name) for each in said]), (cut, said)


@pytest.mark.parametrize("text", INNOCENT)
async def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert await found(text) == []


def places() -> Iterator[tuple[object, str]]:
    mail = FOUND["email"]
    yield {"parts": [{"data": {"to": [{"address": mail}]}}]}, "/parts/0/data/to/0/address"
    yield {"parts": [{"data": {mail: 1}}]}, f"/parts/0/data/{mail}#"
    yield {"parts": [{"raw": "YWRhLmxvdmVsYWNlQG1haWwuZXhhbXBsZS5vcmc=", "mediaType": "text/csv"}]}, "/parts/0/raw"
    yield {"content": [{"type": "text", "text": mail}]}, "/content/0/text"
    yield {"a/b~c": mail}, "/a~1b~0c"


@pytest.mark.parametrize(("content", "where"), [*places()])
async def test_it_is_found_wherever_it_stands(content: object, where: str) -> None:
    findings = await named(["email"]).find(Subject(Place.RESULT, "docs/search", content))
    assert [each.where for each in findings] == [where]


async def test_a_long_text_is_looked_through_in_a_thread_and_in_linear_time() -> None:
    text = "a" * IN_A_THREAD + " " + FOUND["email"]
    assert await found(text, "email") == [("email", FOUND["email"])]
    hostile = own("^(a+)+$", "slow")
    assert list(await hostile.find(Subject(Place.MESSAGE, "echo", {"parts": [{"text": "a" * 30_000 + "!"}]}))) == []


async def test_what_a_pattern_finds_without_its_group_is_all_of_it() -> None:
    (finding,) = await own("the (key)|word", "mine").find(Subject(Place.MESSAGE, "echo", {"text": "the key, a word"}))
    assert finding.spans == ((4, 7), (11, 15))
    assert redacted({"text": "the key, a word"}, [finding]) == {"text": "the [redacted: mine], a [redacted: mine]"}


@pytest.mark.parametrize("pattern", ["(", r"(?=x)", r"(a)\1", "a{2000}"])
def test_a_pattern_that_re2_does_not_take_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        own(pattern, "mine")
