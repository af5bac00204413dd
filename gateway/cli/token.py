"""`gateway token`"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from gateway.cli.exits import Exit, Stop
from gateway.cli.place import URL, Place, data_folder
from gateway.cli.text import say


def token(options: argparse.Namespace) -> Exit:
    if options.client is not None:
        say(_access_token(options))
        return Exit.DONE
    place = Place(URL, data_folder(options.data, os.environ))
    if (credential := place.credential()) is None:
        raise Stop(
            f"There is no credential at {place.token_file or 'DATA/token: HOME is not set, say --data DIR'}. "
            f"The gateway makes it when it first starts: {place.serve()}"
        )
    say(credential)
    return Exit.DONE


def _access_token(options: argparse.Namespace) -> str:
    """By client credentials (RFC 6749 §4.4). The secret is never an argument: other users could read it."""
    # As heavy as the rest of this command together; printing a file needs no HTTP client.
    from gateway.cli.client import access_token

    place = Place.of(options.data)
    resource = place.url if options.agent is None else f"{place.url}/agents/{options.agent}"
    return access_token(place, options.client, _secret(options.secret_file), options.scope, resource)


def _secret(file: Path | None) -> str:
    try:
        found = os.environ.get("GATEWAY_CLIENT_SECRET", "") if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(f"--secret-file {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}", Exit.USAGE) from None
    if not found.strip():
        raise Stop("There is no secret: name a file with --secret-file, or set GATEWAY_CLIENT_SECRET", Exit.USAGE)
    return found.strip()
