"""A gateway's store that appends and signs until it is deposed: `python -m tests.audit.leader FOLDER MARK`.

The lock on the folder is left out, as on a disk whose locks nobody else sees. Writes one line to stdout for each
acknowledged entry, and at the end what it was told.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path
from unittest.mock import patch

from gateway.model.errors import GatewayError
from tests.audit.logs import opened
from tests.stores.contract import entry


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def lead(folder: Path, mark: str) -> None:
    store, notary = await opened(folder, mark)
    try:
        for n in count():
            await store.commit(records=[entry(f"{mark}-{n}")])
            say(f"{mark}-{n}")
            if n % 20 == 19:
                await notary.seal()
    except GatewayError as error:
        say(error.message)
    try:
        await store.commit(records=[entry("and yet")])
    except GatewayError as error:
        say(error.message)
    notary.forsake()
    await store.aclose()


if __name__ == "__main__":
    with patch("fcntl.flock"):
        asyncio.run(lead(Path(sys.argv[1]), sys.argv[2]))
