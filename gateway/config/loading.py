"""File -> `Config`, or every problem in it with its line."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, get_args

from pydantic import BaseModel, ValidationError

from gateway.config import source
from gateway.config.problems import ConfigError, Loc, Problem, did_you_mean, dotted, nearest
from gateway.config.sections import KINDS, Config, keys, meant_kind
from gateway.config.tools import ENTRIES, Value, cross_checks, owner
from gateway.config.values import Origin, folded

DEFAULT_FILE = "gateway.yaml"

DEMO_AGENTS = ("echo", "librarian")

DEMO = """\
agents:
  echo:
    run: "agents.echo:Echo"
    card: agent_cards/echo.json
    public: true
  librarian:
    run: "agents.librarian:Librarian"
    card: agent_cards/librarian.json
    with: {folder: docs}
    concurrency: 64
    public: true
"""

_ONE_KIND = f"an agent has exactly one of {', '.join(KINDS)}"

# What pydantic found -> how we say it. Its own sentences speak of Python types; an operator writes YAML.
_REASONS: Mapping[str, str] = {
    "extra_forbidden": "unknown key",
    "missing": "is required",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "tuple_type": "must be a list",
    "path_type": "must be text",
    "is_instance_of": "must be text",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "model_attributes_type": "must be a mapping (key: value)",
    "union_tag_not_found": "must be a mapping (key: value)",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "refused": "{reason}",
    "literal_error": "must be one of {expected}",
}
_HINTS: Mapping[str, str] = {
    "string_type": "put it in quotes",
    "refused": "{hint}",
}


def load(path: Path | None, *, cwd: Path, data: Path | None = None) -> Config:
    """The configuration at `path`; without one, `gateway.yaml` in `cwd` if it is there, else the demo, with what a
    `gateway.yaml` in the data folder adds to it."""
    if path is None and not _is_there(cwd / DEFAULT_FILE):
        return _demo(data)
    file = cwd / (path or DEFAULT_FILE)
    name = str(file.relative_to(cwd)) if file.is_relative_to(cwd) else str(file)
    return parse(text_of(file, name), name=name, base=file.absolute().parent)


def _demo(data: Path | None) -> Config:
    """`gateway tools add` writes into the data folder when there is no other file; whoever tries it out that way keeps
    the agents of the demo."""
    demo = parse(DEMO, name="built-in demo", base=demo_base())
    if data is None or not _is_there(kept := data / DEFAULT_FILE):
        return demo
    own = parse(text_of(kept, str(kept)), name=str(kept), base=kept.absolute().parent)
    return own if own.agents else demo.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def demo_base() -> Path:
    """The folder of the demo's agents and cards: beside the package in a source tree, in it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    beside = package.parent
    # Both, because `agents` alone may be somebody else's package in site-packages.
    if (beside / "agents").is_dir() and (beside / "agent_cards").is_dir():
        return beside
    return package / "_demo"


def parse(text: str, *, name: str = "configuration", base: Path) -> Config:
    """The configuration a YAML text says, its relative paths starting at `base`."""
    found = source.read(text, name)
    origin = Origin(name, base, found.lines)
    data = _without_empty_sections({} if found.data is None else found.data)
    problems = [*found.problems, *(_problem(origin, *words) for words in _cross_checks(data))]
    try:
        config = Config.model_validate(data, context=origin)
    except ValidationError as error:
        problems += _translated(error, data, origin)
    if problems:
        raise ConfigError(problems)
    return config


def _is_there(file: Path) -> bool:
    # A link to nowhere is there: it is a mistake to report, not a wish for the demo.
    return file.exists() or file.is_symlink()


