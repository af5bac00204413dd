"""A policy file at work: what callers get, what lists show, what the operator is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.app import assemble
from gateway.config import ConfigError, Flags, parse, settle
from gateway.stores.memory import MemoryStore
from tests.mcp import Door, configured, scripted, soon, tool
from tests.serving import ROOT, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGENTS = f"""
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
  mirror: {{run: "tests.actors:mirror", card: {ROOT}/agent_cards/echo.json}}
  hidden: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json}}
  desk: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json}}
"""
POLICY = """
rules:
  - {rule: short, who: ann, do: use, on: agents/desk, when: {arguments: {text: {longest: 9}}}, verdict: PASS}
  - {rule: long, who: ann, do: call, on: agents/desk, verdict: ESCALATE, because: long letters are read first}
  - {rule: seen, who: ann, do: use, on: agents/desk, verdict: FLAG}
  - {rule: watched, who: flo, do: use, on: [agents/desk, agents/mirror, docs/se*], verdict: FLAG}
  - {rule: never, who: eve, do: call, on: agents/echo, verdict: BLOCK, because: ask the operator}
  - {rule: stop, who: mad, do: call, verdict: HALT, because: enough is enough}
  - {rule: search, who: ann, do: tools/call, on: docs/se*, when: {arguments: {folder: [public]}}, verdict: PASS}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("policy")
    (folder / "policy.yaml").write_text(POLICY)
    async with scripted(tool("search"), tool("delete")) as docs:
        config = AGENTS + f"policy: {{file: {folder}/policy.yaml}}\n" + configured(docs=docs)
        async with running(folder / "data", config) as gateway:
            yield gateway


async def told(gateway: Gateway, who: str, text: str, agent: str = "desk") -> Any:
    return await gateway.rpc("SendMessage", {"message": message(text)}, agent=agent, who=await gateway.key(who))


def info(answer: Any) -> Any:
    return answer["error"]["data"][0]["metadata"]


async def test_what_a_rule_allows_is_done_and_what_it_does_not_is_said(gateway: Gateway) -> None:
    assert "flaggedBy" not in str(await told(gateway, "ann", "short"))
    held = (await told(gateway, "ann", "much too long"))["result"]["task"]["status"]
    assert held["state"] == "TASK_STATE_AUTH_REQUIRED"
    assert held["message"]["parts"][0]["text"].endswith("long letters are read first")
    assert held["message"]["metadata"]["rule"] == "long"
    blocked = await told(gateway, "eve", "hi", "echo")
    assert blocked["error"]["message"] == "SendMessage is refused: ask the operator"
    assert info(blocked) == {"rule": "never", "verdict": "BLOCK"}
    assert info(await told(gateway, "mad", "hi", "echo")) == {"rule": "stop", "verdict": "HALT"}


async def test_what_is_flagged_goes_on_and_bears_the_mark(gateway: Gateway) -> None:
    task = (await told(gateway, "flo", "count 1"))["result"]["task"]
    assert task["metadata"] == {"flaggedBy": "watched"}
    assert (await told(gateway, "flo", "hi", "mirror"))["result"]["message"]["metadata"]["flaggedBy"] == "watched"
    flo = Door(gateway, who=await gateway.key("flo"))
    result = await flo.result("tools/call", {"name": "docs__search", "arguments": {}})
    assert result["_meta"]["gateway/flagged-by"] == "watched"


async def test_who_may_do_nothing_with_an_agent_does_not_see_it(gateway: Gateway) -> None:
    assert (await told(gateway, "bob", "hi"))["error"]["message"] == "There is no such agent here"
    cards = await gateway.client.get("/agents", headers=gateway.bearer(await gateway.key("bob")))
    assert len(cards.json()["agents"]) == 1
    cards = await gateway.client.get("/agents", headers=gateway.bearer(await gateway.key("ann")))
    assert len(cards.json()["agents"]) == 2


async def test_a_list_of_tools_is_what_may_be_called(gateway: Gateway) -> None:
    ann = Door(gateway, who=await gateway.key("ann"))
    assert [name for name in await ann.names() if name.startswith("docs__")] == ["docs__search"]
    good = {"name": "docs__search", "arguments": {"folder": "public"}}
    assert "content" in await ann.result("tools/call", good)
    bad = await ann.error("tools/call", {"name": "docs__search", "arguments": {"folder": "secret"}})
    assert bad["message"] == "You may not use docs/search here"
    gone = await ann.error("tools/call", {"name": "docs__delete", "arguments": {}})
    assert gone["message"] == "Unknown tool: docs__delete"


async def test_decisions_are_recorded_with_their_rule_and_verdict(gateway: Gateway) -> None:
    await told(gateway, "ann", "far too long again")

    async def recorded() -> bool:
        found = await gateway.record()
        return any((each.rule, each.verdict, each.outcome) == ("long", "ESCALATE", "AUTH_REQUIRED") for each in found)

    await soon(recorded)


