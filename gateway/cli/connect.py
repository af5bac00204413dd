"""`gateway connect CLIENT`: the settings with which an MCP client uses this gateway.

No file gets a secret: the settings name the variable GATEWAY_TOKEN, in the client's own way, and the client reads it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import dump, note, say


@dataclass(frozen=True, slots=True)
class Client:
    """`file` is where the client looks in a project, `section` the key of the servers in it, `token` how it says
    "the value of this variable"."""

    file: str
    section: str
    token: str


CLIENTS: dict[str, Client] = {
    "claude-code": Client(".mcp.json", "mcpServers", "${GATEWAY_TOKEN}"),
    "cursor": Client(".cursor/mcp.json", "mcpServers", "${env:GATEWAY_TOKEN}"),
    "vscode": Client(".vscode/mcp.json", "servers", "${env:GATEWAY_TOKEN}"),
}


def connect(options: argparse.Namespace) -> Exit:
    place = Place.of(options.data)
    name = options.mount or "gateway"
    url = f"{place.url}/mcp" + (f"/{options.mount}" if options.mount else "")
    if options.client == "inspector":
        say(f"npx @modelcontextprotocol/inspector --cli {url} --transport http --method tools/list \\")
        say('  --header "Authorization: Bearer $GATEWAY_TOKEN"')
    else:
        _settings(CLIENTS[options.client], name, url, options.write)
    note("The client needs a key of its own in GATEWAY_TOKEN, and a grant for the tools it may use:")
    note(f"  {place.command('keys', 'add', options.client)}")
    return Exit.DONE


def _settings(client: Client, name: str, url: str, write: bool) -> None:
    entry = {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {client.token}"}}
    if not write:
        dump({client.section: {name: entry}})
        note(f"This belongs into {client.file}; --write puts it there.")
        return
    path = Path(client.file)
    tree = _read(path)
    servers = tree.setdefault(client.section, {})
    if not isinstance(servers, dict):
        raise Stop(f"{path}: {client.section} is no object")
    servers[name] = entry
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    note(f"Written to {path}.")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Stop(f"{path} cannot be read as JSON, so it is left as it is: {error}") from None
    if not isinstance(tree, dict):
        raise Stop(f"{path} is no JSON object, so it is left as it is")
    return tree
