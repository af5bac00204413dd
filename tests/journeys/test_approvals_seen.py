"""A yes is to the call that was seen: what somebody edits between the look and the yes has to be looked at again."""

from __future__ import annotations

import json
import os
import shlex
import sys
from asyncio import create_subprocess_exec, subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.journeys.test_approvals import approval_of, ended, reached, said, waiting
from tests.serving import ROOT, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = f'agents: {{bank: {{run: "tests.actors:mirror", card: {ROOT}/agent_cards/echo.json}}}}\n'
POLICY = """
rules:
  - {rule: money, who: ann, do: call, on: agents/bank, verdict: ESCALATE, approvers: 2}
  - {rule: rest, who: ann, do: use, on: agents/bank, verdict: PASS}
  - {rule: leads, who: [lea, lou], do: approve, on: agents/bank, verdict: PASS}
"""
EVERYTHING = {"parts": [{"text": "everything"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("seen")
    (folder / "policy.yaml").write_text(POLICY)
    async with running(folder / "data", f"{CONFIG}policy: {{file: {folder}/policy.yaml}}\n") as gateway:
        yield gateway


async def looked(gateway: Gateway, who: str, id: str) -> Any:
    answer = await gateway.client.get(f"/admin/approvals/{id}", headers=gateway.bearer(await gateway.key(who)))
    return answer.json()


async def program(gateway: Gateway, who: str, folder: Path, *words: str) -> tuple[int | None, str, str]:
    """`gateway approvals …` as somebody types it."""
    environ = {**os.environ, "GATEWAY_URL": gateway.url, "GATEWAY_TOKEN": await gateway.key(who)}
    environ["GATEWAY_DATA"] = str(folder)
    words = ("-m", "gateway", "approvals", *words)
    run = await create_subprocess_exec(
        sys.executable, *words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await run.communicate()
    return run.returncode, out.decode(), err.decode()


async def test_a_yes_to_what_was_edited_since_is_none(gateway: Gateway) -> None:
    task = await waiting(gateway, "a little", agent="bank")
    id = approval_of(task)
    before = (await looked(gateway, "lea", id))["released"]
    assert (await said(gateway, "lou", id, "edit", arguments=EVERYTHING)).status_code == 200
    blind = await said(gateway, "lea", id, "approve", seen=before)
    assert blind.status_code == 409
    assert blind.json()["error"]["message"] == "It was edited meanwhile; look at it again"
    assert blind.json()["error"]["details"][0]["reason"] == "OUTDATED"
    now = await looked(gateway, "lea", id)
    assert (now["state"], [word["by"] for word in now["words"]]) == ("waiting", ["key:lou"])
    assert (await said(gateway, "lea", id, "approve", seen=now["released"])).json()["state"] == "used"
    assert reached(await ended(gateway, task, agent="bank"))["message"]["parts"] == EVERYTHING["parts"]


async def test_the_program_says_yes_to_an_edited_call_only_with_what_was_seen(gateway: Gateway, tmp_path: Path) -> None:
    task = await waiting(gateway, "a little", agent="bank")
    id = approval_of(task)
    _, out, err = await program(gateway, "lea", tmp_path, "show", id)
    assert "a little" in out
    assert "--seen" not in err, "nobody has edited it"
    before = json.loads((await program(gateway, "lea", tmp_path, "show", id, "--json"))[1])["released"]
    assert (await said(gateway, "lou", id, "edit", arguments=EVERYTHING)).status_code == 200

    code, _, err = await program(gateway, "lea", tmp_path, "approve", id)
    assert code == 1
    assert "It was edited since it was asked for" in err
    code, _, err = await program(gateway, "lea", tmp_path, "approve", id, "--seen", before)
    assert code == 1
    assert "It was edited meanwhile; look at it again" in err
    assert (await looked(gateway, "lea", id))["state"] == "waiting"

    _, out, err = await program(gateway, "lea", tmp_path, "show", id)
    assert "everything" in out
    (shown,) = (each for each in err.splitlines() if "--seen" in each)
    words = shlex.split(shown.partition(" with: ")[2])
    code, _, err = await program(gateway, "lea", tmp_path, *words[words.index("approvals") + 1 :])
    assert (code, err) == (0, "SendMessage on agents/bank is approved.\n")
    assert reached(await ended(gateway, task, agent="bank"))["message"]["parts"] == EVERYTHING["parts"]


async def test_the_program_says_yes_as_before_to_what_nobody_has_edited(gateway: Gateway, tmp_path: Path) -> None:
    task = await waiting(gateway, "a little", agent="bank")
    first = await program(gateway, "lea", tmp_path, "approve", approval_of(task))
    assert first[0] == 0
    assert "1 more person has to approve it" in first[2]
    assert (await program(gateway, "lou", tmp_path, "approve", approval_of(task)))[0] == 0
    assert reached(await ended(gateway, task, agent="bank"))["message"]["parts"] == [{"text": "a little"}]
