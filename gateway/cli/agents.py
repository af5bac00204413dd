"""`gateway agents`: who can be reached through the gateway."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli import show
from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.keyset import read_keys
from gateway.cli.place import Place
from gateway.cli.text import dump, line, note, say, table


def list_agents(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "agents")
    if options.json:
        dump(answer)
    elif agents := answer.get("agents"):
        table(("AGENT", "KIND", "HEALTH", "PUBLIC", "NAME"), map(_row, agents))
    else:
        note("No agents.")
    return Exit.DONE


def show_agent(options: argparse.Namespace) -> Exit:
    # The list is short and is all there is: the admin API has no path for one agent.
    with Gateway(Place.of(options.data)) as gateway:
        agents = gateway.get("admin", "agents").get("agents") or []
    entry = next((agent for agent in agents if agent.get("id") == options.id), None)
    if entry is None:
        known = ", ".join(str(agent.get("id")) for agent in agents) or "none"
        raise Stop(f"There is no agent {options.id}. Known: {known}.")
    if options.json:
        dump(entry)
    else:
        _show(entry)
    return Exit.DONE


def find_agents(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("agents", verb="find", query=" ".join(options.text), limit=options.limit)
    if options.json:
        dump(answer)
        return Exit.DONE
    found = answer.get("agents") or []
    for agent in found:
        say(f"{line(agent.get('id'))}: {line(agent.get('name'))}. {line(agent.get('description'), 200)}")
        for skill in agent.get("skills") or ():
            say(f"  {line(skill.get('id'))}: {line(skill.get('description'), 200)}")
    if not found:
        note("No agent fits. Try other words, or see all of them: gateway agents list")
    return Exit.DONE


def add_agent(options: argparse.Namespace) -> Exit:
    place = Place.of(options.data)
    wanted = {"cardUrl": options.url, "id": options.id, "replicas": options.endpoint, "balance": options.balance}
    body = {name: value for name, value in wanted.items() if value is not None} | _pins(options)
    with Gateway(place) as gateway:
        entry = gateway.post("admin", "agents", body=body)
    if options.json:
        dump(entry)
        return Exit.DONE
    _show(entry)
    note("Try it:")
    note(f"  {place.command('send', str(entry['id']), show.example(entry.get('card')))}")
    return Exit.DONE


def place_agent(options: argparse.Namespace) -> Exit:
    """Say on which further servers an agent is."""
    body: dict[str, Any] = {"replicas": options.url}
    if options.balance is not None:
        body["balance"] = options.balance
    return _changed(options, body)


def pin_agent(options: argparse.Namespace) -> Exit:
    """Say who has to have signed an agent's card."""
    if options.none:
        return _changed(options, {"keys": None, "requireSignature": False})
    return _changed(options, _pins(options))


def _pins(options: argparse.Namespace) -> dict[str, Any]:
    pins: dict[str, Any] = {}
    if options.keys is not None:
        pins["keys"] = read_keys(options.keys)
    if options.keys_url is not None:
        pins["keysUrl"] = options.keys_url
    if options.require_signature:
        pins["requireSignature"] = True
    return pins


def _changed(options: argparse.Namespace, body: dict[str, Any]) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        entry = gateway.patch("admin", "agents", options.id, body=body)
    if options.json:
        dump(entry)
    else:
        _show(entry)
    return Exit.DONE


def remove_agent(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        gateway.delete("admin", "agents", options.id)
    note(f"Removed {options.id}.")
    return Exit.DONE


def _row(agent: dict[str, Any]) -> tuple[object, ...]:
    card = agent.get("card") or {}
    public = "yes" if agent.get("public") else "no"
    return agent.get("id"), agent.get("kind"), _health(agent), public, card.get("name") or "-"


def _health(agent: dict[str, Any]) -> str:
    health = str(agent.get("health"))
    if reason := agent.get("reason"):
        health += f" ({line(reason, 60)})"
    return f"shadowed, {health}" if agent.get("shadowed") else health


def _show(agent: dict[str, Any]) -> None:
    say(f"agent    {line(agent.get('id'))}")
    say(f"kind     {line(agent.get('kind'))}{', public' if agent.get('public') else ''}")
    reason = f": {line(agent['reason'], 500)}" if agent.get("reason") else ""
    say(f"health   {line(agent.get('health'))}{reason}")
    if agent.get("shadowed"):
        say("shadowed: the configuration file has an agent of the same id, and the file wins")
    if url := agent.get("cardUrl"):
        say(f"card     {line(url, 2000)}")
    if agent.get("requireSignature"):
        keys = agent.get("cardKeys")
        say(f"pinned   its card has to be signed{f', by the keys {line(keys, 2000)}' if keys else ''}")
    endpoints = agent.get("endpoints") or ()
    if len(endpoints) > 1:
        say(f"servers  {len(endpoints)}, {line(agent.get('balance'))}")
    for endpoint in endpoints:
        if signature := endpoint.get("signature"):
            where = f" at {line(endpoint.get('cardUrl'), 2000)}" if len(endpoints) > 1 else ""
            say(f"signed   {line(signature)}{where}")
        if len(endpoints) > 1 and not endpoint.get("reason"):
            say(f"server   {line(endpoint.get('cardUrl'), 2000)}")
        if len(endpoints) > 1 and (reason := endpoint.get("reason")):
            say(f"server   {line(endpoint.get('cardUrl'), 2000)} is unhealthy: {line(reason, 500)}")
    if card := agent.get("card"):
        say()
        show.card(card)
