"""`gateway tools`: what the MCP servers offer, what waits for approval, and trying a tool by hand."""

from __future__ import annotations

import argparse
import difflib
import json
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Refused, Stop
from gateway.cli.place import Place
from gateway.cli.text import dump, line, note, pretty, say, table

Json = dict[str, Any]

_STDERR = 20  # lines of a command that ended, which are shown


def list_tools(options: argparse.Namespace) -> Exit:
    servers, mounts = _listed(options)
    if options.server is not None:
        servers = [_find(servers, options.server)]
        mounts = [_concerning(options.server, each) for each in mounts]
    if options.json:
        dump({"servers": servers, "mounts": mounts})
    elif options.server is not None:
        _list_one(servers[0])
    elif servers:
        table(("SERVER", "STATE", "SPEAKS", "TOOLS", "WAITING", "NAME"), map(_row, servers))
    else:
        note("No MCP servers. `gateway tools add NAME URL` writes one into the configuration file.")
    if not options.json:
        _note_collisions(mounts)
    return Exit.DONE


def show_tool(options: argparse.Namespace) -> Exit:
    entry = _tool(_servers(options), options.name)
    if options.json:
        dump(entry)
        return Exit.DONE
    definition = entry["definition"]
    say(f"tool  {line(entry['address'])}")
    say(f"hash  {line(entry['hash'])}")
    if "why" in entry:
        say(f"waits for approval: {line(entry['why'])}")
    if words := definition.get("description"):
        say()
        say(str(words))
    say()
    say(pretty(definition.get("inputSchema")))
    return Exit.DONE


def call_tool(options: argparse.Namespace) -> Exit:
    try:
        arguments = json.loads(options.arguments)
    except ValueError as error:
        raise Stop(f"The arguments are no JSON: {error}", Exit.USAGE) from None
    if not isinstance(arguments, dict):
        raise Stop('The arguments must be a JSON object, for example {"query": "x"}', Exit.USAGE)
    try:
        with Gateway(Place.of(options.data)) as gateway:
            result = gateway.post("admin", "tools", body={"name": options.name, "arguments": arguments}, verb="call")
    except Refused as error:
        raise (_explained(options, error) if error.status == 404 else error) from None
    if options.json:
        dump(result)
    else:
        _show_result(result)
    return Exit.FAILED if result.get("isError") or result.get("resultType", "complete") != "complete" else Exit.DONE


def approve(options: argparse.Namespace) -> Exit:
    server, _, name = options.name.partition("/")
    waiting = [
        each
        for each in _find(_servers(options), server)["waiting"]
        if name in ("", each["address"].partition("/")[2]) and each["hash"].startswith(options.hash)
    ]
    if not waiting:
        raise Stop(f"Nothing called {options.name} waits for approval.")
    if not options.yes:
        if options.json:
            dump({"waiting": waiting})
            return Exit.WAITING
        for each in waiting:
            _show_waiting(each)
        place = Place.of(options.data)
        note("Nothing is approved yet. If this is what you want models to read and use:")
        which = ("--hash", options.hash) if options.hash else ()
        note(f"  {place.command('tools', 'approve', options.name, *which, '--yes')}")
        return Exit.WAITING
    with Gateway(Place.of(options.data)) as gateway:
        body = {"address": options.name, **({"hash": options.hash} if options.hash else {})}
        answer = gateway.post("admin", "tools", body=body, verb="approve")
    if options.json:
        dump(answer)
    else:
        for each in answer["approved"]:
            note(f"Approved {line(each['address'])}.")
    return Exit.DONE


