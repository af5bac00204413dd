"""What a task may do, over restarts: its caller was let in by a role, by scopes, or as one who acts for somebody, and
is so still when the gateway was killed meanwhile. Real processes, and tokens of an identity provider."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.authority import authority, guarded
from tests.issuer import Issuer, issuing, issuing_aside
from tests.journeys import people
from tests.journeys.test_agent_connect import link
from tests.journeys.test_mcp_connect import Person
from tests.journeys.test_mcp_oauth import login
from tests.remote import Process, command, ended, process, until
from tests.serving import ECHO, ROOT, Gateway, message, running

CARD = f"card: {ROOT}/agent_cards/echo.json"
RULES = """
rules:
  - {rule: asks, who: "agent:*", do: delegate, on: agents/middle, verdict: PASS, when: {for: "role:clerk"}}
  - {rule: by-role, who: "agent:*", do: delegate, on: [agents/desk, agents/far], verdict: PASS,
     when: {for: "role:clerk"}}
  - {rule: by-scope, who: "agent:*", do: delegate, on: agents/safe, verdict: PASS, when: {scopes: [safe.open]}}
  - {rule: by-actor, who: "agent:*", do: delegate, on: agents/till, verdict: PASS, when: {via: "oauth:ISSUER#robot"}}
  - {rule: notes, who: "agent:*", do: tools/call, on: notes, verdict: PASS, when: {for: "role:clerk"}}
  - {rule: looked-at, who: "agent:*", do: delegate, on: agents/vault, verdict: ESCALATE, when: {for: "role:clerk"}}
  - {rule: held, who: "role:clerk", do: call, on: agents/held, verdict: ESCALATE}
  - {rule: reads, who: "*", do: [GetTask, ListTasks], on: "agents", verdict: PASS}
"""
CODE = """
import asyncio, pathlib
from gateway.model.task import Task

here = pathlib.Path(__file__).parent

async def worker(context, message):
    yield context.working("at it")
    if here.joinpath("stays").read_text() == context.agent:
        here.joinpath("begun").touch()
        await asyncio.Event().wait()
    if message.text == "asks":
        yield context.need_input("What now?")
        return
    place, _, rest = message.text.partition(" ")
    if "/" in place:
        await context.call_tool(place, {"word": "Ada"})
    elif place != "nobody":
        answer = await context.ask(place, rest or "please")
        assert not isinstance(answer, Task) or answer.status.state == "TASK_STATE_COMPLETED", answer
    yield context.completed("done")
worker.resumable = True

async def desk(context, message):
    return "did it"
"""


def config(issuer: Issuer, more: str = "") -> str:
    desks = "".join(f"  {name}: {{run: 'office:desk', {CARD}}}\n" for name in ("desk", "safe", "till", "vault"))
    return f"""
auth: {{issuers: [{{issuer: '{issuer.url}'}}]}}
agents:
  lead: {{run: "office:worker", {CARD}, public: true}}
  held: {{run: "office:worker", {CARD}}}
  middle: {{run: "office:worker", {CARD}}}
{desks}{more}
tools:
  notes: {{command: [{sys.executable}, examples/tools/notes.py], folder: "{ROOT}"}}