def text_of(file: Path, name: str, named: str = "with --config") -> str:
    """The content of an operator's file. `named` says where it is named. Raises ConfigError."""

    def refuse(reason: str, hint: str, line: int | None = None) -> NoReturn:
        raise ConfigError([Problem(name, line, "", reason, hint)])

    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            refuse("is a directory", f"name the file in it, for example {name}/{DEFAULT_FILE}")
        if not stat.S_ISREG(mode):
            refuse("is not a file", "a pipe or device cannot be read again on reload; write it to a file")
        with file.open("rb") as stream:
            content = stream.read(source.MAX_BYTES + 1)
    except FileNotFoundError:
        refuse("no such file", f"create it, or name another {named}")
    except PermissionError:
        refuse("may not be read by this user", "change its owner or mode")
    except OSError as error:
        refuse(f"cannot be read: {error.strerror}", "check the path")
    if len(content) > source.MAX_BYTES:
        refuse(f"is larger than {source.MAX_BYTES} bytes", "is it the right file?")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        refuse(f"is not UTF-8 (byte 0x{content[error.start]:02x})", "save it as UTF-8", line)


def _without_empty_sections(data: Any) -> Any:
    """`egress:` with all its lines commented out is null in YAML, and means the defaults."""
    if not isinstance(data, dict):
        return data
    return {key: value for key, value in data.items() if value is not None or key not in Config.model_fields}


# --- What one field cannot know; on raw data, so that it is found beside the rest and not after it ---


def _cross_checks(data: Any) -> Iterator[tuple[Loc, str, str]]:
    if not isinstance(data, dict):
        return
    agents = data.get("agents", {})
    if isinstance(agents, dict):
        yield from _alike((("agents", name), name) for name in agents)
        for name, entry in agents.items():
            if isinstance(entry, dict):
                yield from _one_kind(name, entry)
                yield from _alike(_texts(entry.get("tenants"), ("agents", name, "tenants")))
        yield from _default_agent(data.get("server"), list(agents))
    tools = data.get("tools")
    if isinstance(tools, dict):
        yield from _alike((("tools", name), name) for name in tools)
    yield from cross_checks(data, DEMO_AGENTS)
    yield from _issuers(data.get("auth"))
    yield from _certificates(data)


def _certificates(data: Mapping[str, Any]) -> Iterator[tuple[Loc, str, str]]:
    auth, server = data.get("auth"), data.get("server")
    wanted = isinstance(auth, dict) and auth.get("client_certificates") is not None
    if wanted and not (isinstance(server, dict) and server.get("trusted_proxies")):
        hint = "name the proxies that see the certificates"
        yield ("auth", "client_certificates"), "needs server.trusted_proxies", hint


def _issuers(auth: object) -> Iterator[tuple[Loc, str, str]]:
    listed = auth.get("issuers") if isinstance(auth, dict) else None
    entries = [(i, e) for i, e in enumerate(listed if isinstance(listed, list) else ()) if isinstance(e, dict)]
    seen: set[object] = set()
    for index, entry in entries:
        if (issuer := str(entry.get("issuer"))) in seen:
            yield ("auth", "issuers", index, "issuer"), "is listed twice", "keep one"
        seen.add(issuer)
    asked = [index for index, entry in entries if entry.get("introspection") is not None]
    for index in asked[1:]:
        hint = "an opaque token does not say whose it is; keep one"
        yield ("auth", "issuers", index, "introspection"), "only one issuer can be asked", hint


def _texts(value: object, loc: Loc) -> Iterator[tuple[Loc, str]]:
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, str):
            yield (*loc, index), item


def _alike(names: Iterable[tuple[Loc, str]]) -> Iterator[tuple[Loc, str, str]]:
    first: dict[str, str] = {}
    for loc, name in names:
        if (look := folded(name)) in first:
            twice = f"'{name}' is listed twice" if name == first[look] else f"reads the same as '{first[look]}'"
            yield loc, twice, "choose another name"
        first.setdefault(look, name)


def _one_kind(name: str, entry: Mapping[str, object]) -> Iterator[tuple[Loc, str, str]]:
    if meant_kind(entry) is None:
        yield ("agents", name), _ONE_KIND, "say how it is reached"


