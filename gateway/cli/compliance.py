"""`gateway compliance`: what messages, arguments and results must or must not carry."""

from __future__ import annotations

import argparse

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit
from gateway.cli.place import Place
from gateway.cli.text import dump, line, note, say
from gateway.cli.yamlform import yaml_item


def show(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        shown = gateway.get("admin", "compliance")
    if options.json:
        dump(shown)
        return Exit.DONE
    if shown.get("problem"):
        note(f"The profile is wrong, and what it said before holds on:\n{shown['problem']}")
    if not shown.get("file"):
        note("There is no profile: everything may pass. compliance.file names one.")
        return Exit.DONE
    say(f"# {line(shown['file'])}")
    say("rules:")
    for rule in shown.get("rules") or ():
        for text in yaml_item(rule):
            say(f"  {text}")
    return Exit.DONE


def reload(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        shown = gateway.post("admin", "compliance", verb="reload")
    note(f"The profile {line(shown.get('file'))} holds, rules: {len(shown.get('rules') or ())}.")
    return Exit.DONE
