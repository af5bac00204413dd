"""How long, how much, how many: the bounds on one MCP server, and who asks when nobody does."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.model.tool import CannotAsk, Tree
from gateway.model.value import value

MIB = 1024 * 1024


@value
class Limits:
    """Seconds, bytes and counts for one server. The time that a caller itself takes to answer a question counts to
    none of them."""

    # A server that is up says what it is within a moment; npx may have to unpack first.
    handshake_seconds: float = 30.0
    # Of the handshake, how long `server/discover` may go unanswered: some older servers say nothing at all.
    probe_seconds: float = 8.0
    # Tools that build or search take minutes.
    call_seconds: float = 300.0
    # Between two signs of life of a call whose answer comes as a stream. SDKs send comments every 15 s.
    idle_seconds: float = 120.0
    # Between two signs of life of a stream of changes, which may be silent for long.
    quiet_seconds: float = 600.0
    answer_bytes: int = 4 * MIB
    # 10 000 tools are more than any client can use.
    pages: int = 100
    items: int = 10_000
    # Requests at the same time: what hangs there must not take every connection from the others.
    concurrency: int = 256
    # Sessions (HTTP) and processes (stdio) at the same time, and how long an unused one is kept.
    sessions: int = 1024
    processes: int = 16
    idle_session_seconds: float = 600.0
    # A process is replaced after this, once it has nothing to do. None: never.
    lifetime_seconds: float | None = 24 * 3600.0


@dataclass(slots=True)
class Nobody:
    """The caller when the gateway asks on its own account: for lists and for changes. It can be asked nothing."""

    principal: str = ""
    hops: int = 0
    capabilities: Tree = field(default_factory=dict)
    client: Tree | None = None
    log_level: str | None = None
    progress: bool = False
    meta: Tree = field(default_factory=dict)

    async def notify(self, method: str, params: Tree) -> None:
        """Nobody listens."""

    async def ask(self, method: str, params: Tree) -> Tree:
        raise CannotAsk(method)


NOBODY = Nobody()
