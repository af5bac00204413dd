"""The policy file: who may do what. Read as strictly as the configuration, every problem with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from gateway.config import source
from gateway.config.loading import explained, text_of
from gateway.config.problems import ConfigError, Loc, Problem, did_you_mean, dotted
from gateway.config.values import Items, Origin, Words, refuse

# Everybody with a credential, everybody at all, the machine's own credential, a worker, and whoever a grant can name;
# a star stands for any letters.
_PERSON = re.compile(
    r"\*|anybody|local|worker|anonymous|(key:|agent:|client:)?[A-Za-z0-9._*-]{1,63}|role:[!-~]{1,128}"
    r"|oauth:https?://[!-\"$-~]{1,255}#[!-~]{1,256}|oauth:gateway#[!-~]{1,256}"
)
_TARGET = re.compile(r"public|[a-z0-9*?-]{1,63}(/[^\s/][^\s]{0,255})?")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CLOCK = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _person(text: str) -> str:
    if not _PERSON.fullmatch(text):
        raise refuse(
            f"{text[:80]!r} names nobody",
            "a key's name, agent:NAME, client:NAME, oauth:ISSUER#SUBJECT, role:NAME, local, worker, anonymous, * for "
            "everybody with a credential, or anybody",
        )
    return text


def _target(text: str) -> str:
    if not _TARGET.fullmatch(text):
        raise refuse(f"{text[:80]!r} is no target", "agents/NAME, agents/NAME/SKILL, SERVER/TOOL, gateway, public or *")
    return text


def _rule_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise refuse("must be a name of a-z, 0-9 and '-', at most 63 long")
    return text


def _minutes(text: str) -> str:
    if not _CLOCK.fullmatch(text) or text > "24:00":
        raise refuse("must be a time of day, HH:MM", 'in quotes, for example "08:30"')
    return text


def zone_of(text: str) -> tzinfo:
    """Raises KeyError, ValueError or OSError where there is none. UTC is there without a database of zones."""
    return UTC if text == "UTC" else ZoneInfo(text)


def _zone(text: str) -> str:
    try:
        zone_of(text)
    except (KeyError, ValueError, OSError):
        raise refuse(f"there is no time zone {text[:80]!r}", "for example UTC or Europe/Berlin") from None
    return text


def _some(listed: tuple[str, ...]) -> tuple[str, ...]:
    if not listed:
        raise refuse("must have at least one entry")
    return listed


def _listed(given: object) -> object:
    return [given] if isinstance(given, str) else given


_WORDS = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
Person = Annotated[str, AfterValidator(_person)]
People = Annotated[tuple[Person, ...], Field(strict=False), BeforeValidator(_listed), AfterValidator(_some), _WORDS]
Targets = Annotated[
    tuple[Annotated[str, AfterValidator(_target)], ...],
    Field(strict=False),
    BeforeValidator(_listed),
    AfterValidator(_some),
    _WORDS,
]
RuleName = Annotated[str, AfterValidator(_rule_name)]
Clock = Annotated[str, AfterValidator(_minutes)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ArgumentEntry(_Section):
    """What one argument must be. A value alone, or a list of values, means one of these."""

    one_of: Items[JsonValue] | None = Field(None, description="The only values it may have; true is not 1.")
    matches: Words = Field((), description="Patterns for a text; * stands for any letters.")
    at_least: float | None = Field(None, description="The smallest number.")
    at_most: float | None = Field(None, description="The largest number.")
    longest: int | None = Field(None, ge=0, description="How long a text or list may be.")
    present: bool | None = Field(None, description="Whether it has to be there, or must not be.")

    @model_validator(mode="after")
    def _something(self) -> ArgumentEntry:
        if not self.model_fields_set:
            raise refuse("asks for nothing", "give values, or one of " + ", ".join(ArgumentEntry.model_fields))
        return self


def _argument(given: object) -> object:
    if isinstance(given, dict):
        return given
    return {"one_of": given if isinstance(given, list) else [given]}


AnyArgument = Annotated[ArgumentEntry, BeforeValidator(_argument)]


class TimeEntry(_Section):
    """A span of the day; one that ends before it begins goes over midnight."""

    days: Items[Day] = Field(get_args(Day), description="Days of the week.")
    since: Clock = Field("00:00", alias="from", description="When it begins.")
    until: Clock = Field("24:00", description="When it is over.")
    zone: Annotated[str, AfterValidator(_zone)] = Field("UTC", description="Time zone.")


class HopsEntry(_Section):
    """How many agents stand between the first caller and whoever asks."""

    at_least: int | None = Field(None, ge=0, description="So many or more.")
    at_most: int | None = Field(None, ge=0, description="So many or fewer.")


class WhenEntry(_Section):
    """Further conditions; all of them have to hold."""

    arguments: dict[str, AnyArgument] = Field(
        default_factory=dict, description="Arguments of a tool or prompt; of a message text, data and metadata."
    )
    time: TimeEntry | None = Field(None, description="When it is asked.")
    behalf: People | None = Field(None, alias="for", description="On whose behalf it is asked in the end.")
    via: People | None = Field(None, description="Who stands in between.")
    hops: HopsEntry | None = Field(None, description="How many agents stand in between.")


class RuleEntry(_Section):
    """One rule. What it does not say does not matter to it; `who` is always said."""

    rule: RuleName = Field(description="Its name: what records, refusals and explanations call it.")
    who: People = Field(description="Whom it is about.")
    do: Words = Field(("*",), description="Actions, by name or by group.")
    on: Targets = Field(("*",), description="Targets, by pattern.")
    when: WhenEntry | None = Field(None, description="Further conditions.")
    verdict: Literal["PASS", "FLAG", "BLOCK", "ESCALATE", "HALT"] = Field(description="What happens then.")
    because: str = Field("", description="The reason, a sentence for whoever is refused.")


class PolicyFile(_Section):
    """The whole file."""

    defaults: bool = Field(True, description="Whether the rules that hold without a file come after those of it.")
    roles: dict[str, People] = Field(
        default_factory=dict, description="Roles by name, and who has them beside those whose tokens say so."
    )
    rules: Items[RuleEntry] = Field((), description="The rules; the first one that holds decides.")

    @model_validator(mode="after")
    def _names(self) -> PolicyFile:
        if twice := _twice([entry.rule for entry in self.rules]):
            raise refuse(f"two rules are called {twice}", "every rule has a name of its own")
        return self


def _twice(names: list[str]) -> str | None:
    return next((name for index, name in enumerate(names) if name in names[:index]), None)


def read_policy(path: Path) -> tuple[str, str]:
    """The text of a policy file and its name in messages. Raises ConfigError."""
    return text_of(path, str(path)), str(path)


def parse_policy(text: str, name: str) -> tuple[PolicyFile, Origin]:
    """What a policy file says, and where. Raises ConfigError with every problem in it."""
    found = source.read(text, name)
    origin = Origin(name, Path(), found.lines)
    problems = list(found.problems)
    policy = PolicyFile()
    try:
        policy = PolicyFile.model_validate({} if found.data is None else found.data)
    except ValidationError as error:
        problems += _translated(error, origin)
    if problems:
        raise ConfigError(problems)
    return policy, origin


def policy_problem(origin: Origin, loc: Loc, reason: str, hint: str = "") -> Problem:
    """One problem at a place of the file; a word where a list could stand is at the place of the list."""
    if loc and isinstance(loc[-1], int) and loc not in origin.lines:
        loc = loc[:-1]
    return Problem(origin.name, origin.line(loc), dotted(loc), reason, hint)


def _translated(error: ValidationError, origin: Origin) -> Iterator[Problem]:
    for detail in error.errors(include_url=False, include_input=False):
        loc = tuple(part for part in detail["loc"] if part != "[key]")
        reason, hint = explained(detail["type"], detail.get("ctx", {}))
        if detail["type"] == "extra_forbidden":
            reason, hint = "unknown key", did_you_mean(str(loc[-1]), _keys(_owner(loc)))
        elif detail["type"] == "missing":
            reason, hint = "is required", f"{loc[-1]}: {_fields(_owner(loc))[str(loc[-1])].description}"
        yield policy_problem(origin, loc, reason, hint)


_INSIDE: Mapping[str, type[BaseModel]] = {
    "rules": RuleEntry,
    "when": WhenEntry,
    "arguments": ArgumentEntry,
    "time": TimeEntry,
    "hops": HopsEntry,
}


def _owner(loc: Loc) -> type[BaseModel]:
    """The section that a refused or missing key belongs to."""
    return next((_INSIDE[part] for part in reversed(loc[:-1]) if part in _INSIDE), PolicyFile)  # type: ignore[index]


def _fields(model: type[BaseModel]) -> Mapping[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _keys(model: type[BaseModel]) -> list[str]:
    return list(_fields(model))
