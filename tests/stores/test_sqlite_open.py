"""Opening a store: who may, what it finds, and the sentence when it cannot."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.model.approval import ApprovalQuery
from gateway.model.task import Task, TaskState, TaskStatus
from gateway.stores import schema
from gateway.stores.problems import (
    CorruptDatabase,
    DataLocked,
    DataNotWritable,
    NewerDatabase,
    StoreProblem,
)
from gateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.contract import NODE, NOW, advance, came, entry, status, written

ROOT = Path(__file__).parents[2]

# Kept by hand: a migration that changes what stands here changes it knowingly.
SCHEMA = {
    "approval": "id state revision created doc until tenant owner target",
    "agent": "id card_url trusted added card etag fetched settings",
    "api_key": "tenant id name prefix hash created revoked",
    "audit": "last_idx first_idx entries",
    "card": "agent card_url source fetched body verdict findings changed changes",
    "conversation_label": "conversation labels at",
    "dead_letter": "id tenant task_id config_id seq host attempts problem queued died",
    "audit_checkpoint": "size at note",
    "audit_head": "id epoch log open_size open",
    "audit_subject": "pseudonym name salt",
    "audit_tile": "level n hashes",
    "event": "tenant task_id first_seq last_seq bodies at",
    "frozen": "kind name by at reason",
    "halted": "tenant root rule reason",
    "limit_usage": "name key until used",
    "oauth_client": "id hash scopes created revoked about",
    "oauth_grant": "id mark client subject person scopes audience began until",
    "oauth_user": "name hash roles created removed",
    "oauth_revoked": "jti until",
    "outbox": "tenant task_id config_id seq due attempts host queued problem",
    "push_config": "tenant task_id id doc host",
    "reservation": "n hash tenant principal message_id agent digest task_id at settled reply",
    "reservation_by_hash": "hash n",
    "reservation_merged": "id n",
    "share": "tenant task_id principal owner granted_by created until",
    "task": "tenant id owner agent context_id state created updated deadline message_id seq fence node"
    " upstream doc_seq doc root trail caller",
    "tool_pin": "server kind key hash tree approved",
    "upstream_context": "tenant owner agent context_id upstream_context_id url",
}
KEYS = {
    "approval": "id",
    "agent": "id",
    "api_key": "tenant id",
    "audit": "last_idx",
    "card": "agent card_url",
    "conversation_label": "conversation",
    "dead_letter": "id",
    "audit_checkpoint": "size",
    "audit_head": "id",
    "audit_subject": "pseudonym",
    "audit_tile": "level n",
    "event": "tenant task_id last_seq",
    "frozen": "kind name",
    "halted": "tenant root",
    "limit_usage": "name key",
    "oauth_client": "id",
    "oauth_grant": "id",
    "oauth_user": "name",
    "oauth_revoked": "jti",
    "outbox": "tenant task_id config_id seq",
    "push_config": "tenant task_id id",
    "reservation": "n",
    "reservation_by_hash": "hash n",
    "reservation_merged": "id",
    "share": "tenant task_id principal",
    "task": "tenant id",
    "tool_pin": "server kind key",
    "upstream_context": "tenant owner agent context_id",
}
INDEXES = {
    "approval_by_owner",
    "approval_by_target",
    "approval_ended",
    "approval_open",
    "conversation_label_at",
    "dead_letter_by_config",
    "limit_usage_until",
    "oauth_revoked_until",
    "oauth_grant_subject",
    "oauth_grant_client",
    "oauth_grant_until",
    "outbox_due",
    "reservation_open",
    "task_active",
    "task_waiting",
    "task_in_tree",
    "task_by_agent",
    "task_by_context",
    "task_by_owner",
    "task_by_state",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.db"


async def open_store(path: Path) -> SqliteStore:
    return await open_sqlite(path, now=lambda: NOW, node=NODE)


def holder(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.stores.child", "hold", str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


async def made(path: Path) -> None:
    await (await open_store(path)).aclose()


async def test_the_migrations_give_the_schema_that_the_code_expects(path: Path) -> None:
    await made(path)
    with closing(sqlite3.connect(path)) as db:
        objects = db.execute("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall()
        columns = {
            table: db.execute("SELECT name, pk FROM pragma_table_info(?)", (table,)).fetchall()
            for kind, table in objects
            if kind == "table"
        }
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert {table: " ".join(name for name, _ in rows) for table, rows in columns.items()} == SCHEMA
    keys = {table: sorted((pk, name) for name, pk in rows if pk) for table, rows in columns.items()}
    assert {table: " ".join(name for _, name in rows) for table, rows in keys.items()} == KEYS
    assert {name for kind, name in objects if kind == "index"} == INDEXES
    assert {name for kind, name in objects if kind == "trigger"} == {"share_of_no_task", "task_has_ended"}


async def test_what_waited_for_webhooks_before_the_relay_is_delivered_after_it(path: Path) -> None:
    older = [step.read_text("utf-8") for step in schema.MIGRATIONS if int(step.name[:4]) < 10]
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("\n".join(older))
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(older)}")
        config = b'{"url": "https://hooks.example/1", "id": "c", "taskId": "t-1"}'
        db.execute("INSERT INTO push_config (tenant, task_id, id, doc) VALUES ('t', 't-1', 'c', ?)", (config,))
        db.execute("INSERT INTO event VALUES ('t', 't-1', 1, 1, ?)", (b'[{"task":{}}]',))
        db.execute("INSERT INTO outbox VALUES ('t', 't-1', 'c', 1, 5, 2)")
    store = await open_store(path)
    (delivery,) = await store.due(NOW, 10, 1000)
    assert (delivery.config.url, delivery.attempts, delivery.body) == ("https://hooks.example/1", 3, b'{"task":{}}')
    assert delivery.queued > NOW  # it has a day from the day of the update
    await store.aclose()


async def test_approvals_of_before_the_lists_are_found_by_whoever_began_them(path: Path) -> None:
    older = [step.read_text("utf-8") for step in schema.MIGRATIONS if int(step.name[:4]) < 46]
    path.parent.mkdir(mode=0o700)
    ann: dict[str, Any] = {"kind": "key", "name": "ann", "tenant": "t", "behalf": None, "roles": [], "scopes": []}
    agent = {"kind": "agent", "name": "desk", "tenant": "t", "behalf": ann, "roles": [], "scopes": []}
    asked = {"principal": agent, "verb": "tools/call", "target": "bank/pay", "arguments": {}, "policy": "h", "task": ""}
    words = {"digest": "", "rule": "", "reason": "", "agent": "", "held": False, "request": "", "why": ""}
    doc = {**words, "id": "a1", "created": NOW, "until": NOW + 9, "revision": 1, "edited": None, "state": "rejected"}
    more = {
        "asked": asked,
        "terms": [False, 1, 9],
        "words": [["key:lea", "reject", 5, ""]],
        "approvers": [],
        "tasks": [],
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("\n".join(older))
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 45")
        row = ("a1", "rejected", 1, NOW, orjson.dumps({**doc, **more, "approvers": [], "tasks": []}))
        db.execute("INSERT INTO approval (id, state, revision, created, doc) VALUES (?, ?, ?, ?, ?)", row)
    store = await open_store(path)
    page = await store.approvals.page(ApprovalQuery(5, tenant="t", targets=frozenset(), owner="key:ann"))
    assert [(each.id, each.owner, each.words[0].by) for each in page.approvals] == [("a1", "key:ann", "key:lea")]
    assert await store.approvals.targets() == ["bank/pay"]
    assert await store.approvals.forget(NOW + 10, 5) == 1


async def test_what_waited_before_tasks_had_a_tree_waits_and_ends_after_it(path: Path) -> None:
    older = [step for step in schema.MIGRATIONS if int(step.name[:4]) < 45]
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("\n".join(step.read_text("utf-8") for step in older))
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {int(older[-1].name[:4])}")
        task = Task(id="t-1", context_id="c", status=TaskStatus(state=TaskState.INPUT_REQUIRED))
        values = ("t", "t-1", "key:ann", "echo", "c", 6, NOW, NOW, NOW, "m", 1, 1, "old", None, 1, task.wire())
        db.execute(f"INSERT INTO task VALUES ({', '.join('?' * len(values))})", values)
    store = await open_store(path)
    (row,) = await store.waiting(10, agent="echo")
    assert (row.task, row.trail, row.asker.id) == (task, None, "key:ann")
    await store.commit(advance(row, status(TaskState.WORKING, task_id="t-1"), trail=came("fan")))
    assert [each.trail for each in await store.in_tree("t", "outermost", 10)] == [came("fan")]
    await store.aclose()


def test_no_two_migrations_have_one_number() -> None:
    numbers = [int(step.name[:4]) for step in schema.MIGRATIONS]
    assert numbers == sorted(set(numbers))


async def test_only_the_owner_may_read_what_is_created(path: Path) -> None:
    store = await open_store(path)
    await store.commit(records=[entry()])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    names = ("gateway.db", "gateway.db-shm", "gateway.db-wal", "gateway.lock")
    assert modes == dict.fromkeys(names, 0o600)
    await store.aclose()


async def test_writes_are_synced_in_full_to_a_write_ahead_log(path: Path) -> None:
    await made(path)
    with closing(schema.open_writer(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_a_second_process_is_told_who_has_the_data(path: Path) -> None:
    with holder(path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(DataLocked) as locked:
            await open_store(path)
        child.kill()
    assert locked.value.pid == child.pid
    assert str(child.pid) in locked.value.sentence
    # However it ended, the lock ended with it.
    await made(path)


async def test_a_second_store_in_one_process_is_refused_too(path: Path) -> None:
    store = await open_store(path)
    with pytest.raises(DataLocked) as locked:
        await open_store(path)
    assert locked.value.pid == os.getpid()
    await store.aclose()
    await made(path)


async def test_a_database_of_a_newer_gateway_is_left_alone(path: Path) -> None:
    await made(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = read(path)
    with pytest.raises(NewerDatabase) as newer:
        await open_store(path)
    assert (newer.value.found, newer.value.known) == (schema.VERSION + 1, schema.VERSION)
    assert read(path) == before


@pytest.mark.parametrize("content", [b"This is no database. " * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
async def test_a_broken_file_is_a_problem_and_stays_as_it_is(path: Path, content: bytes) -> None:
    write(path, content)
    with pytest.raises(CorruptDatabase):
        await open_store(path)
    assert read(path) == content


async def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(CorruptDatabase, match="another program"):
        await open_store(path)


async def test_a_folder_that_cannot_be_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataNotWritable, match="file"):
        await open_store(tmp_path / "file" / "data" / "gateway.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_without_the_right_to_write_is_a_problem(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o500)
    with pytest.raises(DataNotWritable):
        await open_store(tmp_path / "gateway.db")


async def test_every_problem_says_what_to_do_and_holds_nothing(path: Path) -> None:
    await made(path)
    whole = read(path)
    write(path, b"broken" * 1000)
    with pytest.raises(StoreProblem) as problem:
        await open_store(path)
    assert problem.value.sentence.endswith(".")
    assert problem.value.hint.endswith(".")
    write(path, whole)
    store = await open_store(path)
    assert await written(store) == []
    await store.aclose()


@pytest.mark.parametrize("name", ["a b", "a?mode=memory", "100%", "ü#"])
async def test_a_path_may_hold_any_character(tmp_path: Path, name: str) -> None:
    await made(tmp_path / name / f"{name}.db")
    assert (tmp_path / name / f"{name}.db").stat().st_size > 0