policy: {{file: policy.yaml}}
"""


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing_aside() as issuer:
        yield issuer


@pytest.fixture
def folder(tmp_path: Path, issuer: Issuer) -> Path:
    tmp_path.joinpath("policy.yaml").write_text(RULES.replace("ISSUER", issuer.url))
    tmp_path.joinpath("office.py").write_text(CODE)
    stays(tmp_path, "nowhere")
    return tmp_path


def stays(folder: Path, agent: str) -> None:
    """The agent that gets no further in this life of the gateway."""
    folder.joinpath("stays").write_text(agent)
    folder.joinpath("begun").unlink(missing_ok=True)


def alice(issuer: Issuer, gateway: Process | Gateway, **claims: Any) -> str:
    return issuer.token(gateway.url, **{"roles": ["clerk"], "scope": "safe.open other", **claims})


def sent(gateway: Process, who: str, text: str, agent: str = "lead") -> Any:
    params = {"message": message(text), "configuration": {"returnImmediately": True}}
    answer = gateway.rpc("SendMessage", params, agent=agent, who=who)
    return answer["result"]["task"]


def shown(gateway: Process, who: str, id: str, agent: str = "lead") -> Any:
    return gateway.rpc("GetTask", {"id": id}, agent=agent, who=who)["result"]


def in_state(gateway: Process, who: str, id: str, state: str, agent: str = "lead") -> Callable[[], bool]:
    return lambda: bool(shown(gateway, who, id, agent)["status"]["state"] == f"TASK_STATE_{state}")


def outcome(gateway: Process, who: str, id: str, agent: str = "lead") -> str:
    """How it ends: its state, and what the last word was."""

    def look() -> Any:
        status = shown(gateway, who, id, agent)["status"]
        state = status["state"].removeprefix("TASK_STATE_")
        return f"{state}: {status['message']['parts'][0]['text']}" if state in ("COMPLETED", "FAILED") else None

    return str(gateway.until(look))


def cut_off(folder: Path, gateway: Process, who: str, text: str, at: str = "lead", agent: str = "lead") -> str:
    """A task whose agent was in the middle of its work when the gateway was killed."""
    id = started(folder, gateway, who, text, at, agent)
    gateway.kill()
    stays(folder, "nowhere")
    return id


def started(folder: Path, gateway: Process, who: str, text: str, at: str = "lead", agent: str = "lead") -> str:
    """A task whose agent is in the middle of its work."""
    stays(folder, at)
    id: str = sent(gateway, who, text, agent)["id"]
    gateway.until(folder.joinpath("begun").exists)
    gateway.until(lambda: "STATE_WORKING" in str(gateway.rpc("ListTasks", {}, agent=at, who=who)))
    return id


def approvals(gateway: Process, *words: str) -> Any:
    done = command(gateway.data, "approvals", *words, "--json", url=gateway.url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ACTS = {"act": {"sub": "robot"}}


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("desk", {}),
        ("safe", {}),
        ("notes/find", {}),
        ("middle desk", {}),
        ("middle safe", {}),
        ("middle notes/find", {}),
        ("till", ACTS),
        ("desk", ACTS),
        ("safe", ACTS),
    ],
)
def test_what_an_agent_could_do_for_its_caller_it_can_do_after_the_gateway_was_killed(
    folder: Path, issuer: Issuer, text: str, claims: Any
) -> None:
    at = "middle" if text.startswith("middle") else "lead"
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway, **claims)
        assert outcome(gateway, who, sent(gateway, who, text)["id"]) == "COMPLETED: done"
        task = cut_off(folder, gateway, who, text, at)
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway, **claims)
        assert outcome(gateway, who, task) == "COMPLETED: done"
        # What the first life had asked the one in the middle goes on, and it is asked once more.
        asked = gateway.rpc("ListTasks", {}, agent="middle", who=who)["result"]["tasks"]
        assert len(asked) == (3 if at == "middle" else 0)
        assert {outcome(gateway, who, each["id"], "middle") for each in asked} <= {"COMPLETED: done"}


@pytest.mark.security
def test_the_record_names_the_client_of_a_caller_after_the_gateway_was_killed(folder: Path, issuer: Issuer) -> None:
    bare = {"roles": [], "scope": "", "client_id": "coding-agent"}  # nothing else to be kept
    with process(folder, config(issuer)) as gateway:
        task = cut_off(folder, gateway, alice(issuer, gateway, **bare), "nobody")
    with process(folder, config(issuer)) as gateway:
        assert outcome(gateway, alice(issuer, gateway, **bare), task) == "COMPLETED: done"
        done = command(gateway.data, "audit", "search", "--task", task, "--json", url=gateway.url)
        entries = [each for each in json.loads(done.stdout)["entries"] if each["action"] == "SendMessage"]
    assert len({each["replica"] for each in entries}) == 2
    assert {each["client"] for each in entries} == {"coding-agent"}


@pytest.mark.parametrize(("up", "end"), [(True, "COMPLETED: done"), (False, "FAILED: Agent far cannot be reached yet")])
def test_a_remote_hop_is_asked_again(folder: Path, issuer: Issuer, up: bool, end: str) -> None:
    """Once it has been looked for; if it is not there, that is what the agent hears."""
    with process(folder / "there", ECHO, "--anonymous") as there:
        far = f"  far: {{card_url: '{there.url}'}}\n"
        with process(folder, config(issuer, far)) as gateway:
            gateway.until(lambda: gateway.call("GET", "/agents/far/.well-known/agent-card.json").status_code == 200)
            who = alice(issuer, gateway)
            assert outcome(gateway, who, sent(gateway, who, "far hello")["id"]) == "COMPLETED: done"
            task = sent(gateway, who, "far wait 2")["id"]
            gateway.until(lambda: "WORKING" in str(gateway.rpc("ListTasks", {}, agent="far", who=who)))
            gateway.kill()
        if not up:
            there.kill()
        with process(folder, config(issuer, far)) as gateway:
            assert outcome(gateway, alice(issuer, gateway), task).startswith(end)


@pytest.mark.parametrize("claims", [{}, ACTS])
def test_what_was_approved_after_the_gateway_was_killed_is_done_with_the_rights_of_its_caller(
    folder: Path, issuer: Issuer, claims: Any
) -> None:
    """An agent asks in the middle of its work, and works on after that; and all of it once more killed."""
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway, **claims)
        tasks = [sent(gateway, who, "vault")["id"], sent(gateway, who, "middle vault")["id"]]
        for task in tasks:
            gateway.until(in_state(gateway, who, task, "AUTH_REQUIRED"))
        gateway.kill()
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway, **claims)
        for each in approvals(gateway, "list")["approvals"]:
            approvals(gateway, "approve", each["id"])
        assert [outcome(gateway, who, task) for task in tasks] == ["COMPLETED: done"] * 2


@pytest.mark.parametrize("text", ["desk", "safe", "notes/find"])
def test_a_message_that_was_held_goes_on_with_the_rights_of_its_sender(folder: Path, issuer: Issuer, text: str) -> None:
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway)
        task = sent(gateway, who, text, "held")
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        gateway.kill()
    with process(folder, config(issuer)) as gateway:
        stays(folder, "held")
        approvals(gateway, "approve", task["status"]["message"]["metadata"]["approval"])
        gateway.until(folder.joinpath("begun").exists)
        gateway.kill()
    stays(folder, "nowhere")
    with process(folder, config(issuer)) as gateway:
        assert outcome(gateway, alice(issuer, gateway), task["id"], "held") == "COMPLETED: done"


def test_the_newest_message_says_what_a_task_may_do(folder: Path, issuer: Issuer) -> None:
    """One who comes back with fewer rights goes on with those."""
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway)
        asked = sent(gateway, who, "asks")
        gateway.until(in_state(gateway, who, asked["id"], "INPUT_REQUIRED"))
        few = alice(issuer, gateway, roles=[])
        stays(folder, "lead")
        params = {"message": message("desk", taskId=asked["id"]), "configuration": {"returnImmediately": True}}
        assert "result" in gateway.rpc("SendMessage", params, agent="lead", who=few)
        gateway.until(folder.joinpath("begun").exists)
        gateway.kill()
        stays(folder, "nowhere")
    with process(folder, config(issuer)) as gateway:
        assert outcome(gateway, alice(issuer, gateway), asked["id"]) == "FAILED: There is no such agent here"


def test_other_rules_count_at_once(folder: Path, issuer: Issuer) -> None:
    with process(folder, config(issuer)) as gateway:
        task = cut_off(folder, gateway, alice(issuer, gateway), "desk")
    rules = folder / "policy.yaml"
    rules.write_text(rules.read_text().replace("role:clerk", "role:lead"))
    with process(folder, config(issuer)) as gateway:
        assert outcome(gateway, alice(issuer, gateway), task) == "FAILED: There is no such agent here"


def test_whoever_acted_for_the_caller_can_be_frozen(folder: Path, issuer: Issuer) -> None:
    with process(folder, config(issuer)) as gateway:
        task = cut_off(folder, gateway, alice(issuer, gateway, **ACTS), "desk")
    stays(folder, "lead")
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway)
        gateway.until(folder.joinpath("begun").exists)
        robot = f"oauth:{issuer.url}#robot"
        assert command(folder, "freeze", "principal", robot, url=gateway.url).returncode == 0
        gateway.until(in_state(gateway, who, task, "CANCELED"))
        assert f"principal {robot} is frozen" in str(shown(gateway, who, task)["status"]["message"])


def test_a_task_of_before_has_no_rights_but_its_owners(folder: Path, issuer: Issuer) -> None:
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway)
        task = cut_off(folder, gateway, who, "desk")
        with closing(sqlite3.connect(folder / "gateway.db")) as db, db:
            db.execute("UPDATE task SET caller = NULL")
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway)
        assert outcome(gateway, who, task) == "FAILED: There is no such agent here"


def test_nothing_of_a_token_is_kept(folder: Path, issuer: Issuer) -> None:
    with process(folder, config(issuer)) as gateway:
        who = alice(issuer, gateway)
        outcome(gateway, who, sent(gateway, who, "desk")["id"])
        plain = sent(gateway, gateway.token, "nobody")["id"]
        gateway.stop()
    with closing(sqlite3.connect(folder / "gateway.db")) as db:
        kept = dict(db.execute("SELECT id, caller FROM task"))
    assert kept.pop(plain) is None
    of_alice = {
        "kind": "oauth",
        "name": f"{issuer.url}#alice",
        "tenant": "",
        "behalf": None,
        "hops": 0,
        "roles": ["clerk"],
        "scopes": ["other", "safe.open"],
        "client": "app",
    }
    assert [json.loads(each) for each in kept.values()] == [of_alice]
    everything = b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())
    assert not any(part.encode() in everything for part in who.split("."))


# Whom the operator has removed here.


@pytest.mark.parametrize("gone", [False, True])
def test_a_client_that_was_revoked_has_no_scopes_after_the_restart(folder: Path, issuer: Issuer, gone: bool) -> None:
    own = config(issuer).replace("auth: {", "auth: {authorization_server: {}, ")
    with process(folder, own) as gateway:
        about = {"id": "robot", "scopes": ["safe.open"]}
        secret = gateway.call("POST", "/admin/clients", json=about).json()["secret"]
        form = {"grant_type": "client_credentials", "client_id": "robot", "client_secret": secret}
        asked = httpx2.post(f"{gateway.url}/oauth/token", data=form, trust_env=False)
        task = started(folder, gateway, asked.json()["access_token"], "safe")
        if gone:
            assert command(folder, "clients", "revoke", "robot", url=gateway.url).returncode == 0
        gateway.kill()
    stays(folder, "nowhere")
    with process(folder, own) as gateway:
        end = gateway.until(lambda: ended_there(gateway, task))
        said = "SendMessage needs an access token with the scopes: safe.open"
        assert end == (("TASK_STATE_FAILED", said) if gone else ("TASK_STATE_COMPLETED", "done"))


def ended_there(gateway: Process, id: str) -> tuple[str, str] | None:
    """How a task stands that is somebody else's, once it has ended."""
    status = gateway.call("GET", f"/admin/tasks/{id}:replay").json()["task"]["status"]
    over = status["state"] in ("TASK_STATE_FAILED", "TASK_STATE_COMPLETED")
    return (status["state"], status["message"]["parts"][0]["text"]) if over else None


