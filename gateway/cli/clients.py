"""`gateway clients`: who may get access tokens from this gateway."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit
from gateway.cli.place import Place
from gateway.cli.text import dump, moment, note, say, table

CLIENT_CREDENTIALS = "client_credentials"


def add_client(options: argparse.Namespace) -> Exit:
    place = Place.of(options.data)
    with Gateway(place) as gateway:
        body = {
            "id": options.id,
            "scopes": options.scope,
            "grants": options.grant,
            "redirects": options.redirect,
            "name": options.name or None,
            "public": options.public,
        }
        made = gateway.post("admin", "clients", body=body)
    return _shown(options, place, made)


def rotate_client(options: argparse.Namespace) -> Exit:
    place = Place.of(options.data)
    with Gateway(place) as gateway:
        made = gateway.post("admin", "clients", options.id, verb="rotate")
    return _shown(options, place, made)


def _shown(options: argparse.Namespace, place: Place, made: dict[str, Any]) -> Exit:
    if options.json:
        dump(made)
    elif made.get("secret") is None:
        note(f"Made {made['id']}, which has no secret.")
    elif CLIENT_CREDENTIALS not in made["grants"]:
        note(f"Secret of {made['id']}, shown this one time.")
        say(str(made["secret"]))
    else:
        # The secret alone on standard output: `gateway clients add agent > secret` puts it in a file and on no screen.
        note(f"Secret of {made['id']}, shown this one time. Get a token with:")
        note(f"  {place.command('token', '--client', str(made['id']), '--secret-file')} FILE")
        say(str(made["secret"]))
    return Exit.DONE


def invite_client(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        made = gateway.post("admin", "clients", verb="invite", body={"seconds": options.hours * 3600})
    note("Whoever has this token may register clients until it ends.")
    say(str(made["token"]))
    return Exit.DONE


def list_clients(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "clients")
    if options.json:
        dump(answer)
    elif clients := answer.get("clients"):
        rows = (
            (c.get("id"), " ".join(c.get("scopes") or ()) or "-", moment(c.get("created")), moment(c.get("revoked")))
            for c in clients
        )
        table(("CLIENT", "SCOPES", "CREATED", "REVOKED"), rows)
    else:
        note("No clients.")
    return Exit.DONE


def revoke_client(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        gateway.post("admin", "clients", verb="revoke", body={"id": options.id})
    note(f"Revoked {options.id}.")
    return Exit.DONE
