"""How tasks, messages, artifacts and cards look to people.

`Progress` keeps what a stream of events has said so far; `Lines` and `People` print it as it comes. They read
the JSON of A2A 1.0 as it is: the models of `gateway.model` take longer to import than most commands to run.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import clean, dump, line, moment, note, pretty, say, size

Json = dict[str, Any]

_ENDS = {
    "TASK_STATE_COMPLETED": Exit.DONE,
    "TASK_STATE_FAILED": Exit.FAILED,
    "TASK_STATE_REJECTED": Exit.FAILED,
    "TASK_STATE_CANCELED": Exit.FAILED,
    "TASK_STATE_INPUT_REQUIRED": Exit.WAITING,
    "TASK_STATE_AUTH_REQUIRED": Exit.WAITING,
}
# What is said in these states is an answer or a question; in the others it is progress or a reason.
_ANSWERS = {state for state, code in _ENDS.items() if code is not Exit.FAILED}


def state_of(task: Json) -> str:
    state = (task.get("status") or {}).get("state")
    return state if isinstance(state, str) else "TASK_STATE_UNSPECIFIED"


def word(state: str) -> str:
    """`TASK_STATE_INPUT_REQUIRED` as people write it: `input-required`."""
    return line(state.removeprefix("TASK_STATE_").replace("_", "-").lower())


def state(word: str) -> str:
    return "TASK_STATE_" + word.replace("-", "_").upper()


class Progress:
    """What is known of one task from its events. Prints nothing."""

    def __init__(self) -> None:
        self.task_id: str | None = None
        self.context_id: str | None = None
        self.state: str | None = None
        self.reply: Json | None = None
        self.for_others = False
        self._before: Json | None = None

    def know(self, task: Json) -> None:
        """How the task stood before our message: where it rested then is not where it rests now."""
        self._before = task.get("status")

    def _stale(self, told: Json) -> bool:
        return self._before is not None and told.get("status") == self._before

    def aside(self, text: str) -> None:
        """A word between the events, on standard error."""
        note(text)

    @property
    def rests(self) -> bool:
        """Nothing more comes by itself: the task ended or waits for somebody, or a message was the answer."""
        return self.reply is not None or self.state in _ENDS

    @property
    def exit(self) -> Exit:
        return Exit.DONE if self.reply is not None else _ENDS.get(self.state or "", Exit.FAILED)

    def take(self, event: Json) -> bool:
        """One StreamResponse. False when it only repeats what is known, as the first of a stream may."""
        if task := event.get("task"):
            self.task_id, self.context_id = task.get("id"), task.get("contextId")
            known, self.state = self.state, None if self._stale(task) else state_of(task)
            self.for_others = _for_others(task)
            return known != self.state
        if reply := event.get("message"):
            self.reply = reply
        elif update := event.get("statusUpdate"):
            self.task_id, self.context_id = update.get("taskId"), update.get("contextId")
            self.state = state_of(update)
            self.for_others = _for_others(update)
        return True


class Lines(Progress):
    """Every event as one line of JSON."""

    def take(self, event: Json) -> bool:
        dump(event, indent=None)
        return super().take(event)


class People(Progress):
    """The answer on standard output as it streams, progress on standard error."""

    def __init__(self, out: Path | None = None) -> None:
        super().__init__()
        self._pen = Pen(out)
        self._artifacts: dict[str, list[Json]] = {}
        self._said: tuple[str | None, str | None] = (None, None)

    def know(self, task: Json) -> None:
        """What stands in this task is old: the turn that follows is what the person asked for."""
        super().know(task)
        self._artifacts = {_id(made): list(made.get("parts") or ()) for made in task.get("artifacts") or ()}

    def aside(self, text: str) -> None:
        self._pen.aside(text)

    def take(self, event: Json) -> bool:
        news = super().take(event)
        if self.reply is not None:
            self._pen.message(self.reply)
        elif update := event.get("artifactUpdate"):
            self._chunk(update.get("artifact") or {}, append=bool(update.get("append")))
        elif update := event.get("statusUpdate"):
            self._status(update)
        elif task := event.get("task"):
            for artifact in task.get("artifacts") or ():
                self._whole(artifact)
            self._status(task)
        if self.rests:
            self._pen.end()
        return news

    def _status(self, told: Json) -> None:
        message = _message(told)
        if self._stale(told) or self._said == (self.state, message.get("messageId")):
            return
        self._said = (self.state, message.get("messageId"))
        if self.state in _ANSWERS:
            self._pen.message(message)
            if schema := (message.get("metadata") or {}).get("schema"):
                self._pen.aside(f"An answer looks like this (JSON Schema): {pretty(schema, indent=None)}")
        elif message or self.state in _ENDS:
            text = "\n".join(str(part["text"]) for part in message.get("parts") or () if part.get("text"))
            self._pen.aside(f"{word(self.state or '')}: {text}" if text else word(self.state or ""))

    def _chunk(self, artifact: Json, *, append: bool) -> None:
        known = self._artifacts.get(_id(artifact))
        parts = list(artifact.get("parts") or ())
        if known is None or not append:
            self._pen.heading(artifact, again=known is not None)
            known = self._artifacts[_id(artifact)] = []
        known += parts
        self._pen.artifact(_id(artifact), parts)

    def _whole(self, artifact: Json) -> None:
        """An artifact in full, of which the beginning may have been printed before the stream broke."""
        known = self._artifacts.get(_id(artifact), [])
        parts = list(artifact.get("parts") or ())
        if known and parts[: len(known)] == known:
            self._chunk({**artifact, "parts": parts[len(known) :]}, append=True)
        else:
            self._chunk(artifact, append=False)


class Pen:
    """Writes parts to standard output. Text of one artifact comes in pieces and is joined as it comes;
    everything else starts on a line of its own."""

    def __init__(self, out: Path | None = None) -> None:
        self._out = out
        self._open: str | None = None  # the artifact whose line of text is not finished
        self._alone = sys.stdout.isatty() and sys.stderr.isatty()

    def message(self, message: Json) -> None:
        for part in message.get("parts") or ():
            self.end()
            self._part(part)
            self.end()

    def heading(self, artifact: Json, *, again: bool = False) -> None:
        self.end()
        name = line(artifact.get("name") or (_id(artifact) if again else ""))
        if name:
            say(f"== {name}{' (new version)' if again else ''}")

    def artifact(self, key: str, parts: Iterable[Json]) -> None:
        for part in parts:
            if self._open != key or not isinstance(part.get("text"), str):
                self.end()
            self._part(part, key)

    def aside(self, text: str) -> None:
        if self._alone:
            self.end()
        note(text)

    def end(self) -> None:
        if self._open is not None:
            say()
            self._open = None

    def _part(self, part: Json, key: str = "") -> None:
        if isinstance(text := part.get("text"), str):
            say(text, end="")
            self._open = None if text.endswith("\n") else key if text else self._open
        elif part.get("raw") is not None:
            say(self._file(part))
        elif part.get("url") is not None:
            say(f"[{_label(part)}: {line(part['url'], 2000)}]")
        elif "data" in part:
            say(pretty(part["data"]))
        else:
            say("[a part of a kind that this program does not know; --json shows it]")

    def _file(self, part: Json) -> str:
        try:
            content = base64.b64decode(str(part["raw"]), validate=True)
        except (binascii.Error, ValueError):
            return f"[{_label(part)}: not readable as base64]"
        if self._out is None:
            return f"[{_label(part)}, {size(len(content))}; --out DIR saves it]"
        return f"[{_label(part)}, {size(len(content))}: saved as {save(self._out, part, content)}]"


def save(folder: Path, part: Json, content: bytes) -> Path:
    """Write a file of an answer. Its name is the agent's word: only its last segment counts, nothing is
    overwritten, and no link is followed."""
    name = _file_name(part)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            path = folder / (name if number == 1 else f"{Path(name).stem}-{number}{Path(name).suffix}")
            try:
                with path.open("xb") as file:
                    file.write(content)
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise Stop(f"--out {folder}: {error.strerror}") from None
    raise Stop(f"--out {folder}: there are a thousand files called {name}")


def _file_name(part: Json) -> str:
    last = re.split(r"[/\\]", str(part.get("filename") or ""))[-1]
    # A dot in front hides a file, a dash makes it an option. 50 characters and a number stay under 255 bytes.
    name = re.sub(r"[^\w. ()+,@=-]", "_", clean(last)).lstrip(".- ").rstrip(". ")
    stem, suffix = Path(name).stem[:40], Path(name).suffix[:10]
    return stem + suffix if stem else "file" + (mimetypes.guess_extension(str(part.get("mediaType"))) or ".bin")


def _label(part: Json) -> str:
    return ", ".join(line(words) for words in (part.get("filename"), part.get("mediaType")) if words) or "file"


def _message(told: Json) -> Json:
    return (told.get("status") or {}).get("message") or {}


def _for_others(told: Json) -> bool:
    """Whether it waits for an approval that is not its caller's to give."""
    about = _message(told).get("metadata") or {}
    return "approval" in about and "schema" not in about