@pytest.mark.parametrize("gone", [None, "users/ada", "clients/app"])
async def test_a_user_who_was_removed_has_no_roles_when_their_message_goes_on(tmp_path: Path, gone: str | None) -> None:
    """Nor has one whose program was."""
    (tmp_path / "policy.yaml").write_text(
        """
rules:
  - {rule: held, who: "role:clerk", do: call, on: agents/helper, verdict: ESCALATE}
  - {rule: asks, who: "agent:helper", do: delegate, on: agents/quiet, when: {for: "role:clerk"}, verdict: PASS}
"""
    )
    more = f"""  helper: {{run: "tests.actors:asking", {CARD}}}
  quiet: {{run: "agents.echo:Echo", {CARD}}}
policy: {{file: {tmp_path}/policy.yaml}}
"""
    async with people.town(tmp_path / "data", more=more) as (gateway, _):
        ada = (await (await people.app(gateway)).tokens())["access_token"]
        task = await gateway.task("quiet", agent="helper", who=ada)
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED", task
        local = gateway.bearer(None)
        if gone:
            assert (await gateway.client.delete(f"/admin/{gone}", headers=local)).status_code == 204
        path = f"/admin/approvals/{task['status']['message']['metadata']['approval']}:approve"
        assert (await gateway.client.post(path, json={}, headers=local)).status_code == 200

        async def end() -> Any:
            state = (await gateway.client.get(f"/admin/tasks/{task['id']}:replay", headers=local)).json()["task"][
                "status"
            ]
            return state if state["state"] in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED") else None

        assert (await until(end))["state"] == ("TASK_STATE_FAILED" if gone else "TASK_STATE_COMPLETED")


