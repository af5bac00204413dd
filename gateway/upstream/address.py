"""Where may we connect to? Pure rules over URLs and addresses; `egress.py` asks them for every socket.

Two questions at two times. On paper: what does this URL mean, and is it allowed as far as its text can tell
(`locate`, `EgressRules.judge_url`)? At connect: is the very address that this socket is about to get
allowed (`EgressRules.admits`)? A name is judged by the second question only, so no later resolution changes
the answer.

The prefixes are written out because the flags of `ipaddress` say something else: `is_global` is True for
NAT64, `::127.0.0.1`, fec0::/10 and multicast, `is_private` is False for 100.64/10, and releases differ.
They are the IANA special-purpose registries (RFC 6890) as of 2026-11, plus what clouds put on public
numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import quote

import idna

Address = IPv4Address | IPv6Address

_LOOPBACK, _PRIVATE, _LINK_LOCAL, _RESERVED = "loopback", "private", "link-local", "reserved"

_IPV4 = tuple(
    (IPv4Network(prefix), kind)
    for prefix, kind in (
        ("127.0.0.0/8", _LOOPBACK),
        ("10.0.0.0/8", _PRIVATE),
        ("172.16.0.0/12", _PRIVATE),
        ("192.168.0.0/16", _PRIVATE),
        ("100.64.0.0/10", _PRIVATE),  # carrier NAT; cloud metadata at 100.100.100.200
        ("169.254.0.0/16", _LINK_LOCAL),  # cloud metadata at 169.254.169.254
        ("0.0.0.0/8", _RESERVED),  # Linux connects 0.0.0.0 to itself
        ("168.63.129.16/32", _RESERVED),  # a public number, but inside Azure it is the host's control channel
        ("192.0.0.0/24", _RESERVED),  # cloud metadata at 192.0.0.192
        ("192.0.2.0/24", _RESERVED),
        ("192.31.196.0/24", _RESERVED),
        ("192.52.193.0/24", _RESERVED),
        ("192.88.99.0/24", _RESERVED),  # 6to4 relays
        ("192.175.48.0/24", _RESERVED),
        ("198.18.0.0/15", _RESERVED),
        ("198.51.100.0/24", _RESERVED),
        ("203.0.113.0/24", _RESERVED),
        ("224.0.0.0/4", _RESERVED),  # multicast
        ("240.0.0.0/4", _RESERVED),
    )
)
_IPV6 = tuple(
    (IPv6Network(prefix), kind)
    for prefix, kind in (
        ("::1/128", _LOOPBACK),
        ("fc00::/7", _PRIVATE),
        ("fec0::/10", _PRIVATE),
        ("fe80::/10", _LINK_LOCAL),
        ("2001::/23", _RESERVED),  # Teredo, ORCHID, benchmarking: numbers that carry other numbers
        ("2001:db8::/32", _RESERVED),
        ("2002::/16", _RESERVED),  # 6to4 carries an IPv4 address of the sender's choice
        ("2620:4f:8000::/48", _RESERVED),
        ("3fff::/20", _RESERVED),
    )
)
# Everything outside is reserved: NAT64 (64:ff9b::/96), IPv4-compatible, SRv6, multicast, the unassigned rest.
_IPV6_UNICAST = IPv6Network("2000::/3")
_IPV4_MAPPED = IPv6Network("::ffff:0:0/96")

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Longer than any card or webhook URL met in practice; bounds what the egress keeps per cached URL.
MAX_URL = 4096

_URL = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_BLANK = re.compile(r"[\x00-\x20\x7f\\]")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([0-9]{0,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class BadUrl(ValueError):
    """A URL that we do not call, whatever it points at; the text is a sentence for people."""


class Origin(NamedTuple):
    """Scheme, canonical host and port: what an operator trusts, exactly."""

    scheme: str
    host: str  # lower-case ASCII name, or an address in its one canonical form, without brackets
    port: int

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


class Location(NamedTuple):
    """A URL taken apart: where to connect, and what to ask for there (path and query, percent-encoded)."""

    origin: Origin
    target: str

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"


def locate(url: str) -> Location:
    """The one reading of a URL. We connect to what this returns, so no second parser can disagree.

    Raises BadUrl for everything but plain http(s) URLs: no userinfo, no fragment, no blanks or backslashes.
    """
    if len(url) > MAX_URL:
        raise BadUrl(f"the URL is longer than {MAX_URL} characters")
    if _BLANK.search(url):
        raise BadUrl("the URL contains blanks, control characters or backslashes")
    match = _URL.fullmatch(url)
    if match is None:
        raise BadUrl("the URL must be absolute and start with http:// or https://")
    scheme, authority, target = match[1].lower(), match[2], match[3]
    if "@" in authority:
        raise BadUrl("the URL must not contain a user name or password")
    if "#" in target:
        raise BadUrl("the URL must not have a fragment")
    host, port = _split_authority(authority)
    if not target.startswith("/"):
        target = "/" + target
    return Location(Origin(scheme, host, port or _DEFAULT_PORTS[scheme]), quote(target, safe=_PRINTABLE))


def origin_of(url: str) -> Origin:
    """The origin of a URL; raises BadUrl. Two URLs are of one origin when these are equal."""
    return locate(url).origin


def _split_authority(authority: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise BadUrl("the URL's host and port are not well-formed")
    port = int(match[2]) if match[2] else None
    if port is not None and not 0 < port < 65536:
        raise BadUrl("the URL's port must be between 1 and 65535")
    return _canonical_host(match[1]), port


def _canonical_host(host: str) -> str:
    """One spelling per host: addresses in any form that a resolver would take become the address they mean.

    `getaddrinfo` reads 0x7f000001, 2130706433, 0177.0.0.1, 127.1 and full-width digits as 127.0.0.1; so do
    we.
    """
    if host.startswith("["):
        try:
            return str(_plain(IPv6Address(host[1:-1] if "%" not in host else "")))
        except ValueError:
            raise BadUrl("the URL's IPv6 address is not well-formed") from None
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except UnicodeError:  # idna.IDNAError is one
            raise BadUrl("the URL's host is not a valid internationalised name") from None
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadUrl("the URL's host is not a valid name or address")
    # WHATWG URL §3.5: a host whose last label is a number is an IPv4 address or nothing.
    return str(_ipv4(labels)) if _NUMBER.fullmatch(labels[-1]) else host


def _ipv4(parts: list[str]) -> IPv4Address:
    """`inet_aton`: one to four numbers, decimal, 0octal or 0xhex; the last fills the bytes that are left."""
    try:
        *head, last = [_number(part) for part in parts]
        if len(head) > 3 or any(n > 255 for n in head) or last >= 256 ** (4 - len(head)):
            raise ValueError
    except ValueError:
        raise BadUrl("the URL's IPv4 address is not well-formed") from None
    return IPv4Address(sum(n << 8 * (3 - i) for i, n in enumerate(head)) + last)


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)


def _plain(address: Address) -> Address:
    """IPv4-mapped IPv6 is IPv4: the kernel connects ::ffff:127.0.0.1 to 127.0.0.1."""
    return getattr(address, "ipv4_mapped", None) or address


def _read(address: str) -> Address | None:
    """An address as the resolver gives it, zone included (`fe80::1%eth0`); None if it is not one."""
    try:
        return _plain(ip_address(address.partition("%")[0]))
    except ValueError:
        return None


def _kind(address: Address) -> str | None:
    """Why the public internet cannot reach this address, as one word; None when it can."""
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _IPV4 if address in network), None)
    fallback = None if address in _IPV6_UNICAST else _RESERVED
    return next((kind for network, kind in _IPV6 if address in network), fallback)


def public(addr: str) -> bool:
    """Is this literal address one of the public internet? What cannot be read is not."""
    address = _read(addr)
    return address is not None and _kind(address) is None


def on_this_machine(url: str) -> bool:
    """Whether the URL's own text says loopback."""
    host = origin_of(url).host
    address = _read(host)
    return host == "localhost" if address is None else _kind(address) == _LOOPBACK


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of `egress.allow` or `egress.deny`: a name or a network, on one port or on all."""

    host: str | None
    network: IPv4Network | IPv6Network | None
    port: int | None

    @classmethod
    def read(cls, text: str) -> _Entry:
        """`host`, `host:port`, `[v6]:port`, an address or a CIDR; raises ValueError with a sentence."""
        try:
            if "/" in text:
                return cls(None, _plain_network(text), None)
            if text.count(":") > 1 and not text.startswith("["):
                text = f"[{text}]"  # a bare IPv6 address has no port
            host, port = _split_authority(text)
        except ValueError as error:
            raise ValueError(f"egress: {text!r} is not a host, host:port or CIDR: {error}") from None
        literal = _read(host)
        return cls(host, None, port) if literal is None else cls(None, _plain_network(host), port)

    def covers(self, host: str | None, address: Address | None, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is None:
            return self.host == host
        return address is not None and address in self.network


def _plain_network(text: str) -> IPv4Network | IPv6Network:
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        # Addresses are compared as IPv4, so an entry in mapped form would never match: a hole in `deny`.
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


@dataclass(frozen=True)
class EgressRules:
    """The operator's `egress:` settings, and the verdicts that follow from them.

    `deny` wins over all. Then an origin is *named* when the operator registered it (`trusted`, decided by
    the caller: for URLs from the operator's own file, never for those from cards, webhooks, redirects or
    metadata) or listed its name in `allow`; a named origin may have any address. Everything else needs a
    public address, an address in `allow`, or `allow_loopback`. ValueError on construction when an entry
    cannot be read.
    """

    allow_loopback: bool = False
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    _allow: tuple[_Entry, ...] = field(init=False, repr=False, compare=False)
    _deny: tuple[_Entry, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_allow", tuple(_Entry.read(text) for text in self.allow))
        object.__setattr__(self, "_deny", tuple(_Entry.read(text) for text in self.deny))

    def named(self, origin: Origin) -> bool:
        """Did the operator list this host by name? Then its address does not matter."""
        return any(entry.covers(origin.host, None, origin.port) for entry in self._allow)

    def admits(self, address: str, port: int, *, named: bool) -> bool:
        """May a socket go to this address? Asked at connect, where the name is no longer known."""
        literal = _read(address)
        if literal is None or any(entry.covers(None, literal, port) for entry in self._deny):
            return False
        if named or any(entry.covers(None, literal, port) for entry in self._allow):
            return True
        kind = _kind(literal)
        return kind is None or (kind == _LOOPBACK and self.allow_loopback)

    def judge(self, origin: Origin, address: str | None, *, trusted: bool = False) -> str | None:
        """None when the call may go ahead, else a sentence: why not, and which setting would allow it.

        `address` is a literal address, None while a name is not resolved yet: then only its text is judged.
        The sentence shows no resolved address: the caller may be a stranger who is mapping our internal
        names.
        """
        literal = _read(address) if address is not None else None
        if any(entry.covers(origin.host, literal, origin.port) for entry in self._deny):
            return f"{origin} is refused by egress.deny"
        if address is None or self.admits(address, origin.port, named=trusted or self.named(origin)):
            return None
        kind = (_kind(literal) if literal is not None else None) or _RESERVED
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        allow = f'egress.allow: ["{host}:{origin.port}"]'
        if kind == _LOOPBACK:
            allow = f"egress.allow_loopback: true or {allow}"
        return f"{origin} has a {kind} address, which is not called unless the operator sets {allow}"

    def judge_text(self, origin: Origin, *, trusted: bool = False) -> str | None:
        """`judge` before any resolution: literals and localhost (RFC 6761 §6.3) are known, names are not."""
        literal = origin.host if _read(origin.host) else None
        if origin.host == "localhost" or origin.host.endswith(".localhost"):
            literal = "127.0.0.1"
        return self.judge(origin, literal, trusted=trusted)

    def judge_url(self, url: str, *, trusted: bool = False) -> str | None:
        """For a URL that is stored now and called later, such as a webhook: text and literal address only."""
        try:
            return self.judge_text(origin_of(url), trusted=trusted)
        except BadUrl as error:
            return str(error)
