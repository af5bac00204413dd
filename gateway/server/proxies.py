"""The proxies that the operator trusts, and whose address stands behind one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


class Proxies:
    """`networks` are theirs. This machine itself is none of them unless it is named."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ip_network(network) for network in networks]
        self.trusts = lru_cache(maxsize=1024)(self._trusts)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def caller(self, peer: str, forwarded: str) -> str:
        """Who calls, for counting and for nothing else. `forwarded` is X-Forwarded-For: each proxy adds on the right
        whom it has seen, so the last one that is no proxy of ours is the last that a proxy of ours vouches for."""
        if not self.trusts(peer):
            return peer
        for said in reversed(forwarded.split(",")):
            address = _address(said.strip())
            if address is None:
                break
            peer = str(address)
            if not self.trusts(peer):
                break
        return peer

    def _trusts(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in network for network in self._networks)


def is_here(address: str) -> bool:
    found = _address(address)
    return found is not None and found.is_loopback


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Some proxies add a port. A listener on :: sees IPv4 peers as IPv6 addresses."""
    host, bracket, _ = text.removeprefix("[").partition("]")
    if not bracket and host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        found = ip_address(host)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