def _id(artifact: Json) -> str:
    return str(artifact.get("artifactId"))


def task(agent: str, task: Json, out: Path | None = None) -> None:
    """One task as it stands, with its results."""
    status = task.get("status") or {}
    say(f"task     {line(task.get('id'))}")
    say(f"agent    {line(agent)}")
    say(f"state    {word(state_of(task))}")
    say(f"since    {line(moment(status.get('timestamp')))}")
    say(f"context  {line(task.get('contextId'))}")
    pen = Pen(out)
    if message := _message(task):
        say()
        pen.message(message)
    for artifact in task.get("artifacts") or ():
        say()
        pen.heading(artifact)
        pen.artifact(_id(artifact), artifact.get("parts") or ())
        pen.end()


def card(card: Json) -> None:
    """What an agent says about itself."""
    say(f"{line(card.get('name'))} {line(card.get('version') or '')}".rstrip())
    say(line(card.get("description") or "", 1000))
    for interface in card.get("supportedInterfaces") or ():
        spoken = f"{interface.get('protocolBinding')} {interface.get('protocolVersion') or ''}"
        say(f"speaks {line(spoken)} at {line(interface.get('url'), 2000)}")
    skills = card.get("skills") or ()
    if skills:
        say("skills:")
    for skill in skills:
        tags = ", ".join(line(tag) for tag in skill.get("tags") or ())
        say(f"  {line(skill.get('id'))}: {line(skill.get('name'))}{f' [{tags}]' if tags else ''}")
        if description := skill.get("description"):
            say(f"    {line(description, 1000)}")
        for example in (skill.get("examples") or ())[:1]:
            say(f"    for example: {line(example)}")


