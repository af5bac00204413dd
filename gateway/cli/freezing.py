"""`gateway freeze`, `thaw` and `frozen`: the kill switch."""

from __future__ import annotations

import argparse

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import dump, line, moment, note, table


def freeze(options: argparse.Namespace) -> Exit:
    place = Place.of(options.data)
    body = {"kind": options.kind, "name": options.name, "reason": options.reason or None}
    with Gateway(place) as gateway:
        made = gateway.post("admin", "frozen", body=body)
        unknown = options.kind == "principal" and not options.json and _unknown(gateway, str(made.get("name")))
    if options.json:
        dump(made)
    else:
        note(f"Frozen: {options.kind} {line(made.get('name'))}. What it had in hand is stopped. Undo it with:")
        note(f"  {place.command('thaw', options.kind, options.name)}")
        if unknown:
            note(f"Nobody has called here as {line(made.get('name'))} so far. Is it whom you mean?")
    return Exit.DONE


def _unknown(gateway: Gateway, principal: str) -> bool:
    """Whether the record has nothing of it. A slip in a name must not look like a frozen principal."""
    try:
        return not gateway.get("admin", "audit", actor=principal, limit=1).get("entries")
    except Stop:  # whoever may freeze need not read the record
        return False


def thaw(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        gateway.post("admin", "frozen", verb="thaw", body={"kind": options.kind, "name": options.name})
    note(f"The {options.kind} {line(options.name)} may work again.")
    return Exit.DONE


def frozen(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "frozen")
    if options.json:
        dump(answer)
    elif cold := answer.get("frozen"):
        rows = ((c["kind"], c["name"], moment(c["at"]), c["by"], c["reason"] or "-") for c in cold)
        table(("KIND", "NAME", "SINCE", "BY", "REASON"), rows)
    else:
        note("Nothing is frozen.")
    return Exit.DONE
