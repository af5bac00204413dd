"""`gateway cards`: whose a card is, what came of it here, and taking one that has changed."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit
from gateway.cli.keyset import read_keys
from gateway.cli.place import Place
from gateway.cli.text import dump, line, note, say

Json = dict[str, Any]


def verify(options: argparse.Namespace) -> Exit:
    asked: Json = {"cardUrl": options.url}
    if options.keys is not None:
        asked["keys"] = read_keys(options.keys)
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.post("admin", "cards", verb="verify", body=asked)
    if options.json:
        dump(answer)
    else:
        _verdict(answer)
    return Exit.DONE if answer.get("verdict") == "verified" else Exit.FAILED


def show(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.get("admin", "cards", options.agent)
    if options.json:
        dump(answer)
    else:
        _show(answer)
    return Exit.DONE


def accept(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        answer = gateway.post("admin", "cards", options.agent, verb="accept")
    if options.json:
        dump(answer)
        return Exit.DONE
    for received in answer.get("received") or ():
        _verdict(received)
    note(f"Taken: the card of {options.agent} as it is now.")
    return Exit.DONE


def _verdict(card: Json) -> None:
    say(f"card       {line(card.get('cardUrl'), 2000)}")
    if card.get("source") not in (None, card.get("cardUrl")):
        say(f"came from  {line(card['source'], 2000)}")
    if "verdict" in card:
        say(f"verdict    {line(card['verdict'])}")
    for signature in card.get("signatures") or ():
        named = " ".join(line(signature[name]) for name in ("alg", "kid") if signature.get(name))
        say(f"  {line(signature.get('verdict'))}{f' ({named})' if named else ''}: {line(signature.get('says'), 1000)}")


def _show(answer: Json) -> None:
    say(f"agent      {line(answer.get('agent'))}")
    if not answer.get("received"):
        say("received   nothing: its card is a file of this gateway, or the gateway wrote it")
    for received in answer.get("received") or ():
        _received(received)
    served = answer.get("served")
    if served is None:
        say("served     nothing yet")
        return
    say(f"served     with {len(served.get('signatures') or ())} signatures of this gateway")
    differences = answer.get("differences") or {}
    if differences:
        say("differs in:")
    for name, why in differences.items():
        say(f"  {line(name)}: {line(why, 500)}")


def _received(received: Json) -> None:
    _verdict(received)
    if received.get("fetched"):
        say(f"fetched    {line(received['fetched'])}")
    if received.get("changes"):
        say(f"changed    {line(received.get('changed'))}")
    for change in received.get("changes") or ():
        say(f"  {line(change, 500)}")
    if refused := received.get("refused"):
        say(f"refused    a later card, of {line(refused.get('fetched'))}: {line(received.get('reason'), 1000)}")
    elif reason := received.get("reason"):
        say(f"unhealthy  {line(reason, 1000)}")
