"""`gateway audit tail|search|show`: who did what, on whose behalf, decided by which rule, and how it ended."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import dump, line, note, say, table

HEADS = ("INDEX", "TIME", "ACTOR", "ACTION", "OBJECT", "DECISION", "OUTCOME")
_FILTERS = ("actor", "client", "action", "object", "outcome", "effect", "rule", "task", "request", "correlation")
_PAGE = 1_000


def tail(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        if not options.follow:
            return _list(_newest(gateway, options.limit, **_filters(options))[::-1], options.json)
        for entry in _followed(gateway, options.limit, **_filters(options)):
            if options.json:
                dump(entry, indent=None)
            else:
                say("  ".join(map(str, _row(entry))))
    return Exit.DONE


def search(options: argparse.Namespace) -> Exit:
    more = {"before": options.before, "since": options.since, "until": options.until}
    with Gateway(Place.of(options.data)) as gateway:
        found = _newest(gateway, options.limit, **more, **_filters(options))
    return _list(found, options.json)


def _newest(gateway: Gateway, limit: int, before: Any = None, **query: Any) -> list[dict[str, Any]]:
    """So many entries, the newest first, in as many pages as they take."""
    found: list[dict[str, Any]] = []
    while len(found) < limit:
        page = gateway.get("admin", "audit", limit=min(limit - len(found), _PAGE), before=before, **query)
        found += page["entries"]
        before = page["before"]
        if before is None:
            break
    return found


def _followed(gateway: Gateway, limit: int, **query: Any) -> Iterator[dict[str, Any]]:
    """So many entries, the oldest first, then each as it is written. What is before a page of the stream is read once
    its first entry is there, so nothing is missed or told twice."""
    older = limit - _PAGE
    for entry in gateway.audit(limit=min(limit, _PAGE), **query):
        if older > 0:
            yield from _newest(gateway, older, before=entry["index"], **query)[::-1]
            older = 0
        yield entry


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
