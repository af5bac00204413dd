"""`gateway grants`: what people have allowed clients of the authorization server."""

from __future__ import annotations

import argparse

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit
from gateway.cli.place import Place
from gateway.cli.text import dump, line, moment, note, table


def list_grants(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "grants", client=options.client, person=options.person)
    if options.json:
        dump(answer)
    elif grants := answer.get("grants"):
        rows = (
            (g["id"], g["person"], g["client"], " ".join(g["scopes"]) or "-", moment(g["began"]), moment(g["until"]))
            for g in grants
        )
        table(("GRANT", "PERSON", "CLIENT", "SCOPES", "SINCE", "UNTIL"), rows)
    else:
        note("Nobody has allowed anything.")
    return Exit.DONE


def remove_grant(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        gateway.delete("admin", "grants", options.id)
    note(f"Ended {line(options.id)}, with every token that came of it.")
    return Exit.DONE
