"""Workloads that show a certificate (SPIFFE X.509-SVID) to a proxy which ends TLS for us."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.dialects.forwarded_certificate import HEADER, spiffe_id
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Kind, Principal
from gateway.server.proxies import Proxies


class Certificates:
    """`proxies` are the networks of such proxies; nothing else makes the header true, not even this machine itself.
    `domains` are the trust domains whose workloads may come in."""

    def __init__(self, proxies: Iterable[str], domains: Iterable[str]) -> None:
        self._proxies = Proxies(proxies)
        self._domains = frozenset(domains)

    def principal(self, headers: dict[bytes, bytes], peer: str) -> Principal | None:
        """The workload, `spiffe://DOMAIN/PATH`. None when there is no certificate, or when whoever says so is not a
        proxy of ours: then the header is somebody's remark. Raises UNAUTHENTICATED for one that is none of these."""
        header = headers.get(HEADER)
        if not header or not self._proxies.trusts(peer):
            return None
        found = spiffe_id(header)
        if found is None or found[1] not in self._domains:
            raise GatewayError(Reason.UNAUTHENTICATED, "The client certificate names no workload that is known here")
        id, _ = found
        return Principal(Kind.SPIFFE, id.removeprefix("spiffe:"))
