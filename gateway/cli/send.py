"""`gateway send`: one message to one agent, and its answer as it comes."""

from __future__ import annotations

import argparse
import base64
import json
import mimetypes
import sys
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from gateway.cli import show
from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop, Unreachable
from gateway.cli.follow import follow
from gateway.cli.place import Place
from gateway.cli.text import dump, note, say

Json = dict[str, Any]


def send(options: argparse.Namespace) -> Exit:
    place = Place.of(None)
    message = _message(options)
    with Gateway(place) as gateway:
        try:
            return _accept(gateway, options, message) if options.no_wait else _stream(gateway, options, message)
        except Unreachable as error:
            if not error.sent:
                raise
            # The gateway does one message id once, so sending again cannot double anything.
            hint = f"Send the same again with --message-id {message['messageId']}: it is done only once."
            raise Unreachable(f"{error} {hint}", sent=True) from error


def _stream(gateway: Gateway, options: argparse.Namespace, message: Json) -> Exit:
    agent, place = options.agent, gateway.place
    progress = show.Progress() if options.json else show.People(options.out)
    if options.task:
        progress.know(gateway.call(agent, "GetTask", {"id": options.task}))

    try:
        sent = gateway.stream(agent, "SendStreamingMessage", {"message": message})
        follow(sent, partial(gateway.subscribe, agent), progress)
    except KeyboardInterrupt:
        show.detached(place, progress)
        return Exit.INTERRUPTED
    except Unreachable as error:
        if progress.task_id is None:
            raise
        watch = place.command("tasks", "watch", progress.task_id)
        raise Stop(f"{error} The task is kept. Watch it with: {watch}", error.code) from error
    if options.json:
        reply = progress.reply
        dump({"message": reply} if reply else {"task": gateway.call(agent, "GetTask", {"id": progress.task_id})})
    else:
        show.next_steps(place, agent, progress)
    return progress.exit


def _accept(gateway: Gateway, options: argparse.Namespace, message: Json) -> Exit:
    """Send and leave. Standard output is the task's id alone, for `id=$(gateway send --no-wait …)`."""
    params = {"message": message, "configuration": {"returnImmediately": True}}
    answer = gateway.call(options.agent, "SendMessage", params)
    if options.json:
        dump(answer)
        return Exit.DONE
    if task := answer.get("task"):
        say(str(task["id"]))
        note(f"Accepted. Watch it with: {gateway.place.command('tasks', 'watch', str(task['id']))}")
    else:
        show.People(options.out).take(answer)
    return Exit.DONE


def _message(options: argparse.Namespace) -> Json:
    parts = [*_texts(options.text), *map(_file, options.file), *map(_data, options.data)]
    if not parts:
        raise Stop(
            "Nothing to send: say TEXT, --file PATH or --data JSON ('-' reads the text from standard input)",
            Exit.USAGE,
        )
    ids = {"taskId": options.task, "contextId": options.context}
    return {
        "messageId": options.message_id or str(uuid.uuid4()),
        "role": "ROLE_USER",
        "parts": parts,
        **{name: value for name, value in ids.items() if value is not None},
    }


def _texts(words: list[str]) -> list[Json]:
    if "-" not in words:
        text = " ".join(words)
    elif len(words) > 1:
        raise Stop("'-' reads all of the text from standard input; leave the other words out", Exit.USAGE)
    else:
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise Stop("Standard input is not UTF-8 text; send it with --file", Exit.USAGE) from None
    return [{"text": text}] if text else []


def _file(path: Path) -> Json:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Stop(f"--file {path}: {error.strerror}", Exit.USAGE) from None
    return {
        "raw": base64.b64encode(content).decode(),
        "filename": path.name,
        "mediaType": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
    }


def _data(text: str) -> Json:
    try:
        return {"data": json.loads(text)}
    except (ValueError, RecursionError):
        raise Stop(
            f"--data takes JSON, and {text!r} is not. (GATEWAY_DATA sets the data folder here.)",
            Exit.USAGE,
        ) from None
