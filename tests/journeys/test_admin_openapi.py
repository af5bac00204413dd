"""The admin API as it describes itself: the official schema of OpenAPI 3.1 finds nothing wrong, no route is missing,
and requests that are made from the description meet what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest
import yaml

from gateway.dialects.strict_json import read
from tests.journeys.test_admin_listener import OWN, client, told
from tests.mcp import configured, soon, tool
from tests.mcp import scripted as tools
from tests.openapi import admin, asked, check, document, each, plain
from tests.remote import process
from tests.serving import ECHO, ROOT, Gateway, running

Tree = dict[str, Any]
WHERE = "/admin/openapi.json"
OFFICIAL = ROOT / "tests" / "corpus" / "openapi"


async def shown(gateway: Gateway, who: str | None = None) -> httpx2.Response:
    return await gateway.client.get(WHERE, headers=gateway.bearer(who))


def official() -> jsonschema_rs.Draft202012Validator:
    """The schema of documents, with its dialect of schemas."""
    files = {name: yaml.safe_load((OFFICIAL / f"{name}.yaml").read_text()) for name in ("schema", "dialect", "meta")}
    registry = jsonschema_rs.Registry([(tree["$id"], tree) for tree in files.values()])
    base = yaml.safe_load((OFFICIAL / "schema-base.yaml").read_text())
    return jsonschema_rs.Draft202012Validator(base, registry=registry, validate_formats=True)


def inside(tree: Any) -> Iterator[Tree]:
    if isinstance(tree, dict):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from inside(part)


async def test_the_official_schema_finds_nothing_wrong(tmp_path: Path) -> None:
    auth = "auth: {authorization_server: {users: true}, client_certificates: {trust_domains: [example.org]}}\n"
    async with running(tmp_path, "server: {trusted_proxies: [10.0.0.0/8]}\n" + auth + ECHO) as gateway:
        answer = await shown(gateway)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        tree = answer.json()
        tree["jsonSchemaDialect"] = (
            "https://spec.openapis.org/oas/3.1/dialect/WORK-IN-PROGRESS"  # what is not said twice
        )
        assert not [(each.instance_path, each.message) for each in official().iter_errors(tree)]
        assert [*official().iter_errors({**tree, "paths": {"/x": {"get": {"responses": 7}}}})]
        assert tree["servers"] == [{"url": gateway.url}]
        kinds = {name: scheme["type"] for name, scheme in tree["components"]["securitySchemes"].items()}
        assert (
            kinds
            == {
                "gateway": "http",
                "certificate": "mutualTLS",
                "own-client": "oauth2",
                "own-person": "oauth2",
            }
            or kinds
        ), kinds
        assert {name for each in tree["security"] for name in each} == kinds.keys()


def test_every_route_is_described_and_nothing_else() -> None:
    routes = {
        (method, plain(route.path)) for route in admin().routes() for method in route.methods or () if method != "HEAD"
    }
    described = [(method, path) for method, path, _ in each(document())]
    assert sorted(described) == sorted(routes)
    ids = [operation["operationId"] for _, _, operation in each(document())]
    assert len(ids) == len(set(ids)) > 50
    assert all(operation["summary"] and operation["x-action"] for _, _, operation in each(document()))


def test_no_schema_is_empty_and_every_object_says_what_is_in_it() -> None:
    for tree in inside(document()):
        for name in ("schema", "items", "additionalProperties"):
            assert tree.get(name, True) != {}, tree
        for name, schema in tree.get("properties", {}).items():
            assert schema, name
    named = document()["components"]["schemas"]
    used = {each["$ref"].rpartition("/")[2] for each in inside(document()) if "schemas" in str(each.get("$ref"))}
    assert used == set(named)


async def test_it_is_the_operators_and_made_once(tmp_path: Path) -> None:
    async with running(tmp_path, ECHO) as gateway:
        first, second = (await shown(gateway)).content, (await shown(gateway)).content
        assert first == second
        assert (await shown(gateway, await gateway.key("ann"))).status_code == 403
        assert (await gateway.client.get(WHERE)).status_code == 401
        policy = "rules: [{rule: look, who: [ann], do: ShowAdminApi, on: '*', verdict: PASS}]"
    (tmp_path / "policy.yaml").write_text(policy)
    async with running(tmp_path, f"policy: {{file: {tmp_path}/policy.yaml}}\n{ECHO}") as gateway:
        assert (await shown(gateway, await gateway.key("bob"))).status_code == 403
        # A key of the same name is the same principal.
        assert (await shown(gateway, await gateway.key("ann"))).status_code == 200


async def test_behind_a_prefix_the_paths_follow_the_public_url(tmp_path: Path) -> None:
    config = "server: {public_url: 'https://gw.example/base', allowed_hosts: ['127.0.0.1']}\n" + ECHO
    async with running(tmp_path, config) as gateway:
        answer = await gateway.client.get(WHERE, headers={**gateway.bearer(None), "Host": "gw.example"})
        assert answer.json()["servers"] == [{"url": "https://gw.example/base"}]
        assert "/admin/keys" in answer.json()["paths"]


@pytest.mark.parametrize("kind", ["address", "socket"])
def test_on_a_listener_of_its_own_it_says_where_that_is(tmp_path: Path, kind: str) -> None:
    own = OWN if kind == "address" else f"server: {{admin: 'unix:{tmp_path}/admin.sock'}}\n"
    with process(tmp_path, ECHO + own) as running:
        url = told(running)
        token = {"Authorization": f"Bearer {(tmp_path / 'token').read_text().strip()}"}
        with client(url) as admin:
            answer = admin.get(WHERE, headers=token)
        assert answer.json().get("servers") == ([{"url": url}] if kind == "address" else None)


# Requests that are made from the description.


def example(schema: Tree) -> Any:
    """Something that the schema takes."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
    if kind == "object":
        names = schema.get("required") or [*schema.get("properties", ())][: schema.get("minProperties", 0)]
        return {name: example(schema["properties"][name]) for name in names}
    if schema.get("format") == "date-time":
        return "2026-11-26T09:30:00Z"
    text = "http://127.0.0.1:9/x" if "pattern" in schema else "nosuch"
    return {"string": text, "array": [], "boolean": True, "integer": schema.get("minimum", 1)}[kind]


