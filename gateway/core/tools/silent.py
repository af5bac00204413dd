"""A caller that listens to nothing and can be asked nothing: an agent's `call_tool`, the operator's command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.model.principal import Principal
from gateway.model.tool import CannotAsk, Tree
from gateway.model.trail import Trail


@dataclass(slots=True)
class Silent:
    principal: str
    capabilities: Tree = field(default_factory=dict)
    client: Tree | None = None
    log_level: str | None = None
    progress: bool = False
    meta: Tree = field(default_factory=dict)
    trail: Trail | None = None  # where an agent's call comes from
    hops: int = 0

    @classmethod
    def of(cls, who: Principal, capabilities: Tree | None = None, trail: Trail | None = None) -> Silent:
        """An agent that works for two callers is two callers: what a server keeps for one is not for the other."""
        behalf = f" for {who.root.id}" if who.on_behalf_of is not None else ""
        return cls(f"{who.tenant}/{who.id}{behalf}", capabilities or {}, trail=trail, hops=who.hops)

    async def notify(self, method: str, params: Tree) -> None:
        """Nobody listens."""

    async def ask(self, method: str, params: Tree) -> Tree:
        raise CannotAsk(method)
