"""`gateway audit verify|prove|export`: on the files themselves, read-only, whether a gateway runs or not."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from gateway import verifier
from gateway.cli import auditformats
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import data_folder
from gateway.cli.text import dump, note, say
from gateway.verifier import BadNote, Checkpoint, Database, Proof, Report, Trust

_INTACT = {verifier.Exit.OK: "ok", verifier.Exit.TAMPERED: "TAMPERED", verifier.Exit.INCOMPLETE: "incomplete"}


def verify(options: argparse.Namespace) -> int:
    folder = _folder(options)
    path = options.file or folder / "gateway.db"
    try:
        report = _report(options, path, folder)
    except (BadNote, OSError, UnicodeDecodeError, sqlite3.Error) as error:
        report = Report(verifier.Exit.KEY, f"Nothing was verified: {error}.")
    if options.json:
        dump({**asdict(report), "exit": int(report.exit)})
    else:
        say(f"{_INTACT.get(report.exit, 'not verified')}: {report.sentence}")
        for remark in report.notes:
            note(remark)
    return int(report.exit)


def _report(options: argparse.Namespace, path: Path, folder: Path) -> Report:
    keys = options.keys or folder / "audit" / "keys"
    if options.keys is None and options.file is None and path.exists() and not keys.exists():
        if (keys.parent / "head").exists() or _is_signed(path):
            return Report(verifier.Exit.KEY, f"The log is signed, but {keys} is not there; name a copy with --keys.")
        sentence = "Nothing is signed yet; the first checkpoint comes ten seconds after the first entry."
        return Report(verifier.Exit.INCOMPLETE, sentence)
    trust = Trust.parse(keys.read_text())
    if _is_proof(path):
        return verifier.verify_proof(Proof.parse(path.read_text()), trust)
    since: list[Checkpoint] = []
    if options.since is not None:
        since += verifier.notes_in(options.since.read_text())
    head = folder / "audit" / "head"
    if options.file is None and head.exists():
        since += verifier.notes_in(head.read_text())  # before the log: it may grow meanwhile, not shrink
    return verifier.verify(verifier.open_log(path), trust, since)


def _is_signed(path: Path) -> bool:
    with closing(Database(path)) as log:
        return any(True for _ in log.notes())


def _is_proof(path: Path) -> bool:
    """By what stands in it: whoever sends it on may give it another name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(verifier.PROOF)) == verifier.PROOF.encode()


def prove(options: argparse.Namespace) -> Exit:
    with _database(options) as log:
        try:
            proof = log.proof(options.index)
        except LookupError as error:
            raise Stop(f"{str(error)[0].upper()}{str(error)[1:]}.") from None
    keys = options.keys or _folder(options) / "audit" / "keys"
    out = options.out or Path(f"entry-{options.index}.tlog-proof")
    with _written(str(out)):
        out.write_text(str(proof))
    say(str(out))
    note(f"Whoever has it and the keys ({keys}) can check it: gateway audit verify {out} --keys FILE")
    return Exit.DONE


def export(options: argparse.Namespace) -> Exit:
    if options.format == "jsonl" and options.after is not None:
        raise Stop("jsonl is the whole log, or it could not be verified; leave --after out.", Exit.USAGE)
    if options.segments is not None:
        return _segments(options)
    write = sys.stdout.buffer.write
    with _database(options) as log, _written("The export"):
        for each in auditformats.FORMATS[options.format](log, -1 if options.after is None else options.after):
            write(each + b"\n")
        sys.stdout.flush()
    return Exit.DONE


def _segments(options: argparse.Namespace) -> Exit:
    with _database(options) as log, _written(str(options.segments)):
        options.segments.mkdir(parents=True, exist_ok=True)
        count = 0
        for path in auditformats.segments(log, options.segments):
            say(str(path))
            count += 1
    if not count:
        note(f"No further segment of {auditformats.SEGMENT} entries is closed yet.")
    return Exit.DONE


@contextmanager
def _written(what: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads has seen enough, and nothing is wrong
    except OSError as error:
        raise Stop(f"{what} cannot be written: {error.strerror}.") from error


def _folder(options: argparse.Namespace) -> Path:
    folder = data_folder(options.data, os.environ)
    if folder is None:
        raise Stop("There is no data folder: HOME is not set. Say --data DIR.", Exit.USAGE)
    return folder


@contextmanager
def _database(options: argparse.Namespace) -> Iterator[Database]:
    path = options.file or _folder(options) / "gateway.db"
    try:
        log = Database(path)
        try:
            yield log
        finally:
            log.close()
    except BrokenPipeError:
        raise  # whoever reads has seen enough, and nothing is wrong with the file
    except (OSError, sqlite3.Error) as error:
        raise Stop(f"{path} cannot be read: {error}.") from error
    except (BadNote, verifier.Broken) as error:
        raise Stop(f"The log is damaged: {error}. `gateway audit verify` says where.") from error
