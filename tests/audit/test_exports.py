"""The forms in which others read the log are what their specifications say: no field unknown, none missing.

OCSF: class 6003 and its objects as in github.com/ocsf/ocsf-schema. CloudEvents 1.0.2 §3. OTLP 1.x, JSON encoding.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.cli.auditformats import FORMATS
from gateway.model.audit import AuditEntry, Verdict
from gateway.verifier import Database, leaf_hash
from tests.audit.logs import closed, entries, opened, written
from tests.serving import BOUND
from tests.stores.contract import entry

TRACE = "0af7651916cd43dd8448eb211c80319c"
WRITTEN: tuple[AuditEntry, ...] = (
    entry("1", phase="intent", outcome="begun", digest="ab" * 32, length=3, correlation="1", trace=TRACE),
    entry("1", outcome="COMPLETED", chain=("key:bob", "agent:desk"), correlation="1", task_id="t-1"),
    entry("2", outcome="FAILED", tenant=""),
    entry("3", outcome="PERMISSION_DENIED", verdict=Verdict.BLOCK, reason="no", principal="anonymous:anonymous"),
    entry("4", verb="AddKey", target="gateway", change={"before": [], "after": [{"id": "k"}]}),
    entry("5", verb="GetTask", target='with "quotes", ö and \u2028', marks={"mask": "redacted"}),
    entry("6", verb="RevokeKey", verdict=Verdict.FLAG, outcome="ok"),
    entry("7", principal="agent:desk", chain=("oauth:https://idp.example#ann",), client="cli"),
    entry("8", principal="oauth:https://idp.example#robot", client="robot"),
)


@pytest.fixture
async def db(tmp_path: Path) -> Path:
    store, notary = await opened(tmp_path)
    for each in WRITTEN:
        await store.commit(records=[each])
    await closed(store, notary)
    return tmp_path / "gateway.db"


def exported(db: Path, form: str) -> list[dict[str, Any]]:
    with closing(Database(db)) as log:
        return [json.loads(line) for line in FORMATS[form](log, -1)]


# OCSF: of each object the attributes that must be there, those that may, and those of which one must.

_BASE = "activity_name category_name class_name message raw_data severity status status_code status_detail status_id"
OBJECTS: dict[str, tuple[str, str, str]] = {
    "": (
        "activity_id actor api category_uid class_uid metadata severity_id src_endpoint time type_uid",
        f"{_BASE} unmapped dst_endpoint http_request http_response resources",
        "",
    ),
    "actor": ("", "authorizations user app_name app_uid process session idp", "user process session app_name app_uid"),
    "actor.user": ("", "name uid type type_id account", "account name uid"),
    "actor.authorizations": ("", "decision policy", ""),
    "actor.idp": ("", "name uid", "name uid"),
    "api": ("operation", "group request response service version", ""),
    "api.request": ("uid", "data flags containers", ""),
    "api.response": ("", "code data error error_message flags message", ""),
    "api.service": ("", "name uid version labels", "name uid"),
    "metadata": ("product version", "correlation_uid log_name sequence tenant_uid uid labels", ""),
    "metadata.product": ("", "name uid vendor_name version", "name uid"),
    "resources": ("", "name uid type data labels", "name uid"),
    "src_endpoint": ("", "name uid ip hostname type_id", "ip uid name hostname"),
}
ENUMS = {
    "activity_id": {0, 1, 2, 3, 4, 99},
    "severity_id": {0, 1, 2, 3, 4, 5, 6, 99},
    "status_id": {0, 1, 2, 99},
}


def wrong(tree: dict[str, Any], path: str = "") -> Iterator[str]:
    required, allowed, one = (set(words.split()) for words in OBJECTS[path])
    yield from (f"{path}.{name} is missing" for name in required - tree.keys())
    yield from (f"{path}.{name} is unknown" for name in tree.keys() - required - allowed)
    if one and not one & tree.keys():
        yield f"{path} has none of {one}"
    for name, value in tree.items():
        inner = f"{path}.{name}".lstrip(".")
        if value is None or value in ("", [], {}):
            yield f"{inner} is empty"
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and inner in OBJECTS:
                yield from wrong(each, inner)


async def test_ocsf_events_are_api_activity(db: Path) -> None:
    events = exported(db, "ocsf")
    assert len(events) == len(WRITTEN)
    for event in events:
        assert list(wrong(event)) == []
        assert (event["category_uid"], event["class_uid"]) == (6, 6003)
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert (event["activity_id"] == 99) == ("activity_name" in event)
        for name, numbers in ENUMS.items():
            assert event[name] in numbers
        assert isinstance(event["time"], int)
    told = [(event["activity_id"], event["status_id"], event["severity_id"]) for event in events]
    assert told == [(99, 0, 1), (99, 1, 1), (99, 2, 1), (99, 2, 3), (1, 1, 1), (2, 1, 1), (4, 1, 1), *[(99, 1, 1)] * 2]
    assert [event["metadata"].get("tenant_uid") for event in events[:3]] == ["t", "t", None]


async def test_ocsf_and_otlp_say_with_which_client_somebody_came_and_who_vouches_for_them(db: Path) -> None:
    *others, ann, robot = [event["actor"] for event in exported(db, "ocsf")]
    assert (ann["app_uid"], ann["idp"]) == ("cli", {"uid": "https://idp.example"})
    assert robot["app_uid"] == robot["user"]["uid"] != "robot", "it asks for itself, and its id would tell who it is"
    assert not [actor for actor in others if actor.keys() & {"app_uid", "idp"}]
    records = exported(db, "otlp")[0]["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    said = [{each["key"]: each["value"].get("stringValue") for each in record["attributes"]} for record in records]
    assert [(each.get("audit.client"), each.get("audit.iss")) for each in said[-3:]] == [
        (None, None),
        ("cli", "https://idp.example"),
        (robot["app_uid"], "https://idp.example"),
    ]


async def test_cloudevents_have_what_the_specification_asks_for(db: Path) -> None:
    events = exported(db, "cloudevents")
    for event in events:
        assert {"id", "source", "specversion", "type"} <= event.keys()
        assert event["specversion"] == "1.0"
        for name, value in event.items():
            assert re.fullmatch(r"[a-z0-9]{1,20}", name), name
            assert name == "data" or (isinstance(value, str) and value), name
        assert re.fullmatch(r"//[\w.-]+/[\w.-]+", event["source"]), "a URI-reference"
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
        assert event["datacontenttype"] == "application/json"
    assert len({(event["source"], event["id"]) for event in events}) == len(WRITTEN)


# OTLP: the fields of each message in JSON, and which type each has.

_KEY_VALUE: dict[str, type] = {"key": str, "value": dict}
OTLP: dict[str, dict[str, type]] = {
    "request": {"resourceLogs": list},
    "resourceLogs": {"resource": dict, "scopeLogs": list, "schemaUrl": str},
    "resource": {"attributes": list},
    "scopeLogs": {"scope": dict, "logRecords": list, "schemaUrl": str},
    "scope": {"name": str, "version": str, "attributes": list},
    "logRecords": {
        "timeUnixNano": str,
        "observedTimeUnixNano": str,
        "severityNumber": int,
        "severityText": str,
        "body": dict,
        "attributes": list,
        "traceId": str,
        "spanId": str,
        "eventName": str,
    },
    "attributes": _KEY_VALUE,
    "value": {"stringValue": str, "intValue": str},
    "body": {"stringValue": str, "intValue": str},
}


def unlike(name: str, tree: dict[str, Any]) -> Iterator[str]:
    fields = OTLP[name]
    for key, value in tree.items():
        if key not in fields or not isinstance(value, fields[key]):
            yield f"{name}.{key}"
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from unlike(key, each)


async def test_otlp_lines_are_requests_of_log_records(db: Path) -> None:
    requests = exported(db, "otlp")
    assert [list(unlike("request", request)) for request in requests] == [[]]
    records = requests[0]["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert len(records) == len(WRITTEN)
    for record in records:
        assert record["timeUnixNano"].isdecimal()
        assert 1 <= record["severityNumber"] <= 24
        keys = [each["key"] for each in record["attributes"]]
        assert len(keys) == len(set(keys))
        assert all(each["value"].keys() <= {"stringValue", "intValue"} for each in record["attributes"])
    assert [record.get("traceId") for record in records[:2]] == [TRACE, None], "hex, as OTLP's JSON has it"


async def test_every_form_carries_the_log_the_index_and_the_leaf_of_each_entry(db: Path) -> None:
    (log,) = {json.loads(line)["log_id"] for line in entries(db)}
    assert re.fullmatch(r"gw\.example/audit-[0-9a-f]{12}", log)
    expected = [(log, at, leaf_hash(line).hex()) for at, line in enumerate(entries(db))]
    ocsf = [tuple(each["unmapped"][name] for name in ("log_id", "index", "leaf")) for each in exported(db, "ocsf")]
    clouds = [(each["logid"], int(each["logindex"]), each["leafhash"]) for each in exported(db, "cloudevents")]
    head, *rest = exported(db, "jsonl")
    plain = [(head["log"], each["index"], each["leaf"]) for each in rest]
    records = exported(db, "otlp")[0]["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    said = [{each["key"]: each["value"] for each in record["attributes"]} for record in records]
    otlp = [
        (each["audit.log_id"]["stringValue"], int(each["audit.index"]["intValue"]), each["audit.leaf"]["stringValue"])
        for each in said
    ]
    assert plain == ocsf == clouds == otlp == expected


async def test_what_a_form_holds_of_an_entry_is_checked_against_its_leaf(db: Path) -> None:
    """Whoever has nothing but a copy in a SIEM and a proof finds out whether they are of the same entry."""
    for event in exported(db, "ocsf"):
        assert leaf_hash(event["raw_data"].encode()).hex() == event["unmapped"]["leaf"]
    for record in exported(db, "otlp")[0]["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
        (leaf,) = (each["value"]["stringValue"] for each in record["attributes"] if each["key"] == "audit.leaf")
        assert leaf_hash(record["body"]["stringValue"].encode()).hex() == leaf
    for event in exported(db, "cloudevents"):
        whole = json.dumps(event["data"], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        assert leaf_hash(whole.encode()).hex() == event["leafhash"]


@pytest.mark.parametrize("form", ["ocsf", "cloudevents", "otlp"])
async def test_what_comes_after_an_entry_is_exported_without_a_look_at_what_was_before(
    tmp_path: Path, form: str
) -> None:
    """A log has more of that with each day; here it cannot even be read."""
    log = await written(tmp_path, (300,))
    with closing(Database(log.db)) as db:
        whole = {after: b"".join(FORMATS[form](db, after)) for after in (150, 298, 299, 400)}
    with closing(sqlite3.connect(log.db)) as db:
        db.execute("UPDATE audit SET entries = 'damaged' WHERE last_idx < 140")
        db.commit()
    with closing(Database(log.db)) as db:
        assert {after: b"".join(FORMATS[form](db, after)) for after in whole} == whole


SOUND = "{} entries, all as they were written.\n"
READ_ONLY = """
import os, sys
from gateway import verifier
verifier.main(["verify", sys.argv[2] + "/gateway.db", "--keys", sys.argv[2] + "/audit/keys"])  # imports all it needs
if os.geteuid() == 0:  # who may write everywhere
    os.setgid(65534)
    os.setuid(65534)
