"""`gateway push`: what waits for webhooks, what was given up, and another try."""

from __future__ import annotations

import argparse

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit
from gateway.cli.place import Place
from gateway.cli.text import dump, moment, note, table


def show(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "push", limit=options.limit)
    if options.json:
        dump(answer)
        return Exit.DONE
    if queues := answer.get("queues"):
        rows = (
            (
                queue.get("taskId"),
                queue.get("configId"),
                queue.get("host"),
                queue.get("waiting"),
                queue.get("attempts"),
                moment(queue.get("next")),
                queue.get("problem") or "-",
            )
            for queue in queues
        )
        table(("TASK", "CONFIG", "HOST", "WAITING", "FAILED", "NEXT", "PROBLEM"), rows)
    else:
        note("Nothing waits for a webhook.")
    for host in answer.get("hosts") or ():
        if host.get("restsUntil"):
            failures, until = host.get("failures"), moment(host["restsUntil"])
            note(f"{host.get('host')} failed {failures} times in a row and rests until {until}.")
    return Exit.DONE


def dead(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "push", "dead", after=options.after, limit=options.limit)
    if options.json:
        dump(answer)
    elif letters := answer.get("dead"):
        rows = (
            (
                letter.get("id"),
                letter.get("taskId"),
                letter.get("event"),
                letter.get("host"),
                letter.get("attempts"),
                moment(letter.get("givenUp")),
                letter.get("problem"),
            )
            for letter in letters
        )
        table(("ID", "TASK", "EVENT", "HOST", "ATTEMPTS", "GIVEN UP", "PROBLEM"), rows)
    else:
        note("No push was given up.")
    return Exit.DONE


def replay(options: argparse.Namespace) -> Exit:
    if options.all == (options.id is not None):
        options.parser.error("say which one, by its ID, or --all")
    path = ("admin", "push", "dead") if options.all else ("admin", "push", "dead", str(options.id))
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.post(*path, verb="replay")
    if options.json:
        dump(answer)
    else:
        note(f"{answer.get('replayed')} queued again; `gateway push show` says how they fare.")
    return Exit.DONE
