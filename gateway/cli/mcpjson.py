"""An `mcp.json` as MCP clients have it, read as servers of the gateway's configuration.

Values of `env` and `headers` may be secrets: each goes into a private file that the configuration names. Variables that
a client would fill in are left to the gateway's environment where they are the end of a value, and refused elsewhere.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.cli.exits import Exit, Stop
from gateway.cli.resolving import resolved
from gateway.cli.text import line, note

_VARIABLE = re.compile(r"(?P<before>[^$]*)\$\{(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")
_OTHER = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Servers:
    """`secrets` are the values by the file that each belongs into; nothing is written yet."""

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[Path, str] = field(default_factory=dict)

    def keep_secrets(self) -> None:
        for path, value in self.secrets.items():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)  # it may have been there, and open to others
                file.write(value)


def read(source: Path, folder: Path) -> Servers:
    """The servers of the file, their secrets to go into `folder`. Raises Stop with what cannot be taken over."""
    found = Servers()
    names: dict[str, str] = {}
    for name, server in _listed(source).items():
        if not isinstance(server, dict):
            raise Stop(f"{line(name)} is no object", Exit.USAGE)
        if server.get("disabled") is True or server.get("enabled") is False:
            note(f"{line(name)} is turned off in {source}, so it is left out.")
            continue
        label = _label(name)
        if label in names:
            raise Stop(f"{line(names[label])} and {line(name)} would both be {label} here; rename one", Exit.USAGE)
        names[label] = name
        found.entries[label] = _entry(name, server, folder / label, found.secrets)
    if not found.entries:
        raise Stop(f"All servers of {source} are turned off", Exit.USAGE)
    return found


def _listed(source: Path) -> dict[str, Any]:
    try:
        tree = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise Stop(f"{source}: {error.strerror}", Exit.USAGE) from None
    except ValueError as error:
        raise Stop(f"{source} is no JSON: {error}", Exit.USAGE) from None
    servers = (tree.get("mcpServers") or tree.get("servers")) if isinstance(tree, dict) else None
    if not isinstance(servers, dict) or not servers:
        raise Stop(f"{source} has no mcpServers", Exit.USAGE)
    return servers


def _entry(name: str, server: dict[str, Any], stem: Path, secrets: dict[Path, str]) -> dict[str, Any]:
    if isinstance(url := server.get("url"), str):
        _plain(name, [url])
        return {"url": url, **_values(name, "headers", server.get("headers"), stem, secrets)}
    words = [server.get("command"), *(server.get("args") or [])]
    if not all(isinstance(word, str) for word in words):
        raise Stop(f"{line(name)} has neither a url nor a command with args", Exit.USAGE)
    cwd = server.get("cwd")
    place = [cwd] if isinstance(cwd, str) and cwd else []
    _plain(name, [*words, *place])
    entry: dict[str, Any] = {"command": resolved(words)}
    if place:
        entry["folder"] = str(Path(place[0]).expanduser().absolute())
    return {**entry, **_values(name, "env", server.get("env"), stem, secrets)}


def _plain(name: str, words: Iterable[str]) -> None:
    if word := next((word for word in words if "${" in word), None):
        raise _left_open(name, word)


def _left_open(name: str, word: str) -> Stop:
    return Stop(f"{line(name)}: only its client can fill in {line(word)}; write there what it stands for", Exit.USAGE)


def _values(name: str, key: str, values: Any, stem: Path, secrets: dict[Path, str]) -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {}
    return {key: {word: _value(name, word, value, stem, secrets) for word, value in values.items()}}


def _value(name: str, word: str, value: Any, stem: Path, secrets: dict[Path, str]) -> dict[str, str]:
    if isinstance(value, (dict, list)) or value is None:
        raise Stop(f"{line(name)}: {line(word)} must be a text", Exit.USAGE)
    text = value if isinstance(value, str) else json.dumps(value)
    if (variable := _VARIABLE.fullmatch(text)) is not None:
        note(f"The value of {line(word)} is read from {variable['name']} in the gateway's own environment.")
        before = {"before": variable["before"]} if variable["before"] else {}
        return {"variable": variable["name"], **before}
    if "${" in text:
        raise _left_open(name, word)
    path = stem.with_name(f"{stem.name}.{_OTHER.sub('_', word)}").absolute()
    if path in secrets:
        raise Stop(f"{line(name)}: {line(word)} reads like another name; give it one of its own", Exit.USAGE)
    secrets[path] = text
    note(f"The value of {line(word)} goes into {path}.")
    return {"file": str(path)}


def _label(name: str) -> str:
    label = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:63].strip("-")
    if not label:
        raise Stop(f"{line(name)} has no letters for a name", Exit.USAGE)
    return label
