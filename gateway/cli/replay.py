"""`gateway replay`: a task as it was, put together from its events."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli import show
from gateway.cli.client import Gateway
from gateway.cli.exits import Exit
from gateway.cli.place import Place
from gateway.cli.text import dump, line, note, say, table


def replay(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        past = gateway.get("admin", "tasks", options.id, verb="replay", at=options.at, event=options.event)
    if options.json:
        dump(past)
        return Exit.DONE
    table(("EVENT", "TIME", "WHAT"), (_row(event) for event in past["events"]))
    say()
    show.task(past["agent"], past["task"])
    if past["later"]:
        note(f"{past['later']} more events have come since.")
    return Exit.DONE


def _row(event: dict[str, Any]) -> tuple[object, ...]:
    ((kind, body),) = event["body"].items()
    what = {
        "task": lambda: f"task {show.word(show.state_of(body))}",
        "statusUpdate": lambda: f"status {show.word(show.state_of(body))}",
        "artifactUpdate": lambda: f"artifact {line((body.get('artifact') or {}).get('artifactId'))}",
        "message": lambda: f"message of {line(body.get('role'))}",
    }.get(kind)
    return event["event"], event["time"] or "-", kind if what is None else what()