sys.exit(verifier.main(["verify", sys.argv[1] + "/gateway.db", "--keys", sys.argv[1] + "/audit/keys"]))
"""


async def test_a_copy_is_verified_where_nothing_can_be_written(tmp_path: Path) -> None:
    await written(tmp_path, (10,))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await written(folder, (20,))

        def verified() -> tuple[int, str]:
            for path in (folder / "gateway.db", folder / "audit" / "keys"):
                path.chmod(0o444)
            for path in (folder, folder / "audit"):
                path.chmod(0o555)
            ended = subprocess.run(
                [sys.executable, "-c", READ_ONLY, name, str(tmp_path)], capture_output=True, text=True, timeout=BOUND
            )
            for path in (folder, folder / "audit"):
                path.chmod(0o755)
            return ended.returncode, ended.stdout + ended.stderr

        assert verified() == (0, SOUND.format(10) + SOUND.format(20))
        wal = folder / "gateway.db-wal"  # of a gateway that was killed, or of a copy made beside one
        wal.write_bytes(bytes(4096))
        wal.chmod(0o444)
        code, said = verified()
        assert code == 3
        assert "copy gateway.db and gateway.db-wal to a folder that you may write to" in said


async def test_what_cannot_be_written_is_named_and_not_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await written(tmp_path, (20,))
    (tmp_path / "file").touch()
    for words in (["prove", "3", "--out", "{}/file/x"], ["export", "--segments", "{}/file/x"]):
        said = [word.format(tmp_path) for word in words]
        assert main(["audit", *said, "--data", str(tmp_path)]) == 1
        assert capsys.readouterr().err == f"gateway: {tmp_path}/file/x cannot be written: Not a directory.\n"


@pytest.mark.parametrize("form", FORMATS)
async def test_a_reader_that_has_seen_enough_hears_of_no_damage(tmp_path: Path, form: str) -> None:
    store, notary = await opened(tmp_path)
    for _ in range(6):  # in every form, behind its first line is more than a pipe takes
        await store.commit(records=[entry(str(number)) for number in range(400)])
    await closed(store, notary)
    assert to_a_short_reader("audit", "export", "--format", form, "--data", str(tmp_path)) == (141, b"")


def to_a_short_reader(*words: str) -> tuple[int, bytes]:
    """The exit code and the complaints of a command whose reader leaves after a line."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "gateway", *words], **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        process.stdout.close()
        complaints: bytes = process.stderr.read()
    return process.returncode, complaints