def _default_agent(server: object, agents: list[str]) -> Iterator[tuple[Loc, str, str]]:
    wanted = server.get("default_agent") if isinstance(server, dict) else None
    if isinstance(wanted, str) and wanted not in agents:
        hint = did_you_mean(wanted, agents) if agents else "there are no agents in this file"
        yield ("server", "default_agent"), f"there is no agent '{wanted}'", hint


# --- pydantic's errors in our words ---


def _problem(origin: Origin, loc: Loc, reason: str, hint: str) -> Problem:
    return Problem(origin.name, origin.line(loc), dotted(loc), reason, hint)


def _translated(error: ValidationError, data: Any, origin: Origin) -> Iterator[Problem]:
    details = error.errors(include_url=False, include_input=False)
    meant = {
        (*_file_loc(detail["loc"])[:-1], nearest(str(detail["loc"][-1]), keys(_model(detail["loc"]))))
        for detail in details
        if detail["type"] == "extra_forbidden"
    }
    for detail in details:
        loc = _file_loc(detail["loc"])
        if detail["type"] == "missing" and (loc in meant or _has_no_kind(loc, data)):
            continue  # said already: at the misspelled key, or as the missing kind
        yield _problem(origin, loc, *_words(detail["type"], detail["loc"], detail.get("ctx", {})))


def _words(kind: str, loc: Loc, context: Mapping[str, Any]) -> tuple[str, str]:
    if kind == "extra_forbidden":
        return _unknown_key(str(loc[-1]), loc)
    if kind == "missing":
        return _REASONS[kind], f"{loc[-1]}: {_model(loc).model_fields[str(loc[-1])].description}"
    return explained(kind, context)


def explained(kind: str, context: Mapping[str, Any]) -> tuple[str, str]:
    """Reason and hint for what pydantic found."""
    reason = _REASONS.get(kind, f"is not accepted ({kind})")
    return reason.format_map(context), _HINTS.get(kind, "").format_map(context)


def _unknown_key(key: str, loc: Loc) -> tuple[str, str]:
    if _of_an_agent(loc) and key in KINDS:
        return _ONE_KIND, f"keep '{loc[2]}' or '{key}'"
    if _of_an_agent(loc) and (owner := next((kind for kind, model in KINDS.items() if key in keys(model)), None)):
        return _REASONS["extra_forbidden"], f"only agents with '{owner}' have it"
    return _REASONS["extra_forbidden"], did_you_mean(key, keys(_model(loc)))


def _has_no_kind(loc: Loc, data: Any) -> bool:
    return loc[0] == "agents" and len(loc) == 3 and meant_kind(data["agents"][loc[1]]) is None


# pydantic puts the tag of an agent's kind into the location, third, and `[key]` behind a name it refuses.


def _file_loc(loc: Loc) -> Loc:
    """The location as the file has it."""
    if loc[-1:] == ("[key]",):
        return loc[:-1]
    return (*loc[:2], *loc[3:]) if loc[:1] == ("agents",) else loc


def _model(loc: Loc) -> type[BaseModel]:
    """The section that a refused or missing key belongs to."""
    if len(loc) == 1:
        return Config
    if loc[0] in ENTRIES:
        return owner(loc)
    if loc[0] == "agents":
        return _inside_agent(KINDS[str(loc[2])], loc[3:-1])
    section: type[BaseModel] = Config
    for name in loc[:-1]:
        if isinstance(name, str):
            section = _inside(section.model_fields[name].annotation)
    return section


def _inside_agent(section: type[BaseModel], loc: Loc) -> type[BaseModel]:
    for name in loc:
        field = section.model_fields.get(str(name))
        section = Value if field is None or name == "headers" else _inside(field.annotation)
    return section


def _of_an_agent(loc: Loc) -> bool:
    return loc[0] == "agents" and len(loc) == 4


def _inside(annotation: Any) -> type[BaseModel]:
    """The section that a field holds, be it in a list or with None beside it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_inside(part) for part in get_args(annotation) if part not in (type(None), ...))
