from __future__ import annotations

import pytest

from gateway.model.ports import Store
from gateway.stores.memory import MemoryStore
from tests.stores.contract import NODE, NOW, StoreContract


@pytest.fixture
def store() -> Store:
    return MemoryStore(now=lambda: NOW, node=NODE)


class TestMemoryStore(StoreContract):
    pass
