"""As whom the gateway goes to an authorization server, and how it shows that it is that client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from gateway.upstream.egress import Egress
from gateway.upstream.oauth.assertion import ClientKey
from gateway.upstream.oauth.client import METHODS, PRIVATE_KEY_JWT, Client, ClientSettings, method_for
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.grants import Grants
from gateway.upstream.oauth.metadata import Server, refused
from gateway.upstream.oauth.proofs import ProofKey, Prover
from gateway.upstream.oauth.token_endpoint import TokenEndpoint, register


class Ourselves:
    """Who the gateway is at each issuer stands in `registrations`. `random` gives so many random bytes, `now` epoch
    milliseconds. Every method raises GatewayError."""

    def __init__(
        self,
        settings: ClientSettings,
        discovery: Discovery,
        registrations: Grants,
        egress: Egress,
        *,
        ours: Mapping[str, str],
        now: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self.prover = Prover(now, random)
        self._settings = settings
        self._discovery = discovery
        self._registrations = registrations
        self._egress = egress
        self._ours = ours
        self._key = None if settings.client_key is None else ClientKey(settings.client_key, ours, now, random)

    async def client(self, server: Server, redirect_uri: str | None) -> Client:
        """The operator's client, our metadata document, or a registration, in this order."""
        settings, keyed = self._settings, self._key is not None
        if settings.client_id is not None:
            bound = self._registrations.bound(settings.client_id)
            if settings.issuer is None and bound not in (None, server.issuer):
                raise refused("The server names another authorization server than the one that client_id was used with")
            self._registrations.bind(settings.client_id, server.issuer)
            method = method_for(server.methods, secret=settings.client_secret is not None, key=keyed)
            return Client(settings.client_id, None, method, redirect_uri)
        if settings.client_metadata is not None and server.takes_documents:
            method = method_for(server.methods, secret=False, key=True) if keyed else "none"
            return Client(settings.client_metadata, None, method, redirect_uri)
        return await self._registered(server, redirect_uri)

    def endpoint(self, server: Server, client: Client, key: ProofKey | None, url: str | None = None) -> TokenEndpoint:
        """Its token endpoint, or another one of it at `url`; with `key`, for tokens that are bound to it."""
        url = url or server.token_endpoint
        if client.id == self._settings.client_id:
            # The operator's secret is read at each use and never kept.
            client = Client(client.id, self._settings.secret(self._ours), client.method, client.redirect_uri)
        shown = self._key if client.method == PRIVATE_KEY_JWT else None
        return TokenEndpoint(
            url,
            client,
            self._egress,
            trusted=self._discovery.trusts(url),
            assertion=None if shown is None else partial(shown.assertion, client.id, server),
            prover=self.prover,
            key=key,
        )

    async def _registered(self, server: Server, redirect_uri: str | None) -> Client:
        known = self._registrations.client(server.issuer)
        if known is not None and known.redirect_uri == redirect_uri:
            return known
        if server.registration_endpoint is None:
            raise refused("The authorization server registers nobody by itself; set oauth.client_id")
        method = next((each for each in METHODS if each in server.methods), "none")
        client = await register(
            server.registration_endpoint,
            redirect_uri,
            self._settings.grant,
            method,
            self._egress,
            trusted=self._discovery.trusts(server.registration_endpoint),
        )
        self._registrations.register(server.issuer, client)
        return client
