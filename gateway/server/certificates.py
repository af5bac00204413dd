"""Workloads that show a certificate (SPIFFE X.509-SVID) to a proxy which ends TLS for us."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from gateway.dialects.forwarded_certificate import HEADER, spiffe_id
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Kind, Principal


class Certificates:
    """`proxies` are the networks of such proxies; nothing else makes the header true, not even this machine itself.
    `domains` are the trust domains whose workloads may come in."""

    def __init__(self, proxies: Iterable[str], domains: Iterable[str]) -> None:
        self._networks = [ip_network(proxy) for proxy in proxies]
        self._domains = frozenset(domains)
        self._trusted = lru_cache(maxsize=1024)(self._is_proxy)

    def principal(self, headers: dict[bytes, bytes], peer: str) -> Principal | None:
        """The workload, `spiffe://DOMAIN/PATH`. None when there is no certificate, or when whoever says so is not a
        proxy of ours: then the header is somebody's remark. Raises UNAUTHENTICATED for one that is none of these."""
        header = headers.get(HEADER)
        if not header or not self._trusted(peer):
            return None
        found = spiffe_id(header)
        if found is None or found[1] not in self._domains:
            raise GatewayError(Reason.UNAUTHENTICATED, "The client certificate names no workload that is known here")
        id, _ = found
        return Principal(Kind.SPIFFE, id.removeprefix("spiffe:"))

    def _is_proxy(self, address: str) -> bool:
        try:
            peer = ip_address(address)
        except ValueError:
            return False
        if isinstance(peer, IPv6Address):  # a listener on :: sees IPv4 peers in this form
            peer = peer.ipv4_mapped or peer
        return any(peer in network for network in self._networks)
