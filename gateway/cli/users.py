"""`gateway users`: who may log in with a password."""

from __future__ import annotations

import argparse
import getpass
import sys

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import dump, moment, note, table

LONGEST = 1024  # characters read from a pipe; the gateway says how long a password may be


def add_user(options: argparse.Namespace) -> Exit:
    password = _password()
    with Gateway(Place.of(options.data)) as gateway:
        body = {"name": options.name, "password": password, "roles": options.role}
        made = gateway.post("admin", "users", body=body)
    if options.json:
        dump(made)
    else:
        note(f"Made {made['name']}, the principal {made['principal']}.")
    return Exit.DONE


def list_users(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "users")
    if options.json:
        dump(answer)
    elif users := answer.get("users"):
        rows = (
            (u.get("name"), " ".join(u.get("roles") or ()) or "-", moment(u.get("created")), moment(u.get("removed")))
            for u in users
        )
        table(("USER", "ROLES", "CREATED", "REMOVED"), rows)
    else:
        note("No users.")
    return Exit.DONE


def remove_user(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        gateway.delete("admin", "users", options.name)
    note(f"Removed {options.name}.")
    return Exit.DONE


def password(options: argparse.Namespace) -> Exit:
    words = _password()
    with Gateway(Place.of(options.data)) as gateway:
        gateway.post("admin", "users", options.name, verb="password", body={"password": words})
    note(f"{options.name} has a new password.")
    return Exit.DONE


def _password() -> str:
    """Never an argument: other users of the machine could read it."""
    if not sys.stdin.isatty():
        return sys.stdin.readline(LONGEST).rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if password != getpass.getpass("Once more: "):
        raise Stop("The two are not the same.", Exit.USAGE)
    return password