# A caller's own authorization.


@pytest.mark.parametrize(("accepted", "visits", "state"), [(["clerk"], [], "COMPLETED"), ([], ["clerk"], "FAILED")])
async def test_a_task_that_waited_for_a_link_goes_on_with_what_its_caller_was_let_in_with(
    tmp_path: Path, accepted: list[str], visits: list[str], state: str, port: int
) -> None:
    """Not with what the person who follows the link can show then."""
    rules = tmp_path / "policy.yaml"
    rules.write_text("rules: [{rule: docs, who: 'agent:*', do: tools/call, on: docs, verdict: PASS}]")
    async with authority() as by, guarded(by) as server, issuing() as issuer:
        setup = f"""
auth: {{issuers: [{{issuer: '{issuer.url}'}}]}}
tools:
  docs: {{url: "{server.url}", oauth: {{login: caller}}}}
agents:
  helper: {{run: "tests.actors:tooled", {CARD}, public: true}}
egress: {{allow_loopback: true}}
policy: {{file: {rules}}}
"""
        async with running(tmp_path / "data", setup, port=port) as gateway:
            await login(gateway)
            who = alice(issuer, gateway, roles=accepted)
            task = await gateway.task("docs/hello", agent="helper", who=who)
            assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED", task
        rules.write_text(rules.read_text().replace("verdict", "when: {for: 'role:clerk'}, verdict"))
        async with running(tmp_path / "data", setup, port=port) as gateway:
            who = alice(issuer, gateway, roles=visits)
            await Person(gateway).connects(link(task), who)
            done = await ended(gateway, task["id"], agent="helper", who=who)
            assert done["status"]["state"] == f"TASK_STATE_{state}", done
