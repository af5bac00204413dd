"""`gateway tasks`: everybody's tasks for the operator; for others their own, and what is shared with them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gateway.cli import own_tasks, show
from gateway.cli.client import Events, Gateway, Json
from gateway.cli.exits import Exit, Refused, Stop, Unreachable
from gateway.cli.follow import follow
from gateway.cli.place import Place
from gateway.cli.text import dump, line, moment, note, say, table

_PAGE = 100

_Answer = TypeVar("_Answer")


def list_tasks(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        found, token, more = _either(
            gateway, partial(_everybodys, gateway, options), partial(_own_of, gateway, options)
        )
    if options.json:
        dump({"tasks": found, "nextPageToken": token})
        return Exit.DONE
    if found:
        table(("TASK", "AGENT", "STATE", "SINCE", "CONTEXT"), (_row(entry) for entry in found))
    else:
        note("No tasks.")
    if more:
        note(f"There are more: --limit shows more than {options.limit}.")
    return Exit.DONE


def get_task(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        entry = _entry(gateway, options.id)
    if options.json:
        dump(entry)
    else:
        show.task(entry["agent"], entry["task"], options.out)
    return Exit.DONE


def cancel_task(options: argparse.Namespace) -> Exit:
    def own(agents: list[str]) -> Json:
        agent = own_tasks.find(gateway, agents, options.id)["agent"]
        return {"agent": agent, "task": gateway.call(agent, "CancelTask", {"id": options.id})}

    with Gateway(Place.of(options.data)) as gateway:
        entry = _either(gateway, lambda: gateway.post("admin", "tasks", options.id, verb="cancel"), own)
    if options.json:
        dump(entry)
    else:
        say(f"task {entry['task']['id']} is {show.word(show.state_of(entry['task']))}")
    return Exit.DONE


def watch_task(options: argparse.Namespace) -> Exit:
    def own(agents: list[str]) -> tuple[str, Callable[[str], Events]]:
        agent = own_tasks.find(gateway, agents, options.id)["agent"]
        return agent, partial(gateway.subscribe, agent)

    place = Place.of(options.data)
    progress = show.Lines() if options.json else show.People(options.out)
    with Gateway(place) as gateway:
        agent, watch = _either(
            gateway, lambda: (gateway.get("admin", "tasks", options.id)["agent"], gateway.watch), own
        )
        try:
            follow(watch(options.id), watch, progress)
        except KeyboardInterrupt:
            show.detached(place, progress)
            return Exit.INTERRUPTED
        except Unreachable as error:
            again = place.command("tasks", "watch", options.id)
            raise Stop(f"{error} The task is kept. Watch it again with: {again}", error.code) from error
    show.next_steps(place, agent, progress)
    return progress.exit


def share_task(options: argparse.Namespace) -> Exit:
    place = Place.of(options.data)
    with Gateway(place) as gateway:
        body = {"reader": options.reader, "until": options.until}
        made = gateway.post("admin", "tasks", options.id, verb="share", body=body)
    if options.json:
        dump(made)
    else:
        end = f" until {moment(made['until'])}" if made.get("until") else ""
        note(f"{line(made.get('reader'))} may read the task{end}, and nothing else. Take it back with:")
        note(f"  {place.command('tasks', 'unshare', options.id, '--with', options.reader)}")
    return Exit.DONE


def unshare_task(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        gateway.post("admin", "tasks", options.id, verb="unshare", body={"reader": options.reader})
    note(f"{line(options.reader)} may not read the task any more.")
    return Exit.DONE


def list_shares(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "tasks", options.id, "shares")
    if options.json:
        dump(answer)
    elif shares := answer.get("shares"):
        rows = ((s["reader"], s["by"], moment(s["created"]), moment(s.get("until"))) for s in shares)
        table(("READER", "BY", "SINCE", "UNTIL"), rows)
    else:
        note("Shared with nobody.")
    return Exit.DONE


def _either(gateway: Gateway, all_of_them: Callable[[], _Answer], own: Callable[[list[str]], _Answer]) -> _Answer:
    """What the admin API answers; where it is not for this caller, or not at this address, what the agents answer."""
    try:
        return all_of_them()
    except Refused as error:
        if error.status != 403 and (error.status != 404 or error.reason == "TASK_NOT_FOUND"):
            raise
        try:
            agents = own_tasks.agents_of(gateway)
        except Refused:
            raise error from None
    return own(agents)


def _entry(gateway: Gateway, id: str) -> Json:
    return _either(
        gateway, lambda: gateway.get("admin", "tasks", id), lambda agents: own_tasks.find(gateway, agents, id)
    )


def _everybodys(gateway: Gateway, options: argparse.Namespace) -> tuple[list[Json], str, bool]:
    found: list[Json] = []
    token = ""
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
    return found, token, bool(token)


def _own_of(gateway: Gateway, options: argparse.Namespace, agents: list[str]) -> tuple[list[Json], str, bool]:
    status = show.state(options.status) if options.status else None
    wanted = [options.agent] if options.agent else agents
    found, more = own_tasks.listed(gateway, wanted, options.limit, status=status, contextId=options.context)
    return found, "", more


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    task = entry["task"]
    since = moment((task.get("status") or {}).get("timestamp"))
    return task.get("id"), entry["agent"], show.word(show.state_of(task)), since, task.get("contextId")