def reload(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        changed = gateway.post("admin", "tools", verb="reload").get("changed") or []
    names = ", ".join(line(name) for name in changed) or "none"
    note(f"Read again. Servers that are new, changed or gone: {names}. Mounts and grants are those of the file.")
    return Exit.DONE


def lock(options: argparse.Namespace) -> Exit:
    dump({"tools": _hashes(_servers(options))})
    return Exit.DONE


def verify(options: argparse.Namespace) -> Exit:
    try:
        locked = json.loads(options.file.read_text(encoding="utf-8"))["tools"]
    except OSError as error:
        raise Stop(f"{options.file}: {error.strerror}", Exit.USAGE) from None
    except (ValueError, KeyError, TypeError):
        raise Stop(f"{options.file} is not what `gateway tools lock` prints", Exit.USAGE) from None
    servers = _servers(options)
    now = _hashes(servers)
    differences = [
        *(f"{address} {_absent(servers, address)}" for address in sorted(locked.keys() - now.keys())),
        *(f"{address} is new" for address in sorted(now.keys() - locked.keys())),
        *(
            f"{address} has changed"
            for address in sorted(locked.keys() & now.keys())
            if locked[address] != now[address]
        ),
    ]
    for difference in differences:
        say(line(difference))
    if not differences:
        note(f"{len(now)} tools and prompts are as locked.")
    return Exit.FAILED if differences else Exit.DONE


def _servers(options: argparse.Namespace) -> list[Json]:
    return _listed(options)[0]


def _listed(options: argparse.Namespace) -> tuple[list[Json], list[Json]]:
    """Servers and mounts."""
    with Gateway(Place.of(options.data)) as gateway:
        listed: Json = gateway.get("admin", "tools")
    return listed.get("servers") or [], listed.get("mounts") or []


def _concerning(server: str, mount: Json) -> Json:
    """A mount with those collisions in which a server has a part."""
    theirs = [
        each
        for each in mount["collisions"]
        if any(address.partition("/")[0] == server for address in each["addresses"])
    ]
    return {**mount, "collisions": theirs}


def _note_collisions(mounts: list[Json]) -> None:
    for mount in mounts:
        for each in mount["collisions"]:
            addresses = " and ".join(line(address) for address in each["addresses"])
            note(f"{line(mount['path'])} has none of {addresses}: each would be called {line(each['name'])} there.")


def _find(servers: list[Json], id: str) -> Json:
    for server in servers:
        if server.get("id") == id:
            return server
    known = ", ".join(str(server.get("id")) for server in servers) or "none"
    raise Stop(f"There is no MCP server {id}. Known: {known}.")


def _tool(servers: list[Json], address: str) -> Json:
    server = _find(servers, address.partition("/")[0])
    for entry in (*server["waiting"], *server["definitions"]):
        if entry["address"] == address:
            found: Json = entry
            return found
    if reason := server["refused"].get(address):
        raise Stop(f"{address} is not offered: {reason}.")
    raise Stop(f"There is no {address}. `gateway tools list {server['id']}` shows what there is.")


def _explained(options: argparse.Namespace, error: Refused) -> Stop:
    """The refusal of a name, with what its server says of itself to whoever may know that."""
    id = options.name.partition("/")[0]
    try:
        servers = _servers(options)
    except Stop:
        return error
    if all(server.get("id") != id for server in servers):
        known = ", ".join(line(server.get("id")) for server in servers) or "none"
        return Stop(f"{error}. There is no MCP server {line(id)}; known: {known}.")
    if reason := _find(servers, id).get("reason"):
        return Stop(f"{error}. {line(id)} is {line(_find(servers, id).get('state'))}: {line(reason, 500)}")
    return Stop(f"{error}. `gateway tools list {line(id)}` shows what there is.")


def _absent(servers: list[Json], key: str) -> str:
    """Why a locked tool or prompt is not offered now: that it is gone is only one of the reasons."""
    kind, _, address = key.partition(" ")
    server = next((each for each in servers if each.get("id") == address.partition("/")[0]), None)
    if server is None:
        return "is gone, and so is its server"
    if why := next(
        (each["why"] for each in server["waiting"] if (each["kind"], each["address"]) == (kind, address)), None
    ):
        return f"waits for approval: {why}"
    if reason := server["refused"].get(address):
        return f"is refused: {reason}"
    return "is gone" if server.get("state") == "up" else f"cannot be compared: its server is {server.get('state')}"


def _row(server: Json) -> tuple[object, ...]:
    state = str(server.get("state"))
    if reason := server.get("reason"):
        state += f" ({line(reason, 60)})"
    tools = sum(each["kind"] == "tools" for each in server["definitions"])
    name = (server.get("info") or {}).get("name") or "-"
    return server.get("id"), state, server.get("version") or "-", tools, len(server["waiting"]) or "-", name


def _list_one(server: Json) -> None:
    rows = [(each["address"], each["kind"], "offered", _about(each)) for each in server["definitions"]]
    rows += [(each["address"], each["kind"], f"waits: {each['why']}", _about(each)) for each in server["waiting"]]
    rows += [(address, "-", f"refused: {reason}", "") for address, reason in server["refused"].items()]
    if reason := server.get("reason"):
        note(f"{line(server['id'])} is {line(server['state'])}: {line(reason, 500)}")
    if words := server.get("stderr"):
        note(f"The last lines that its command wrote to stderr{_more(len(words))}:")
        for each in words[-_STDERR:]:
            note(f"  {line(each, 500)}")
    if rows:
        table(("NAME", "KIND", "STATE", "ABOUT"), rows)


def _more(lines: int) -> str:
    return f" ({lines} with --json)" if lines > _STDERR else ""


def _about(entry: Json) -> str:
    definition = entry["definition"]
    return line(definition.get("description") or definition.get("title") or "", 80)


def _show_result(result: Json) -> None:
    for block in result.get("content") or ():
        if isinstance(block, dict) and block.get("type") == "text":
            say(str(block.get("text")))
        else:
            say(pretty(block))
    if not result.get("content"):
        say(pretty(result.get("structuredContent", result)))


def _show_waiting(entry: Json) -> None:
    """What models would read from now on, against what they read until now."""
    say(f"{line(entry['address'])}: {line(entry['why'])} (hash {line(entry['hash'])})")
    before = pretty(entry["before"]).splitlines() if entry.get("before") else []
    for row in difflib.unified_diff(before, pretty(entry["definition"]).splitlines(), lineterm="", n=2):
        if not row.startswith(("---", "+++", "@@")):
            say(f"  {row}")


def _hashes(servers: list[Json]) -> dict[str, str]:
    entries = [each for server in servers for each in server["definitions"] if each["kind"] in ("tools", "prompts")]
    return {
        f"{each['kind']} {each['address']}": each["hash"] for each in sorted(entries, key=lambda one: one["address"])
    }
