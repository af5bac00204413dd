"""Who is shown the heads of the audit log, so that even whoever has its keys cannot tell two people two stories.

A file witness is a file elsewhere (another machine's share, append-only) that gets each head. An HTTP witness
(c2sp.org/tlog-witness) checks that a head goes on from the one it saw before, and signs that.
"""

from __future__ import annotations

import base64
import logging
import os
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


class Asked(Protocol):
    """An HTTP witness, as bytes (upstream/witness.py)."""

    url: str

    async def add_checkpoint(self, body: bytes) -> tuple[int, str]: ...


class Disputed(Exception):
    """A witness has seen another history, or more of it, than there is."""


class FileWitness:
    """One head after the other, in a file that is only ever appended to. Raises StoreProblem."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tell(self, head: Checkpoint) -> None:
        with problems(self._path):
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.write(file, head.note.encode())
                os.fsync(file)
            finally:
                os.close(file)


class CosigningWitness:
    """`key` is what it signs with; what it signed last is known after the first answer."""

    def __init__(self, asked: Asked, key: Key, store: SqliteStore) -> None:
        self._asked = asked
        self._key = key
        self._store = store
        self._seen = 0

    async def cosign(self, head: Checkpoint) -> Checkpoint:
        """The head with the witness's signature under it. Raises Disputed; GatewayError, BadNote when it does not
        answer as it should."""
        status, text = await self._add(head)
        if status == _CONFLICT and text.strip().isdecimal() and int(text) != self._seen:
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
    """All of them. One that is away delays nothing and is asked again with the next head."""

    def __init__(self, files: list[FileWitness], cosigning: list[CosigningWitness]) -> None:
        self.files = files
        self.cosigning = cosigning

    async def cosigned(self, head: Checkpoint) -> Checkpoint:
        """With the signatures of those that answered. Raises Disputed."""
        for witness in self.cosigning:
            try:
                head = await witness.cosign(head)
            except (GatewayError, BadNote, LookupError) as error:
                log.warning("a witness did not sign the audit log: %s", error)
        return head

    def tell(self, head: Checkpoint) -> None:
        for witness in self.files:
            try:
                witness.tell(head)
            except StoreProblem as error:
                log.warning("a witness of the audit log was not told: %s", error)
