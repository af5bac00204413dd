"""Workloads by their certificate: believed of a proxy that the operator named, by its address, and of nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.dialects.forwarded_certificate import spiffe_id
from tests.serving import A2A, ECHO, Gateway, running

pytestmark = pytest.mark.security

ID = "spiffe://example.org/ns/prod/sa/planner"
XFCC = "X-Forwarded-Client-Cert"


def config(proxies: str) -> str:
    return f"""
server: {{trusted_proxies: [{proxies}]}}
auth: {{client_certificates: {{trust_domains: [example.org]}}}}
{ECHO}"""


async def get(gateway: Gateway, header: str | None, **more: str) -> int:
    headers = {**A2A, **({} if header is None else {XFCC: header}), **more}
    return (await gateway.client.get("/agents/echo/tasks", headers=headers)).status_code


@pytest.mark.requirement("mtls.trusted-proxy")
async def test_a_workload_is_who_its_certificate_says(tmp_path: Path) -> None:
    async with running(tmp_path, config("127.0.0.0/8")) as gateway:
        header = f'By=spiffe://example.org/gw;Hash=abc;Subject="CN=x,O=\\"y\\"";URI={ID}'
        assert await get(gateway, header) == 200
        await gateway.task("hi")  # whatever was to be recorded is, with the next commit
        entries = await gateway.record()
        assert ID in {entry.principal for entry in entries}
        assert await get(gateway, None) == 401
        for wrong in (
            "URI=spiffe://evil.example/ns/prod",
            "URI=https://example.org/x",
            f"URI={ID};URI=spiffe://example.org/other",
            f"URI={ID},URI=spiffe://example.org/other",
            "Hash=abc",
            "nonsense",
        ):
            assert await get(gateway, wrong) == 401, wrong
        # A credential that is wrong is not made good by a certificate.
        assert await get(gateway, header, Authorization="Bearer wrong") == 401


@pytest.mark.parametrize("proxies", ["10.0.0.0/8", "'::1/128'"])
async def test_the_header_of_anybody_else_is_nobodys(tmp_path: Path, proxies: str) -> None:
    """GHSA-g53w-w6mj-hrpp: no header selects another way in, not even from this machine itself."""
    async with running(tmp_path, config(proxies)) as gateway:
        assert await get(gateway, f"URI={ID}") == 401
        assert await get(gateway, f"URI={ID}", **{"X-Forwarded-For": "10.0.0.1"}) == 401
        assert await get(gateway, f"URI={ID}", Authorization=f"Bearer {gateway.token}") == 200


POLICY = """
defaults: false
rules:
  - {rule: planners, who: "spiffe://example.org/ns/prod/sa/*", do: use, on: agents/echo, verdict: PASS}
  - {rule: runners, who: spiffe://example.org/ns/test/sa/runner, do: use, on: agents/echo, verdict: PASS}
  - {rule: operator, who: local, verdict: PASS}
"""


async def test_rules_freezes_and_explanations_name_a_workload_by_its_id(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    async with running(tmp_path, f"policy: {{file: {tmp_path}/policy.yaml}}{config('127.0.0.0/8')}") as gateway:
        runner = "spiffe://example.org/ns/test/sa/runner"
        assert [await get(gateway, f"URI={id}") for id in (ID, runner, f"{runner}2")] == [200, 200, 404]
        local = gateway.bearer(None)
        asked = {"principal": ID, "action": "GetTask", "target": "agents/echo"}
        told = (await gateway.client.post("/admin/policy:explain", json=asked, headers=local)).json()
        assert (told["rule"], told["inputs"]["principal"]) == ("planners", ID), told
        frozen = await gateway.client.post(
            "/admin/frozen", json={"kind": "principal", "name": ID, "reason": "lost its key"}, headers=local
        )
        assert frozen.json()["name"] == ID
        assert [await get(gateway, f"URI={id}") for id in (ID, runner)] == [403, 200]
        thawed = await gateway.client.post("/admin/frozen:thaw", json={"kind": "principal", "name": ID}, headers=local)
        assert thawed.status_code == 204, thawed.text
        assert await get(gateway, f"URI={ID}") == 200


@pytest.mark.parametrize(
    ("uri", "good"),
    [
        (ID, True),
        ("spiffe://example.org/a", True),
        ("spiffe://example.org", False),
        ("spiffe://example.org/", False),
        ("spiffe://example.org/a/", False),
        ("spiffe://example.org//a", False),
        ("spiffe://example.org/a/../b", False),
        ("spiffe://example.org/./b", False),
        ("spiffe://EXAMPLE.org/a", False),
        ("SPIFFE://example.org/a", False),
        ("spiffe://user@example.org/a", False),
        ("spiffe://example.org:8443/a", False),
        ("spiffe://example.org/a?b", False),
        ("spiffe://example.org/a#b", False),
        ("spiffe://example.org/%61", False),
        ("spiffe://example.org/" + "a" * 2100, False),
    ],
)
def test_spiffe_ids(uri: str, good: bool) -> None:
    assert (spiffe_id(f"URI={uri}".encode()) is not None) is good
