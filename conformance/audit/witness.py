"""A small witness (c2sp.org/tlog-witness) to try the gateway with, or to run on another machine:

    python -m conformance.audit.witness --log KEYS --folder DIR --port 8099

It signs a checkpoint if that goes on from the last one it signed, and keeps the newest in DIR. Its verifier key, for
`audit.witnesses` of the gateway and for the policy file of whoever verifies, is printed at the start.
"""

from __future__ import annotations

import argparse
import base64
import os
import struct
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from gateway.verifier import COSIGNED_MLDSA44, BadNote, Checkpoint, Key, Trust, consistent, cosigned

NAME = "witness.example/small"


class Witness:
    """`folder` holds the seed of its key and the newest checkpoint."""

    def __init__(self, folder: Path, log: Trust, name: str = NAME) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._last = folder / "checkpoint"
        self._lock = threading.Lock()
        seed = folder / "seed"
        if not seed.exists():
            seed.touch(0o600)
            seed.write_bytes(os.urandom(32))
        self._private = MLDSA44PrivateKey.from_seed_bytes(seed.read_bytes())
        self.key = Key(name, COSIGNED_MLDSA44, self._private.public_key().public_bytes_raw())

    def add(self, body: str) -> tuple[int, str]:
        """Status and text of the answer to one add-checkpoint."""
        try:
            asked, _, note = body.partition("\n\n")
            first, *steps = asked.split("\n")
            old = int(first.removeprefix("old "))
            path = [base64.b64decode(step, validate=True) for step in steps]
            head = Checkpoint.parse(note)
        except ValueError:
            return 400, "not an add-checkpoint\n"
        if head.origin not in {key.name for key in self._log.log}:
            return 404, "unknown log\n"
        try:
            if not self._log.signed(head):
                return 403, "not signed by the log\n"
        except BadNote as error:
            return 403, f"{error}\n"
        with self._lock:
            return self._judged(old, path, head)

    def _judged(self, old: int, path: Sequence[bytes], head: Checkpoint) -> tuple[int, str]:
        last = Checkpoint.parse(self._last.read_text()) if self._last.exists() else None
        seen = 0 if last is None else last.size
        if old > head.size:
            return 400, "old is larger than the checkpoint\n"
        if old != seen:
            return 409, f"{seen}\n"
        if last is not None and not consistent(last.size, last.root, head.size, head.root, path):
            return 422, "this does not go on from what was seen\n"
        fresh = self._last.with_suffix(".new")
        fresh.write_text(head.note)
        fresh.replace(self._last)
        return 200, self._line(head)

    def _line(self, head: Checkpoint) -> str:
        now = int(time.time())
        made = struct.pack(">Q", now) + self._private.sign(cosigned(self.key.name, now, head))
        return f"— {self.key.name} {base64.b64encode(self.key.id + made).decode()}\n"


def server(witness: Witness, port: int = 0) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 1 << 20)).decode()
            status, text = witness.add(body) if self.path == "/add-checkpoint" else (404, "")
            self.send_response(status)
            self.send_header("Content-Type", "text/x.tlog.size" if status == 409 else "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: whoever looks on has the answers."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True, help="verifier keys of the log")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--name", default=NAME)
    options = parser.parse_args()
    witness = Witness(options.folder, Trust.parse(options.log.read_text()), options.name)
    print(witness.key, flush=True)
    server(witness, options.port).serve_forever()


if __name__ == "__main__":
    main()
