"""A stranger's client: a2a-sdk's own, over all bindings and in both versions, does everything that clients do."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.peers import CHECKS, VERSIONS, failures
from tests.journeys.conftest import TOWN
from tests.serving import running


@pytest.mark.requirement("a2a.card.interfaces-are-true", "a2a.bindings.same-results")
@pytest.mark.parametrize("version", VERSIONS)
async def test_the_sdks_client_gets_along_with_the_gateway(tmp_path: Path, version: str) -> None:
    """Send, stream, get, list, cancel, subscribe and push configurations: the checks stand in conformance/peers.py."""
    async with running(tmp_path, TOWN, anonymous=True, grpc_port=0) as gateway:
        assert await failures(f"{gateway.url}/agents/echo", CHECKS, gateway.token, version) == []
