"""Advisories about words that become something else: a part of a query, a template.

The header of LiteLLM's is in `test_advisories.py`.
"""

from __future__ import annotations

import ast
import json
import re
import sqlite3
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.model.rows import TaskQuery
from gateway.stores import rows
from gateway.stores.named_sql import SQL
from tests.journeys.people import app, town
from tests.security.test_advisories import QUERIES
from tests.security.twins import broken_by, by_itself
from tests.serving import ECHO, Gateway, message, running
from tests.test_house import sources

pytestmark = pytest.mark.security

PAYLOADS = (
    "' OR 1=1 --",
    "x' OR '1'='1",
    "' OR owner LIKE '%",
    "'; DROP TABLE task; --",
    "x' UNION SELECT id FROM task --",
)


# Queries. Each place where a caller's word is looked up.


async def _found(gateway: Gateway, payload: str, bob: str, id: str) -> set[str]:
    """The places where bob got ann's task, or somebody something that was not asked for, or the query broke."""
    http, operator = gateway.client, gateway.bearer(None)
    asks: dict[str, Any] = {
        "a task": await gateway.rpc("GetTask", {"id": payload}, who=bob),
        "a context": await gateway.rpc("ListTasks", {"contextId": payload}, who=bob),
        "a cursor": await gateway.rpc("ListTasks", {"pageToken": payload}, who=bob),
        "a webhook": await gateway.rpc("GetTaskPushNotificationConfig", {"taskId": payload, "id": payload}, who=bob),
        "a message": await gateway.rpc("SendMessage", {"message": message("x", taskId=payload)}, who=bob),
        "a key": (await http.delete(f"/admin/keys/{quote(payload)}", headers=operator)).json(),
        "an agent": (await http.get("/agents:find", params={"query": payload}, headers=gateway.bearer(bob))).json(),
        "an actor": (await http.get("/admin/audit", params={"actor": payload}, headers=operator)).json()["entries"],
    }
    return {
        place
        for place, tree in asks.items()
        if id in json.dumps(tree) or '"INTERNAL"' in json.dumps(tree) or (place == "an actor" and tree)
    }


def asks_with_text(patch: pytest.MonkeyPatch) -> None:
    """Both queries for tasks, with what was asked for as a part of their text."""
    sound = rows.list_statements

    def one(db: sqlite3.Connection, tenant: str, task_id: str, owner: Any = None, agent: Any = None) -> Any:
        sql = SQL["task"].replace("id = ?", f"id = '{task_id}'", 1).replace("tenant = ?", "tenant = ''", 1)
        sql = sql.replace("owner = ifnull(?, owner)", f"owner = '{owner}'").replace("agent = ifnull(?, agent)", "1")
        try:
            found = db.execute(sql).fetchone()
        except (sqlite3.Error, sqlite3.Warning):
            return None
        return None if found is None else rows._task_row(db, found)[0]

    def many(query: TaskQuery) -> tuple[str, str, dict[str, Any]]:
        page, count, values = sound(query)
        said = f"'{query.context_id}'"
        return page.replace(":context_id", said), count.replace(":context_id", said), values

    patch.setattr(rows, "task", one)
    patch.setattr(rows, "list_statements", many)


@by_itself
async def test_no_word_of_a_caller_is_a_query_but_of_the_broken_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    got: set[str] = set()
    async with running(tmp_path, ECHO) as gateway:
        ann, bob = await gateway.key("ann"), await gateway.key("bob")
        id = (await gateway.task("ask name", who=ann, contextId="mine"))["id"]
        if broken:
            asks_with_text(monkeypatch)
        for payload in PAYLOADS:
            got |= await _found(gateway, payload, bob, id)
        monkeypatch.undo()
        assert (await gateway.result("GetTask", {"id": id}, who=ann))["id"] == id
    assert got == ({"a task", "a context", "a message"} if broken else set())


def test_there_are_as_many_payloads_for_the_header_as_were_promised() -> None:
    assert len(set(QUERIES)) >= 500


# Queries, in the source: they are ours from the first word to the last, and whatever comes from elsewhere is bound.