def example(card: Json | None) -> str:
    """Something to say to the agent: the first example of its card that fits a command line, else `hi`."""
    for skill in (card or {}).get("skills") or ():
        for words in skill.get("examples") or ():
            if isinstance(words, str) and words == line(words, 120) and not words.startswith("-"):
                return words
    return "hi"


def next_steps(place: Place, agent: str, progress: Progress) -> None:
    """What the person can do once a task waits for them."""
    if progress.exit is Exit.WAITING and not progress.reply and progress.task_id:
        if progress.for_others:
            note("It goes on by itself once that is there. See how it stands with:")
            note(f"  {place.command('tasks', 'get', progress.task_id)}")
            return
        what = "authorization" if progress.state == "TASK_STATE_AUTH_REQUIRED" else "an answer"
        note(f"The task waits for {what}. Go on with:")
        note(f"  {place.command('send', agent, '--task', progress.task_id, 'your answer')}")


def detached(place: Place, progress: Progress) -> None:
    """What the person can do after Ctrl-C."""
    if progress.task_id:
        note("\nNo longer watching; the task goes on.")
        note(f"  watch it   {place.command('tasks', 'watch', progress.task_id)}")
        note(f"  cancel it  {place.command('tasks', 'cancel', progress.task_id)}")
    else:
        note("\nInterrupted before the gateway answered; the message may have arrived.")