def wrong(schema: Tree) -> Any:
    """Something that it does not take."""
    return 7 if "string" in schema.get("type", "string") else "x"


def body_of(operation: Tree) -> Tree | None:
    """All that is required."""
    if "requestBody" not in operation:
        return None
    made = example(operation["requestBody"]["content"]["application/json"]["schema"])
    assert isinstance(made, dict)
    return made


def at(path: str) -> str:
    values = {"kind": "agent", "index": "1"}
    found = re.sub(r"\{(\w+)\}", lambda name: values.get(name[1], "nosuch"), path)
    return found.replace("dead/nosuch", "dead/7")


async def ask(gateway: Gateway, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
    headers = gateway.bearer(more.pop("who", None))
    return await gateway.client.request(method, at(path), json=body, headers=headers, **more)


def blamed(answer: httpx2.Response) -> list[str]:
    """The fields that a refusal names."""
    assert answer.status_code == 400, answer.text
    details = answer.json()["error"]["details"]
    return [violation["field"] for each in details for violation in each.get("fieldViolations", ())]


async def test_a_missing_a_wrong_and_an_unknown_field_are_refused_by_name(tmp_path: Path) -> None:
    count = 0
    async with running(tmp_path, ECHO) as gateway:
        for method, path, operation in each((await shown(gateway)).json()):
            body = body_of(operation)
            if body is None:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert blamed(await ask(gateway, method, path, {**body, "nosuch": 1})) == ["nosuch"], path
            for name in schema["required"]:
                less = {field: value for field, value in body.items() if field != name}
                assert blamed(await ask(gateway, method, path, less)) == [name], (path, name)
            for name, said in schema["properties"].items():
                assert blamed(await ask(gateway, method, path, {**body, name: wrong(said)})) == [name], (path, name)
                count += 1
    assert count > 40


async def test_a_wrong_parameter_is_refused_by_name(tmp_path: Path) -> None:
    count = 0
    async with running(tmp_path, ECHO) as gateway:
        for method, path, operation in each((await shown(gateway)).json()):
            for parameter in operation["parameters"]:
                schema, name = parameter["schema"], parameter["name"]
                if parameter["in"] == "query" and (schema.get("type") != "string" or "enum" in schema):
                    assert blamed(await ask(gateway, method, path, params={name: "x"})) == [name], (path, name)
                    count += 1
    assert count > 10


async def test_the_policy_decides_about_the_action_that_is_named(tmp_path: Path) -> None:
    async with running(tmp_path, ECHO) as gateway:
        for method, path, operation in each((await shown(gateway)).json()):
            name = re.sub(r"\W", "", operation["operationId"]).lower()
            answer = await ask(gateway, method, path, body_of(operation), who=await gateway.key(name))
            assert answer.status_code in (403, 404), (path, answer.text)

            async def recorded(name: str = name) -> list[str]:
                page = await gateway.client.get(
                    "/admin/audit", params={"actor": f"key:{name}"}, headers=gateway.bearer(None)
                )
                return [entry["action"] for entry in page.json()["entries"]]

            assert await soon(recorded) == [operation["x-action"]], path


# What the answers of these look like, other tests see: they take an authorization server of somebody else's.
ELSEWHERE = {
    "beginLogin": "test_mcp_oauth.py",
    "finishLogin": "test_mcp_oauth.py",
    "forgetLogin": "test_mcp_oauth.py",
    "removeConnection": "test_connections.py",
    "removeGrant": "test_people.py",
    "rotateVaultKey": "test_vault.py",
    "replayPush": "test_push.py",
    "acceptCard": "test_signed_cards.py",
    "verifyCard": "test_signed_cards.py",
    "addAgent": "test_agent_changes.py",
    "changeAgent": "test_agent_changes.py",
    "removeAgent": "test_agent_changes.py",
    "approveTools": "test_mcp_tools.py",
    "reloadTools": "test_mcp_reload.py",
    "approveCall": "test_approvals.py",
    "editCall": "test_approvals.py",
    "rejectCall": "test_approvals.py",
    "showApproval": "test_approvals.py",
    "reloadCompliance": "test_compliance.py",
    "showCompliance": "test_compliance.py",
    "cancelTask": "test_command_line.py",
}


@pytest.mark.parametrize("answer", [{"keys": [{"id": "x"}]}, {"keys": [], "more": 1}, {"keys": None}, {}])
def test_an_answer_that_is_not_as_described_is_noticed(answer: Tree) -> None:
    operation = asked("GET", "/admin/keys")
    assert operation is not None
    check(operation, 200, {"keys": []})
    with pytest.raises(AssertionError):
        check(operation, 200, answer)


async def test_answers_are_as_described(tmp_path: Path) -> None:
    """The client of every test looks at that (tests/openapi.py); here each operation is asked once that needs no more
    than this gateway."""
    for name in ("policy", "shadow"):
        (tmp_path / f"{name}.yaml").write_text("limits: [{limit: few, calls: 100/hour}]")
    auth = "auth: {authorization_server: {users: true}}\n"
    policy = f"policy: {{file: {tmp_path}/policy.yaml, shadow: {tmp_path}/shadow.yaml}}\n"
    async with (
        tools(tool("read")) as docs,
        running(tmp_path, auth + policy + ECHO + configured(docs=docs)) as gateway,
    ):
        task = (await gateway.task("hi"))["id"]
        ids = {operation["operationId"]: (method, path) for method, path, operation in each(document())}
        done = set()

        async def does(operation: str, body: Any = None, **path: str) -> Any:
            method, where = ids[operation]
            for name, value in path.items():
                where = where.replace(f"{{{name}}}", value)
            answer = await ask(gateway, method, where, body)
            assert answer.status_code < 300, (operation, answer.text)
            done.add(operation)
            return answer.json() if answer.content else None

        for id, (method, path) in ids.items():
            if method == "GET" and "{" not in path and ":watch" not in path and id not in ELSEWHERE:
                await does(id)
        key = await does("addKey", {"name": "ann"})
        await does("listKeys")
        await does("revokeKey", id=key["id"])
        await does(
            "addClient",
            {
                "id": "robot",
                "public": True,
                "grants": ["authorization_code"],
                "redirects": ["http://127.0.0.1:9/x"],
            },
        )
        await does("listClients")
        await does("revokeClient", id="robot")
        await does("addClient", {"id": "worker"})
        await does("rotateClient", id="worker")
        await does("addClient", {"id": "other"})
        await does("revokeAnyClient", {"id": "other"})
        await does("inviteClient", {})
        await does("addUser", {"name": "eve", "password": "a long pass phrase", "roles": ["x"]})
        await does("listUsers")
        await does("setPassword", {"password": "another pass phrase"}, name="eve")
        await does("removeUser", name="eve")
        await does("callTool", {"name": "docs/read"})
        await does("explainPolicy", {"principal": "ann", "action": "call", "target": "echo"})
        await does("replayPolicy", {"text": "defaults: false"})
        await does("reloadPolicy")
        await does("replayPushes")
        await does("freeze", {"kind": "agent", "name": "echo"})
        await does("listFrozen")
        await does("thaw", {"kind": "agent", "name": "echo"})
        await does("readAuditEntry", index="0")
        await does("rotateAuditKey")
        await does("eraseSubject", {"principal": "key:ann"})
        await does("replayTask", id=task)
        await does("getTask", id=task)
        await does("shareTask", {"reader": "bob", "until": "2100-01-01T00:00:00Z"}, id=task)
        await does("listShares", id=task)
        await does("unshareTask", {"reader": "bob"}, id=task)
        await does("showCard", id="echo")
        watched = await ask(gateway, "GET", f"/admin/tasks/{task}:watch")
        assert read(watched.content.partition(b"data: ")[2].strip())
    streams = {"watchAudit", "watchTask"}
    assert done | streams | ELSEWHERE.keys() == ids.keys()
    assert not done & ELSEWHERE.keys()
    assert all((ROOT / "tests" / "journeys" / file).exists() for file in ELSEWHERE.values())
