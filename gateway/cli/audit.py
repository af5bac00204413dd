"""`gateway audit tail|search|show`: who did what, on whose behalf, decided by which rule, and how it ended."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import dump, line, note, say, table

HEADS = ("INDEX", "TIME", "ACTOR", "ACTION", "OBJECT", "DECISION", "OUTCOME")
_FILTERS = ("actor", "action", "object", "outcome", "effect", "rule", "task", "request", "correlation")
_PAGE = 1_000


def tail(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        if not options.follow:
            found = gateway.get("admin", "audit", limit=min(options.limit, _PAGE), **_filters(options))["entries"]
            return _list(found[::-1], options.json)
        for entry in gateway.audit(limit=min(options.limit, _PAGE), **_filters(options)):
            if options.json:
                dump(entry, indent=None)
            else:
                say("  ".join(map(str, _row(entry))))
    return Exit.DONE


def search(options: argparse.Namespace) -> Exit:
    found: list[dict[str, Any]] = []
    before: Any = options.before
    with Gateway(Place.of(options.data)) as gateway:
        while len(found) < options.limit:
            page = gateway.get(
                "admin", "audit", limit=min(options.limit - len(found), _PAGE), before=before,
                since=options.since, until=options.until, **_filters(options),
            )  # fmt: skip
            found += page["entries"]
            before = page["before"]
            if before is None:
                break
    return _list(found, options.json)


def show_entry(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        if options.id.isdecimal() and len(options.id) <= 15:
            entries = [gateway.get("admin", "audit", options.id)]
        else:
            entries = gateway.get("admin", "audit", request=options.id, limit=_PAGE)["entries"][::-1]
    if not entries:
        raise Stop(f"No entry belongs to a request {options.id!r}; `gateway audit search` finds others.")
    if options.json:
        dump({"entries": entries})
        return Exit.DONE
    for number, entry in enumerate(entries):
        if number:
            say()
        width = max(map(len, entry))
        for name, value in entry.items():
            words = ", ".join(map(str, value)) if isinstance(value, list) else value
            say(f"{name.ljust(width)}  {line(words, 2000)}")
    return Exit.DONE


def erase(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        pseudonym = gateway.post("admin", "audit", verb="erase", body={"principal": options.principal})["pseudonym"]
    say(f"{line(options.principal)} is {line(pseudonym)} in the log from now on, and nobody can tell who that was.")
    note("Tasks, keys and backups are not the log: remove them on their own.")
    return Exit.DONE


def rotate(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        keys = gateway.post("admin", "audit", verb="rotate-key")["keys"]
    for key in keys:
        say(str(key))
    note("These sign from now on. Whoever has the old ones can verify what comes: the log itself names the new ones.")
    return Exit.DONE


def _filters(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in _FILTERS}


def _list(entries: list[dict[str, Any]], json: bool) -> Exit:
    if json:
        dump({"entries": entries})
    elif entries:
        table(HEADS, map(_row, entries))
    else:
        note("No entry is like that.")
    return Exit.DONE


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    who = " for ".join([str(entry["actor"]), *entry.get("chain", ())])
    decided = f"{entry['effect']} {entry['rule']}"
    return entry["index"], entry["time"], who, entry["action"], entry["object"], decided, entry["outcome"]
