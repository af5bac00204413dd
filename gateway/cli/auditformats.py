"""The audit log as others read it. Each form carries the log's name, the entry's index and its leaf hash, so that a
copy elsewhere can be checked against the log.

- `jsonl`: the checkpoints, then every entry up to the last of them as it was written; `gateway audit verify` takes it.
- `ocsf`: API Activity (class 6003) of the Open Cybersecurity Schema Framework 1.6.
- `cloudevents`: CloudEvents 1.0 in JSON.
- `otlp`: OpenTelemetry log records in OTLP/JSON, one request of up to 256 records a line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

from gateway.verifier import MANIFEST, Checkpoint, Database, leaf_hash

Tree: TypeAlias = dict[str, Any]
Export: TypeAlias = Callable[[Database, int], Iterator[bytes]]

_PER_REQUEST = 256
SEGMENT = 1 << 16  # entries of a segment; the gateway makes a checkpoint at the end of each


def _entries(log: Database, after: int) -> Iterator[tuple[int, bytes]]:
    """What is under a checkpoint, behind entry `after`."""
    size = _size(log)
    for first, entries, _ in log.runs(after + 1):
        for index, entry in enumerate(entries, first):
            if after < index < size:
                yield index, entry


def _heads(log: Database) -> list[Checkpoint]:
    return [Checkpoint.parse(note) for note in log.notes()]


def _size(log: Database) -> int:
    heads = _heads(log)
    return heads[-1].size if heads else 0


def _origin(log: Database) -> str:
    heads = _heads(log)
    return heads[-1].origin if heads else ""


def _dump(tree: Tree) -> bytes:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def jsonl(log: Database, after: int) -> Iterator[bytes]:
    yield _dump({"log": _origin(log), "size": _size(log), "checkpoints": log.notes()})
    yield from _lines(_entries(log, after))


def _lines(entries: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    for index, entry in entries:
        yield b'{"index":%d,"leaf":"%s","record":%s}' % (index, leaf_hash(entry).hex().encode(), entry)


def segments(log: Database, folder: Path) -> Iterator[Path]:
    """Writes the closed segments that are not in the folder yet; gives the files. Raises OSError."""
    marks = [head for head in _heads(log) if head.size % SEGMENT == 0]
    before = ""
    for number, head in enumerate(marks):
        body = folder / f"{number:08d}.jsonl"
        manifest = folder / f"{number:08d}{MANIFEST}"
        if not manifest.exists():
            first = number * SEGMENT
            lines = _lines(_between(log, first, head.size))
            hash = _written(body, lines)
            tree = {
                "log": head.origin,
                "first": first,
                "end": head.size,
                "file": body.name,
                "sha256": hash,
                "previous": before,
                "checkpoint": head.note,
            }
            _written(manifest, [json.dumps(tree, ensure_ascii=False, indent=1).encode()])
            yield from (body, manifest)
        before = hashlib.sha256(manifest.read_bytes()).hexdigest()


def _between(log: Database, first: int, end: int) -> Iterator[tuple[int, bytes]]:
    return takewhile(lambda each: each[0] < end, _entries(log, first - 1))


def _written(path: Path, lines: Iterable[bytes]) -> str:
    """Whole or not at all; the SHA-256 of what was written."""
    hash = hashlib.sha256()
    fresh = path.with_name(f".{path.name}")
    with fresh.open("wb") as file:
        for each in lines:
            file.write(each + b"\n")
            hash.update(each + b"\n")
    fresh.replace(path)
    return hash.hexdigest()


def _read(entry: bytes) -> Tree:
    """An entry of any format in the newest one."""
    tree: Tree = json.loads(entry)
    if "v" in tree:
        return tree
    behalf = tree.get("on_behalf_of")
    return {
        "action": tree["verb"],
        "actor": {"sub": tree["principal"], **({"chain": [behalf]} if behalf else {})},
        "at": tree["at"],
        "decision": {"effect": tree["verdict"], "rule": tree["rule"]},
        "object": tree["target"],
        "outcome": tree["outcome"],
        "phase": tree["phase"],
        "request": {"id": tree["request_id"], "digest": tree["digest"]},
        "tenant": tree["tenant"],
        **({"task": tree["task_id"]} if tree["task_id"] else {}),
        "v": 0,
    }


# OCSF.

# Task states that are no failure; other outcomes in capitals are reasons of errors.
_WELL = frozenset({"AUTH_REQUIRED", "CANCELED", "COMPLETED", "INPUT_REQUIRED", "SUBMITTED", "WORKING"})
_ACTIVITIES = {"Add": 1, "Create": 1, "Get": 2, "List": 2, "Read": 2, "Set": 3, "Approve": 3, "Remove": 4, "Revoke": 4}


def ocsf(log: Database, after: int) -> Iterator[bytes]:
    origin = _origin(log)
    for index, entry in _entries(log, after):
        yield _dump(_api_activity(origin, index, entry))


def _api_activity(origin: str, index: int, entry: bytes) -> Tree:
    tree = _read(entry)
    effect, outcome = tree["decision"]["effect"], tree["outcome"]
    denied = effect not in ("PASS", "FLAG")
    verb = next((verb for verb in _ACTIVITIES if tree["action"].startswith(verb)), "")
    activity = _ACTIVITIES.get(verb, 99)
    said = tree["actor"]
    actor: Tree = {"user": {"uid": said["sub"], "type_id": 0}}
    if chain := said.get("chain"):
        actor["authorizations"] = [{"decision": f"on behalf of {each}"} for each in chain]
    if client := said.get("client"):
        actor["app_uid"] = client
    if issuer := said.get("iss"):
        actor["idp"] = {"uid": issuer}
    return {
        "activity_id": activity,
        **({"activity_name": tree["action"]} if activity == 99 else {}),
        "actor": actor,
        "api": {
            "operation": tree["action"],
            "request": {"uid": tree["request"]["id"]},
            "response": {"message": outcome},
            "service": {"name": "gateway"},
        },
        "category_uid": 6,
        "class_uid": 6003,
        "metadata": {
            **({"correlation_uid": tree["correlation"]} if "correlation" in tree else {}),
            "log_name": origin,
            "product": {"name": "gateway", "vendor_name": "gateway"},
            "sequence": index,
            **({"tenant_uid": tree["tenant"]} if tree["tenant"] else {}),
            "uid": f"{origin}#{index}",
            "version": "1.6.0",
        },
        "raw_data": entry.decode(),
        "resources": [{"name": tree["object"], "type": "agent or tool"}],
        "severity_id": 3 if denied else 1,
        "src_endpoint": {"uid": said["sub"]},
        "status_detail": f"{effect} by {tree['decision']['rule']}",
        "status_id": _status(tree["phase"], outcome, denied),
        "time": tree["at"],
        "type_uid": 600300 + activity,
        "unmapped": {"index": index, "leaf": leaf_hash(entry).hex(), "log_id": origin},
    }


def _status(phase: str, outcome: str, denied: bool) -> int:
    if phase == "intent" or outcome == "unknown":
        return 0
    reason = outcome.isupper() and outcome not in _WELL
    return 2 if denied or reason or "error" in outcome or outcome == "given up" else 1


# CloudEvents.


def cloudevents(log: Database, after: int) -> Iterator[bytes]:
    origin = _origin(log)
    for index, entry in _entries(log, after):
        tree = _read(entry)
        yield _dump(
            {
                "specversion": "1.0",
                "id": str(index),
                "source": f"//{origin}",
                "type": f"gateway.audit.{tree['phase']}",
                "subject": tree["object"],
                "time": _moment(tree["at"]),
                "datacontenttype": "application/json",
                "logid": origin,
                "logindex": str(index),
                "leafhash": leaf_hash(entry).hex(),
                "data": json.loads(entry),
            }
        )


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# OTLP.


def otlp(log: Database, after: int) -> Iterator[bytes]:
    origin = _origin(log)
    records: list[Tree] = []
    for index, entry in _entries(log, after):
        records.append(_record(origin, index, entry))
        if len(records) == _PER_REQUEST:
            yield _request(records)
            records = []
    if records:
        yield _request(records)


def _request(records: list[Tree]) -> bytes:
    resource = {"attributes": [_attribute("service.name", "gateway")]}
    scope = {"scope": {"name": "gateway.audit"}, "logRecords": records}
    return _dump({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]})


def _record(origin: str, index: int, entry: bytes) -> Tree:
    tree = _read(entry)
    blocked = tree["decision"]["effect"] not in ("PASS", "FLAG")
    attributes = {
        "audit.action": tree["action"],
        "audit.actor": tree["actor"]["sub"],
        "audit.effect": tree["decision"]["effect"],
        "audit.index": index,
        "audit.leaf": leaf_hash(entry).hex(),
        "audit.log_id": origin,
        "audit.object": tree["object"],
        "audit.outcome": tree["outcome"],
        "audit.rule": tree["decision"]["rule"],
        **{f"audit.{name}": tree["actor"][name] for name in ("client", "iss") if name in tree["actor"]},
    }
    record: Tree = {
        "timeUnixNano": str(tree["at"] * 1_000_000),
        "severityNumber": 13 if blocked else 9,
        "severityText": "WARN" if blocked else "INFO",
        "eventName": f"gateway.audit.{tree['phase']}",
        "body": {"stringValue": entry.decode()},
        "attributes": [_attribute(name, value) for name, value in attributes.items()],
    }
    if trace := tree.get("trace"):
        record["traceId"] = trace
    return record


def _attribute(key: str, value: str | int) -> Tree:
    return {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}


FORMATS: dict[str, Export] = {"jsonl": jsonl, "ocsf": ocsf, "cloudevents": cloudevents, "otlp": otlp}
