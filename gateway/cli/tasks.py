"""`gateway tasks`: everybody's tasks, as the operator sees them."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli import show
from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop, Unreachable
from gateway.cli.follow import follow
from gateway.cli.place import Place
from gateway.cli.text import dump, moment, note, say, table

_PAGE = 100


def list_tasks(options: argparse.Namespace) -> Exit:
    found: list[dict[str, Any]] = []
    token = ""
    with Gateway(Place.of(options.data)) as gateway:
        while len(found) < options.limit:
            page = gateway.get(
                "admin", "tasks",
                agent=options.agent,
                status=show.state(options.status) if options.status else None,
                contextId=options.context,
                pageSize=min(options.limit - len(found), _PAGE),
                pageToken=token or None,
            )  # fmt: skip
            found += page.get("tasks") or []
            token = page.get("nextPageToken") or ""
            if not token:
                break
    if options.json:
        dump({"tasks": found, "nextPageToken": token})
        return Exit.DONE
    if found:
        table(("TASK", "AGENT", "STATE", "SINCE", "CONTEXT"), (_row(entry) for entry in found))
    else:
        note("No tasks.")
    if token:
        note(f"There are more: --limit shows more than {options.limit}.")
    return Exit.DONE


def get_task(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        entry = gateway.get("admin", "tasks", options.id)
    if options.json:
        dump(entry)
    else:
        show.task(entry["agent"], entry["task"], options.out)
    return Exit.DONE


def cancel_task(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        entry = gateway.post("admin", "tasks", options.id, verb="cancel")
    if options.json:
        dump(entry)
    else:
        say(f"task {entry['task']['id']} is {show.word(show.state_of(entry['task']))}")
    return Exit.DONE


def watch_task(options: argparse.Namespace) -> Exit:
    place = Place.of(options.data)
    progress = show.Lines() if options.json else show.People(options.out)
    with Gateway(place) as gateway:
        agent = gateway.get("admin", "tasks", options.id)["agent"]
        try:
            follow(gateway.watch(options.id), gateway.watch, progress)
        except KeyboardInterrupt:
            show.detached(place, progress)
            return Exit.INTERRUPTED
        except Unreachable as error:
            again = place.command("tasks", "watch", options.id)
            raise Stop(f"{error} The task is kept. Watch it again with: {again}", error.code) from error
    show.next_steps(place, agent, progress)
    return progress.exit


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    task = entry["task"]
    since = moment((task.get("status") or {}).get("timestamp"))
    return task.get("id"), entry["agent"], show.word(show.state_of(task)), since, task.get("contextId")
