"""Who did what, on whose behalf, decided by which rule: read through the front door, and proved without it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.cli import main
from gateway.core.audit import REFUSALS
from gateway.dialects.sse import Reader
from gateway.stores.notary import Notary
from tests.remote import PROGRAM, environment
from tests.serving import BOUND, ROOT, Gateway, message, running
from tests.stores import contract

OFFICE = f"""
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
  asker: {{run: "tests.journeys.test_audit:ask", card: {ROOT}/agent_cards/echo.json, public: true}}
  hidden: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json}}
"""


async def ask(context: Any, said: Any) -> str:
    await context.ask("echo", said.text)
    return "asked"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(tmp_path_factory.mktemp("gateway"), OFFICE) as gateway:
        yield gateway


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def found(gateway: Gateway, **filters: Any) -> list[dict[str, Any]]:
    answer = await gateway.client.get("/admin/audit", params=filters, headers=gateway.bearer(None))
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["entries"]
    return entries


async def signed(gateway: Gateway) -> Path:
    notary = gateway.app.notary
    assert isinstance(notary, Notary)
    await gateway.app.store.commit()
    await notary.seal()
    return gateway.app.settings.data


async def run(gateway: Gateway, *words: str | Path) -> int:
    """A command of the program, beside the gateway that runs in this process."""
    return await asyncio.to_thread(main, ["audit", *map(str, words), "--data", str(gateway.app.settings.data)])


async def test_a_message_leaves_its_intent_and_its_outcome(gateway: Gateway) -> None:
    ann = await gateway.key("ann")
    sent = message("hello")
    await gateway.result("SendMessage", {"message": sent}, who=ann)
    outcome, intent = await found(gateway, actor="key:ann", action="SendMessage")
    assert (intent["phase"], intent["outcome"]) == ("intent", "begun")
    assert (outcome["phase"], outcome["outcome"]) == ("outcome", "COMPLETED")
    for entry in (intent, outcome):
        assert (entry["object"], entry["effect"], entry["rule"]) == ("echo", "PASS", "public-agents")
        assert entry["request"] == entry["correlation"] == intent["request"]
        canonical = json.dumps(sent, sort_keys=True, separators=(",", ":"))
        assert entry["digest"] == hashlib.sha256(canonical.encode()).hexdigest()
        assert entry["length"] == len(canonical)
        assert len(entry["upstreamHash"]) == 64
    assert outcome["task"] == intent["task"]
    assert "hello" not in json.dumps([intent, outcome])


async def test_what_is_refused_is_recorded_with_the_reason(gateway: Gateway) -> None:
    bob = await gateway.key("bob")
    await gateway.error("SendMessage", {"message": message("hello")}, agent="hidden", who=bob)
    (denied,) = await found(gateway, actor="key:bob")
    assert (denied["effect"], denied["outcome"]) == ("BLOCK", "NOT_FOUND")
    assert denied["reason"]


async def test_what_an_agent_does_for_a_caller_names_both_and_leads_back(gateway: Gateway) -> None:
    cid = await gateway.key("cid")
    await gateway.send("hello", agent="asker", who=cid)
    entries = await found(gateway, actor="key:cid")
    outer = [entry for entry in entries if entry["actor"] == "key:cid"]
    inner = [entry for entry in entries if entry["actor"] == "agent:asker"]
    assert [entry["phase"] for entry in inner] == [entry["phase"] for entry in outer] == ["outcome", "intent"]
    assert all(entry["chain"] == ["key:cid"] for entry in inner)
    assert {entry["cause"] for entry in inner} == {outer[0]["request"]}
    assert {entry["correlation"] for entry in entries} == {outer[0]["request"]}
    assert {entry["index"] for entry in await found(gateway, correlation=outer[0]["request"])} == {
        entry["index"] for entry in entries
    }


async def test_what_an_agent_asks_has_a_digest_like_what_is_sent(gateway: Gateway) -> None:
    await gateway.send("for the record", agent="asker", who=await gateway.key("cyd"))
    inner = [entry for entry in await found(gateway, actor="key:cyd") if entry["actor"] == "agent:asker"]
    answer = await gateway.client.get(f"/admin/tasks/{inner[0]['task']}:replay", headers=gateway.bearer(None))
    (asked,) = answer.json()["task"]["history"]
    asked = {name: each for name, each in asked.items() if name not in ("contextId", "taskId")}
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()
    for entry in inner:
        assert (entry["digest"], entry["length"]) == (hashlib.sha256(canonical).hexdigest(), len(canonical))


async def test_an_operators_change_is_recorded_with_what_was_before_and_after(gateway: Gateway) -> None:
    await gateway.key("dan")
    made = (await found(gateway, action="AddKey"))[0]
    assert (made["phase"], made["outcome"]) == ("outcome", "ok")
    assert len(await found(gateway, request=made["request"])) == 1
    (key,) = made["change"]["after"]
    assert made["change"]["before"] == []
    assert key["principal"] == "key:dan"
    assert not key.keys() & {"hash", "secret", "key"}
    await gateway.client.delete(f"/admin/keys/{key['id']}", headers=gateway.bearer(None))
    revoked = (await found(gateway, action="RevokeKey"))[0]
    assert revoked["change"]["before"] == [key]
    assert revoked["change"]["after"][0]["revoked"] is not None


async def test_an_entry_belongs_to_the_callers_trace(gateway: Gateway) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for header, told in ((f"00-{trace}-00f067aa0ba902b7-01", trace), (f"00-{trace}", None), ("", None)):
        headers = {"traceparent": header} if header else {}
        answer = await gateway.http("GET", "/tasks", headers=headers)
        assert answer.status_code == 200
        assert (await found(gateway, action="ListTasks"))[0].get("trace") == told


async def test_a_pseudonym_from_an_export_finds_what_the_name_finds(gateway: Gateway) -> None:
    await gateway.send("hello", who=await gateway.key("pia"))
    await gateway.app.store.commit()
    with closing(sqlite3.connect(gateway.app.settings.data / "gateway.db")) as db:
        ((pseudonym,),) = db.execute("SELECT pseudonym FROM audit_subject WHERE name = 'key:pia'").fetchall()
    by_name = await found(gateway, actor="key:pia", action="SendMessage")
    assert len(by_name) == 2
    assert await found(gateway, actor=pseudonym, action="SendMessage") == by_name


async def test_pages_lead_from_the_newest_entry_to_the_first(gateway: Gateway) -> None:
    await gateway.send("hello")
    seen: list[int] = []
    before: int | None = None
    while True:
        params = {"limit": 3, **({} if before is None else {"before": before})}
        answer = await gateway.client.get("/admin/audit", params=params, headers=gateway.bearer(None))
        page = answer.json()
        seen += [entry["index"] for entry in page["entries"]]
        before = page["before"]
        if before is None:
            break
    assert seen == list(range(seen[0], -1, -1))


async def test_only_who_may_reads_the_log_and_reading_is_recorded(gateway: Gateway) -> None:
    eve = await gateway.key("eve")
    for path in ("/admin/audit", "/admin/audit/0", "/admin/audit:watch"):
        assert (await gateway.client.get(path, headers=gateway.bearer(eve))).status_code == 403
    assert {entry["effect"] for entry in await found(gateway, actor="key:eve")} == {"BLOCK"}
    assert (await found(gateway, action="ReadAudit"))[0]["actor"] == "local:local"


async def test_a_question_that_is_not_understood_is_refused(gateway: Gateway) -> None:
    for params in ({"limit": "0"}, {"limit": "x"}, {"before": "-1"}, {"since": "yesterday"}, {"who": "ann"}):
        answer = await gateway.client.get("/admin/audit", params=params, headers=gateway.bearer(None))
        assert answer.status_code == 400, params
    assert (await gateway.client.get("/admin/audit/99999999", headers=gateway.bearer(None))).status_code == 404


async def test_what_is_written_while_a_watch_begins_is_not_missed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    auditing = gateway.app.gateway.auditing
    end = auditing.end

    async def meanwhile() -> int:
        await gateway.key("zoe")
        return await end()

    monkeypatch.setattr(auditing, "end", meanwhile)
    reader, asked = Reader(), {"action": "AddKey", "limit": "1"}
    async with asyncio.timeout(BOUND):
        async with gateway.client.stream(
            "GET", "/admin/audit:watch", params=asked, headers=gateway.bearer(None)
        ) as stream:
            async for chunk in stream.aiter_bytes():
                if frames := reader.feed(chunk):
                    break
    newest = json.loads(frames[0].data)
    assert "zoe" in json.dumps(newest["change"]["after"])


async def test_whoever_watches_sees_entries_as_they_are_written(gateway: Gateway) -> None:
    reader = Reader()
    params: dict[str, Any] = {"limit": 1, "action": "GetTask"}
    async with (
        asyncio.timeout(BOUND),
        gateway.client.stream("GET", "/admin/audit:watch", params=params, headers=gateway.bearer(None)) as answer,
    ):
        await gateway.rpc("GetTask", {"id": "watched"})
        async for chunk in answer.aiter_raw():
            if any(json.loads(event.data)["outcome"] == "TASK_NOT_FOUND" for event in reader.feed(chunk)):
                return


async def test_the_log_is_verified_and_proved_beside_the_gateway(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await gateway.send("hello")
    data = await signed(gateway)
    assert await run(gateway, "verify") == 0
    assert capsys.readouterr().out.startswith("ok: ")
    proof = tmp_path / "for the auditor.txt"
    assert await run(gateway, "prove", "1", "--out", proof) == 0
    assert await run(gateway, "verify", proof) == 0
    proof.write_text(proof.read_text().replace("index 1\n", "index 0\n"))
    assert await run(gateway, "verify", proof) == 1
    assert await run(gateway, "prove", "99999999", "--out", proof) == 1
    keys = tmp_path / "keys"
    keys.write_text("gw.example+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\n")
    assert await run(gateway, "verify", "--keys", keys) == 3
    keys.write_text((data / "audit" / "keys").read_text().replace("127.0.0.1", "127.0.0.2"))
    assert await run(gateway, "verify", "--keys", keys) == 3


async def test_every_form_of_export_leads_back_to_the_log(
    gateway: Gateway, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    await gateway.send("hello")
    await gateway.error("GetTask", {"id": "missing"})
    await signed(gateway)
    count = (await found(gateway, limit=1))[0]["index"] + 1
    leaves: dict[str, list[str]] = {}
    for form in ("jsonl", "ocsf", "cloudevents", "otlp"):
        capfdbinary.readouterr()
        assert await run(gateway, "export", "--format", form) == 0
        lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
        # Where the four take long, a checkpoint comes between them, and the later ones have more.
        leaves[form] = LEAVES[form](lines)[:count]
        if form == "jsonl":
            export = tmp_path / "log.jsonl"
            export.write_bytes(b"".join(json_line(line) for line in lines))
            assert await run(gateway, "verify", export, "--keys", gateway.app.settings.data / "audit" / "keys") == 0
    assert leaves["jsonl"] == leaves["ocsf"] == leaves["cloudevents"] == leaves["otlp"]
    assert len(leaves["jsonl"]) == count
    assert await run(gateway, "export", "--after", "3") == 2


def json_line(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def otlp_leaves(requests: list[Any]) -> list[str]:
    records = [
        record
        for request in requests
        for resource in request["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]
    return [
        next(each["value"]["stringValue"] for each in record["attributes"] if each["key"] == "audit.leaf")
        for record in records
    ]


LEAVES: dict[str, Any] = {
    "jsonl": lambda lines: [line["leaf"] for line in lines[1:]],
    "ocsf": lambda lines: [line["unmapped"]["leaf"] for line in lines],
    "cloudevents": lambda lines: [line["leafhash"] for line in lines],
    "otlp": otlp_leaves,
}


async def test_a_person_reads_the_log_at_a_terminal(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_URL", gateway.url)
    fay = await gateway.key("fay")
    await gateway.send("hello", who=fay)
    assert await run(gateway, "tail", "--actor", "key:fay") == 0
    head, intent, outcome = capsys.readouterr().out.splitlines()
    assert head.split() == ["INDEX", "TIME", "ACTOR", "ACTION", "OBJECT", "DECISION", "OUTCOME"]
    assert intent.split()[2:] == ["key:fay", "SendMessage", "echo", "PASS", "public-agents", "begun"]
    assert await run(gateway, "search", "--actor", "key:fay", "--outcome", "COMPLETED") == 0
    assert capsys.readouterr().out.splitlines()[1] == outcome
    assert await run(gateway, "show", outcome.split()[0]) == 0
    shown = capsys.readouterr().out
    assert "rule          public-agents" in shown
    request = next(line.split()[1] for line in shown.splitlines() if line.startswith("request"))
    assert await run(gateway, "show", request, "--json") == 0
    assert [entry["phase"] for entry in json.loads(capsys.readouterr().out)["entries"]] == ["intent", "outcome"]
    assert await run(gateway, "show", "nothing") == 1


LONG = 1_005  # entries: more than one page holds


async def crowded(gateway: Gateway, actor: str) -> None:
    """As many entries by somebody who does nothing else."""
    for count in (500, LONG - 500):
        await gateway.app.store.commit(
            records=[contract.entry(f"{actor}{count}.{n}", principal=actor) for n in range(count)]
        )


async def test_the_tail_of_the_log_is_as_long_as_was_asked_for(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_URL", gateway.url)
    await crowded(gateway, "key:long")
    for asked in (LONG - 1, LONG + 1):
        assert await run(gateway, "tail", "-n", str(asked), "--actor", "key:long", "--json") == 0
        shown = [entry["index"] for entry in json.loads(capsys.readouterr().out)["entries"]]
        assert len(shown) == min(asked, LONG)
        assert shown == sorted(set(shown))


async def test_so_it_is_where_it_is_followed(gateway: Gateway) -> None:
    await crowded(gateway, "key:followed")
    data = gateway.app.settings.data
    words = ("audit", "tail", "-n", str(LONG - 1), "--follow", "--json", "--actor", "key:followed", "--data", str(data))
    following = await asyncio.create_subprocess_exec(
        PROGRAM, *words, stdout=asyncio.subprocess.PIPE, env=environment(data, GATEWAY_URL=gateway.url), limit=2**20
    )
    try:
        assert following.stdout is not None

        async def index() -> int:
            assert following.stdout is not None
            number: int = json.loads(await asyncio.wait_for(following.stdout.readline(), BOUND))["index"]
            return number

        shown = [await index() for _ in range(LONG - 1)]
        await gateway.app.store.commit(records=[contract.entry("fresh", principal="key:followed")])
        shown.append(await index())
        assert len(shown) == LONG
        assert shown == sorted(set(shown))
    finally:
        following.kill()
        await following.wait()


async def test_nothing_happens_that_cannot_be_recorded(tmp_path: Path) -> None:
    async with running(tmp_path, OFFICE) as gateway:
        await gateway.app.store.aclose()
        error = await gateway.error("GetTask", {"id": "any"})
        assert error["data"][0]["reason"] == "UNAVAILABLE"
        assert (await gateway.http("GET", "/tasks")).status_code == 503


async def test_a_task_is_shown_as_it_was_at_any_moment(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gil = await gateway.key("gil")
    task = await gateway.task("count 3", who=gil)
    path = f"/admin/tasks/{task['id']}:replay"

    async def past(status: int = 200, who: str | None = None, **asked: Any) -> Any:
        answer = await gateway.client.get(path, params=asked, headers=gateway.bearer(who))
        assert answer.status_code == status, answer.text
        return answer.json()

    whole = await past()
    assert whole["task"] == (await gateway.http("GET", f"/tasks/{task['id']}", who=gil)).json()
    assert [event["event"] for event in whole["events"]] == list(range(1, len(whole["events"]) + 1))
    assert whole["later"] == 0
    for number in range(1, len(whole["events"]) + 1):
        then = await past(event=number)
        assert (len(then["events"]), then["later"]) == (number, len(whole["events"]) - number)
    first = await past(event=1)
    assert first["task"] == whole["events"][0]["body"]["task"]
    assert (await past(at=whole["events"][-1]["time"]))["task"] == whole["task"]
    await past(404, at="2020-01-01T00:00:00Z")
    await past(403, who=gil)
    monkeypatch.setenv("GATEWAY_URL", gateway.url)
    words = ["replay", task["id"], "--event", "1", "--data", str(gateway.app.settings.data)]
    assert await asyncio.to_thread(main, words) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split() == ["EVENT", "TIME", "WHAT"]
    assert f"{len(whole['events']) - 1} more events have come since." in shown.err


async def test_who_is_to_be_forgotten_is_nobody_in_the_log(gateway: Gateway) -> None:
    await gateway.send("hello", who=await gateway.key("hal"))
    answer = await gateway.client.post(
        "/admin/audit:erase", json={"principal": "key:hal"}, headers=gateway.bearer(None)
    )
    pseudonym = answer.json()["pseudonym"]
    assert await found(gateway, actor="key:hal") == []
    assert {entry["action"] for entry in await found(gateway, actor=pseudonym)} == {"SendMessage"}
    assert [entry["phase"] for entry in await found(gateway, object=pseudonym)] == ["intent"]
    (made, *_) = await found(gateway, action="AddKey")
    assert made["change"]["after"][0]["principal"] == pseudonym
    again = await gateway.client.post("/admin/audit:erase", json={"principal": "key:hal"}, headers=gateway.bearer(None))
    assert again.status_code == 404


async def test_new_keys_are_named_in_the_log_and_whoever_has_the_old_ones_goes_on(
    gateway: Gateway, tmp_path: Path
) -> None:
    await gateway.send("hello")
    data = await signed(gateway)
    old = tmp_path / "old"
    old.write_text((data / "audit" / "keys").read_text())
    answer = await gateway.client.post("/admin/audit:rotate-key", headers=gateway.bearer(None))
    keys = answer.json()["keys"]
    intent = (await found(gateway, action="RotateAuditKey"))[1]
    assert intent["change"]["after"]["keys"] == keys
    assert set(intent["change"]["before"]["keys"]) <= set(old.read_text().split())
    await gateway.send("hello")
    await signed(gateway)
    assert await run(gateway, "verify", "--keys", old) == 0
    assert await run(gateway, "verify") == 0
    new = tmp_path / "new"
    new.write_text("\n".join(keys))
    assert await run(gateway, "verify", "--keys", new) == 1, "they did not sign what was before them"


async def test_who_is_turned_away_at_the_door_is_recorded_and_a_flood_is_counted(gateway: Gateway) -> None:
    gateway.app.gateway.refusals.flush()
    for number in range(REFUSALS + 7):
        headers = {"Authorization": "Bearer nobody"} if number % 2 else {}
        assert (await gateway.client.get("/admin/keys", headers=headers)).status_code == 401
    gateway.app.gateway.refusals.flush()
    flood, *single = await found(gateway, action="Authenticate")
    assert (flood["outcome"], flood["object"]) == ("7 more", "gateway")
    assert len(single) >= REFUSALS
    assert {(each["actor"], each["effect"], each["outcome"]) for each in single} == {
        ("anonymous:anonymous", "BLOCK", "UNAUTHENTICATED")
    }
