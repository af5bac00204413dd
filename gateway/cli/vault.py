"""`gateway vault rotate-key`: what is kept of others' authorizations, sealed with a new key."""

from __future__ import annotations

import argparse

from gateway.cli.client import Gateway
from gateway.cli.exits import Exit
from gateway.cli.place import Place
from gateway.cli.text import dump, say


def rotate(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        sealed = gateway.post("admin", "vault", verb="rotate-key")["sealed"]
    if options.json:
        dump({"sealed": sealed})
    else:
        say(f"{sealed} files are sealed with the new key. The one before opens nothing any more.")
    return Exit.DONE
