"""Puts broken twins in place of the sound gateway: see `twins.py`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.security.twins import Attempt


@pytest.fixture
def attempt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Attempt[Any]:
    attack, twin = request.param
    if twin is not None:
        twin(monkeypatch)

    async def attempted(where: Any) -> None:
        got = await attack(where)
        assert got == [twin is not None] * len(got)
        assert got

    return attempted


@pytest.fixture
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param is not None:
        request.param(monkeypatch)
    return request.param is not None
