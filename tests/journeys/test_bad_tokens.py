"""Access tokens that must not open the door (RFC 9068 §4, RFC 8725; CVE lists in each name): every one is 401 with
the challenge that says what is wrong, and nothing reaches an agent."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.dialects.oauth2 import access_token as said
from gateway.dialects.oauth2.dpop import ACCEPTED
from tests.issuer import Issuer, SigningKey, b64, compact, issuing, number
from tests.remote import Scripted, agents, ready, scripted
from tests.serving import A2A, Gateway, message, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]

EC = SigningKey.make("first")
RSA = SigningKey.make("rsa", "RS256")
EDWARDS = SigningKey.make("edwards", "EdDSA")
FOREIGN = SigningKey.make("first")  # the attacker's, under the same name
SHORT = rsa.generate_private_key(65537, 1024)
LEAKED = SigningKey.make("leaked")
WRAPPING = SigningKey.make("wrapping")
SECRET = b"a secret that somebody published by mistake"

# Keys that stand in the issuer's document and must never check anything.
UNUSABLE: list[dict[str, Any]] = [
    {"kty": "oct", "kid": "symmetric", "k": b64(SECRET), "alg": "HS256"},
    {"kty": "RSA", "kid": "short", "n": number(SHORT.public_key().public_numbers().n), "e": "AQAB"},
    WRAPPING.jwk(use="enc"),
    LEAKED.jwk(d="AAAA"),
    {"kty": "EC", "kid": "off-curve", "crv": "P-256", "x": b64(b"\1" * 32), "y": b64(b"\2" * 32)},
]


@dataclass(frozen=True)
class House:
    gateway: Gateway
    issuer: Issuer
    far: Scripted

    @property
    def url(self) -> str:
        return self.gateway.url

    def token(self, **changes: Any) -> str:
        return self.issuer.token(self.url, **changes)

    async def ask(self, authorization: str, agent: str = "far") -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("hi")}}
        headers = {**A2A, "Authorization": authorization}
        return await self.gateway.client.post(f"/agents/{agent}", json=body, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with issuing(keys=[EC, RSA, EDWARDS], published=UNUSABLE) as issuer, scripted() as far:
        config = f"auth: {{issuers: [{{issuer: '{issuer.url}'}}]}}\n{agents(far=far.url)}"
        async with running(tmp_path_factory.mktemp("tokens"), config) as gateway:
            await ready(gateway, "far")
            yield House(gateway, issuer, far)


def public(key: SigningKey, encoding: Encoding) -> bytes:
    found: bytes = key.private.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return found


def hmac_token(house: House, secret: bytes, kid: str, bits: int) -> str:
    header = json.dumps({"alg": f"HS{bits}", "typ": "at+jwt", "kid": kid}).encode()
    signed = f"{b64(header)}.{b64(json.dumps(house.issuer.claims(house.url)).encode())}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), getattr(hashlib, f'sha{bits}')).digest())}"


def with_signature(house: House, change: Callable[[bytes], bytes], **changes: Any) -> str:
    signed, _, signature = house.token(**changes).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    return f"{signed}.{b64(change(raw))}"


def with_payload(house: House, payload: bytes) -> str:
    return compact(EC, b'{"alg":"ES256","typ":"at+jwt","kid":"first"}', payload)


def with_header(house: House, header: bytes) -> str:
    return compact(EC, header, json.dumps(house.issuer.claims(house.url)).encode())


Make = Callable[[House], str]
Case = tuple[str, Make, str]


def bind(make: Callable[..., str], *given: Any) -> Make:
    return lambda house: make(house, *given)


def any_of(*values: Any) -> tuple[Any, ...]:
    return values


def header(name: str, value: Any, sentence: str) -> Case:
    label = "left out" if value is ... else repr(value)[:30]
    return f"{name} {label}", lambda house: house.token(header={name: value}), sentence


def claim(name: str, value: Any, sentence: str) -> Case:
    label = "left out" if value is ... else "…" if callable(value) else repr(value)[:40]

    def make(house: House) -> str:
        return house.token(**{name: value(house) if callable(value) else value})

    return f"{name} {label}", make, sentence


def late(name: str, seconds: int, sentence: str) -> Case:
    return f"{name} {seconds:+} s", lambda house: house.token(**{name: int(time.time()) + seconds}), sentence


def cases() -> Iterator[Case]:
    # Algorithms (CVE-2026-11800, CVE-2026-48523; RFC 8725 §2.1, §3.1).
    for alg in any_of(
        "none", "None", "NONE", "nOnE", "", " ", "HS256", "HS384", "HS512", "hs256", "es256", "ES256 ",
        "RS384", "RS512", "PS384", "ES384", "ES512", "ES256K", "ES256-R", "RS1", "ECDH-ES", "dir", None, 1, True,
        ["ES256"], {"ES256": 1}, ...,
    ):  # fmt: skip
        yield header("alg", alg, said.BAD_ALGORITHM)
    for alg in any_of("none", "None", "NONE"):
        yield (
            f"alg {alg}, no signature",
            bind(lambda house, alg: house.token(header={"alg": alg}).rpartition(".")[0] + ".", alg),
            said.BAD_ALGORITHM,
        )
    for bits in (256, 384, 512):
        for form, secret in {
            "PEM": public(EC, Encoding.PEM), "DER": public(EC, Encoding.DER), "JWK": json.dumps(EC.jwk()).encode(),
            "RSA PEM": public(RSA, Encoding.PEM), "nothing": b"\0",
        }.items():  # fmt: skip
            yield (
                f"HS{bits} with the public key as its secret, {form}",
                bind(lambda house, secret, bits: hmac_token(house, secret, "first", bits), secret, bits),
                said.BAD_ALGORITHM,
            )
    yield (
        "HS256 with a secret that was published",
        lambda h: hmac_token(h, SECRET, "symmetric", 256),
        said.BAD_ALGORITHM,
    )
    for alg, kid in (("RS256", "first"), ("PS256", "first"), ("EdDSA", "first"), ("ES256", "rsa"), ("ES256", "edwards"),
                     ("PS256", "rsa"), ("Ed25519", "edwards"), ("RS256", "edwards")):  # fmt: skip
        yield (
            f"{alg} with the key {kid}, which is for something else",
            bind(lambda house, alg, kid: house.token(header={"alg": alg, "kid": kid}), alg, kid),
            said.UNKNOWN_KEY,
        )
    yield "PS256 signed with the key for RS256", lambda h: h.token(key=RSA, header={"alg": "PS256"}), said.UNKNOWN_KEY

    # Key ids: a name to look up, and nothing else (CVE-2026-27962; T23).
    for kid in any_of(
        "", "unknown", "FIRST", "first ", "../../../../dev/null", "' OR '1'='1", "first' --", "http://127.0.0.1/k",
        "file:///etc/passwd", "first\n", "symmetric", "short", "wrapping", "leaked", "off-curve", "*", "0",
    ):  # fmt: skip
        yield header("kid", kid, said.UNKNOWN_KEY)
    for kid in any_of(None, 0, True, ["first"], {"first": 1}, "first\0", "k" * 600):
        yield header("kid", kid, said.MALFORMED)
    yield "no kid, and another's signature", lambda h: h.token(key=FOREIGN, header={"kid": ...}), said.BAD_SIGNATURE
    for key, name in ((LEAKED, "leaked"), (WRAPPING, "wrapping")):
        yield f"signed with the {name} key", bind(lambda house, key: house.token(key=key), key), said.UNKNOWN_KEY

    # Keys and rules that the token brings along (CVE-2026-27962, CVE-2025-59420, CVE-2026-32597).
    mine = FOREIGN.jwk()
    for name, value in any_of(("jwk", mine), ("jku", "https://evil.example/jwks"), ("x5u", "https://evil.example/c"),
                        ("x5c", ["AAAA"]), ("crit", ["exp"]), ("crit", []), ("crit", ["b64"]), ("b64", False),
                        ("zip", "DEF"), ("enc", "A128GCM"), ("cty", "JWT"), ("jwk", None), ("jku", None)):  # fmt: skip
        yield (
            f"{name} {value!r:.30} in the header, signed with the sender's key",
            bind(lambda house, name, value: house.token(key=FOREIGN, header={name: value}), name, value),
            said.BAD_HEADER,
        )
        yield header(name, value, said.BAD_HEADER)

    # Other kinds of token (RFC 8725 §3.11, RFC 9068 §2.1).
    for typ in any_of(..., "JWT", "jwt", "application/jwt", "at-jwt", "at+jwt ", "at+jwt+x", "xat+jwt", "", "id_token",
                "dpop+jwt", "logout+jwt", "secevent+jwt", "oauth-id-jag+jwt", None, 1, ["at+jwt"]):  # fmt: skip
        yield header("typ", typ, said.BAD_TYPE)

    # Issuers: compared as text.
    for issuer in any_of(..., None, "", 1, ["x"], "https://evil.example", "null"):
        yield claim("iss", issuer, said.BAD_ISSUER)
    for name, change in {
        "a slash more": lambda url: url + "/", "in capitals": str.upper, "https": lambda url: "https" + url[4:],
        "a path more": lambda url: url + "/x", "a dot more": lambda url: url.replace("1:", "1.:"),
        "one character less": lambda url: url[:-1], "a space more": lambda url: url + " ",
        "a list": lambda url: [url], "a user": lambda url: url.replace("//", "//x@"),
    }.items():  # fmt: skip
        yield (
            f"iss {name}",
            bind(lambda house, change: house.token(iss=change(house.issuer.url)), change),
            said.BAD_ISSUER,
        )

    # Audiences: this gateway or this very agent (RFC 8707; GHSA-c2jp-c369-7pvx, CVE-2025-69196).
    for audience in any_of(
        ...,
        None,
        "",
        [],
        {},
        0,
        True,
        [None],
        [1],
        [[]],
        "https://evil.example",
        "*",
        ["*"],
        "gateway",
        "far",
    ):
        yield claim("aud", audience, said.BAD_AUDIENCE)
    for name, change in {
        "another agent": lambda url: url + "/agents/echo", "an agent with a slash": lambda url: url + "/agents/far/",
        "all agents": lambda url: url + "/agents", "a path": lambda url: url + "/x", "in capitals": str.upper,
        "shorter": lambda url: url[:-1], "longer": lambda url: url + "0", "https": lambda url: "https" + url[4:],
        "a prefix of the agent": lambda url: url + "/agents/fa",
        "what follows the agent": lambda url: url + "/agents/far/x",
        "beside a number": lambda url: [url, 1], "among too many": lambda url: [url] * 33,
        "in an object": lambda url: {url: True}, "two in one": lambda url: f"{url} https://x.example",
    }.items():  # fmt: skip
        yield f"aud {name}", bind(lambda house, change: house.token(aud=change(house.url)), change), said.BAD_AUDIENCE

    # Times (RFC 7519 §4.1.4 to 4.1.6), with 30 seconds between clocks.
    for seconds in (-31, -300, -10_000_000):
        yield late("exp", seconds, said.EXPIRED)
    for seconds in (40, 4000, 10_000_000):
        yield late("nbf", seconds, said.TOO_EARLY)
        yield late("iat", seconds, said.TOO_EARLY)
    yield claim("exp", 0, said.EXPIRED)
    for name in ("exp", "iat", "nbf"):
        for value in any_of(None, "9999999999", True, [9999999999], {}, -1, 2**60, 1e300, ""):
            yield claim(name, value, said.BAD_CLAIMS)
    for name in ("exp", "iat"):
        yield claim(name, ..., said.BAD_CLAIMS)

    # Who it is.
    for subject in any_of(..., None, 1, "", [], ["alice"], {}, True, "#alice", "a\nb", "a\x7f", "x" * 256):
        yield claim("sub", subject, said.BAD_CLAIMS)
    for name in ("client_id", "jti"):
        for value in any_of(..., None, 1, [], True):
            yield claim(name, value, said.BAD_CLAIMS)
    for client in any_of("a\nb", "a\x7f", "x" * 2049):
        yield claim("client_id", client, said.BAD_CLAIMS)
    for scope in any_of(1, None, True, "a  b", " a", "a ", 'a"b', "a\\b", "a\tb", {}, [1]):
        yield claim("scope", scope, said.BAD_CLAIMS)
    for roles in any_of(1, True, {}, [1], [None], [["admin"]], ["x"] * 257):
        yield claim("roles", roles, said.BAD_CLAIMS)
    yield claim("cnf", {"jkt": "x"}, said.NEEDS_PROOF)
    for bound in any_of({"x5t#S256": "x"}, {}, None, "x"):
        yield claim("cnf", bound, said.BOUND)

    # Signatures (CVE-2022-21449: zeros; malleable forms).
    for name, change in {
        "none": lambda s: b"", "zeros": lambda s: bytes(64), "r is zero": lambda s: bytes(32) + s[32:],
        "s is zero": lambda s: s[:32] + bytes(32), "first bit": lambda s: bytes([s[0] ^ 1]) + s[1:],
        "last bit": lambda s: s[:-1] + bytes([s[-1] ^ 1]), "one byte less": lambda s: s[:-1],
        "one byte more": lambda s: s + b"\0", "a byte in front": lambda s: b"\0" + s, "twice": lambda s: s + s,
        "halves swapped": lambda s: s[32:] + s[:32], "all ones": lambda s: b"\xff" * 64, "half": lambda s: s[:32],
    }.items():  # fmt: skip
        yield (
            f"signature: {name}",
            bind(lambda house, change: with_signature(house, change), change),
            said.BAD_SIGNATURE,
        )
    for key in (RSA, EDWARDS):
        yield (
            f"{key.alg} signature: first bit",
            bind(lambda house, key: with_signature(house, lambda s: bytes([s[0] ^ 1]) + s[1:], key=key), key),
            said.BAD_SIGNATURE,
        )
        yield (
            f"{key.alg} signature: none",
            bind(lambda house, key: with_signature(house, lambda s: b"", key=key), key),
            said.BAD_SIGNATURE,
        )
    yield "signed by another under the same name", lambda house: house.token(key=FOREIGN), said.BAD_SIGNATURE
    yield (
        "the signature of another token",
        lambda h: f"{h.token(jti='a').rpartition('.')[0]}.{h.token(jti='b').rpartition('.')[2]}",
        said.BAD_SIGNATURE,
    )
    yield (
        "a DER signature",
        lambda h: f"{(signed := h.token().rpartition('.')[0])}.{b64(EC.der(signed.encode()))}",
        said.BAD_SIGNATURE,
    )
    yield (
        "claims of another token",
        lambda h: ".".join((*h.token().split(".")[:1], h.token(sub="admin").split(".")[1], h.token().split(".")[2])),
        said.BAD_SIGNATURE,
    )

    # Form (RFC 7515 §3.1, §7.1), JSON (T10) and size.
    for text in (".", "..", "...", "a", "a.b", "a.b.c", "null", "undefined", "{}"):
        yield f"the text {text!r}", bind(lambda house, text: text, text), said.MALFORMED
    for text in ("e30.e30.", "e30.e30.e30"):
        yield f"the text {text!r}", bind(lambda house, text: text, text), said.BAD_ISSUER
    for name, change in {
        "a dot in front": lambda t: "." + t, "a dot behind": lambda t: t + ".", "a fourth part": lambda t: t + ".e30",
        "padding": lambda t: t + "=", "padding in the header": lambda t: t.replace(".", "=.", 1),
        "a plus": lambda t: t[:-1] + "+", "a slash": lambda t: t[:-1] + "/",
        "a blank inside": lambda t: t[:9] + " " + t[9:],
        "two blanks before": lambda t: " " + t, "a comma and another": lambda t: f"{t}, {t}",
        "quotes": lambda t: f'"{t}"',
        "a letter more": lambda t: t + "AAA",
        "another ending for the same bytes": lambda t: t[:-1] + chr(ord(t[-1]) + 1),
    }.items():  # fmt: skip
        yield f"form: {name}", bind(lambda house, change: change(house.token()), change), said.MALFORMED
    yield "nested: a token in a token", lambda h: with_payload(h, h.token().encode()), said.MALFORMED
    yield "nested: a token in quotes", lambda h: with_payload(h, json.dumps(h.token()).encode()), said.MALFORMED
    for name, document in {
        "a list": b"[]", "a text": b'"x"', "null": b"null", "nothing": b" ", "two values": b"{}{}",
        "a BOM": b"\xef\xbb\xbf{}",
        "UTF-16": "{}".encode("utf-16"), "not UTF-8": b'{"sub":"\xff"}', "NaN": b'{"exp":NaN}',
        "1e400": b'{"exp":1e400}',
        "depth": b'{"a":' + b"[" * 100 + b"]" * 100 + b"}",
        "a comment": b"{/**/}", "a lone surrogate": b'{"sub":"\\ud800"}',
    }.items():  # fmt: skip
        yield f"claims: {name}", bind(with_payload, document), said.MALFORMED
        yield f"header: {name}", bind(with_header, document), said.MALFORMED
    for name in ("iss", "sub", "aud", "exp"):
        yield (
            f"{name} twice",
            bind(
                lambda house, name: with_payload(
                    house, json.dumps(house.issuer.claims(house.url)).encode()[:-1] + f',"{name}":"x"}}'.encode()
                ),
                name,
            ),
            said.MALFORMED,
        )
    for twice in (
        b'"alg":"none","alg":"ES256"',
        b'"alg":"ES256","kid":"x","kid":"first"',
        b'"alg":"ES256","\\u0061lg":"none"',
    ):
        yield (
            f"header {twice.decode()}",
            bind(lambda house, twice: with_header(house, b'{"typ":"at+jwt",' + twice + b"}"), twice),
            said.MALFORMED,
        )
    yield "a signed header of 600 bytes", lambda house: house.token(header={"x": "y" * 600}), said.MALFORMED
    for size in (8193, 12_000):
        yield f"{size} bytes", bind(lambda house, size: house.token().ljust(size, "A"), size), said.TOO_LARGE
    yield "signed, with claims of 9 kB", lambda house: house.token(x="y" * 9000), said.TOO_LARGE


CASES = list(cases())


async def test_there_are_enough_of_them_and_no_two_alike() -> None:
    assert len({name for name, _, _ in CASES}) == len(CASES) >= 150


@pytest.mark.requirement(
    "oauth.jwt.signature", "oauth.jwt.algorithm", "oauth.jwt.type", "oauth.jwt.issuer", "oauth.jwt.audience",
    "oauth.jwt.times", "oauth.jwt.required-claims", "oauth.jwt.header-keys", "oauth.bearer.invalid-token",
    "oauth.resource.challenge",
)  # fmt: skip
@pytest.mark.parametrize(
    ("make", "sentence"), [pytest.param(make, sentence, id=name) for name, make, sentence in CASES]
)
async def test_a_bad_token_is_refused_with_what_is_wrong_and_reaches_nobody(
    house: House, make: Make, sentence: str
) -> None:
    answer = await house.ask(f"Bearer {make(house)}")
    assert answer.status_code == 401, answer.text
    proof = sentence == said.NEEDS_PROOF
    algs = f'algs="{" ".join(ACCEPTED)}", ' if proof else ""
    assert answer.headers["www-authenticate"] == (
        f'{"DPoP" if proof else "Bearer"} realm="gateway", error="invalid_token", error_description="{sentence}", '
        f'{algs}resource_metadata="{house.url}/.well-known/oauth-protected-resource/agents/far"'
    )
    assert answer.json()["error"]["message"] == sentence
    assert house.far.asked == []


@pytest.mark.requirement("oauth.bearer.invalid-token")
@pytest.mark.parametrize("scheme", ["", "Token ", "JWT ", "Basic ", "DPoP ", "Bearer, Bearer ", "Bearer=", "BearerX "])
async def test_a_good_token_under_another_scheme_is_refused(house: House, scheme: str) -> None:
    answer = await house.ask(f"{scheme}{house.token()}")
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_two_credentials_are_none(house: House) -> None:
    """oauth2-proxy and Envoy looked at one of them (CVE-2026-26308)."""
    headers = [("Authorization", f"Bearer {house.token()}"), ("Authorization", f"Bearer {house.gateway.token}")]
    answer = await house.gateway.client.get("/agents", headers=headers)
    assert answer.status_code == 400


@pytest.mark.requirement("oauth.bearer.header-only")
@pytest.mark.parametrize("name", ["access_token", "token", "authorization"])
async def test_a_token_in_the_query_is_no_credential(house: House, name: str) -> None:
    answer = await house.gateway.client.get("/admin/tasks", params={name: house.token()})
    assert answer.status_code == 401
    assert "error=" not in answer.headers["www-authenticate"]


GOOD: dict[str, dict[str, Any]] = {
    "as RFC 9068 has it": {},
    "RS256": {"key": RSA},
    "EdDSA": {"key": EDWARDS},
    "the media type in full": {"header": {"typ": "application/at+jwt"}},
    "the type in capitals": {"header": {"typ": "AT+JWT"}},
    "a header parameter nobody knows": {"header": {"x5t": "abc", "note": 1}},
    "just ended, by our clock": {"exp": -20},
    "about to begin, by our clock": {"nbf": 20, "iat": 20},
    "a fraction of a second": {"exp": 0.5},
    "roles as one word": {"roles": "reader"},
    "a subject that is a URL": {"sub": "https://example.com/users#1"},
}


@pytest.mark.parametrize("name", GOOD)
async def test_a_good_token_opens_the_door(house: House, name: str) -> None:
    """The other side of the table above: what is refused there is not refused for some third reason."""
    changes = dict(GOOD[name])
    for moment in ("exp", "nbf", "iat"):
        if moment in changes:
            changes[moment] += time.time() + (60 if changes[moment] == 0.5 else 0)
    answer = await house.gateway.client.get(
        "/agents/far/tasks", headers={**A2A, "Authorization": f"Bearer {house.token(**changes)}"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["tasks"] == []
