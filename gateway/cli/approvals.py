"""`gateway approvals`: which calls wait for a person, and what people say to them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.policy import json_object
from gateway.cli.text import dump, line, moment, note, pretty, say, table

_PAGE = 1000  # approvals of one answer


def listing(options: argparse.Namespace) -> Exit:
    place = Place.of(options.data)
    every = {"all": "true"} if options.all else {}
    found: list[dict[str, Any]] = []
    before: Any = options.before
    with Gateway(place) as gateway:
        while len(found) < options.limit:
            limit = min(options.limit - len(found), _PAGE)
            page = gateway.get("admin", "approvals", limit=limit, before=before, **every)
            found += page["approvals"]
            before = page["before"]
            if before is None:
                break
    if options.json:
        dump({"approvals": found, "before": before})
    elif found:
        rows = (
            (each["id"], each["state"], each["caller"], each["action"], each["target"], moment(each["until"]))
            for each in found
        )
        table(("ID", "STATE", "CALLER", "ACTION", "TARGET", "UNTIL"), rows)
        if not options.all:
            note(f"See one whole with: {place.command('approvals', 'show', str(found[0]['id']))}")
        if before is not None:
            more = ("--all", "--before", str(before)) if options.all else ("--before", str(before))
            note(f"There are more: {place.command('approvals', 'list', *more)}")
    else:
        note("Nothing waits for you." if not options.all else "There are no approvals.")
    return Exit.DONE


def show(options: argparse.Namespace) -> Exit:
    place = Place.of(options.data)
    with Gateway(place) as gateway:
        found = gateway.get("admin", "approvals", options.id)
    if options.json:
        dump(found)
        return Exit.DONE
    _show(found)
    if found.get("state") == "waiting" and _edited(found):
        seen = ("--seen", line(found.get("released")))
        note(f"Approve it as it is here with: {place.command('approvals', 'approve', options.id, *seen)}")
    return Exit.DONE


def approve(options: argparse.Namespace) -> Exit:
    """A yes is to what was seen. What nobody has edited is what was asked from the beginning; of anything else
    whoever approves says which of the calls is meant."""
    if options.seen is not None:
        return _say(options, "approve", {"seen": options.seen})
    place = Place.of(options.data)
    with Gateway(place) as gateway:
        found = gateway.get("admin", "approvals", options.id)
    if found.get("state") == "waiting" and _edited(found):
        raise Stop(
            f"It was edited since it was asked for, so --seen has to say what you approve. "
            f"Look at it: {place.command('approvals', 'show', options.id)}"
        )
    return _say(options, "approve", {"seen": found.get("released")})


def edit(options: argparse.Namespace) -> Exit:
    if options.text is not None:
        arguments: dict[str, Any] = {"parts": [{"text": options.text}]}
    else:
        arguments = json_object(options.arguments)
    return _say(options, "edit", {"arguments": arguments})


def reject(options: argparse.Namespace) -> Exit:
    return _say(options, "reject", {})


def _say(options: argparse.Namespace, verb: str, body: dict[str, Any]) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        found = gateway.post(
            "admin", "approvals", options.id, body={**body, "reason": options.reason or None}, verb=verb
        )
    if options.json:
        dump(found)
        return Exit.DONE
    if missing := found.get("missing"):
        note(f"Noted. {missing} more {'person has' if missing == 1 else 'people have'} to approve it.")
    else:
        state = "approved" if found.get("state") == "used" else line(found.get("state"))  # the call may be made by now
        note(f"{line(found.get('action'))} on {line(found.get('target'))} is {state}.")
    return Exit.DONE


def _edited(found: Mapping[str, Any]) -> bool:
    return found.get("asked") is not None


def _show(found: Mapping[str, Any]) -> None:
    say(f"{line(found.get('state'))}  {line(found.get('action'))} on {line(found.get('target'))}")
    say()
    behalf = ", ".join(line(each) for each in found.get("chain") or ())
    say(f"  caller     {line(found.get('caller'))}{f' for {behalf}' if behalf else ''}")
    for place in found.get("goesTo") or ():
        leads = ", ".join(line(each, 1000) for each in place.get("leads") or ())
        hash = f" [{line(place.get('hash'))}]" if place.get("hash") else ""
        say(f"  goes to    {line(place.get('at'), 1000)}{f' -> {leads}' if leads else ''}{hash}")
    if found.get("task"):
        say(f"  task       {line(found['task'])}")
    say(f"  rule       {line(found.get('rule'))}: {line(found.get('reason'), 1000)}")
    whom = ", ".join(line(each) for each in found.get("approvers") or ()) or "-"
    own = ", or the caller itself" if found.get("byCaller") else ""
    say(f"  approvers  {found.get('needed')} of {whom}{own}")
    say(f"  asked      {moment(found.get('created'))}, waits until {moment(found.get('until'))}")
    for word in found.get("words") or ():
        reason = f": {line(word.get('reason'), 1000)}" if word.get("reason") else ""
        say(f"  {line(word.get('said')):<10} {line(word.get('by'))}, {moment(word.get('at'))}{reason}")
    if found.get("why"):
        say(f"  why        {line(found['why'], 1000)}")
    say()
    say(pretty(found.get("arguments")))
    if _edited(found):
        say("It was asked for with:")
        say(pretty(found["asked"]))
