"""`gateway keys`: API keys for those who call from elsewhere."""

from __future__ import annotations

import argparse

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit
from gateway.cli.place import Place
from gateway.cli.text import dump, moment, note, say, table


def add_key(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        made = gateway.post("admin", "keys", body={"name": options.name})
    if options.json:
        dump(made)
    else:
        # The key alone on standard output: `gateway keys add ci > key` puts it in a file and on no screen.
        note(f"Key {made['id']} for {made['name']}, shown this one time. Send it as Authorization: Bearer …")
        say(str(made["key"]))
    return Exit.DONE


def list_keys(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "keys")
    if options.json:
        dump(answer)
    elif keys := answer.get("keys"):
        rows = (
            (
                k.get("id"),
                k.get("name"),
                f"{k.get('prefix')}…",
                moment(k.get("created")),
                moment(k.get("revoked")),
            )
            for k in keys
        )
        table(("KEY", "NAME", "BEGINS", "CREATED", "REVOKED"), rows)
    else:
        note("No keys.")
    return Exit.DONE


def revoke_key(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        gateway.delete("admin", "keys", options.id)
    note(f"Revoked {options.id}.")
    return Exit.DONE
