"""`gateway connections`: what people let the gateway use at tool servers and remote agents, in their own name."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import dump, line, moment, note, table

_HEADS = ("CONNECTION", "OWNER", "AT", "ISSUER", "SCOPES", "SINCE", "EXPIRES", "REFRESHABLE")

# What its issuer knows of the end (gateway/model/login.py).
ENDINGS = {
    "revoked": "and its tokens are revoked at {}.",
    "no-endpoint": "but {} revokes nothing: tokens that somebody else has seen are good as long as they were.",
    "failed": "but {} did not revoke its tokens: end it there, too. The log says why.",
    "unasked": "and there was nobody to tell.",
}


def list_connections(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        found = gateway.get("admin", "connections", of=options.of, at=options.at)
    if options.json:
        dump(found)
    elif connections := found["connections"]:
        table(_HEADS, map(_row, connections))
    else:
        note("Nobody has connected anything.")
    return Exit.DONE


def remove_connections(options: argparse.Namespace) -> Exit:
    if not (options.id or options.of or options.at):
        raise Stop("Say which: ID, --of PRINCIPAL or --at UPSTREAM.")
    with Gateway(Place.of(options.data)) as gateway:
        found = gateway.get("admin", "connections", of=options.of, at=options.at)["connections"]
        chosen = [each for each in found if options.id in (None, each["id"])]
        if not chosen:
            raise Stop("There is no such connection; gateway connections list shows them.")
        removed = []
        for each in chosen:
            issuer = gateway.delete("admin", "connections", each["id"])["issuer"]
            removed.append({"id": each["id"], "issuer": issuer})
            told = ENDINGS[issuer].format(each["issuer"] or "its issuer")
            note(f"Forgot {line(each['id'])} of {line(each['owner'] or 'nobody known')}, {line(told)}")
    if options.json:
        dump({"removed": removed})
    return Exit.DONE


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    return (
        found["id"],
        found["owner"] or "-",
        found["at"],
        found["issuer"] or "-",
        " ".join(found["scopes"]) or "-",
        moment(found["since"]),
        moment(found["expires"]),
        "yes" if found["refreshable"] else "no",
    )