async def explained(gateway: Gateway, **asked: Any) -> Any:
    answer = await gateway.client.post("/admin/policy:explain", json=asked, headers=gateway.bearer(None))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_an_explanation_is_the_decision_its_inputs_and_the_least_change(gateway: Gateway) -> None:
    found = await explained(
        gateway, principal="ann", action="call", target="docs/search", arguments={"folder": "secret"}
    )
    assert (found["verdict"], found["rule"]) == ("BLOCK", "default-deny")
    assert found["inputs"]["principal"] == "key:ann"
    assert found["inputs"]["arguments"] == {"folder": "secret"}
    assert found["change"].startswith("send folder one of ['public'] (rule search, ")
    assert found["policy"] == (await shown(gateway))["hash"]
    found = await explained(gateway, principal="bob", action="call", target="docs/delete")
    assert found["change"] == "add {to: bob, tools: [docs/delete]} to grants in the configuration (rule grant, grants)"
    found = await explained(gateway, principal="bob", action="call", target="hidden")
    assert found["change"] == "set agents.hidden.public: true in the configuration (rule public-agents, default)"
    found = await explained(gateway, principal="eve", action="call", target="agents/echo")
    assert found["change"] == "put the new rule before all others"
    assert found["newRule"]["who"] == ["eve"]
    assert found["lookedAt"][-1]["rule"] == "never"
    assert found["lookedAt"][-1]["missing"] == []


async def test_an_explanation_says_the_same_as_the_call(gateway: Gateway) -> None:
    for who, text in (("ann", "short"), ("ann", "much too long"), ("bob", "x"), ("local", "anything at all")):
        found = await explained(gateway, principal=who, action="call", target="desk", arguments={"text": text})
        token = None if who == "local" else await gateway.key(who)
        answer = await gateway.rpc("SendMessage", {"message": message(text)}, agent="desk", who=token)
        assert ("result" in answer) is (found["verdict"] in ("PASS", "FLAG", "ESCALATE")), (who, text)
        assert ("AUTH_REQUIRED" in str(answer)) is (found["verdict"] == "ESCALATE"), (who, text)


@pytest.mark.security
async def test_an_explanation_looks_at_labels_and_limits_as_the_call_does(tmp_path: Path) -> None:
    policy = """
roles: {editors: [ann]}
labels: {private-data: agents/mirror, untrusted-input: agents/hidden, can-send-out: agents/echo}
limits: [{limit: few, who: ann, on: agents/echo, per: principal, cost: 4/day}]
costs: [{on: agents/echo, cost: 2}]
rules:
  - {rule: nearly, who: role:editors, do: call, on: agents/echo, when: {budget: {limit: few, used: 50%}}, verdict: FLAG}
"""
    (tmp_path / "policy.yaml").write_text(policy)
    async with running(tmp_path / "data", AGENTS + f"policy: {{file: {tmp_path}/policy.yaml}}") as gateway:
        assert (await shown(gateway))["roles"] == {"editors": ["ann"]}
        assert (await shown(gateway))["costs"] == [{"on": ["agents/echo"], "cost": 2.0}]
        asked = {"principal": "ann", "action": "call", "target": "echo"}
        assert (await explained(gateway, **asked))["limit"] is None
        met = await explained(gateway, **asked, labels=["private-data", "untrusted-input"])
        assert (met["verdict"], met["rule"], met["approval"]["needed"]) == ("ESCALATE", "rule-of-two", 1)
        await told(gateway, "ann", "one", "echo")
        later = await explained(gateway, **asked, at="2030-01-01T00:00:00Z")
        assert (later["verdict"], later["rule"]) == ("FLAG", "nearly"), "what is used is looked at for any time"
        await told(gateway, "ann", "two", "echo")
        found = await explained(gateway, **asked)
        refused = (await told(gateway, "ann", "three", "echo"))["error"]
        assert (found["verdict"], found["limit"]["limit"]) == ("FLAG", "few")
        assert found["limit"]["reason"].split(";")[0] == refused["message"].split(";")[0]
        assert found["change"] == f"ask in {found['limit']['retryAfter']:g} s, or change the limit few"
        assert (await explained(gateway, **{**asked, "principal": "bob"}))["limit"] is None
        answer = await gateway.client.post(
            "/admin/policy:explain", json={**asked, "labels": ["secret"]}, headers=gateway.bearer(None)
        )
        assert "labels: must be of can-send-out, private-data, untrusted-input" in answer.text


