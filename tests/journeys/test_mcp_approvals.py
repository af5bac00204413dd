"""MCP callers whose calls wait for a person: what they are told in each era, what they may answer, what comes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
import pytest_asyncio

from gateway.core.tools import consents
from gateway.dialects.mcp import headers
from gateway.model.tool import TASKS
from tests.mcp import MODERN, Door, Scripted, Tree, configured, message_of, modern, request, scripted, soon, tool
from tests.remote import Process, command, process
from tests.serving import BOUND, ROOT, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ERAS = ("legacy", "2026-07-28")
FORMS: Tree = {"elicitation": {"form": {}}}
AGENTS = f"""
agents:
  desk: {{run: "tests.actors:mirror", card: {ROOT}/agent_cards/echo.json}}
  own: {{run: "tests.actors:mirror", card: {ROOT}/agent_cards/echo.json}}
"""
POLICY = """
rules:
  - {rule: wipe, who: [ann, bob], do: tools/call, on: docs/wipe, verdict: ESCALATE, because: it is gone then}
  - {rule: two, who: ann, do: tools/call, on: docs/pay, verdict: ESCALATE, approvers: 2}
  - {rule: mine, who: [ann, bob], do: tools/call, on: docs/send, verdict: ESCALATE, approver: caller}
  - {rule: asks, who: ann, do: tools/call, on: docs/asks, verdict: ESCALATE}
  - {rule: hurry, who: ann, do: tools/call, on: docs/short, verdict: ESCALATE, within: 1 second}
  - {rule: secrets, who: ann, do: resources/read, on: "docs/file:///secret", verdict: ESCALATE}
  - {rule: briefs, who: ann, do: prompts/get, on: docs/brief, verdict: ESCALATE, because: it says how we work}
  - {rule: own-words, who: ann, do: prompts/get, on: docs/mine, verdict: ESCALATE, approver: caller}
  - {rule: letters, who: ann, do: call, on: agents/desk, verdict: ESCALATE}
  - {rule: own, who: ann, do: call, on: agents/own, verdict: ESCALATE, approver: caller}
  - {rule: tools, who: [ann, bob], do: use, on: [docs, agents/desk, agents/own], verdict: PASS}
  - {rule: leads, who: [lea, lou], do: approve, on: [docs, "agents/*"], verdict: PASS}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("mcp-approvals")
    (folder / "policy.yaml").write_text(POLICY)
    tools = [tool(name) for name in ("wipe", "pay", "send", "asks", "short")]
    secret = {"uri": "file:///secret", "name": "secret"}
    prompts = [{"name": name, "arguments": [{"name": "on"}]} for name in ("brief", "mine")]
    async with scripted(*tools, resources=[secret], prompts=prompts) as docs:
        docs.answers["resources/read"] = _read
        docs.answers["prompts/get"] = _said
        docs.answers["asks"] = _asks
        config = f"{AGENTS}policy: {{file: {folder}/policy.yaml}}\n{configured(docs=docs)}"
        async with running(folder / "data", config) as gateway:
            gateway.docs = docs  # type: ignore[attr-defined]
            yield gateway


async def _read(params: Tree) -> Tree:
    contents = [{"uri": params["uri"], "text": "xyzzy"}]
    return {"resultType": "complete", "contents": contents, "ttlMs": 0, "cacheScope": "private"}


async def _said(params: Tree) -> Tree:
    text = {"type": "text", "text": f"{params['name']} on {params['arguments']['on']}"}
    return {"resultType": "complete", "messages": [{"role": "user", "content": text}]}


