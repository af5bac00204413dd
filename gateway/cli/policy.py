"""`gateway policy`: which rules hold, and why somebody may or may not do something."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.text import dump, line, note, say, span, table
from gateway.cli.yamlform import yaml_flow, yaml_item


def show(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        shown = gateway.get("admin", "policy")
    if options.json:
        dump(shown)
    else:
        _show(shown)
    return Exit.DONE


def reload(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        shown = gateway.post("admin", "policy", verb="reload")
    note(f"Policy {shown.get('hash')} holds, from {line(shown.get('file'))}.")
    return Exit.DONE


def shadow(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        found = gateway.get("admin", "policy", "shadow")
    if options.json:
        dump(found)
        return Exit.DONE
    if found.get("problem"):
        note(f"The shadow file is wrong, and what it said before is tried on:\n{found['problem']}")
    if flips := found.get("flips"):
        _flips(flips)
    else:
        note(f"{line(found.get('file'))} has decided everything so far as the policy that holds.")
    if found.get("leftOut"):
        note(f"{found['leftOut']} more calls would be decided otherwise.")
    return Exit.DONE


def replay(options: argparse.Namespace) -> Exit:
    try:
        text = options.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(f"{options.file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    with Gateway(Place.of(options.data)) as gateway:
        asked = {"text": text, "name": str(options.file), "last": options.last}
        found = gateway.post("admin", "policy", body=asked, verb="replay")
    if options.json:
        dump(found)
        return Exit.DONE
    if flips := found.get("flips"):
        _flips(flips)
    note(
        f"{found.get('calls')} calls: {found.get('same')} would be decided alike, "
        f"{sum(f['count'] for f in found.get('flips') or ())} otherwise, {found.get('unsure')} cannot be told."
    )
    return Exit.DONE


def _flips(flips: list[dict[str, Any]]) -> None:
    rows = (
        (
            flip["principal"],
            flip["action"],
            flip["target"],
            f"{flip['verdict']} ({flip['rule']})",
            f"{flip['wouldBe']} ({flip['byRule']})",
            flip["count"],
        )
        for flip in flips
    )
    table(("PRINCIPAL", "ACTION", "TARGET", "IS", "WOULD BE", "TIMES"), rows)


def explain(options: argparse.Namespace) -> Exit:
    asked = {
        "principal": options.principal,
        "action": options.action,
        "target": options.target,
        "arguments": json_object(options.arguments),
        "roles": options.role,
        "scopes": options.scope,
        "labels": options.label,
        "for": options.behalf,
        "at": options.at,
    }
    with Gateway(Place.of(options.data)) as gateway:
        found = gateway.post("admin", "policy", body=asked, verb="explain")
    if options.json:
        dump(found)
    else:
        _explain(found)
    return Exit.DONE


def json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Stop('--with must be a JSON object, for example \'{"folder": "public"}\'', Exit.USAGE)
    return found


def _show(shown: Mapping[str, Any]) -> None:
    """As a policy file, so that a person can begin with it."""
    origin = f"from {line(shown.get('file'))}" if shown.get("file") else "without a policy file"
    say(f"# policy {shown.get('hash')}, {origin}")
    if shown.get("problem"):
        note(f"The policy file is wrong, and the rules below hold on:\n{shown['problem']}")
    say("defaults: false")
    for section in ("people", "roles"):
        if named := shown.get(section):
            say(f"{section}:")
            for name, words in named.items():
                say(f"  {yaml_flow(name)}: {yaml_flow(words)}")
    say("rules:")
    for rule in shown.get("rules") or ():
        for text in yaml_item(rule):
            say(f"  {text}" if "rule" in rule else f"  # {text}")
    if labels := shown.get("labels"):
        say("labels:")
        for name, targets in labels.items():
            say(f"  {name}: {yaml_flow(targets)}")
    if approvals := shown.get("approvals"):
        say("approvals:")
        for name, value in approvals.items():
            say(f"  {name}: {yaml_flow(value)}")
    for section in ("limits", "costs"):
        if entries := shown.get(section):
            say(f"{section}:")
            for entry in entries:
                for text in yaml_item(entry):
                    say(f"  {text}")


def _explain(found: Mapping[str, Any]) -> None:
    inputs = found.get("inputs") or {}
    say(f"{found.get('verdict')}  {line(found.get('rule'))}: {line(found.get('reason'), 1000)}")
    say()
    for name in (
        "principal",
        "action",
        "target",
        "roles",
        "scopes",
        "chain",
        "public",
        "permissions",
        "arguments",
        "labels",
        "at",
    ):
        value = inputs.get(name)
        if value or name in ("principal", "action", "target"):
            say(f"  {name:<12} {line(value if isinstance(value, str) else json.dumps(value), 1000)}")
    say()
    for each in found.get("lookedAt") or ():
        missing = "; ".join(line(what) for what in each.get("missing") or ()) or "nothing"
        say(f"  {line(each.get('rule'))} ({line(each.get('where'))}), {each.get('verdict')}: missing {missing}")
    if approval := found.get("approval"):
        say()
        whom = ", ".join(line(each) for each in approval.get("approvers") or ()) or "nobody"
        own = ", or by the caller itself" if approval.get("byCaller") else ""
        within = span(approval.get("withinSeconds"))
        say(f"It waits up to {within} for an approval by {approval.get('needed')} of {whom}{own}.")
    if limit := found.get("limit"):
        say()
        say(f"It is refused all the same: {line(limit.get('reason'), 1000)}.")
    if found.get("change"):
        say()
        say(f"To allow it: {line(found['change'], 1000)}.")
    if found.get("newRule"):
        say("A rule that allows exactly this, to stand before all others:")
        for text in yaml_item(found["newRule"]):
            say(f"  {text}")