EXECUTES = frozenset({"execute", "executemany", "executescript"})
# What is asked with a text that is put together, and of what. Everything else is a constant or a statement by its name.
COMPOSED: dict[tuple[str, str], str] = {
    ("gateway.stores.rows", "page"): "conditions and indexes out of the table above it",
    ("gateway.stores.rows", "count"): "the same",
    ("gateway.stores.outbox", "SQL['due'].format(but=but)"): "as many question marks as there are hosts and owners",
    ("gateway.stores.schema", "f'BEGIN IMMEDIATE;\\n{steps}\\n{marks}\\nCOMMIT;'"): "our own files of the schema",
    ("gateway.stores.schema", "f'PRAGMA {name}'"): "names that stand in the file",
    ("gateway.stores.writer", "statement"): "COMMIT, or the word for a checkpoint",
    ("gateway.stores.writer", "f'PRAGMA busy_timeout = {PATIENCE_MS}'"): "a number of ours",
    ("gateway.stores.writer", "self._queue"): "no text: requests",
    ("gateway.stores.reservations", "statement"): "a statement by its name",
    ("gateway.verifier", "sql"): "a constant in the line before",
}


def composed(tree: ast.Module) -> Iterator[str]:
    """The texts of queries that are neither constants nor statements by their names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in EXECUTES:
            text = node.args[0]
            named = isinstance(text, ast.Subscript) and ast.unparse(text.value) == "SQL"
            constant = isinstance(text, ast.Constant) or (isinstance(text, ast.Name) and text.id.isupper())
            if not (named or constant):
                yield ast.unparse(text)


def test_queries_are_constants_but_for_the_listed_ones() -> None:
    found = {(module, text) for module, tree in sources().items() for text in composed(tree)}
    assert found == COMPOSED.keys()


FLAWS = (
    "db.execute(f\"SELECT name FROM api_key WHERE secret = '{said}'\")",
    'db.execute("SELECT name FROM api_key WHERE secret = \'" + said + "\'")',
    "db.execute(\"SELECT name FROM api_key WHERE secret = '%s'\" % said)",
    "db.execute(\"SELECT name FROM api_key WHERE secret = '{}'\".format(said))",
    'db.execute(SQL["key"].replace("?", said))',
    "cursor.executescript(said)",
    "cursor.executemany(said, rows)",
)


@pytest.mark.parametrize("flaw", FLAWS)
def test_the_broken_twin_of_a_query_does_not_pass(flaw: str) -> None:
    (text,) = composed(ast.parse(flaw))
    assert ("gateway.stores.rows", text) not in COMPOSED


# Templates.

TEMPLATES = (
    "{{7*7}}", "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}", "{{ ''.__class__ }}", "${7*7}", "#{7*7}", "<%= 7*7 %>",
    "{0.__class__}", "{self.__init__.__globals__}", "%(password)s", "$password",
)  # fmt: skip


def renders(text: str) -> str:
    """What a template engine makes of a text, with the escapes of hex that a look for `__` does not see."""

    def value(found: re.Match[str]) -> str:
        inner = found[0].strip("{}$#<%=> ").replace("\\x5f", "_").replace("''['", "''.").replace("']", "")
        return str(eval(inner, {"self": renders, "password": "hunter2"})) if inner else ""

    text = re.sub(r"\{\{.*?\}\}|[$#]\{.*?\}|<%=.*?%>", value, text)
    text = re.sub(r"%\((\w+)\)s|\$(\w+)", "hunter2", text)
    return re.sub(r"\{(\w+)\.(\w+)[\w.]*\}", lambda found: f"<{found[2]}>", text)


def renders_what_is_said(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.server.oauth.pages.escape", lambda text: escape(renders(text)))
    patch.setattr("agents.echo.Echo.run", _rendering)


@broken_by(renders_what_is_said)
async def test_a_text_is_no_template_but_in_the_broken_twin(tmp_path: Path, broken: bool) -> None:
    """What a client calls itself, shown on a page; what somebody says to an agent; what a prompt is asked with."""
    shown, said = [], []
    async with town(tmp_path) as (gateway, _):
        for number, template in enumerate(TEMPLATES):
            made = await app(gateway, f"app{number}", name=template)
            page = await gateway.client.get(made.link())
            assert page.status_code == 200
            shown.append(escape(template) not in page.text)
            told = await gateway.task(template)
            said.append(told["status"]["message"]["parts"][0]["text"] != template)
    assert (shown, said) == ([broken] * len(TEMPLATES),) * 2


async def _rendering(self: Any, context: Any, message: Any) -> Any:
    yield context.completed(renders(message.text))
