"""Who is shown the heads of the audit log, so that even whoever has its keys cannot tell two people two stories.

A file witness is a file elsewhere (another machine's share, append-only) that gets each head. An HTTP witness
(c2sp.org/tlog-witness) checks that a head goes on from the one it saw before, and signs that.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from gateway.model.errors import GatewayError
from gateway.stores.datafolder import problems
from gateway.stores.problems import StoreProblem
from gateway.stores.sealing import node_at
from gateway.stores.sqlite import SqliteStore
from gateway.verifier import BadNote, Checkpoint, Key, consistency

log = logging.getLogger(__name__)

_CONFLICT, _BAD_PROOF = 409, 422
_SIZE = re.compile("[0-9]{1,15}")
PATIENCE_SECONDS = 10.0
"""For a witness's answer, all of it: no checkpoint is made meanwhile."""


class Asked(Protocol):
    """An HTTP witness, as bytes (upstream/witness.py)."""

    url: str

    async def add_checkpoint(self, body: bytes) -> tuple[int, str]: ...


class Disputed(Exception):
    """A witness has seen another history, or more of it, than there is."""


class FileWitness:
    """One head after the other, in a file that is only ever appended to; behind half of one, where a disk was full, on
    a line of its own. Raises StoreProblem."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tell(self, head: Checkpoint) -> None:
        with problems(self._path):
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                note = b"" if self._whole() else b"\n"
                note += head.note.encode()
                while note:
                    note = note[os.write(file, note) :]
                os.fsync(file)
            finally:
                os.close(file)

    def _whole(self) -> bool:
        """Whether the file ends with a line; so it does as far as is known where it cannot be read."""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            return not file.seek(0, os.SEEK_END) or (file.seek(-1, os.SEEK_END) >= 0 and file.read() == b"\n")
        return True


class CosigningWitness:
    """`key` is what it signs with; what it signed last is known after the first answer."""

    def __init__(self, asked: Asked, key: Key, store: SqliteStore) -> None:
        self._asked = asked
        self._key = key
        self._store = store
        self._seen = 0

    @property
    def url(self) -> str:
        return self._asked.url

    async def cosign(self, head: Checkpoint) -> Checkpoint:
        """The head with the witness's signature under it. Raises Disputed; GatewayError, BadNote when it does not
        answer as it should."""
        status, text = await self._add(head)
        if status == _CONFLICT and _SIZE.fullmatch(text.strip()) and int(text) != self._seen:
            self._seen = int(text)
            if self._seen > head.size:
                raise Disputed(f"{self._asked.url} has seen {self._seen} entries and there are {head.size}")
            status, text = await self._add(head)
        if status == _BAD_PROOF:
            raise Disputed(f"{self._asked.url} says that this log does not go on from the one it saw")
        if status != 200:
            raise BadNote(f"{self._asked.url} answered with status {status}: {text[:200]!r}")
        signed = Checkpoint.parse(f"{head.text.decode()}\n{text}")
        if not signed.signers([self._key]):
            raise BadNote(f"{self._asked.url} did not sign with the key that is given for it")
        self._seen = head.size
        lines = (line for line in signed.signatures if line[:2] == (self._key.name, self._key.id))
        return replace(head, signatures=(*head.signatures, *lines))

    async def _add(self, head: Checkpoint) -> tuple[int, str]:
        steps = await self._store.read(_steps, self._seen, head.size) if self._seen else []
        lines = "".join(base64.b64encode(step).decode() + "\n" for step in steps)
        return await self._asked.add_checkpoint(f"old {self._seen}\n{lines}\n{head.note}".encode())


def _steps(db: sqlite3.Connection, old: int, new: int) -> list[bytes]:
    return consistency(node_at(db), old, new)


class Witnesses:
    """All of them, at once. One that is away delays nothing, and is asked again with the next head that they see."""

    def __init__(self, files: list[FileWitness], cosigning: list[CosigningWitness]) -> None:
        self.files = files
        self.cosigning = cosigning

    async def cosigned(self, head: Checkpoint) -> Checkpoint:
        """With the signatures of those that answered. Raises Disputed."""
        answers = await asyncio.gather(*(_asked(witness, head) for witness in self.cosigning))
        for answer in answers:
            if isinstance(answer, Disputed):
                raise answer
        signed = [answer for answer in answers if isinstance(answer, Checkpoint)]
        more = [line for each in signed for line in each.signatures[len(head.signatures) :]]
        return replace(head, signatures=(*head.signatures, *more)) if more else head

    def tell(self, head: Checkpoint) -> None:
        for witness in self.files:
            try:
                witness.tell(head)
            except StoreProblem as error:
                log.warning("a witness of the audit log was not told: %s", error)


async def _asked(witness: CosigningWitness, head: Checkpoint) -> Checkpoint | Disputed | None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await witness.cosign(head)
    except Disputed as disputed:
        return disputed
    except TimeoutError:
        log.warning("a witness did not sign the audit log: %s has not answered in time", witness.url)
    except (GatewayError, BadNote, LookupError) as error:
        log.warning("a witness did not sign the audit log: %s", error)
    return None
