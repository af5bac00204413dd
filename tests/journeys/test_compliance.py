"""A compliance profile at work: what agents and tools get and give, what callers are told, what is recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.app import assemble
from gateway.config import ConfigError, Flags, parse, settle
from tests.mcp import Door, Scripted, configured, message_of, modern, says, scripted, soon, tool
from tests.serving import ROOT, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAIL, CARD, KEY = "ada@example.org", "4111 1111 1111 1111", "sk_live_" + "a1b2c3d4e5"
TIMES = {"createdAt": "2026-11-21T09:00:00Z", "lastUpdatedAt": "2026-11-21T09:00:00Z"}
PROFILE = """
rules:
  - {rule: no-secrets, find: secrets, action: block}
  - {rule: mask, find: [card-number, email], agents: [desk], tools: [shop/*], action: redact}
  - {rule: hide, find: [card-number], agents: [pieces, mixed, beside], places: [answer],
     action: redact}
  - {rule: shouting, run: "house_checks:shouting", agents: [desk], action: flag}
  - {rule: slow, run: "house_checks:slow", agents: [slow], places: [message], timeout: 0.05, action: flag}
  - {rule: stuck, run: "house_checks:stuck", agents: [stuck], places: [message], timeout: 0.05, action: flag}
  - {rule: unsure, run: "house_checks:broken", agents: [unsure], action: block, on_failure: flag}
  - {rule: honest, declared: true, places: [arguments, result], action: block}
  - {rule: orders, schema: order.json, agents: [desk], places: [message], action: block}
  - {rule: names, schema: order.json, tools: [docs/ask], places: [arguments], action: block}
  - {rule: small, sizes: {max_bytes: 200, media_types: "text/*"}, tools: [files/*], places: [result], action: block}
  - {rule: project, pattern: "(?i)they call it (project x)", agents: [wordy], places: [answer], action: redact}
  - {rule: quiet, run: "house_checks:two_words", agents: [wordy], places: [answer], action: redact}
  - {rule: words, pattern: "(?i)project x", tools: [docs/*], action: block}
"""
CHECKS = """
import asyncio, threading
from gateway.model.compliance import Finding, Subject, texts

hold = threading.Event()

def shouting(subject: Subject) -> list[Finding]:
    return [Finding("shouting", where) for where, text in texts(subject.content) if text.isupper() and len(text) > 3]

async def slow(subject: Subject) -> list[Finding]:
    await asyncio.Event().wait()
    return []

def two_words(subject: Subject) -> list[Finding]:
    found = [(where, text.find("very quiet")) for where, text in texts(subject.content)]
    return [Finding("quiet", where, ((at, at + 10),)) for where, at in found if at >= 0]

def stuck(subject: Subject) -> list[Finding]:
    hold.wait()
    return []

def broken(subject: Subject) -> list[Finding]:
    raise RuntimeError("a bug with the secret in it")
"""
AGENTS = """
import asyncio
from gateway.model.agent import Context
from gateway.model.message import Message, Part

async def pieces(context: Context, message: Message):
    \"\"\"Says the text of the message three characters at a time.\"\"\"
    text = message.text
    for at in range(0, len(text), 3):
        yield context.artifact(text[at:at + 3], id="said", append=at > 0, last=at + 3 >= len(text))
        await asyncio.sleep(0)
    yield context.completed()

async def mixed(context: Context, message: Message):
    # Works on two artifacts at once, and says how far it is.
    text = message.text
    for at in range(0, len(text), 3):
        yield context.artifact(text[at:at + 3], id="said", append=at > 0, last=at + 3 >= len(text))
        yield context.artifact("tick ", id="clock", append=at > 0)
        yield context.working("busy")
    yield context.completed()

async def beside(context: Context, message: Message):
    # Says the text of the message where nobody looks for a message.
    said = {"note": message.text}
    yield context.working("busy").model_copy(update={"metadata": said})
    number = {"number": int(message.text.replace(" ", ""))}
    yield context.artifact(Part(data=number), id="said").model_copy(update={"metadata": said})
    yield context.completed().model_copy(update={"metadata": said})

async def leaky(context: Context, message: Message):
    return f"the key is {'sk_live_' + 'a1b2c3d4e5'}"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Scripted]:
    order = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
    tools = tool("order", inputSchema=order, outputSchema=order), tool("say"), tool("ask")
    async with scripted(*tools, resources=[{"uri": "note://one", "name": "one"}]) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, shop: Scripted) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("compliance")
    (folder / "compliance.yaml").write_text(PROFILE)
    (folder / "house_checks.py").write_text(CHECKS)
    (folder / "house_agents.py").write_text(AGENTS)
    (folder / "order.json").write_text(json.dumps({"type": "object", "required": ["item"]}))
    echo = f'card: {ROOT}/agent_cards/echo.json, run: "agents.echo:Echo", public: true'
    mine = f"card: {ROOT}/agent_cards/echo.json, public: true"
    config = f"""
agents:
  desk: {{{echo}}}
  slow: {{{echo}}}
  stuck: {{{echo}}}
  unsure: {{{echo}}}
  pieces: {{{mine}, run: "house_agents:pieces"}}
  wordy: {{{mine}, run: "house_agents:pieces"}}
  mixed: {{{mine}, run: "house_agents:mixed"}}
  beside: {{{mine}, run: "house_agents:beside"}}
  seen: {{{mine}, run: "tests.actors:mirror"}}
  leaky: {{{mine}, run: "house_agents:leaky"}}
compliance: {{file: {folder}/compliance.yaml}}
""" + configured(shop=shop, docs=shop, files=shop)
    async with running(folder / "data", config, base=folder) as gateway:
        yield gateway


async def told(gateway: Gateway, text: str, agent: str = "desk", **more: Any) -> Any:
    return await gateway.rpc("SendMessage", {"message": message(text, **more)}, agent=agent)


def words(answer: Any) -> str:
    task = answer["result"]["task"]
    said = [task["status"].get("message", {}), *task.get("artifacts", ())]
    return " ".join(part.get("text", "") for each in said for part in each.get("parts", ()))


async def recorded(gateway: Gateway, rule: str) -> list[str]:
    """What the audit has under a rule. (It is written with the next commit, so it may be a moment behind.)"""

    async def found() -> list[str]:
        return [entry.outcome for entry in await gateway.record() if entry.rule == rule]

    outcomes: list[str] = await soon(found)
    return outcomes


async def test_a_message_that_may_not_pass_reaches_nobody_and_its_sender_is_told_why(gateway: Gateway) -> None:
    refused = (await told(gateway, f"use {KEY} for it"))["error"]
    assert refused["message"] == (
        "The message may not pass: compliance rule no-secrets found stripe-key at /parts/0/text"
    )
    assert refused["data"][0]["reason"] == "PERMISSION_DENIED"
    assert refused["data"][0]["metadata"] == {"rule": "no-secrets"}
    assert KEY not in json.dumps(refused)
    assert (await gateway.result("ListTasks", agent="desk")).get("tasks", []) == []
    assert await recorded(gateway, "no-secrets") == ["blocked: stripe-key at /parts/0/text"]


async def test_what_is_redacted_neither_the_agent_nor_the_task_knows(gateway: Gateway) -> None:
    answer = await told(gateway, f"write to {MAIL}, card {CARD}")
    assert words(answer) == "write to [redacted: email], card [redacted: card-number]"
    task = await gateway.result("GetTask", {"id": answer["result"]["task"]["id"]}, agent="desk")
    assert MAIL not in json.dumps(task)
    assert task["history"][0]["metadata"] == {"gateway/compliance": {"mask": "redacted"}}
    assert "redacted: card-number at /parts/0/text, email at /parts/0/text" in " ".join(await recorded(gateway, "mask"))


async def test_the_same_message_again_is_the_same_message(gateway: Gateway) -> None:
    said = message(f"write to {MAIL}")
    first = await gateway.result("SendMessage", {"message": said}, agent="desk")
    again = await gateway.result("SendMessage", {"message": said}, agent="desk")
    assert first["task"]["id"] == again["task"]["id"]


async def test_what_is_flagged_passes_with_a_mark_both_ways(gateway: Gateway) -> None:
    task = (await told(gateway, "HELLO THERE"))["result"]["task"]
    assert task["history"][0]["parts"] == [{"text": "HELLO THERE"}]
    assert task["history"][0]["metadata"] == {"gateway/compliance": {"shouting": "flagged"}}
    assert task["status"]["message"]["metadata"] == {"gateway/compliance": {"shouting": "flagged"}}


async def test_an_answer_that_may_not_pass_is_never_seen(gateway: Gateway) -> None:
    refused = (await told(gateway, "what is the key?", "leaky"))["error"]
    assert refused["message"].startswith("The agent's answer may not pass: compliance rule no-secrets found stripe-key")
    assert KEY not in json.dumps(refused)


async def test_what_comes_in_pieces_is_seen_whole(gateway: Gateway) -> None:
    said = {"message": message(f"the card {CARD} is good")}
    events = await gateway.events("SendStreamingMessage", said, agent="pieces")
    chunks = [event["artifactUpdate"]["artifact"]["parts"][0]["text"] for event in events if "artifactUpdate" in event]
    assert len(chunks) >= 5
    assert "".join(chunks) == "the card [redacted: card-number] is good"
    task = await gateway.result("GetTask", {"id": events[0]["task"]["id"]}, agent="pieces")
    assert CARD[-4:] not in json.dumps(task["artifacts"])


async def test_what_rules_of_ones_own_look_for_is_seen_whole_too_though_it_is_several_words(gateway: Gateway) -> None:
    text = (
        "They call it Project X, and it is very quiet work; nothing of it is told to anybody outside of here. "
        + "Ever. " * 20
    )
    events = await gateway.events("SendStreamingMessage", {"message": message(text)}, agent="wordy")
    chunks = [event["artifactUpdate"]["artifact"]["parts"][0]["text"] for event in events if "artifactUpdate" in event]
    assert "".join(chunks) == text.replace("Project X", "[redacted: project]").replace(
        "very quiet", "[redacted: quiet]"
    )
    assert len(chunks) > 5, "the rest does not wait for its end"


async def test_what_comes_in_pieces_is_seen_whole_whatever_else_comes_between(gateway: Gateway) -> None:
    events = await gateway.events("SendStreamingMessage", {"message": message(f"the card {CARD}")}, agent="mixed")
    chunks = [event["artifactUpdate"]["artifact"] for event in events if "artifactUpdate" in event]
    said = [each["parts"][0]["text"] for each in chunks if each["artifactId"] == "said"]
    assert "".join(said) == "the card [redacted: card-number]"
    assert len([each for each in chunks if each["artifactId"] == "clock"]) > 3, "what is whole has not waited"


async def test_metadata_of_events_and_numbers_are_looked_at_too(gateway: Gateway) -> None:
    events = await gateway.events("SendStreamingMessage", {"message": message(CARD)}, agent="beside")
    hidden = {"note": "[redacted: card-number]", "gateway/compliance": {"hide": "redacted"}}
    told = [each for event in events for each in event.values() if each.get("metadata")]
    assert [each["metadata"] for each in told] == [hidden] * 3
    (artifact,) = [event["artifactUpdate"]["artifact"] for event in events if "artifactUpdate" in event]
    assert artifact["parts"][0]["data"] == {"number": "[redacted: card-number]"}
    task = await gateway.result("GetTask", {"id": events[0]["task"]["id"]}, agent="beside")
    assert task["metadata"] == hidden


async def test_the_metadata_of_a_request_passes_as_its_message_does(gateway: Gateway) -> None:
    sent = {"message": message("hi"), "metadata": {"key": KEY}}
    refused = (await gateway.rpc("SendMessage", sent, agent="seen"))["error"]
    assert refused["message"].endswith("rule no-secrets found stripe-key at /metadata/key")
    desk = await gateway.result("SendMessage", {"message": message("hi"), "metadata": {"to": MAIL}}, agent="desk")
    assert MAIL not in json.dumps(await gateway.result("GetTask", {"id": desk["task"]["id"]}, agent="desk"))


async def test_the_record_of_how_a_call_ended_names_what_was_found_in_any_of_its_chunks(gateway: Gateway) -> None:
    said = {"message": message(f"first this, then the card {CARD}")}
    events = await gateway.events("SendStreamingMessage", said, agent="pieces")
    id = events[0]["task"]["id"]
    marked = [event["artifactUpdate"]["artifact"] for event in events if "artifactUpdate" in event]
    assert "metadata" not in marked[0], "it is a later one that is marked"

    async def ended() -> list[Any]:
        entries = await gateway.record()
        return [each for each in entries if each.task_id == id and each.phase == "outcome"]

    (entry,) = await soon(ended)
    assert (entry.outcome, entry.marks) == ("COMPLETED", {"hide": "redacted"})


async def test_a_check_that_takes_too_long_blocks_and_one_that_fails_does_what_its_rule_says(gateway: Gateway) -> None:
    refused = (await told(gateway, "hi", "slow"))["error"]
    assert refused["message"] == "The message may not pass: compliance rule slow found check timed out at /"
    task = (await told(gateway, "hi", "unsure"))["result"]["task"]
    assert task["history"][0]["metadata"] == {"gateway/compliance": {"unsure": "flagged"}}


async def test_a_check_that_hangs_takes_no_thread_from_the_gateway(gateway: Gateway) -> None:
    for _ in range(40):  # more than the event loop has threads
        refused = (await told(gateway, "hi", "stuck"))["error"]
        assert refused["message"].endswith("rule stuck found check timed out at /")
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 30) == "free"
    import house_checks  # type: ignore[import-not-found]  # this test's own, on the path since the gateway loaded it

    house_checks.hold.set()


async def test_data_is_held_to_the_operators_schema(gateway: Gateway) -> None:
    refused = (await told(gateway, "", parts=[{"data": {"count": 1}}]))["error"]
    assert refused["message"].endswith("rule orders found schema: required at /parts/0/data")
    assert "result" in await told(gateway, "", parts=[{"data": {"item": "tea"}}])


async def test_a_tool_gets_and_gives_what_its_schemas_say(gateway: Gateway, shop: Scripted) -> None:
    door = Door(gateway)
    refused = await door.error("tools/call", {"name": "shop__order", "arguments": {"item": 1}})
    assert refused["message"].endswith("rule honest found schema: type at /item")
    assert shop.asked("tools/call") == []

    async def answers(params: Any) -> Any:
        return {"resultType": "complete", "content": [], "structuredContent": {"item": params["arguments"]["item"]}}

    shop.answers["order"] = answers
    assert (await door.call("shop__order", item="tea"))["structuredContent"] == {"item": "tea"}

    async def lies(params: Any) -> Any:
        return {"resultType": "complete", "content": [], "structuredContent": {"item": 7}}

    shop.answers["order"] = lies
    refused = await door.error("tools/call", {"name": "shop__order", "arguments": {"item": "tea"}})
    assert refused["message"].startswith("The result may not pass")
    del shop.answers["order"]


async def test_arguments_and_results_of_tools_are_redacted(gateway: Gateway, shop: Scripted) -> None:
    async def says(params: Any) -> Any:
        return {"resultType": "complete", "content": [{"type": "text", "text": f"{params['arguments']} {MAIL}"}]}

    shop.answers["say"] = says
    result = await Door(gateway).call("shop__say", to=CARD)
    assert shop.asked("tools/call")[-1]["arguments"] == {"to": "[redacted: card-number]"}
    assert result["content"][0]["text"] == "{'to': '[redacted: card-number]'} [redacted: email]"
    assert result["_meta"]["gateway/compliance"] == {"mask": "redacted"}


async def test_what_a_resource_is_asked_with_passes_too(gateway: Gateway, shop: Scripted) -> None:
    async def reads(params: Any) -> Any:
        return {"resultType": "complete", "contents": [{"uri": params["uri"], "text": "note"}]}

    shop.answers["resources/read"] = shop.answers["completion/complete"] = reads
    door = Door(gateway)
    (listed,) = [each["uri"] for each in (await door.result("resources/list"))["resources"] if "shop" in each["uri"]]
    refused = await door.error("resources/read", {"uri": f"{listed}?key={KEY}"})
    assert refused["message"].endswith("rule no-secrets found stripe-key at /uri")
    ref = {"type": "ref/resource", "uri": listed}
    refused = await door.error("completion/complete", {"ref": ref, "argument": {"name": "key", "value": KEY}})
    assert refused["message"].endswith("rule no-secrets found stripe-key at /argument/value")
    assert not shop.asked("resources/read")
    assert not shop.asked("completion/complete")
    refused = await door.error("resources/read", {"uri": f"{listed}?to={MAIL}"})
    assert refused["message"].endswith("rule mask found email at /uri"), "what is left would be another resource"


async def test_what_travels_on_with_a_request_passes_too(gateway: Gateway) -> None:
    sent = modern({"name": "shop__say", "arguments": {}})
    sent["_meta"]["shop.example/key"] = KEY
    refused = message_of(await Door(gateway).post("tools/call", sent))["error"]
    assert refused["message"].endswith("rule no-secrets found stripe-key at /shop.example~1key")


async def test_an_answer_to_a_tools_question_is_not_held_to_the_schema_of_its_arguments(
    gateway: Gateway, shop: Scripted
) -> None:
    async def asks(params: Any) -> Any:
        if "inputResponses" in params:
            return says(json.dumps(params["inputResponses"]))
        question = {"mode": "form", "message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
        asked = {"who": {"method": "elicitation/create", "params": question}}
        return {"resultType": "input_required", "inputRequests": asked, "requestState": "s"}

    shop.answers["ask"] = asks
    call = {"name": "docs__ask", "arguments": {"item": "tea"}}
    can: dict[str, Any] = {"elicitation": {"form": {}}}
    asked = await Door(gateway).result("tools/call", call, capabilities=can)
    answer = {"requestState": asked["requestState"], "inputResponses": {"who": {"action": "accept", "content": {}}}}
    result = await Door(gateway).result("tools/call", {**call, **answer}, capabilities=can)
    assert result["content"][0]["text"] == json.dumps(answer["inputResponses"])
    refused = await Door(gateway).error("tools/call", {"name": "docs__ask", "arguments": {}})
    assert refused["message"].endswith("rule names found schema: required at /")


async def test_what_a_servers_task_has_come_to_is_held_to_what_its_tool_promises(
    gateway: Gateway, shop: Scripted
) -> None:
    async def begins(params: Any) -> Any:
        return {"resultType": "task", "taskId": "t1", "status": "working", "ttlMs": None, **TIMES}

    async def ends(params: Any) -> Any:
        lies = {"content": [], "structuredContent": {"item": 7}}
        return {"resultType": "complete", "taskId": "t1", "status": "completed", "ttlMs": None, **TIMES, "result": lies}

    shop.answers["order"], shop.answers["tasks/get"] = begins, ends
    can: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    door = Door(gateway)
    call = {"name": "shop__order", "arguments": {"item": "tea"}}
    task = await door.result("tools/call", call, capabilities=can)
    refused = await door.error("tasks/get", {"taskId": task["taskId"]}, capabilities=can)
    assert refused["message"].endswith("rule honest found schema: type at /structuredContent/item")
    del shop.answers["order"]


async def test_a_session_client_is_protected_the_same(gateway: Gateway, shop: Scripted) -> None:
    async with Door(gateway).sdk("legacy") as client:
        result = await client.call_tool("shop__say", {"to": MAIL})
    assert MAIL not in result.model_dump_json()


async def test_sizes_kinds_and_patterns_are_held(gateway: Gateway, shop: Scripted) -> None:
    async def says(params: Any) -> Any:
        return {"resultType": "complete", "content": [{"type": "image", "data": "aGk=", "mimeType": "image/png"}]}

    shop.answers["say"] = says
    refused = await Door(gateway).error("tools/call", {"name": "files__say", "arguments": {}})
    assert refused["message"].endswith("rule small found media type image/png at /content/0")
    refused = await Door(gateway).error("tools/call", {"name": "docs__say", "arguments": {"q": "what is Project X?"}})
    assert refused["message"].endswith("rule words found words at /q")


async def test_checks_do_not_repeat_what_they_find_in_the_record(gateway: Gateway) -> None:
    entries = [str(entry) for entry in await gateway.record()]
    assert not [entry for entry in entries if MAIL in entry or CARD in entry or KEY in entry]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{rule: a, find: secretes, action: block}", "there is no detector 'secretes'"),
        ("{rule: a, find: email, pattern: x, action: block}", "a rule has exactly one of"),
        ("{rule: a, action: block}", "a rule has exactly one of"),
        ('{rule: a, pattern: "(?=x)", action: block}', "is no pattern"),
        ("{rule: a, run: 'nowhere:at_all', action: block}", "cannot import nowhere"),
        ("{rule: a, schema: none.json, action: block}", "no such file"),
        ("{rule: a, schema: bad.json, action: block}", "refers to"),
        ("{rule: a, declared: true, action: block}", "declared is about arguments and results"),
        ("{rule: a, declared: true, places: [result], action: redact}", "can only flag or block"),
        ("{rule: a, find: email, agents: [x], places: [result], action: flag}", "looks nowhere"),
        ("{rule: a, sizes: {}, action: flag}", "asks for nothing"),
        ("{rule: a, find: email, action: mask}", "must be one of"),
        ("{rule: a, find: email, action: flag, acton: flag}", "unknown key"),
    ],
)
async def test_a_profile_that_is_wrong_stops_the_start_with_its_line(tmp_path: Path, rule: str, told: str) -> None:
    (tmp_path / "bad.json").write_text('{"$ref": "http://127.0.0.1:1/x"}')
    (tmp_path / "compliance.yaml").write_text(f"rules:\n  - {rule}\n")
    settings = settle(
        parse("compliance: {file: compliance.yaml}", base=tmp_path), Flags(data=tmp_path / "data"), {}, cwd=tmp_path
    )
    with pytest.raises(ConfigError) as problem:
        await assemble(settings)
    assert told in str(problem.value)
    assert "compliance.yaml:2: rules[0]" in str(problem.value)


async def test_a_canceled_stream_closes_its_agent(gateway: Gateway) -> None:
    async with (
        asyncio.timeout(10),
        gateway.stream("SendStreamingMessage", {"message": message("wait 60")}, agent="desk") as events,
    ):
        first = await anext(events)
        task = await gateway.result("CancelTask", {"id": first["task"]["id"]}, agent="desk")
    assert task["status"]["state"] == "TASK_STATE_CANCELED"


async def shown(gateway: Gateway) -> Any:
    return (await gateway.client.get("/admin/compliance", headers=gateway.bearer(None))).json()


async def test_a_profile_that_changes_is_taken_over_and_a_wrong_one_is_not(gateway: Gateway) -> None:
    file = Path((await shown(gateway))["file"])
    assert [rule["rule"] for rule in (await shown(gateway))["rules"]][:2] == ["no-secrets", "mask"]
    try:
        put(file, PROFILE + '  - {rule: gossip, pattern: "psst", agents: [desk], places: [message], action: block}\n')

        async def refused() -> bool:
            return "error" in await told(gateway, "psst")

        await soon(refused)
        put(file, PROFILE.replace("action: block, on_failure", "action: blok, on_failure"))

        async def complained() -> bool:
            return (await shown(gateway))["problem"] is not None

        await soon(complained)
        problem = (await shown(gateway))["problem"]
        assert "compliance.yaml:10: rules[6].action: must be one of" in problem
        assert "error" in await told(gateway, "psst"), "what it said before holds on"
        answer = await gateway.client.post("/admin/compliance:reload", headers=gateway.bearer(None))
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, problem)
        await asyncio.to_thread(file.unlink)

        async def missed() -> bool:
            return "no such file" in (await shown(gateway))["problem"]

        await soon(missed)
        assert "error" in await told(gateway, "psst")
    finally:
        put(file, PROFILE)
        await gateway.client.post("/admin/compliance:reload", headers=gateway.bearer(None))
    assert "result" in await told(gateway, "psst")
    assert (await shown(gateway))["problem"] is None


async def test_a_schema_that_changes_is_taken_over(gateway: Gateway) -> None:
    file = Path((await shown(gateway))["file"]).parent / "order.json"

    async def takes(item: Any) -> bool:
        return "result" in await told(gateway, "", parts=[{"data": item}])

    assert not await takes({"count": 1})
    before = file.read_text()
    try:
        put(file, json.dumps({"type": "object", "required": ["count"]}))

        async def other() -> bool:
            return await takes({"count": 1})

        await soon(other)
        assert not await takes({"item": "tea"})
    finally:
        put(file, before)
        await gateway.client.post("/admin/compliance:reload", headers=gateway.bearer(None))


async def test_without_a_profile_there_is_nothing_to_read_again(tmp_path: Path) -> None:
    async with running(tmp_path, "") as plain:
        assert await shown(plain) == {"file": None, "problem": None, "rules": []}
        answer = await plain.client.post("/admin/compliance:reload", headers=plain.bearer(None))
    assert answer.json()["error"]["message"] == "No compliance profile is configured; compliance.file names one"


def put(file: Path, text: str) -> None:
    """Whole, in the old one's place, as editors do it."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)