async def _asks(params: Tree) -> Tree:
    """Keeps nothing: all it needs comes back."""
    if "inputResponses" in params:
        return {"resultType": "complete", "content": [{"type": "text", "text": f"state {params.get('requestState')}"}]}
    form = {"mode": "form", "message": "Sure?", "requestedSchema": {"type": "object", "properties": {}}}
    asked = {"sure": {"method": "elicitation/create", "params": form}}
    return {"resultType": "input_required", "inputRequests": asked, "requestState": "mine"}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client that has been told waits for, before it is told again."""
    monkeypatch.setattr(consents, "HOLD_SECONDS", 5.0)


def scripted_of(gateway: Gateway) -> Scripted:
    found: Scripted = gateway.docs  # type: ignore[attr-defined]
    return found


def made(gateway: Gateway, name: str) -> list[Tree]:
    """The arguments with which the server has been called."""
    return [each["arguments"] for each in scripted_of(gateway).asked("tools/call") if each["name"] == name]


@dataclass
class Person:
    """Whoever sits in front of a client, and what it is shown. `answers` are given one after the other, the last one
    again and again; `meanwhile` is done before each."""

    answers: list[Tree] = field(default_factory=lambda: [{"action": "accept", "content": {}}])
    meanwhile: Any = None
    shown: list[Any] = field(default_factory=list)

    async def __call__(self, context: Any, params: Any) -> types.ElicitResult:
        self.shown.append(params)
        if self.meanwhile is not None:
            await self.meanwhile()
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return types.ElicitResult(**answer)


async def door(gateway: Gateway, who: str = "ann") -> Door:
    return Door(gateway, who=await gateway.key(who))


async def waiting(gateway: Gateway, target: str = "docs/wipe", who: str = "lea") -> list[Tree]:
    answer = await gateway.client.get("/admin/approvals", headers=gateway.bearer(await gateway.key(who)))
    return [each for each in answer.json()["approvals"] if (each["target"], each["state"]) == (target, "waiting")]


async def say(gateway: Gateway, id: str, verb: str = "approve", who: str | None = "lea", **body: Any) -> Any:
    key = None if who is None else await gateway.key(who)
    return await gateway.client.post(f"/admin/approvals/{id}:{verb}", headers=gateway.bearer(key), json=body)


async def agree(gateway: Gateway, target: str = "docs/wipe", verb: str = "approve", **body: Any) -> None:
    """What lea says as soon as there is something to say it to."""
    (found,) = await soon(lambda: waiting(gateway, target))
    answer = await say(gateway, found["id"], verb, **body)
    assert answer.status_code == 200, answer.text


def words(result: Any) -> str:
    return str(result.content[0].text)


# --- Somebody else answers. --------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_is_told_for_whom_its_call_waits_and_the_call_goes_through_when_they_agree(
    gateway: Gateway, era: str
) -> None:
    person = Person(meanwhile=lambda: agree(gateway))
    async with (await door(gateway)).sdk(era, elicitation_callback=person) as sdk:
        result = await sdk.call_tool("docs__wipe", {"which": f"told-{era}"})
    assert words(result) == "wipe"
    assert "tools/call on docs/wipe waits for an approval by lea, lou, local until 20" in person.shown[0].message
    assert "your answer does not release it" in person.shown[0].message
    assert made(gateway, "wipe").count({"which": f"told-{era}"}) == 1


@pytest.mark.requirement("mcp.mrtr.asked-again")
@pytest.mark.security
@pytest.mark.parametrize("era", ERAS)
async def test_an_answer_of_the_caller_releases_nothing_that_others_decide(gateway: Gateway, era: str) -> None:
    person = Person([{"action": "accept", "content": {}}, {"action": "decline"}])
    async with (await door(gateway)).sdk(era, elicitation_callback=person) as sdk:
        call = asyncio.ensure_future(sdk.call_tool("docs__wipe", {"which": f"yes-{era}"}))
        (found,) = await soon(lambda: waiting(gateway))
        if era == "legacy":
            await soon(lambda: _shown(person))
            await say(gateway, found["id"], "reject", reason="not today")
        result = await call
    assert result.is_error
    assert not made(gateway, "wipe").count({"which": f"yes-{era}"})
    if era == "legacy":
        assert "was rejected: by key:lea: not today" in words(result)
    else:
        assert len(person.shown) == 2, "asked again when its time was over"
        assert "Once it is approved, the same call goes through" in words(result)
        await say(gateway, found["id"], "reject")


async def _shown(person: Person) -> bool:
    return bool(person.shown)


@pytest.mark.requirement("mcp.mrtr.asks-what-was-declared")
@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_cannot_be_asked_is_told_in_the_result_and_calls_again(gateway: Gateway, era: str) -> None:
    call = ("docs__wipe", {"which": f"silent-{era}"})
    async with (await door(gateway)).sdk(era) as sdk:
        told = await sdk.call_tool(*call)
        assert told.is_error
        assert "waits for an approval by lea, lou, local until 20" in words(told)
        assert "Once it is approved, the same call goes through." in words(told)
        assert told.meta is not None
        about = told.meta["gateway/approval"]
        assert about["approvers"] == ["lea", "lou", "local"]
        again = asyncio.ensure_future(sdk.call_tool(*call))
        assert [each["id"] for each in await waiting(gateway)] == [about["approval"]], "the same call, one approval"
        await say(gateway, about["approval"])
        assert words(await again) == "wipe"
        once = await sdk.call_tool(*call)
        assert once.is_error, "an approval is good for one call"
    await agree(gateway, verb="reject")
    assert made(gateway, "wipe").count({"which": f"silent-{era}"}) == 1


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_cannot_be_asked_hears_once_that_its_call_was_rejected(gateway: Gateway, era: str) -> None:
    call = ("docs__wipe", {"which": f"no-{era}"})
    async with (await door(gateway)).sdk(era) as sdk:
        assert "Once it is approved" in words(await sdk.call_tool(*call))
        await agree(gateway, verb="reject", reason="it is still read")
    async with (await door(gateway)).sdk(era) as sdk:
        told = await sdk.call_tool(*call)
        assert told.is_error
        assert "was rejected: by key:lea: it is still read" in words(told)
        assert not await waiting(gateway), "nobody is asked again by that"
        assert "waits for an approval" in words(await sdk.call_tool(*call)), "a call of its own"
    await agree(gateway, verb="reject")
    assert not made(gateway, "wipe").count({"which": f"no-{era}"})


@pytest.mark.parametrize("era", ERAS)
async def test_whoever_wants_progress_or_a_log_hears_it_there_and_is_kept(gateway: Gateway, era: str) -> None:
    heard: list[Any] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async def logged(params: Any) -> None:
        heard.append(params.data)

    async with (await door(gateway)).sdk(era, logging_callback=logged, log_level="info") as sdk:
        call = asyncio.ensure_future(
            sdk.call_tool("docs__wipe", {"which": f"progress-{era}"}, progress_callback=progressed)
        )
        await agree(gateway)
        assert words(await call) == "wipe"
    assert "waits for an approval by" in heard[0]
    if era != "legacy":  # a session says otherwise which log it wants
        assert heard[1]["message"] == heard[0]
        assert heard[1]["approvers"] == ["lea", "lou", "local"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_needs_two_waits_for_both(gateway: Gateway, era: str) -> None:
    async def both() -> None:
        (found,) = await soon(lambda: waiting(gateway, "docs/pay"))
        assert (await say(gateway, found["id"])).json()["missing"] == 1
        assert not made(gateway, "pay").count({"to": era})
        assert (await say(gateway, found["id"], who="lou")).status_code == 200

    person = Person(meanwhile=both)
    async with (await door(gateway)).sdk(era, elicitation_callback=person) as sdk:
        assert words(await sdk.call_tool("docs__pay", {"to": era})) == "pay"
    assert "waits for an approval by 2 of lea, lou, local" in person.shown[0].message


@pytest.mark.parametrize("era", ERAS)
async def test_what_was_edited_is_what_is_called(gateway: Gateway, era: str) -> None:
    person = Person(meanwhile=lambda: agree(gateway, verb="edit", arguments={"which": f"less-{era}"}))
    async with (await door(gateway)).sdk(era, elicitation_callback=person) as sdk:
        assert words(await sdk.call_tool("docs__wipe", {"which": f"more-{era}"})) == "wipe"
    assert made(gateway, "wipe").count({"which": f"less-{era}"}) == 1
    assert not made(gateway, "wipe").count({"which": f"more-{era}"})


@pytest.mark.parametrize("era", ERAS)
async def test_a_resource_waits_as_a_tool_does(gateway: Gateway, era: str) -> None:
    person = Person(meanwhile=lambda: agree(gateway, "docs/file:///secret"))
    async with (await door(gateway)).sdk(era, elicitation_callback=person) as sdk:
        result = await sdk.read_resource("docs+file:///secret")
    assert result.contents[0].text == "xyzzy"  # type: ignore[union-attr]
    async with (await door(gateway)).sdk(era) as sdk:
        with pytest.raises(Exception, match="waits for an approval by lea, lou, local"):
            await sdk.read_resource("docs+file:///secret")
    await agree(gateway, "docs/file:///secret", "reject")


def prompted(gateway: Gateway, name: str) -> list[str]:
    """What the server was asked to say it on."""
    asked = scripted_of(gateway).asked("prompts/get")
    return [each["arguments"]["on"] for each in asked if each["name"] == name]


@pytest.mark.parametrize("era", ERAS)
async def test_a_prompt_waits_as_a_tool_does(gateway: Gateway, era: str) -> None:
    ann, on = await door(gateway), f"ships-{era}"
    person = Person(meanwhile=lambda: agree(gateway, "docs/brief"))
    async with ann.sdk(era, elicitation_callback=person) as sdk:
        result = await sdk.get_prompt("docs__brief", {"on": on})
    assert result.messages[0].content.text == f"brief on {on}"  # type: ignore[union-attr]
    assert "waits for an approval by lea, lou, local" in person.shown[0].message
    assert prompted(gateway, "brief").count(on) == 1
    person = Person(meanwhile=lambda: agree(gateway, "docs/brief", "edit", arguments={"on": f"boats-{era}"}))
    async with ann.sdk(era, elicitation_callback=person) as sdk:
        result = await sdk.get_prompt("docs__brief", {"on": on})
    assert result.messages[0].content.text == f"brief on boats-{era}"  # type: ignore[union-attr]
    person = Person(meanwhile=lambda: agree(gateway, "docs/brief", "reject", reason="not that"))
    async with ann.sdk(era, elicitation_callback=person) as sdk:
        with pytest.raises(Exception, match="was rejected: by key:lea: not that"):
            await sdk.get_prompt("docs__brief", {"on": on})
    async with ann.sdk(era) as sdk:  # whose client cannot ask anybody
        with pytest.raises(Exception, match="waits for an approval by lea, lou, local"):
            await sdk.get_prompt("docs__brief", {"on": f"mute-{era}"})
        await agree(gateway, "docs/brief")
        result = await sdk.get_prompt("docs__brief", {"on": f"mute-{era}"})
    assert result.messages[0].content.text == f"brief on mute-{era}"  # type: ignore[union-attr]
    assert (prompted(gateway, "brief").count(on), prompted(gateway, "brief").count(f"mute-{era}")) == (1, 1)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("action", ["accept", "decline"])
async def test_whoever_is_asked_itself_says_whether_a_prompt_is_got(gateway: Gateway, era: str, action: str) -> None:
    person, on = Person([{"action": action, "content": {}}]), f"{action}-{era}"
    async with (await door(gateway)).sdk(era, elicitation_callback=person) as sdk:
        if action == "accept":
            result = await sdk.get_prompt("docs__mine", {"on": on})
            assert result.messages[0].content.text == f"mine on {on}"  # type: ignore[union-attr]
        else:
            with pytest.raises(Exception, match="was rejected"):
                await sdk.get_prompt("docs__mine", {"on": on})
    assert len(person.shown) == 1
    assert prompted(gateway, "mine").count(on) == (action == "accept")


async def test_nobody_is_asked_about_a_completion(gateway: Gateway) -> None:
    ref = {"type": "ref/resource", "uri": "docs+file:///secret"}
    asked = {"ref": ref, "argument": {"name": "id", "value": "1"}}
    error = await (await door(gateway)).error("completion/complete", asked, capabilities=FORMS)
    assert "needs an approval" in error["message"]
    assert not await waiting(gateway, "docs/file:///secret")


async def test_each_call_that_waits_is_in_the_record_once(gateway: Gateway) -> None:
    ann = await door(gateway)
    told = [await ann.call("docs__wipe", which="recorded") for _ in range(2)]
    await agree(gateway, verb="reject")
    assert all("waits for an approval" in each["content"][0]["text"] for each in told)
    entries = [entry for entry in await gateway.record() if entry.target == "docs/wipe"]
    last = [(each.verb, each.outcome) for each in entries if each.verb in ("tools/call", "RejectCall")][-3:]
    assert sorted(last) == [("RejectCall", "rejected"), ("tools/call", "waiting"), ("tools/call", "waiting")]


async def test_time_runs_out_for_a_session_that_waits(gateway: Gateway) -> None:
    async with (await door(gateway)).sdk("legacy", elicitation_callback=_never) as sdk:
        result = await sdk.call_tool("docs__short", {})
    assert result.is_error
    assert "was not approved in time" in words(result)


async def _never(context: Any, params: Any) -> types.ElicitResult:
    await asyncio.Event().wait()
    raise AssertionError


# --- The caller answers itself. ----------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_where_the_rule_says_so_the_callers_yes_releases_exactly_this_call(gateway: Gateway, era: str) -> None:
    person = Person([{"action": "accept", "content": {"reason": "I want it"}}])
    async with (await door(gateway)).sdk(era, elicitation_callback=person) as sdk:
        assert words(await sdk.call_tool("docs__send", {"to": f"a-{era}"})) == "send"
        assert words(await sdk.call_tool("docs__send", {"to": f"b-{era}"})) == "send"
    assert len(person.shown) == 2, "each call is a question of its own"
    assert "waits for your word" in person.shown[0].message
    assert made(gateway, "send").count({"to": f"a-{era}"}) == 1


@pytest.mark.requirement("mcp.elicitation.declined")
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_no_rejects_it_and_closing_the_question_decides_nothing(
    gateway: Gateway, era: str, action: str
) -> None:
    to = {"to": f"{action}-{era}"}
    person = Person([{"action": action}])
    async with (await door(gateway)).sdk(era, elicitation_callback=person) as sdk:
        result = await sdk.call_tool("docs__send", to)
    assert result.is_error
    assert not made(gateway, "send").count(to)
    left = [each for each in await waiting(gateway, "docs/send") if each["arguments"] == to]
    if action == "decline":
        assert "was rejected: by key:ann" in words(result)
        assert not left
    else:
        assert "waits for your word" in words(result)
        assert f"If your client does not ask you, answer with `gateway approvals approve {left[0]['id']}`" in words(
            result
        )
        assert (await say(gateway, left[0]["id"], "reject", "ann")).status_code == 200


# --- Nothing else goes through. ----------------------------------------------------------------------------


async def asked(gateway: Gateway, who: Door, name: str = "docs__wipe", **arguments: Any) -> tuple[Tree, Tree]:
    """The call of a client of 2026-07-28, and the answer that asks."""
    call = {"name": name, "arguments": arguments}
    result = await who.result("tools/call", call, capabilities=FORMS)
    assert result["resultType"] == "input_required", result
    return call, result


def back(call: Tree, result: Tree, action: str = "accept", **changed: Any) -> Tree:
    """The client comes back."""
    (key,) = result["inputRequests"]
    answer = {key: {"action": action, "content": {}}}
    return {**call, "inputResponses": answer, "requestState": result["requestState"], **changed}


@pytest.mark.requirement("mcp.mrtr.state-is-sealed", "mcp.elicitation.bound-to-its-user")
@pytest.mark.security
async def test_changed_arguments_void_the_approval(gateway: Gateway) -> None:
    ann = await door(gateway)
    call, result = await asked(gateway, ann, which="changed")
    (found,) = await waiting(gateway)
    await say(gateway, found["id"])
    changed = back(call, result, arguments={"which": "everything"})
    answer = await ann.error("tools/call", changed, capabilities=FORMS)
    assert "is for another call" in answer["message"]
    late = await ann.result("tools/call", back(call, result), capabilities=FORMS)
    assert "cannot be approved any more" in late["content"][0]["text"]
    assert not made(gateway, "wipe").count({"which": "changed"})
    assert not made(gateway, "wipe").count({"which": "everything"})


@pytest.mark.requirement("mcp.mrtr.used-once")
@pytest.mark.security
async def test_an_approval_is_used_once_whoever_sends_it_again(gateway: Gateway) -> None:
    ann = await door(gateway)
    call, result = await asked(gateway, ann, which="once")
    await agree(gateway)
    done = await asyncio.gather(*(ann.result("tools/call", back(call, result), capabilities=FORMS) for _ in range(4)))
    assert sum(each.get("isError") is None for each in done) == 1
    assert sum("is good for one call" in each["content"][0]["text"] for each in done) == 3
    assert made(gateway, "wipe").count({"which": "once"}) == 1


@pytest.mark.requirement("mcp.mrtr.state-is-sealed", "mcp.elicitation.bound-to-its-user")
@pytest.mark.security
async def test_nobody_else_can_come_back_with_it(gateway: Gateway) -> None:
    ann, bob = await door(gateway), await door(gateway, "bob")
    call, result = await asked(gateway, ann, "docs__send", to="foreign")
    stolen = await bob.error("tools/call", back(call, result), capabilities=FORMS)
    assert "is not one that this gateway gave to you" in stolen["message"]
    for forged in ("", "x" * 40, result["requestState"][:-4] + "AAAA", result["requestState"] * 2):
        error = await ann.error("tools/call", back(call, result, requestState=forged), capabilities=FORMS)
        assert error["code"] == -32602
    assert not made(gateway, "send").count({"to": "foreign"})
    await ann.result("tools/call", back(call, result, "decline"), capabilities=FORMS)


@pytest.mark.requirement("mcp.mrtr.unasked-is-ignored")
@pytest.mark.security
async def test_an_answer_that_nobody_asked_for_is_none(gateway: Gateway) -> None:
    """Without the state it is a new call, whatever comes with it."""
    ann = await door(gateway)
    answer = {"approval": {"action": "accept", "content": {}}}
    call = {"name": "docs__send", "arguments": {"to": "nobody"}, "inputResponses": answer}
    result = await ann.result("tools/call", call, capabilities=FORMS)
    assert result["resultType"] == "input_required"
    assert not made(gateway, "send").count({"to": "nobody"})
    await ann.result("tools/call", back(call, result, "decline"), capabilities=FORMS)


@pytest.mark.security
async def test_an_approval_that_has_expired_lets_nothing_through(gateway: Gateway) -> None:
    ann = await door(gateway)
    call, result = await asked(gateway, ann, "docs__short", which="late")
    (found,) = await soon(lambda: waiting(gateway, "docs/short"))

    async def over() -> bool:
        return not await waiting(gateway, "docs/short")

    await soon(over)
    assert (await say(gateway, found["id"])).status_code >= 400
    late = await ann.result("tools/call", back(call, result), capabilities=FORMS)
    assert "was not approved in time" in late["content"][0]["text"]
    assert not made(gateway, "short").count({"which": "late"})


# --- A server that asks something itself. ------------------------------------------------------------------


async def test_what_the_server_asks_back_belongs_to_the_call_that_was_approved(gateway: Gateway) -> None:
    ann = await door(gateway)
    call, result = await asked(gateway, ann, "docs__asks")
    await agree(gateway, "docs/asks")
    question = await ann.result("tools/call", back(call, result), capabilities=FORMS)
    assert set(question["inputRequests"]) == {"sure"}
    done = await ann.result("tools/call", back(call, question), capabilities=FORMS)
    assert done["content"][0]["text"] == "state mine"
    again = await ann.result("tools/call", back(call, question), capabilities=FORMS)
    assert set(again["inputRequests"]) == {"approval"}, "that turn was had; from here on it is another call"
    await agree(gateway, "docs/asks", "reject")


# --- Agents as tools. --------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_that_is_called_as_a_tool_waits_as_a_task(gateway: Gateway, era: str) -> None:
    async with (await door(gateway)).sdk(era) as sdk:
        call = asyncio.ensure_future(sdk.call_tool("agents__desk", {"message": f"dear {era}"}))
        await agree(gateway, "agents/desk")
        result = await call
    assert result.structured_content["state"] == "TASK_STATE_COMPLETED"


async def test_a_caller_of_an_agent_is_not_kept_for_ever_and_finds_its_task_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consents, "HOLD_SECONDS", 0.2)
    ann = await door(gateway)
    told = await ann.call("agents__desk", message="no hurry")
    task = told["structuredContent"]
    assert task["state"] == "TASK_STATE_AUTH_REQUIRED"
    assert "waits for an approval by lea, lou, local" in told["content"][0]["text"]
    assert (await ann.call("agents__desk", taskId=task["taskId"]))["structuredContent"] == task
    await agree(gateway, "agents/desk")

    async def done() -> Any:
        found = (await ann.call("agents__desk", taskId=task["taskId"]))["structuredContent"]
        return found if found["state"] == "TASK_STATE_COMPLETED" else None

    assert (await soon(done))["taskId"] == task["taskId"]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("action", "state"), [("accept", "COMPLETED"), ("decline", "REJECTED")])
async def test_a_caller_that_is_asked_itself_answers_for_an_agent_too(
    gateway: Gateway, era: str, action: str, state: str
) -> None:
    content = {"content": {"decision": "approve"}} if action == "accept" else {}
    person = Person([{"action": action, **content}])
    async with (await door(gateway)).sdk(era, elicitation_callback=person) as sdk:
        result = await sdk.call_tool("agents__own", {"message": f"{action} {era}"})
    assert "waits for your word" in person.shown[0].message
    assert result.structured_content["state"] == f"TASK_STATE_{state}"


# --- A restart in the middle, and the command line. --------------------------------------------------------


@pytest.mark.requirement("mcp.mrtr.across-a-restart")
async def test_after_kill_9_a_client_of_2026_goes_on_with_what_was_approved_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    data, call = tmp_path / "data", {"name": "docs__wipe", "arguments": {"which": "one"}}
    async with scripted(tool("wipe")) as docs:
        config = f"policy: {{file: {tmp_path}/policy.yaml}}\n{configured(docs=docs)}"
        with process(data, config) as gateway:
            ann = json.loads(await said(gateway, "keys", "add", "ann", "--json"))["key"]
            result = await posted(gateway, ann, call)
            assert result["resultType"] == "input_required"
            gateway.kill()
        with process(data, config) as gateway:
            (found,) = json.loads(await said(gateway, "approvals", "list", "--json"))["approvals"]
            assert found["state"] == "waiting"
            assert "is approved" in await said(gateway, "approvals", "approve", found["id"], "--reason", "checked")
            gateway.kill()
        with process(data, config) as gateway:
            done = await posted(gateway, ann, back(call, result))
            assert done["content"][0]["text"] == "wipe"
            replayed = await posted(gateway, ann, back(call, result))
            assert "is good for one call" in replayed["content"][0]["text"]
        assert [each["arguments"] for each in docs.asked("tools/call")] == [{"which": "one"}]


async def said(gateway: Process, *words: str) -> str:
    """What a command says."""
    done = await asyncio.to_thread(command, gateway.data, *words, url=gateway.url)
    assert done.returncode == 0, done.stderr
    return str(done.stdout + done.stderr)


async def posted(
    gateway: Process, key: str, call: Tree, capabilities: Tree = FORMS, method: str = "tools/call"
) -> Tree:
    """The result of a request of a client of 2026-07-28."""
    params = modern(call, capabilities)
    sent = {"Accept": "application/json, text/event-stream", **headers.make(method, params, MODERN)}
    body = request(method, params)
    answer = await asyncio.to_thread(gateway.call, "POST", "/mcp", who=key, json=body, headers=sent)
    result: Tree = message_of(answer)["result"]
    return result


# --- As a task. --------------------------------------------------------------------------------------------

TAKES: Tree = {**FORMS, "extensions": {TASKS: {}}}


async def begun(who: Door, name: str = "docs__wipe", /, **arguments: Any) -> Tree:
    """The task that a client is given that takes tasks."""
    made = await who.call(name, TAKES, **arguments)
    assert made["resultType"] == "task", made
    return made


async def look(who: Door, task: Tree, method: str = "tasks/get", **params: Any) -> Tree:
    return await who.result(method, {"taskId": task["taskId"], **params}, capabilities=TAKES)


async def ended(who: Door, task: Tree) -> Tree:
    async def end() -> Any:
        found = await look(who, task)
        return found if found["status"] in ("completed", "failed", "cancelled") else None

    result: Tree = await soon(end)
    return result


async def test_a_client_that_takes_tasks_gets_one_that_goes_on_when_somebody_agrees(gateway: Gateway) -> None:
    ann = await door(gateway)
    task = await begun(ann, which="task")
    assert (task["status"], task["pollIntervalMs"]) == ("working", 1000)
    assert "waits for an approval by lea, lou, local until 20" in task["statusMessage"]
    assert (await look(ann, task))["statusMessage"] == task["statusMessage"]
    await agree(gateway)
    done = await ended(ann, task)
    assert done["result"]["content"][0]["text"] == "wipe"
    assert (await look(ann, task))["result"] == done["result"], "as often as it is asked for"
    assert made(gateway, "wipe").count({"which": "task"}) == 1


@pytest.mark.parametrize(("action", "status"), [("accept", "completed"), ("decline", "completed"), ("cancel", None)])
async def test_a_task_asks_its_caller_only_where_the_rule_says_so(
    gateway: Gateway, action: str, status: str | None
) -> None:
    ann = await door(gateway)
    task = await begun(ann, "docs__send", to=f"task-{action}")
    asked = await look(ann, task)
    assert asked["status"] == "input_required"
    answer = {"approval": {"action": action, "content": {}}}
    await look(ann, task, "tasks/update", inputResponses=answer)
    if status is None:
        assert (await look(ann, task))["status"] == "input_required"
        await look(ann, task, "tasks/cancel")
    found = await ended(ann, task)
    assert made(gateway, "send").count({"to": f"task-{action}"}) == (action == "accept")
    if action == "decline":
        assert "was rejected: by key:ann" in found["result"]["content"][0]["text"]


@pytest.mark.security
async def test_an_answer_to_a_task_that_others_decide_about_releases_nothing(gateway: Gateway) -> None:
    ann, bob = await door(gateway), await door(gateway, "bob")
    task = await begun(ann, which="task-others")
    await look(ann, task, "tasks/update", inputResponses={"approval": {"action": "accept", "content": {}}})
    assert (await look(ann, task))["status"] == "working"
    foreign = await bob.error("tasks/get", {"taskId": task["taskId"]}, capabilities=TAKES)
    missing = await ann.error("tasks/get", {"taskId": "nothing"}, capabilities=TAKES)
    assert foreign == missing
    await look(ann, task, "tasks/cancel")
    assert (await look(ann, task))["status"] == "cancelled"
    assert not await waiting(gateway), "and nobody can agree to it any more"
    assert not made(gateway, "wipe").count({"which": "task-others"})


async def test_what_the_server_asks_is_asked_by_the_task(gateway: Gateway) -> None:
    ann = await door(gateway)
    task = await begun(ann, "docs__asks")
    await agree(gateway, "docs/asks")

    async def asks() -> Any:
        return (await look(ann, task)).get("inputRequests")

    (key,) = await soon(asks)
    await look(ann, task, "tasks/update", inputResponses={key: {"action": "accept", "content": {}}})
    assert (await ended(ann, task))["result"]["content"][0]["text"] == "state mine"


async def test_whoever_listens_hears_that_a_task_has_gone_on(gateway: Gateway) -> None:
    ann = await door(gateway)
    task = await begun(ann, which="heard")
    wanted = {"notifications": {"taskIds": [task["taskId"]]}}
    async with ann.stream("subscriptions/listen", wanted, capabilities=TAKES) as told:
        assert (await anext(told))["method"] == "notifications/subscriptions/acknowledged"
        assert (await anext(told))["params"]["status"] == "working"
        await agree(gateway)
        while (now := (await anext(told))["params"])["status"] == "working":
            pass
    assert now["status"] == "completed"


async def test_a_task_that_waits_outlives_kill_9_and_a_call_that_was_cut_off_says_so(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    data, call = tmp_path / "data", {"name": "docs__wipe", "arguments": {"which": "one"}}
    hang = asyncio.Event()

    async def hangs(params: Tree) -> Tree:
        hang.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with scripted(tool("wipe")) as docs:
        docs.answers["wipe"] = hangs
        config = f"policy: {{file: {tmp_path}/policy.yaml}}\n{configured(docs=docs)}"
        with process(data, config) as gateway:
            ann = json.loads(await said(gateway, "keys", "add", "ann", "--json"))["key"]
            task = await posted(gateway, ann, call, TAKES)
            gateway.kill()
        with process(data, config) as gateway:
            asked = {"taskId": task["taskId"]}
            assert (await posted(gateway, ann, asked, TAKES, "tasks/get"))["status"] == "working"
            (found,) = json.loads(await said(gateway, "approvals", "list", "--json"))["approvals"]
            await said(gateway, "approvals", "approve", found["id"])
            await posted(gateway, ann, asked, TAKES, "tasks/get")
            await asyncio.wait_for(hang.wait(), BOUND)
            gateway.kill()
        with process(data, config) as gateway:
            end = await posted(gateway, ann, asked, TAKES, "tasks/get")
            assert end["status"] == "failed"
            assert "nobody knows whether it was done" in end["error"]["message"]
        assert len(docs.asked("tools/call")) == 1
