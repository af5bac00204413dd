"""Which addresses and URLs may be called: tables, because an SSRF guard is as good as its list of tricks."""

from __future__ import annotations

import pytest

from gateway.upstream.address import BadUrl, EgressRules, Origin, locate, origin_of, public

pytestmark = pytest.mark.security

PUBLIC_ADDRESSES = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
    169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255
    198.20.0.0 203.0.112.255 223.255.255.255 168.63.129.17 2000:: 2001:200::1 2606:4700:4700::1111
    2a00:1450:4001::200e
    2003:: 2620:4f:7fff::1 3ffe::1 ::ffff:8.8.8.8
"""

FORBIDDEN_ADDRESSES = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1
    127.255.255.254 168.63.129.16 169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1
    192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1 192.168.255.255 192.175.48.1
    198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::2 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
    64:ff9b::127.0.0.1 64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 2001::1 2001:0:53aa:64c:0:0:80ff:fffe 2001:10::1
    2001:20::1 2001:db8::1 2002:7f00:1::1 2002:a9fe:a9fe::1 2620:4f:8000::1 3fff::1 4000::1 5f00::1 fc00::1
    fd00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 febf::1 fec0::1 ff02::1 ff0e::1
    localhost example.com 127.1 2130706433 0x7f.1 1.2.3 1.2.3.4.5 256.1.1.1 [::1] nonsense
"""

# What each of these means to a resolver; `getaddrinfo` would connect to it.
DISGUISES = {
    "http://127.0.0.1/": "127.0.0.1",
    "http://127.0.0.1:80/": "127.0.0.1",
    "HTTP://127.0.0.1": "127.0.0.1",
    "http://127.0.0.1.": "127.0.0.1",
    "http://127.1/": "127.0.0.1",
    "http://127.0.1/": "127.0.0.1",
    "http://2130706433/": "127.0.0.1",
    "http://0x7f000001/": "127.0.0.1",
    "http://0X7F000001/": "127.0.0.1",
    "http://0x7f.0.0.1/": "127.0.0.1",
    "http://0x7f.1/": "127.0.0.1",
    "http://017700000001/": "127.0.0.1",
    "http://0177.0.0.1/": "127.0.0.1",
    "http://0177.0.0.01/": "127.0.0.1",
    "http://127.0.0x0.0x1/": "127.0.0.1",
    "http://127.65535/": "127.0.255.255",
    "http://0/": "0.0.0.0",
    "http://0x/": "0.0.0.0",
    "http://0.0.0.0/": "0.0.0.0",
    "http://10.1/": "10.0.0.1",
    "http://0xa9fea9fe/": "169.254.169.254",
    "http://2852039166/": "169.254.169.254",
    "http://169.254.43518/": "169.254.169.254",
    "http://0251.0376.0251.0376/latest/meta-data/": "169.254.169.254",
    "http://\uff11\uff12\uff17.0.0.1/": "127.0.0.1",  # full-width digits
    "http://①②⑦.⓪.⓪.①/": "127.0.0.1",  # circled digits
    "http://127。0。0。1/": "127.0.0.1",  # ideographic full stops
    "http://127\uff0e0\uff0e0\uff0e1/": "127.0.0.1",  # full-width full stops
    "http://127\uff610\uff610\uff611/": "127.0.0.1",  # half-width ideographic full stops
    "http://127.0.0.\u200b1/": "127.0.0.1",  # zero-width space
    "http://127.0.0.1\u00ad/": "127.0.0.1",  # soft hyphen
    "http://\uff10x7f000001/": "127.0.0.1",
    "http://[::1]/": "::1",
    "http://[::1]:8080/": "::1",
    "http://[0:0:0:0:0:0:0:1]/": "::1",
    "http://[::0001]/": "::1",
    "http://[::]/": "::",
    "http://[::ffff:127.0.0.1]/": "127.0.0.1",
    "http://[::ffff:7f00:1]/": "127.0.0.1",
    "http://[::FFFF:a9fe:a9fe]/": "169.254.169.254",
    "http://[0:0:0:0:0:ffff:10.0.0.1]/": "10.0.0.1",
    "http://[::127.0.0.1]/": "::7f00:1",
    "http://[64:ff9b::7f00:1]/": "64:ff9b::7f00:1",
    "http://[2002:7f00:1::]/": "2002:7f00:1::",
    "http://[fe80::1]/": "fe80::1",
    "http://[fd00:ec2::254]/latest": "fd00:ec2::254",
    "http://localhost/": "localhost",
    "http://LOCALHOST/": "localhost",
    "http://localhost./": "localhost",
    "http://a.b.localhost/": "a.b.localhost",
    "http://ｌｏｃａｌｈｏｓｔ/": "localhost",
    "http://local\u00adhost/": "localhost",
}

