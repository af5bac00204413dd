"""The compliance profile: what messages, answers, arguments and results must or must not carry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.config.document import Inside, parse_document
from gateway.config.sections import Section
from gateway.config.values import File, ImportString, Items, Origin, Words, refuse

PlaceWord = Literal["message", "answer", "arguments", "result"]
AGENT_PLACES: frozenset[str] = frozenset({"message", "answer"})

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PATTERN = re.compile(r"[^\s]{1,256}")


def _rule_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise refuse("must be a name of a-z, 0-9 and '-', at most 63 long")
    return text


def _target(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise refuse(f"{text[:80]!r} is no pattern", "an agent's id or SERVER/TOOL; * stands for any letters")
    return text


class SizesEntry(Section):
    """How much may pass, and of what kind."""

    max_bytes: int | None = Field(None, ge=0, description="Bytes of all texts and numbers together.")
    max_parts: int | None = Field(None, ge=0, description="Parts of a message or artifact, contents of a result.")
    media_types: Words = Field((), description="The only media types; * stands for any letters.")

    @model_validator(mode="after")
    def _something(self) -> SizesEntry:
        if not self.model_fields_set:
            raise refuse("asks for nothing", "give one of " + ", ".join(SizesEntry.model_fields))
        return self


CHECKS = ("find", "pattern", "schema", "declared", "sizes", "run")


class ComplianceRule(Section):
    """One rule: where it looks, the one check that it makes, and what happens to what is found."""

    rule: Annotated[str, AfterValidator(_rule_name)] = Field(description="Its name, in records and refusals.")
    places: Items[PlaceWord] = Field(
        ("message", "answer", "arguments", "result"), min_length=1, description="Where it looks."
    )
    agents: Items[Annotated[str, AfterValidator(_target)]] | None = Field(
        None, description="Agents it is about; all, unless the rule names tools."
    )
    tools: Items[Annotated[str, AfterValidator(_target)]] | None = Field(
        None, description="Tools (SERVER/TOOL), prompts and resources it is about; all, unless the rule names agents."
    )
    find: Words = Field((), description="Detectors by name, or the groups secrets and personal-data.")
    pattern: str | None = Field(
        None, description="What texts and numbers must not hold, in RE2; its first group is meant."
    )
    schema_: File | None = Field(
        None, alias="schema", description="File with a JSON Schema for data parts, arguments and structured results."
    )
    declared: bool = Field(False, description="Whether to hold tools to the schemas that they declare themselves.")
    sizes: SizesEntry | None = Field(None, description="How much may pass, and of what kind.")
    run: ImportString | None = Field(None, description="Import string of a check of your own, module:function.")
    action: Literal["flag", "redact", "block"] = Field(description="What happens to what is found.")
    timeout: float = Field(1.0, gt=0, le=60, description="Seconds that the check may take.")
    on_failure: Literal["block", "flag"] = Field(
        "block", description="What happens when the check fails or takes too long."
    )

    @model_validator(mode="after")
    def _one_check(self) -> ComplianceRule:
        made = [name for name in CHECKS if getattr(self, "schema_" if name == "schema" else name)]
        if len(made) != 1:
            raise refuse(
                f"a rule has exactly one of {', '.join(CHECKS)}", f"keep one of {', '.join(made)}" if made else ""
            )
        looks_at_agents, looks_at_tools = self.about_agents, self.about_tools
        if not (looks_at_agents or looks_at_tools):
            raise refuse("looks nowhere: agents have messages and answers, tools have arguments and results")
        if self.declared and (looks_at_agents or self.action == "redact"):
            raise refuse(
                "declared is about arguments and results of tools, and can only flag or block", "see places and action"
            )
        if self.sizes is not None and self.action == "redact":
            raise refuse("a size cannot be redacted", "action: flag or block")
        return self

    @property
    def about_agents(self) -> bool:
        return bool(AGENT_PLACES.intersection(self.places)) and not (self.agents is None and self.tools is not None)

    @property
    def about_tools(self) -> bool:
        return bool(set(self.places) - AGENT_PLACES) and not (self.tools is None and self.agents is not None)


class ComplianceFile(Section):
    """The whole file."""

    rules: Items[ComplianceRule] = Field(
        (), description="The rules; each sees what the ones before it left, and the first that blocks is the last."
    )

    @model_validator(mode="after")
    def _names(self) -> ComplianceFile:
        names = [entry.rule for entry in self.rules]
        if twice := next((name for index, name in enumerate(names) if name in names[:index]), None):
            raise refuse(f"two rules are called {twice}", "every rule has a name of its own")
        return self


_INSIDE: Inside = {"rules": ComplianceRule, "sizes": SizesEntry}


def parse_compliance(text: str, name: str, base: Path) -> tuple[ComplianceFile, Origin]:
    """What a compliance file says, and where; paths in it start at `base`. Raises ConfigError."""
    return parse_document(text, name, ComplianceFile, _INSIDE, base)
