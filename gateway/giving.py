"""The settings under `auth.authorization_server`, made into what gives out tokens. Brings authlib."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import Route

from gateway.config import AuthorizationServer as Entry
from gateway.config import Settings
from gateway.core.audit import Recorder
from gateway.core.clients import Clients
from gateway.dialects.oauth2.access_token import Rules
from gateway.dialects.oauth2.signature import BadKeys
from gateway.model.ports import Store
from gateway.model.problems import Problem, StartError
from gateway.server.oauth.authorization_server import AuthorizationServer, OwnIssuer
from gateway.server.oauth.endpoints import Endpoints
from gateway.server.oauth.signing import SigningKeys
from gateway.stores.keyfolder import KeyFolder

FOLDER = "oauth-keys"
LABEL = "gateway"  # no issuer is called so: they are URLs


def authorization(
    settings: Settings,
    entry: Entry,
    clients: Clients,
    store: Store,
    now: Callable[[], int],
    new_id: Callable[[], str],
) -> tuple[OwnIssuer, list[Route]]:
    """The issuer as the door knows it, and its paths. Raises StartError."""
    url = settings.public_url.rstrip("/")
    folder = settings.data / FOLDER
    try:
        keys = SigningKeys(KeyFolder(folder), entry.algorithm, entry.rotate_days, now)
    except (BadKeys, ValueError) as error:
        hint = "remove the file that is not one; a new key is made at the start"
        raise StartError(Problem(str(folder), f"does not hold signing keys only: {error}", hint)) from None
    algorithms = frozenset({"ES256", "EdDSA"})
    audiences = frozenset({url, url + "/"})
    rules = Rules(url, audiences, algorithms, label=LABEL)
    issuer = OwnIssuer(rules, keys, clients, now)
    seconds = entry.token_seconds
    server = AuthorizationServer(issuer, keys, clients, url=url, seconds=seconds, now=now, new_id=new_id)
    return issuer, Endpoints(server, Recorder(store, now), new_id).routes()
