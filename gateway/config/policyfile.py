"""The policy file: who may do what. Read as strictly as the configuration, every problem with its line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from gateway.config.document import Inside, parse_document
from gateway.config.principals import ONE, RULED, WORDS
from gateway.config.values import Items, Origin, Scope, Words, refuse

_TARGET = re.compile(r"public|[a-z0-9*?-]{1,63}(/[^\s/][^\s]{0,255})?")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SHARE = re.compile(r"([0-9]{1,3})%")
PERIODS: Mapping[str, int] = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_AMOUNT = re.compile(rf"([0-9]{{1,12}}(?:\.[0-9]{{1,3}})?)/({'|'.join(PERIODS)})")
_SPAN = re.compile(rf"([1-9][0-9]{{0,5}}) ({'|'.join(PERIODS)})s?")
MOST_SCOPES = 32  # of one rule: all of them go into one header of a refusal
LONGEST_SPAN_MS = 30 * PERIODS["day"]  # that a call may wait for an approval
_CLOCK = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _person(text: str) -> str:
    if not RULED.fullmatch(text):
        raise refuse(
            f"{text[:80]!r} names nobody",
            f"{WORDS}, role:NAME, local, worker, anonymous, * for everybody with a credential, or anybody",
        )
    return text


def _one(text: str) -> str:
    if text == "anonymous" or not ONE.fullmatch(text):
        raise refuse(f"{text[:80]!r} is not one principal", f"{WORDS}, or local")
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


def _share(text: str) -> str:
    if not (found := _SHARE.fullmatch(text)) or int(found[1]) > 100:
        raise refuse("must be a share of the limit, 0% to 100%")
    return text


def _amount(text: str) -> str:
    if not (found := _AMOUNT.fullmatch(text)) or not float(found[1]):
        raise refuse("must be an amount in a period", "for example 60/minute; second, minute, hour or day")
    return text


def amount(text: str) -> tuple[float, int]:
    """`60/minute` as 60 and the milliseconds of a minute."""
    found = _AMOUNT.fullmatch(text)
    assert found is not None, "it was checked when the file was read"
    return float(found[1]), PERIODS[found[2]]


def _span(text: str) -> str:
    if not (found := _SPAN.fullmatch(text)) or int(found[1]) * PERIODS[found[2]] > LONGEST_SPAN_MS:
        raise refuse("must be a time, at most 30 days", "for example 15 minutes; seconds, minutes, hours or days")
    return text


def span(text: str) -> int:
    """`15 minutes` in milliseconds."""
    found = _SPAN.fullmatch(text)
    assert found is not None, "it was checked when the file was read"
    return int(found[1]) * PERIODS[found[2]]


def _some(listed: tuple[str, ...]) -> tuple[str, ...]:
    if not listed:
        raise refuse("must have at least one entry")
    return listed


def _few(scopes: tuple[str, ...]) -> tuple[str, ...]:
    if len(scopes) > MOST_SCOPES:
        raise refuse(f"must have at most {MOST_SCOPES} entries")
    return _some(scopes)


def _listed(given: object) -> object:
    return [given] if isinstance(given, str) else given


_WORDS = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
Person = Annotated[str, AfterValidator(_person)]
People = Annotated[tuple[Person, ...], Field(strict=False), BeforeValidator(_listed), AfterValidator(_some), _WORDS]
Ids = Annotated[
    tuple[Annotated[str, AfterValidator(_one)], ...],
    Field(strict=False),
    BeforeValidator(_listed),
    AfterValidator(_some),
    _WORDS,
]
Targets = Annotated[
    tuple[Annotated[str, AfterValidator(_target)], ...],
    Field(strict=False),
    BeforeValidator(_listed),
    AfterValidator(_some),
    _WORDS,
]
Scopes = Annotated[tuple[Scope, ...], Field(strict=False), BeforeValidator(_listed), AfterValidator(_few), _WORDS]
Actions = Annotated[Words, AfterValidator(_some)]
Approver = Literal["policy", "caller"]
Span = Annotated[str, AfterValidator(_span)]
RuleName = Annotated[str, AfterValidator(_rule_name)]
Clock = Annotated[str, AfterValidator(_minutes)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _ordered(least: float | None, most: float | None) -> None:
    if least is not None and most is not None and least > most:
        raise refuse("at_least is more than at_most: nothing is both", "swap them, or leave one out")


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
        if self.one_of == () or (not self.matches and "matches" in self.model_fields_set):
            raise refuse("has an empty list", "give at least one entry")
        _ordered(self.at_least, self.at_most)
        return self


def _argument(given: object) -> object:
    if isinstance(given, dict):
        return given
    return {"one_of": given if isinstance(given, list) else [given]}


AnyArgument = Annotated[ArgumentEntry, BeforeValidator(_argument)]


class TimeEntry(_Section):
    """A span of the day; one that ends before it begins goes over midnight."""

    days: Annotated[Items[Day], AfterValidator(_some)] = Field(get_args(Day), description="Days of the week.")
    since: Clock = Field("00:00", alias="from", description="When it begins.")
    until: Clock = Field("24:00", description="When it is over.")
    zone: Annotated[str, AfterValidator(_zone)] = Field("UTC", description="Time zone.")

    @model_validator(mode="after")
    def _fits(self) -> TimeEntry:
        if self.since == self.until:
            raise refuse("ends when it begins: it would never hold", "leave both out for the whole day")
        return self


class HopsEntry(_Section):
    """How many agents stand between the first caller and whoever asks."""

    at_least: int | None = Field(None, ge=0, description="So many or more.")
    at_most: int | None = Field(None, ge=0, description="So many or fewer.")

    @model_validator(mode="after")
    def _fits(self) -> HopsEntry:
        _ordered(self.at_least, self.at_most)
        return self


Label = Literal["private-data", "untrusted-input", "can-send-out"]


class BudgetEntry(_Section):
    """So much of a limit is used up."""

    limit: RuleName = Field(description="Name of one of the limits.")
    used: Annotated[str, AfterValidator(_share)] = Field(description="The share of it, for example 80%.")

    @property
    def share(self) -> float:
        return int(self.used.removesuffix("%")) / 100


class WhenEntry(_Section):
    """Further conditions; all of them have to hold."""

    arguments: dict[str, AnyArgument] = Field(
        default_factory=dict,
        description="Arguments of a tool or prompt; of a message text, data and metadata. What is there twice (several "
        "data parts, metadata of the message and of the request) is a list.",
    )
    time: TimeEntry | None = Field(None, description="When it is asked.")
    labels: Items[Label] = Field((), description="Labels that the conversation has gathered: all of these.")
    budget: BudgetEntry | None = Field(None, description="How much of a limit is used.")
    behalf: People | None = Field(None, alias="for", description="On whose behalf it is asked in the end.")
    via: People | None = Field(None, description="Who stands in between.")
    hops: HopsEntry | None = Field(None, description="How many agents stand in between.")
    scopes: Scopes | None = Field(None, description="Scopes of the caller's access token: all of these.")


def _one_caller(approver: str | None, approvers: int | None) -> None:
    if approver == "caller" and (approvers or 1) > 1:
        raise refuse("a caller that answers for itself is one", "leave out approvers, or approver: caller")


class RuleEntry(_Section):
    """One rule. What it does not say does not matter to it; `who` is always said."""

    rule: RuleName = Field(description="Its name: what records, refusals and explanations call it.")
    who: People = Field(description="Whom it is about.")
    do: Actions = Field(("*",), description="Actions, by name or by group.")
    on: Targets = Field(("*",), description="Targets, by pattern.")
    when: WhenEntry | None = Field(None, description="Further conditions.")
    verdict: Literal["PASS", "FLAG", "BLOCK", "ESCALATE", "HALT"] = Field(description="What happens then.")
    because: str = Field("", description="The reason, a sentence for whoever is refused.")
    freeze: bool = Field(False, description="With HALT: freeze the agent or principal that asked, too.")
    approver: Approver | None = Field(
        None,
        description="With ESCALATE: who may approve. Whoever a rule lets `approve` the target; with `caller`, whoever "
        "began it all may answer for itself, too.",
    )
    approvers: int | None = Field(
        None, ge=1, le=9, description="With ESCALATE: how many different people have to approve; 1 if not set."
    )
    within: Span | None = Field(
        None, description="With ESCALATE: how long the call waits, for example 15 minutes; 1 hour if not set."
    )

    @model_validator(mode="after")
    def _approved(self) -> RuleEntry:
        for name in ("approver", "approvers", "within"):
            if getattr(self, name) is not None and self.verdict != "ESCALATE":
                raise refuse(f"{name} belongs to the verdict ESCALATE", "leave it out")
        _one_caller(self.approver, self.approvers)
        return self

    @model_validator(mode="after")
    def _fits(self) -> RuleEntry:
        if self.freeze and self.verdict != "HALT":
            raise refuse("freeze belongs to the verdict HALT", "leave it out")
        if self.when is not None and self.when.scopes and self.verdict in ("BLOCK", "HALT"):
            raise refuse(
                f"scopes allow, and cannot forbid: a caller would ask for fewer to escape {self.verdict}",
                "write a rule that lets through whoever has the scopes, and behind it one that stops everybody",
            )
        return self


class LabelsEntry(_Section):
    """What targets bring into a conversation: at most two of the three, or the call needs an approval."""

    private_data: Targets | None = Field(None, alias="private-data", description="Where private data is read.")
    untrusted_input: Targets | None = Field(
        None, alias="untrusted-input", description="Where words of strangers come from."
    )
    can_send_out: Targets | None = Field(None, alias="can-send-out", description="What can tell others something.")


class LimitEntry(_Section):
    """One limit. Of what it does not say there is no limit."""

    limit: RuleName = Field(description="Its name: what refusals and budgets call it.")
    who: People = Field(("anybody",), description="Whom it is about.")
    do: Actions = Field(("call",), description="Actions, by name or by group.")
    on: Targets = Field(("*",), description="Targets, by pattern.")
    per: Literal["principal", "caller", "agent", "tool", "conversation"] | None = Field(
        None, description="What it is counted for; if not set, for all together. A caller is who began it all."
    )
    rate: Annotated[str, AfterValidator(_amount)] | None = Field(None, description="Calls, evenly: 60/minute.")
    burst: int | None = Field(None, ge=1, description="Calls of the rate that may come at once; all if not set.")
    concurrency: int | None = Field(None, ge=1, description="Calls at the same time.")
    calls: Annotated[str, AfterValidator(_amount)] | None = Field(None, description="Calls in a window: 1000/day.")
    seconds: Annotated[str, AfterValidator(_amount)] | None = Field(
        None, description="Seconds that calls take in all, in a window: 600/hour."
    )
    cost: Annotated[str, AfterValidator(_amount)] | None = Field(None, description="Cost in a window: 50/day.")
    depth: int | None = Field(None, ge=0, description="Agents between the first caller and the target.")
    fan_out: int | None = Field(None, ge=0, description="Calls that one task of an agent may make.")

    @model_validator(mode="after")
    def _fits(self) -> LimitEntry:
        kinds = ("rate", "concurrency", "calls", "seconds", "cost", "depth", "fan_out")
        if all(getattr(self, kind) is None for kind in kinds):
            raise refuse("limits nothing", f"give one of {', '.join(kinds)}")
        if self.burst is not None and self.rate is None:
            raise refuse("burst belongs to a rate", "leave it out, or give a rate")
        return self


class CostEntry(_Section):
    """What a call of these targets costs; others cost 1."""

    on: Targets = Field(description="Targets, by pattern; the first entry that matches counts.")
    cost: float = Field(ge=0, description="Units of one call.")


class ApprovalsEntry(_Section):
    """Calls that wait for a person though the rules let them through. Calls with the machine's own credential do not,
    those that agents make on its behalf do."""

    pause: Targets | None = Field(None, description="Targets of messages and tool calls, by pattern.")
    pause_delegated: Targets | None = Field(None, description="The same, only for calls that agents make.")
    destructive: bool = Field(True, description="Whether tools wait whose server gives them destructiveHint: true.")
    approver: Approver | None = Field(None, description="As in a rule.")
    approvers: int | None = Field(None, ge=1, le=9, description="As in a rule.")
    within: Span | None = Field(None, description="As in a rule.")

    @model_validator(mode="after")
    def _fits(self) -> ApprovalsEntry:
        _one_caller(self.approver, self.approvers)
        return self


class PolicyFile(_Section):
    """The whole file."""

    defaults: bool = Field(True, description="Whether the rules that hold without a file come after those of it.")
    roles: dict[str, People] = Field(
        default_factory=dict, description="Roles by name, and who has them beside those whose tokens say so."
    )
    people: dict[RuleName, Ids] = Field(
        default_factory=dict,
        description="Principals that are one person, by a name for it: what one of them has asked none of them "
        "approves, and where several people have to approve they count once.",
    )
    rules: Items[RuleEntry] = Field((), description="The rules; the first one that holds decides.")

    labels: LabelsEntry | None = Field(None, description="What targets bring into a conversation.")
    limits: Items[LimitEntry] = Field((), description="Limits; a call needs room in all that concern it.")
    costs: Items[CostEntry] = Field((), description="What calls cost, for limits of cost.")
    approvals: ApprovalsEntry | None = Field(None, description="What waits for a person whatever the rules say.")

    @model_validator(mode="after")
    def _names(self) -> PolicyFile:
        if twice := _twice([entry.rule for entry in self.rules]):
            raise refuse(f"two rules are called {twice}", "every rule has a name of its own")
        if twice := _twice([entry.limit for entry in self.limits]):
            raise refuse(f"two limits are called {twice}", "every limit has a name of its own")
        return self


def _twice(names: list[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


_INSIDE: Inside = {
    "rules": RuleEntry,
    "when": WhenEntry,
    "arguments": ArgumentEntry,
    "time": TimeEntry,
    "hops": HopsEntry,
    "budget": BudgetEntry,
    "labels": LabelsEntry,
    "limits": LimitEntry,
    "costs": CostEntry,
    "approvals": ApprovalsEntry,
}


def parse_policy(text: str, name: str) -> tuple[PolicyFile, Origin]:
    """What a policy file says, and where. Raises ConfigError with every problem in it."""
    return parse_document(text, name, PolicyFile, _INSIDE)
