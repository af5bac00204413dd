"""YAML text -> plain data, and the line of every value.

A configuration is data for one reader, so the language is kept small: one document, no aliases, no tags of
one's own, the scalars of YAML 1.2's core schema (`no` is a word, `8080:80` is text, `010` is ten), text keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from gateway.config.problems import ConfigError, Loc, Problem, dotted

MAX_BYTES = 1 << 20  # a thousand agents with options take a tenth
MAX_NODES = 100_000  # PyYAML makes 50 000 a second: a start never hangs on its file
MAX_DEPTH = 64  # the composer recurses; this stays far from the interpreter's limit

_CORE = "tag:yaml.org,2002:"


def _whole(text: str) -> int:
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)


# Tag -> how its text becomes a value. What is not here is not accepted.
_SCALARS: Mapping[str, Callable[[str], Any]] = {
    _CORE + "str": str,
    _CORE + "null": lambda text: None,
    _CORE + "bool": lambda text: {"true": True, "false": False}[text.lower()],
    _CORE + "int": _whole,
    _CORE + "float": float,
}
_COLLECTIONS = (_CORE + "map", _CORE + "seq")


class _Composer(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = 0
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            # Nine lines of aliases unfold to a billion values; without them a file is as large as it looks.
            problem = "aliases (*name) are not accepted, write the value out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_NODES} values", problem_mark=mark)
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Composer.yaml_implicit_resolvers = {}
# YAML 1.2.2 §10.3.2, without .inf and .nan: no setting has a use for them.
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"null|Null|NULL|~|", "nN~"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _first_characters = [*_first, ""] if _tag == "null" else [*_first]
    _Composer.add_implicit_resolver(_CORE + _tag, re.compile(f"(?:{_pattern})\\Z"), _first_characters)


@dataclass(slots=True)
class Source:
    """What a file says: its data, the line of each value, and what could not be understood on the way."""

    name: str
    data: Any = None
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def _refuse(self, node: yaml.Node, loc: Loc, reason: str, hint: str = "") -> None:
        self.problems.append(Problem(self.name, _line(node), dotted(loc), reason, hint))

    def _refuse_tag(self, node: yaml.Node, loc: Loc) -> None:
        self._refuse(node, loc, f"the tag {node.tag.replace(_CORE, '!!')} is not accepted", "leave it out")

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self.lines.setdefault(loc, _line(node))
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            self._refuse_tag(node, loc)
        match node:
            case yaml.MappingNode():
                return self._mapping(node, loc)
            case yaml.SequenceNode():
                return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
            case _:
                return self._scalar(node, loc)

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, loc, "a key must be text")
            elif key.value in found:
                # The first or the last would win, depending on the reader; a person would have to guess.
                first = self.lines[*loc, key.value]
                self._refuse(key, (*loc, key.value), f"is written twice, first on line {first}", "keep one")
            else:
                # A key is its text: `1:` and `no:` are names like any other.
                self.lines[*loc, key.value] = _line(key)
                found[key.value] = self.value(item, (*loc, key.value))
        return found

    def _scalar(self, node: yaml.Node, loc: Loc) -> Any:
        if (convert := _SCALARS.get(node.tag)) is None:
            self._refuse_tag(node, loc)
            return None
        try:
            return convert(node.value)
        except (ValueError, KeyError):
            kind = node.tag.removeprefix(_CORE)
            self._refuse(node, loc, f"cannot be read as {kind}", "put it in quotes if it is text")
            return None


def read(text: str, name: str) -> Source:
    """Data and lines of a YAML text. ConfigError if it is not YAML; smaller matters are in `problems`."""
    source = Source(name)
    loader = _composer(text, name)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax(error, name)]) from None
    finally:
        loader.dispose()
    if node is not None:
        source.data = source.value(node, ())
    return source


@dataclass(frozen=True, slots=True)
class Span:
    """Where a value stands in a text, in characters. `flow`: between brackets of its own."""

    start: int
    end: int
    flow: bool


def spans(text: str, name: str) -> dict[Loc, Span]:
    """The place of every value, for who changes one and leaves the rest as it is. Raises ConfigError."""
    loader = _composer(text, name)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax(error, name)]) from None
    finally:
        loader.dispose()
    return {} if node is None else dict(_spans(node, ()))


def _spans(node: yaml.Node, loc: Loc) -> Iterator[tuple[Loc, Span]]:
    yield loc, Span(node.start_mark.index, _end(node), bool(getattr(node, "flow_style", False)))
    if isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            yield from _spans(item, (*loc, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _spans(item, (*loc, index))


def _end(node: yaml.Node) -> int:
    """Of what is a block, the reader says where the next thing begins; it ends with the last thing in it."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _composer(text: str, name: str) -> _Composer:
    try:
        return _Composer(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"the character U+{ord(text[error.position]):04X} is not accepted"
        hint = "remove it, or write it as \\u… in double quotes"
        raise ConfigError([Problem(name, line, "", reason, hint)]) from None


def _syntax(error: yaml.MarkedYAMLError, name: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    reason = ", ".join(part for part in (error.context, error.problem) if part)
    return Problem(name, mark.line + 1 if mark else None, "", f"not YAML that the gateway reads: {reason}")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
