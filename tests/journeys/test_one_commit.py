"""What an operator changes and the record of it are one transaction: without the record, nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.model.audit import AuditEntry
from gateway.model.changes import (
    Change,
    DropAgent,
    DropFrozen,
    DropPushConfig,
    DropShare,
    PutAgent,
    PutClient,
    PutFrozen,
    PutKey,
    PutPin,
    PutPushConfig,
    PutShare,
    PutUser,
    ReplayDelivery,
)
from gateway.model.errors import GatewayError, Reason
from gateway.stores.memory import MemoryStore
from tests.mcp import scripted, tool
from tests.serving import ECHO, Gateway, message, running

NOW = 1_800_000_000_000  # it stands still: a second try of the same act differs in nothing from the first

Commit = tuple[tuple[Change, ...], Sequence[AuditEntry]]

# What is asked, which verb the record has, and a change that comes of it.
CHANGES: list[tuple[str, str, Any, str, type[Any]]] = [
    ("POST", "/admin/keys", {"name": "eve"}, "AddKey", PutKey),
    ("DELETE", "/admin/keys/{key}", None, "RevokeKey", PutKey),
    ("POST", "/admin/clients", {"id": "robot"}, "AddClient", PutClient),
    ("POST", "/admin/clients/robot:rotate", None, "RotateClient", PutClient),
    ("DELETE", "/admin/clients/robot", None, "RevokeClient", PutClient),
    ("POST", "/admin/users", {"name": "fay", "password": "a long pass phrase"}, "AddUser", PutUser),
    ("POST", "/admin/users/fay:password", {"password": "another pass phrase"}, "SetPassword", PutUser),
    ("DELETE", "/admin/users/fay", None, "RemoveUser", PutUser),
    ("POST", "/admin/agents", {"cardUrl": "{card}", "id": "far"}, "AddAgent", PutAgent),
    ("DELETE", "/admin/agents/far", None, "RemoveAgent", DropAgent),
    ("POST", "/admin/tools:approve", {"address": "docs"}, "ApproveTools", PutPin),
    ("POST", "/agents/echo/tasks/{task}/pushNotificationConfigs", {"url": "https://far.example/x", "id": "c"},
     "CreateTaskPushNotificationConfig", PutPushConfig),
    ("DELETE", "/agents/echo/tasks/{task}/pushNotificationConfigs/c", None,
     "DeleteTaskPushNotificationConfig", DropPushConfig),
    ("POST", "/admin/tasks/{task}:share", {"reader": "bob"}, "ShareTask", PutShare),
    ("POST", "/admin/tasks/{task}:unshare", {"reader": "bob"}, "UnshareTask", DropShare),
    ("POST", "/admin/frozen", {"kind": "agent", "name": "echo"}, "Freeze", PutFrozen),
    ("POST", "/admin/frozen:thaw", {"kind": "agent", "name": "echo"}, "Thaw", DropFrozen),
]  # fmt: skip


class Seen(MemoryStore):
    """Keeps what was committed together; while it is `broken`, nothing that comes with a record is written."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Commit] = []
        self.broken = False

    async def commit(self, *changes: Change, records: Sequence[AuditEntry] = ()) -> Any:
        self.commits.append((changes, records))
        if self.broken and records:
            raise GatewayError(Reason.UNAVAILABLE, "The audit log cannot be written now")
        return await super().commit(*changes, records=records)

    def of(self, kind: type[Any]) -> list[Commit]:
        return [(changes, records) for changes, records in self.commits if any(type(one) is kind for one in changes)]


@pytest.mark.security
async def test_a_change_and_its_record_are_one_commit_or_neither_is_there(tmp_path: Path) -> None:
    store = Seen()
    async with scripted(tool("read")) as docs:
        config = ECHO + (
            "auth: {authorization_server: {users: true}}\n"
            f"tools: {{docs: {{url: '{docs.url}', quarantine: new}}}}\n"
        )
        async with running(tmp_path, config, store=store, now=lambda: NOW) as gateway:
            await gateway.app.tools.servers.settled()
            words = {
                "card": f"{gateway.url}/agents/echo/.well-known/agent-card.json",
                "task": (await gateway.task("ask name"))["id"],
            }
            for verb, path, body, action, kind in CHANGES:
                if keys := await store.keys():
                    words["key"] = keys[0].id
                sent = None if body is None else {name: each.format(**words) for name, each in body.items()}
                store.broken, store.commits = True, []
                assert await status(gateway, verb, path.format(**words), sent) == 503, action
                assert all(records for changes, records in store.commits if changes), action
                store.broken, store.commits = False, []
                assert await status(gateway, verb, path.format(**words), sent) < 300, action
                ((_, (record,)),) = store.of(kind)
                assert (record.verb, record.phase, record.outcome) == (action, "outcome", "ok")
                assert record.change is not None or action == "SetPassword"


@pytest.mark.security
async def test_a_freeze_that_could_not_be_written_holds_and_the_next_try_is_recorded_as_the_change(
    tmp_path: Path,
) -> None:
    store = Seen()
    sent = {"kind": "agent", "name": "echo", "reason": "it shouts"}
    async with running(tmp_path, ECHO, store=store) as gateway:
        store.broken = True
        assert await status(gateway, "POST", "/admin/frozen", sent) == 503
        store.broken = False
        error = await gateway.error("SendMessage", {"message": message("hello")})
        assert error["message"] == "SendMessage is refused: the agent echo is frozen: it shouts"
        assert await store.governance.frozen() == []
        assert await status(gateway, "POST", "/admin/frozen", sent) < 300
        assert [each.name for each in await store.governance.frozen()] == ["echo"]
    entries = [entry for _, entry in await store.audit(0, 100) if entry.verb == "Freeze"]
    (change,) = (entry.change for entry in entries)
    assert change is not None
    assert (change["before"], [each["name"] for each in change["after"]]) == ([], ["echo"])


async def status(gateway: Gateway, verb: str, path: str, body: Any) -> int:
    headers = {**gateway.bearer(None), "A2A-Version": "1.0"}
    answer = await gateway.client.request(verb, path, json=body, headers=headers)
    return answer.status_code


async def test_dead_pushes_are_queued_again_with_the_record_of_it(tmp_path: Path) -> None:
    store = Seen()
    async with running(tmp_path, ECHO, store=store) as gateway:
        assert await status(gateway, "POST", "/admin/push/dead:replay", {}) < 300
    entries = [entry for _, entry in await store.audit(0, 100) if entry.verb == "ReplayPushes"]
    assert [(entry.phase, entry.outcome) for entry in entries] == [("outcome", "ok")]
    assert not store.of(ReplayDelivery)
