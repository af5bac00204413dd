"""The settings under `audit`, made into witnesses. Brings cryptography."""

from __future__ import annotations

from functools import partial

from gateway.config.sections import Audit
from gateway.model.problems import Problem, StartError
from gateway.stores.sqlite import SqliteStore
from gateway.stores.witnesses import CosigningWitness, FileWitness, Witnesses
from gateway.upstream.egress import Egress
from gateway.upstream.httpx2_transport import control_client
from gateway.upstream.witness import ANSWER_LIMIT, HttpWitness
from gateway.verifier import BadNote, Key


def witnesses(audit: Audit, store: SqliteStore, egress: Egress) -> Witnesses:
    """Raises StartError."""
    files = [] if audit.witness_file is None else [FileWitness(audit.witness_file)]
    client = partial(control_client, egress, trusted=True, limit=ANSWER_LIMIT)
    return Witnesses(files, [_cosigning(store, HttpWitness(each.url, client), each.key) for each in audit.witnesses])


def _cosigning(store: SqliteStore, asked: HttpWitness, key: str) -> CosigningWitness:
    try:
        return CosigningWitness(asked, Key.parse(key), store)
    except BadNote as error:
        hint = "give the key that the witness publishes, NAME+ID+KEY"
        raise StartError(Problem("audit.witnesses", str(error), hint)) from error
