"""`gateway token`"""

from __future__ import annotations

import argparse
import os

from gateway.cli.exits import Exit, Stop
from gateway.cli.place import URL, Place, data_folder
from gateway.cli.text import say


def token(options: argparse.Namespace) -> Exit:
    place = Place(URL, data_folder(options.data, os.environ))
    if (credential := place.credential()) is None:
        raise Stop(
            f"There is no credential at {place.token_file or 'DATA/token: HOME is not set, say --data DIR'}. "
            f"The gateway makes it when it first starts: {place.serve()}"
        )
    say(credential)
    return Exit.DONE
