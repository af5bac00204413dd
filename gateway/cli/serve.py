"""`gateway serve`: the only command that imports the gateway itself."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvloop

from gateway.cli.exits import Exit
from gateway.cli.place import Place
from gateway.cli.text import line, note, say
from gateway.config import ConfigError, Flags, Settings, config_path, data_folder, load, settle
from gateway.model.problems import Problem, StartError
from gateway.serving import Running
from gateway.serving import serve as run


def serve(options: argparse.Namespace) -> int:
    flags = Flags(options.config, options.host, options.port, options.data, options.store, options.anonymous)
    flags = replace(flags, grpc_port=options.grpc_port)

    # gRPC's core would write lines of its own between ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

    def read() -> Settings:
        here = Path.cwd()
        config = load(config_path(flags, os.environ), cwd=here, data=data_folder(flags, os.environ, here))
        return settle(config, flags, os.environ)

    try:
        return _run(read(), read)
    except (ConfigError, StartError) as error:
        for problem in error.problems:
            note(line(problem, 2000))
        return Exit.USAGE
    except KeyboardInterrupt:
        # Ctrl-C is how a person stops it; by now it has drained and closed.
        return Exit.DONE


def _run(settings: Settings, again: Callable[[], Settings]) -> int:
    started = False

    def ready(running: Running) -> None:
        nonlocal started
        started = True
        announce(running, settings.data)

    try:
        return uvloop.run(run(settings, ready=ready, again=again))
    except OSError as error:
        if started or error.filename is not None:
            raise
        # The socket: in use, not this machine's address, a port below 1024.
        reason = error.strerror or str(error)
        address = f"{settings.host}:{settings.port}"
        hint = "choose another with --host and --port, or stop what listens there"
        raise StartError(Problem(address, f"cannot listen: {reason}", hint)) from error


def announce(running: Running, data: Path) -> None:
    """Where it is, and commands to try that can be copied as they stand."""
    say(f"The gateway listens on {running.url}")
    for id, url in running.cards:
        say(f"  card of {line(id)}: {url}")
    if running.grpc is not None:
        say(f"  gRPC: {running.grpc}")
    if running.admin is not None:
        say(f"  admin: {running.admin}")
    if running.token_file is not None:
        say(f"  credential: {running.token_file}")
    if running.cards:
        agent = running.cards[0][0]
        say("Try it:")
        say(f"  {_curl(running, agent)}")
        say(f'  {Place(running.url, data).command("send", agent)} "hi"')


def _curl(running: Running, agent: str) -> str:
    message = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": [{"text": "hi"}]}
    call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    # `-H @FILE` reads whole header lines, so the credential has a second file in that form beside the first.
    header = ["-H", f"@{running.token_file.with_name('curl-header')}"] if running.token_file else []
    words = [
        "curl", "-sS", *header, "-H", "Content-Type: application/json", "-H", "A2A-Version: 1.0",
        "-d", json.dumps(call, separators=(",", ":")), f"{running.url}/agents/{agent}",
    ]  # fmt: skip
    return " ".join(map(shlex.quote, words))