async def test_a_question_that_makes_no_sense_is_told_what_would(gateway: Gateway) -> None:
    for asked, field in (
        ({"principal": "ann", "action": "fly", "target": "desk"}, "action"),
        ({"principal": "role:x", "action": "call", "target": "desk"}, "principal"),
        ({"principal": "ann", "action": "call", "target": "desk", "for": "bob"}, "for"),
        ({"principal": "ann", "action": "call", "target": "desk", "at": "noon"}, "at"),
        ({"principal": "ann", "action": "call", "target": "desk", "arguments": []}, "arguments"),
        ({"principal": "ann", "action": "call"}, "target"),
    ):
        answer = await gateway.client.post("/admin/policy:explain", json=asked, headers=gateway.bearer(None))
        assert answer.status_code == 400
        (violation,) = answer.json()["error"]["details"][1]["fieldViolations"]
        assert violation["field"] == field


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def shown(gateway: Gateway) -> Any:
    return (await gateway.client.get("/admin/policy", headers=gateway.bearer(None))).json()


async def test_what_is_shown_is_a_policy_file_that_means_the_same(gateway: Gateway, tmp_path: Path) -> None:
    rules = (await shown(gateway))["rules"]
    assert [rule["rule"] for rule in rules][:2] == ["short", "long"]
    assert [rule["rule"] for rule in rules][-2:] == ["public-agents", "own-tasks-shared"]


async def test_policy_is_the_operators(gateway: Gateway) -> None:
    headers = gateway.bearer(await gateway.key("ann"))
    for verb, path in (("GET", "/admin/policy"), ("POST", "/admin/policy:reload"), ("POST", "/admin/policy:explain")):
        asked = {"principal": "ann", "action": "call", "target": "x"}
        answer = await gateway.client.request(verb, path, json=asked, headers=headers)
        assert answer.status_code == 403, path


async def test_a_file_that_changes_is_taken_over_and_a_wrong_one_is_not(gateway: Gateway) -> None:
    file = Path((await shown(gateway))["file"])
    before = await shown(gateway)
    try:
        write(file, POLICY.replace("longest: 9", "longest: 99"))

        async def changed() -> bool:
            return bool((await shown(gateway))["hash"] != before["hash"])

        await soon(changed)
        assert "result" in await told(gateway, "ann", "no longer too long")
        write(file, POLICY.replace("verdict: HALT", "verdict: HALF"))

        async def complained() -> bool:
            return (await shown(gateway))["problem"] is not None

        await soon(complained)
        problem = (await shown(gateway))["problem"]
        assert problem.startswith(f"{file}:8: rules[5].verdict: must be one of")
        assert "result" in await told(gateway, "ann", "and still not too long")
        answer = await gateway.client.post("/admin/policy:reload", headers=gateway.bearer(None))
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == problem
    finally:
        write(file, POLICY)
        answer = await gateway.client.post("/admin/policy:reload", headers=gateway.bearer(None))
    assert answer.json() == before


async def test_a_policy_can_be_tried_out_beside_the_one_that_holds(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("rules: [{rule: quiet, who: ann, do: call, on: agents/echo, verdict: BLOCK}]")
    async with running(tmp_path / "data", AGENTS + f"policy: {{shadow: {tmp_path}/new.yaml}}") as gateway:
        for _ in range(2):
            assert "result" in await told(gateway, "ann", "hi", "echo")
        assert "result" in await told(gateway, "bob", "hi", "echo")
        answer = await gateway.client.get("/admin/policy/shadow", headers=gateway.bearer(None))
    assert answer.json() == {
        "file": f"{tmp_path}/new.yaml",
        "problem": None,
        "leftOut": 0,
        "flips": [
            {
                "principal": "key:ann",
                "action": "SendMessage",
                "target": "agents/echo",
                "verdict": "PASS",
                "rule": "public-agents",
                "wouldBe": "BLOCK",
                "byRule": "quiet",
                "count": 2,
            }
        ],
    }


async def test_without_a_file_there_is_nothing_to_read_again(tmp_path: Path) -> None:
    async with running(tmp_path, AGENTS) as plain:
        answer = await plain.client.post("/admin/policy:reload", headers=plain.bearer(None))
        assert answer.json()["error"]["message"] == "No policy file is configured; policy.file names one"
        rules = (await shown(plain))["rules"]
    names = ["local-operator", "worker", "extended-card-needs-identity", "public-agents", "own-tasks-shared"]
    assert [rule["rule"] for rule in rules] == names


async def test_a_gateway_does_not_start_with_a_wrong_policy(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("rules: [{rule: r}]")
    config = parse(AGENTS + f"policy: {{file: {tmp_path}/policy.yaml}}", base=ROOT)
    with pytest.raises(ConfigError, match=r"policy.yaml:1: rules\[0\].who: is required"):
        await assemble(settle(config, Flags(data=tmp_path / "data"), {}, cwd=ROOT), store=MemoryStore())
