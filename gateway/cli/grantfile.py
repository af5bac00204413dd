"""`gateway tools grant` and `revoke`: who may use which tools, in the operator's own file and nowhere else.

The file stays the one place that says it. What people have written there stays as they wrote it, so the text is changed
where the words stand; what comes out is read again, and is not written unless it says what was meant.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import line, note, say
from gateway.cli.toolfile import file_of, told_not, written
from gateway.config import ConfigError, GrantEntry, parse
from gateway.config.source import Span, spans
from gateway.model.whom import whole

Grants = Sequence[GrantEntry]
_ITEM = re.compile(r" *- +")
_KEY = re.compile(r"^grants:[^\n]*\n?", re.MULTILINE)


def grant(options: argparse.Namespace) -> Exit:
    file = file_of(options)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    before = _read(text, file)
    plain = [each for each in _of(before, options.to) if not each.arguments]
    has = {pattern for each in plain for pattern in each.tools}
    wanted = [pattern for pattern in dict.fromkeys(options.tools) if pattern not in has]
    if not wanted:
        note(f"{line(options.to)} has that already, in {file}.")
        return Exit.DONE
    item = json.dumps({"to": options.to, "tools": wanted}, ensure_ascii=False)
    entry = _entry(options.to, wanted)
    _keep(file, _more(text, len(before), item, file), [*map(_said, before), _said(entry)])
    say(f"{line(options.to)}: {line(', '.join(wanted), 2000)}")
    _tell(options, file, entry, gone=False)
    return Exit.DONE


def revoke(options: argparse.Namespace) -> Exit:
    if bool(options.tools) is options.all:
        raise Stop("Say which tools, or --all", Exit.USAGE)
    file = file_of(options)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    before = _read(text, file)
    theirs = _of(before, options.to)
    has = list(dict.fromkeys(pattern for each in theirs for pattern in each.tools))
    gone = has if options.all else options.tools
    if not gone or not set(gone) <= set(has):
        raise Stop(f"In {file} {line(options.to)} has {line(', '.join(has) or 'no tools', 2000)}")
    after, meant = _less(text, before, theirs, frozenset(gone), file)
    _keep(file, after, meant)
    say(f"{line(options.to)}: no more {line(', '.join(gone), 2000)}")
    left = [pattern for pattern in has if pattern not in gone]
    if left:
        note(f"{line(options.to)} keeps {line(', '.join(left), 2000)}.")
    if everybody := [pattern for each in _of(before, "*") for pattern in each.tools if options.to != "*"]:
        note(f"Everybody has {line(', '.join(everybody), 2000)}.")
    _tell(options, file, _entry(options.to, gone), gone=True)
    return Exit.DONE


def _read(text: str, file: Path) -> Grants:
    try:
        return parse(text, name=str(file), base=file.parent.absolute()).grants if text else ()
    except ConfigError as error:
        raise Stop("\n".join(line(problem, 2000) for problem in error.problems), Exit.USAGE) from None


def _entry(to: str, tools: Iterable[str] = ()) -> GrantEntry:
    """Unchecked: that is done where the file is read again, which names the line."""
    return GrantEntry.model_construct(to=to, tools=tuple(tools))


def _of(grants: Grants, to: str) -> list[GrantEntry]:
    """Whoever is written `ada` in one place and `key:ada` in another is the same."""
    return [each for each in grants if whole(each.to) == whole(to)]


def _said(entry: GrantEntry) -> dict[str, Any]:
    return entry.model_dump()


def _keep(file: Path, after: str, meant: list[dict[str, Any]]) -> None:
    if list(map(_said, _read(after, file))) != meant:
        raise _by_hand(file)
    written(file, after)


def _by_hand(file: Path) -> Stop:
    return Stop(f"grants in {file} is not written in a way that can be changed here; change it there yourself")


# The text.


def _more(text: str, count: int, item: str, file: Path) -> str:
    there = spans(text, str(file)) if text else {}
    grants = there.get(("grants",))
    if grants is None:
        return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}grants:\n  - {item}\n"
    if grants.flow:
        return f"{text[: grants.end - 1]}{', ' if count else ''}{item}{text[grants.end - 1 :]}"
    if not count:
        raise _by_hand(file)
    end = _line_end(text, there["grants", count - 1].end)
    head = _indent(text, there["grants", count - 1], file)
    return f"{text[:end].rstrip(chr(10))}\n{head}{item}\n{text[end:]}"


def _less(
    text: str, before: Grants, theirs: Grants, gone: frozenset[str], file: Path
) -> tuple[str, list[dict[str, Any]]]:
    """The text without these tools of theirs, and what it has to say. From its end to its beginning, so that places
    before a change stay where they are."""
    there, meant = spans(text, str(file)), list(map(_said, before))
    for index in reversed(range(len(before))):
        entry = before[index]
        keep = [pattern for pattern in entry.tools if pattern not in gone]
        if entry not in theirs or len(keep) == len(entry.tools):
            continue
        if keep or entry.prompts or entry.resources or entry.permissions:
            place = there["grants", index, "tools"]
            text = f"{text[: place.start]}{json.dumps(keep, ensure_ascii=False)}{text[place.end :]}"
            meant[index] = _said(entry.model_copy(update={"tools": tuple(keep)}))
        else:
            text = _without(text, there["grants", index], there["grants",], file)
            del meant[index]
    if not meant and not there["grants",].flow:
        text = _KEY.sub("", text, count=1)
    return text, meant


def _without(text: str, item: Span, grants: Span, file: Path) -> str:
    if grants.flow:
        head, rest = text[: item.start].rstrip(), text[item.end :]
        comma = re.match(r"\s*,\s*", rest)
        return f"{head.removesuffix(',') if comma is None else text[: item.start]}{rest[comma.end() if comma else 0 :]}"
    start = text.rfind("\n", 0, item.start) + 1
    _indent(text, item, file)
    return text[:start] + text[_line_end(text, item.end) :]


def _indent(text: str, item: Span, file: Path) -> str:
    """What stands before an item on its line, if that is its dash and nothing else."""
    head = text[text.rfind("\n", 0, item.start) + 1 : item.start]
    if not _ITEM.fullmatch(head):
        raise _by_hand(file)
    return head


def _line_end(text: str, place: int) -> int:
    found = text.find("\n", place)
    return len(text) if found < 0 else found + 1


# The gateway that runs.


def _tell(options: argparse.Namespace, file: Path, item: GrantEntry, *, gone: bool) -> None:
    place = Place.of(options.data)
    try:
        with Gateway(place) as gateway:
            gateway.post("admin", "tools", verb="reload")
            rules = gateway.get("admin", "policy").get("rules") or ()
    except Stop as stop:
        told_not(place, file, stop)
        return
    has = {
        pattern
        for each in rules
        if each.get("grant") == whole(item.to) and not (each.get("arguments") and not gone)
        for pattern in each.get("tools") or ()
    }
    if (has.isdisjoint if gone else has.issuperset)(item.tools):
        note("It holds now.")
    else:
        note(f"The gateway at {place.url} reads another file. To use this one:")
        note(f"  {place.command('serve', '--config', str(file))}")
