"""The command of a tool server, found on this machine once and for all."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from gateway.cli.exits import Exit, Stop
from gateway.cli.text import note

# Words that mean that the command is not all there is to see.
_SHELLS = frozenset({"sh", "bash", "zsh", "dash", "fish", "cmd", "powershell", "pwsh", "eval"})
_RAISES = frozenset({"sudo", "doas", "su", "pkexec"})
# What runs a package that it fetches, and the words in front of its name.
_FETCHERS = frozenset({"npx", "bunx", "uvx", "pipx", "npm", "pnpm", "yarn", "bun", "uv", "deno"})
_FETCH = frozenset({"run", "exec", "dlx", "x", "tool"})
_VERSIONED = re.compile(r".(?:@|==|:)v?\d")


def resolved(words: list[str]) -> list[str]:
    """The command with the absolute paths of its program and of files here that it names, looked up this once: later
    nobody's PATH decides, and it starts in a folder of its own."""
    found = shutil.which(words[0])
    if found is None:
        raise Stop(f"There is no program {words[0]} on PATH", Exit.USAGE)
    command = [os.path.abspath(found), *(os.path.abspath(word) if os.path.isfile(word) else word for word in words[1:])]
    name = Path(command[0]).name
    if name in _RAISES:
        raise Stop(f"{name} would give a tool server more rights than the gateway has; name the server itself")
    if name in _SHELLS:
        note(f"Mind: {name} is a shell. What it runs is not checked, and its own path does not say what that is.")
    if name in _FETCHERS and (package := _floating(words[1:])):
        note(
            f"Mind: {name} runs whatever version of {package} is the newest at each start. Name the one you have read."
        )
    return command


def _floating(words: list[str]) -> str | None:
    """The package that is fetched without a version: an update that nobody here has seen would run as the tool server
    that was trusted (as postmark-mcp's did)."""
    for word in words:
        if not word.startswith("-") and word not in _FETCHERS | _FETCH:
            return None if _VERSIONED.search(word) or os.path.exists(word) else word
    return None
