"""The catalogue for programs: RFC 9727, an AI Catalog, and a search; each shows what its reader may see."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.remote import command
from tests.serving import ROOT, Gateway, running

API, AI = "/.well-known/api-catalog", "/.well-known/ai-catalog.json"
CONFIG = f"""
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
  librarian: {{run: "agents.librarian:Librarian", card: {ROOT}/agent_cards/librarian.json, with: {{folder: docs}}}}
  weather: {{run: "agents.echo:Echo", card: CARD, public: true}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    card = json.loads((ROOT / "agent_cards/echo.json").read_text())
    card |= {"name": "Weather & Tides", "description": "Knows the sky.", "documentationUrl": "https://w.example/docs"}
    card["skills"] = [
        {"id": "forecast", "name": "Forecast", "description": "Rain and sun for a town.", "tags": ["weather"]},
        {"id": "tides", "name": "Tides", "description": "High water in a harbour.", "tags": ["sea"]},
    ]
    (tmp_path / "weather.json").write_text(json.dumps(card))
    return CONFIG.replace("CARD", str(tmp_path / "weather.json"))


async def seen(gateway: Gateway, path: str, *, known: bool, **headers: str) -> Any:
    answer = await gateway.client.get(path, headers={**(gateway.bearer(None) if known else {}), **headers})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.requirement("rfc9727.linkset", "rfc9727.head")
async def test_the_api_catalog_links_agents_and_their_cards(tmp_path: Path, config: str) -> None:
    async with running(tmp_path, config) as gateway:
        answer = await seen(gateway, API, known=False)
        assert answer.headers["content-type"].startswith("application/linkset+json;")
        assert 'profile="https://www.rfc-editor.org/info/rfc9727"' in answer.headers["content-type"]
        first, *others = answer.json()["linkset"]
        assert first["anchor"] == gateway.url + API
        assert [item["href"] for item in first["item"]] == [f"{gateway.url}/agents/{id}" for id in ("echo", "weather")]
        weather = next(each for each in others if each["anchor"].endswith("/weather"))
        assert weather["service-doc"] == [{"href": "https://w.example/docs"}]
        for link in weather["service-desc"] + weather["status"]:
            assert (await gateway.client.get(link["href"])).status_code == 200
        everything = (await seen(gateway, API, known=True)).json()["linkset"][0]["item"]
        assert len(everything) == 3, "the operator sees what is not public, too"
        head = await gateway.client.head(API)
        assert head.headers["link"] == f'<{gateway.url}{API}>; rel="api-catalog"'
        assert head.content == b""
        kept = {"If-None-Match": answer.headers["etag"]}
        assert (await gateway.client.get(API, headers=kept)).status_code == 304


async def test_the_ai_catalog_names_each_card_with_its_type(tmp_path: Path, config: str) -> None:
    async with running(tmp_path, config) as gateway:
        answer = await seen(gateway, AI, known=False)
        assert answer.headers["content-type"] == "application/ai-catalog+json"
        catalog = answer.json()
        assert catalog["specVersion"] == "1.0"
        entry = next(each for each in catalog["entries"] if each["displayName"] == "Weather & Tides")
        assert entry["type"] == "application/a2a-agent-card+json"
        assert entry["identifier"] == f"{gateway.url}/agents/weather"
        assert entry["tags"] == ["weather", "sea"]
        assert (await gateway.client.get(entry["url"])).json()["name"] == "Weather & Tides"
        assert len((await seen(gateway, AI, known=True)).json()["entries"]) == 3
    named = "server: {public_url: https://gw.example.org}\n" + config
    async with running(tmp_path / "named", named) as gateway:
        entries = (await seen(gateway, AI, known=False, Host="gw.example.org")).json()["entries"]
        assert entries[0]["identifier"] == "urn:air:gw.example.org:agent:echo"


async def find(gateway: Gateway, query: str, *, known: bool = False, limit: str | None = None) -> Any:
    params = {"query": query} | ({} if limit is None else {"limit": limit})
    headers = gateway.bearer(None) if known else {}
    return await gateway.client.get("/agents:find", params=params, headers=headers)


async def test_agents_are_found_by_what_their_skills_do(tmp_path: Path, config: str) -> None:
    async with running(tmp_path, config) as gateway:
        (found,) = (await find(gateway, "will it rain in my town?")).json()["agents"]
        assert (found["id"], found["name"]) == ("weather", "Weather & Tides")
        assert [skill["id"] for skill in found["skills"]] == ["forecast"]
        assert (await gateway.client.get(found["cardUrl"])).status_code == 200
        assert (await find(gateway, "quantum chromodynamics")).json() == {"agents": []}
        for limit, ids in ((None, ["weather", "echo"]), ("1", ["weather"])):
            ranked = (await find(gateway, "echo the high water", limit=limit)).json()["agents"]
            assert [agent["id"] for agent in ranked] == ids


async def test_a_search_finds_what_its_reader_may_see(tmp_path: Path, config: str) -> None:
    async with running(tmp_path, config) as gateway:
        assert (await find(gateway, "documents")).json()["agents"] == []
        assert [agent["id"] for agent in (await find(gateway, "documents", known=True)).json()["agents"]] == [
            "librarian"
        ]
        wrong = await gateway.client.get("/agents:find", params={"query": "x"}, headers=gateway.bearer("wrong"))
        assert wrong.status_code == 401


@pytest.mark.parametrize(
    ("query", "limit", "field"),
    [("", None, "query"), (" ", None, "query"), ("x" * 1001, None, "query"), ("x", "0", "limit"), ("x", "51", "limit"),
     ("x", "-1", "limit"), ("x", "many", "limit"), ("x", "9" * 5000, "limit")],
)  # fmt: skip
async def test_a_search_says_what_is_wrong_with_it(tmp_path: Path, query: str, limit: str | None, field: str) -> None:
    async with running(tmp_path) as gateway:
        answer = await find(gateway, query, limit=limit)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(f"{field}: ")


async def test_the_command_shows_agents_and_the_skills_that_fit(tmp_path: Path, config: str) -> None:
    async with running(tmp_path, config) as gateway:

        async def run(*words: str) -> Any:
            return await asyncio.to_thread(command, tmp_path, "agents", "find", *words, url=gateway.url)

        done = await run("high", "water")
        assert done.stdout.splitlines() == [
            "weather: Weather & Tides. Knows the sky.",
            "  tides: High water in a harbour.",
        ]
        assert json.loads((await run("forecast", "--json")).stdout)["agents"][0]["id"] == "weather"
        assert "No agent fits" in (await run("chromodynamics")).stderr