MALFORMED = [
    "",
    "example.com",
    "//example.com/",
    "/relative",
    "http:",
    "http:/example.com",
    "http:example.com",
    "http://",
    "http:///path",
    "http://:80/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "data:,x",
    "javascript:alert(1)",
    "unix:///run/docker.sock",
    "ws://example.com/",
    "httpx://example.com/",
    " http://example.com/",
    "http://example.com/ ",
    "http://exam ple.com/",
    "http://example.com/a b",
    "http://example.com/\r\nHost: evil",
    "http://example.com\t/",
    "http://example.com/\x00",
    "http://example.com/\x7f",
    "http:\\\\example.com\\",
    "http://example.com\\@127.0.0.1/",
    "http://user@example.com/",
    "http://user:pass@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1%40example.com/",
    "http://@example.com/",
    "http://example.com/#fragment",
    "http://example.com#@127.0.0.1/",
    "http://example.com/?q#",
    "http://%31%32%37.0.0.1/",
    "http://127.0.0.1%2f.example.com/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:99999999/",
    "http://example.com:-1/",
    "http://example.com:80:80/",
    "http://example.com:http/",
    "http://example.com:８０/",
    "http://256.0.0.1/",
    "http://1.2.3.4.5/",
    "http://127.0.0.0x100/",
    "http://08.0.0.1/",
    "http://4294967296/",
    "http://0x100000000/",
    "http://example.0x7f/",
    "http://example.123/",
    "http://..example.com/",
    "http://example..com/",
    "http://.example.com/",
    "http://example.com../",
    "http://-example.com/",
    "http://[::1/",
    "http://::1/",
    "http://[::1]x/",
    "http://[::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[127.0.0.1]/",
    "http://[v1.x]/",
    "http://[]/",
    "http://a_b.\u00e9/",
    "http://xn--\u00e9/",
    f"http://{'a' * 64}.com/",
    f"http://{'a.' * 127}com/",
    f"http://example.com/{'a' * 5000}",
]


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES.split())
def test_an_address_of_the_public_internet_is_public(address: str) -> None:
    assert public(address)


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES.split())
def test_any_other_address_and_anything_that_is_no_address_is_not_public(address: str) -> None:
    assert not public(address)


@pytest.mark.parametrize(("url", "host"), DISGUISES.items())
def test_a_disguised_address_is_read_as_what_it_means_and_refused(url: str, host: str) -> None:
    assert origin_of(url).host == host
    refusal = EgressRules().judge_url(url)
    assert refusal is not None
    assert "egress.allow" in refusal


@pytest.mark.parametrize("url", MALFORMED)
def test_a_url_that_is_not_plain_http_is_refused_even_for_the_operator(url: str) -> None:
    with pytest.raises(BadUrl, match="the URL"):
        locate(url)
    assert EgressRules().judge_url(url, trusted=True) is not None


@pytest.mark.parametrize(
    ("url", "reading"),
    {
        "https://example.com": "https://example.com/",
        "https://EXAMPLE.com:443/Path?Q=1": "https://example.com/Path?Q=1",
        "http://example.com?q": "http://example.com/?q",
        "http://example.com:/x": "http://example.com/x",
        "http://my_agent:9000/": "http://my_agent:9000/",
        "https://bücher.example/ä?ö=%C3%BC": "https://xn--bcher-kva.example/%C3%A4?%C3%B6=%C3%BC",
        "https://faß.de/": "https://xn--fa-hia.de/",
        "https://[2606:4700:4700:0::1111]:8443/": "https://[2606:4700:4700::1111]:8443/",
        "https://8.8.8.8/a%2Fb/../c": "https://8.8.8.8/a%2Fb/../c",
        "http://1.example.com/": "http://1.example.com/",
        "http://example.com/a@b:c": "http://example.com/a@b:c",
    }.items(),
)
def test_a_plain_url_has_one_canonical_reading_and_is_allowed(url: str, reading: str) -> None:
    assert str(locate(url)) == reading
    assert EgressRules().judge_url(url) is None


def test_origins_are_equal_only_when_scheme_host_and_port_are() -> None:
    assert origin_of("https://a.example/x") == origin_of("https://A.example:443/y") != origin_of("http://a.example:443")
    assert origin_of("http://a.example") != origin_of("http://a.example:8080")
    assert Origin("http", "::1", 8080).authority == "[::1]:8080"


