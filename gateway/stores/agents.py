"""What is kept of registered agents as JSON."""

from __future__ import annotations

import orjson

from gateway.model.provenance import CardKeys
from gateway.model.rows import Balance, RemoteSettings


def written(settings: RemoteSettings) -> bytes:
    keys = settings.card_keys
    return orjson.dumps(
        {
            "replicas": settings.replicas,
            "balance": settings.balance,
            "card_keys": None if keys is None else {"document": _text(keys.document), "url": keys.url},
            "require_signature": settings.require_signature,
        }
    )


def read(settings: bytes | str) -> RemoteSettings:
    """What is not there is as if nobody had said anything."""
    tree = orjson.loads(settings)
    keys = tree.get("card_keys")
    return RemoteSettings(
        tuple(tree.get("replicas", ())),
        Balance(tree.get("balance", Balance.ROUND_ROBIN)),
        None if keys is None else CardKeys(_bytes(keys["document"]), keys["url"]),
        bool(tree.get("require_signature")),
    )


def _text(document: bytes | None) -> str | None:
    return None if document is None else document.decode()


def _bytes(document: str | None) -> bytes | None:
    return None if document is None else document.encode()