@pytest.mark.parametrize(
    ("rules", "url"),
    [
        (EgressRules(allow_loopback=True), "http://127.0.0.1:9000/"),
        (EgressRules(allow_loopback=True), "http://[::1]/"),
        (EgressRules(allow_loopback=True), "http://localhost:9000/"),
        (EgressRules(allow=("127.0.0.1",)), "http://2130706433:9000/"),
        (EgressRules(allow=("127.0.0.1:9000",)), "http://127.0.0.1:9000/"),
        (EgressRules(allow=("localhost:9000",)), "http://localhost:9000/"),
        (EgressRules(allow=("10.0.0.0/8",)), "http://10.1.2.3/"),
        (EgressRules(allow=("10.0.0.0/8",)), "http://[::ffff:10.1.2.3]/"),
        (EgressRules(allow=("::ffff:10.0.0.0/104",)), "http://10.1.2.3/"),
        (EgressRules(allow=("fd00::/8",)), "http://[fd00::1]/"),
        (EgressRules(allow=("[fd00::1]:80",)), "http://[fd00::1]/"),
        (EgressRules(allow=("fd00::1",)), "http://[fd00::1]/"),
    ],
)
def test_what_the_operator_allows_is_allowed(rules: EgressRules, url: str) -> None:
    assert rules.judge_url(url) is None


@pytest.mark.parametrize(
    ("rules", "url"),
    [
        (EgressRules(allow_loopback=True), "http://10.0.0.1/"),
        (EgressRules(allow_loopback=True), "http://0.0.0.0/"),
        (EgressRules(allow=("127.0.0.1:9000",)), "http://127.0.0.1:9001/"),
        (EgressRules(allow=("10.0.0.0/8",)), "http://172.16.0.1/"),
        (EgressRules(allow=("intern.example",)), "http://10.0.0.1/"),
        (EgressRules(allow=("intern.example",)), "http://a.localhost/"),
    ],
)
def test_and_nothing_beside_it(rules: EgressRules, url: str) -> None:
    assert rules.judge_url(url) is not None


@pytest.mark.parametrize(
    ("deny", "url"),
    [
        ("evil.example", "http://evil.example/"),
        ("evil.example", "http://EVIL.example./"),
        ("evil.example:8080", "http://evil.example:8080/"),
        ("8.8.8.0/24", "http://8.8.8.8/"),
        ("127.0.0.0/8", "http://[::ffff:127.0.0.1]/"),
        ("::ffff:127.0.0.0/104", "http://127.0.0.1/"),
        ("0.0.0.0/0", "http://1.1.1.1/"),
    ],
)
def test_deny_wins_over_allow_and_over_trust(deny: str, url: str) -> None:
    rules = EgressRules(allow_loopback=True, allow=("evil.example", "0.0.0.0/0", "127.0.0.1"), deny=(deny,))
    assert "egress.deny" in (rules.judge_url(url, trusted=True) or "")


def test_a_trusted_origin_may_have_any_address_and_a_name_is_judged_when_it_has_one() -> None:
    rules = EgressRules(allow=("intern.example:8080",))
    stranger, listed = origin_of("http://a.example"), origin_of("http://intern.example:8080")
    assert rules.judge(stranger, "10.0.0.1", trusted=True) is None
    assert rules.judge(stranger, None) is None
    assert rules.judge(listed, "10.0.0.1") is None
    assert rules.judge(origin_of("http://intern.example:8081"), "10.0.0.1") is not None
    assert rules.judge(stranger, "93.184.216.34") is None


def test_a_refusal_names_the_setting_and_keeps_the_resolved_address_to_itself() -> None:
    refusal = EgressRules().judge(origin_of("http://db.example:5432"), "10.9.8.7")
    assert refusal == (
        "http://db.example:5432 has a private address, which is not called unless the operator sets "
        'egress.allow: ["db.example:5432"]'
    )
    loopback = EgressRules().judge_url("http://[::1]:9000/")
    assert loopback is not None
    assert 'egress.allow_loopback: true or egress.allow: ["[::1]:9000"]' in loopback


@pytest.mark.parametrize("host", ["db.example:5432", "[::1]:9000", "127.0.0.1:80", "[fd00::1]:443"])
def test_the_setting_that_a_refusal_names_does_allow_it(host: str) -> None:
    origin = origin_of(f"http://{host}/")
    address = "10.9.8.7" if origin.host == "db.example" else origin.host
    assert EgressRules().judge(origin, address) is not None
    assert EgressRules(allow=(host,)).judge(origin, address) is None


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "http://a.example", "a b", "*.example", "host:0", "1.2.3.4/33", ""])
def test_an_entry_that_cannot_be_read_is_refused_with_its_text(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a host, host:port or CIDR"):
        EgressRules(deny=(entry,))
