"""What one caller may see of one mount, decided by the same policy as the calls."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.policy import Policy
from gateway.core.tools.naming import Mount, Names, expose
from gateway.core.tools.servers import POLL_SECONDS, Served, Servers
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Principal
from gateway.model.tool import Definition, Kind, digest
from gateway.model.toolcall import Collision, View

USED_BY: dict[Kind, str] = {
    Kind.TOOL: "tools/call",
    Kind.PROMPT: "prompts/get",
    Kind.RESOURCE: "resources/read",
    Kind.TEMPLATE: "resources/read",
}
"""The verb that must be allowed for a definition to be listed."""

MAX_VIEWS = 2048  # (caller, mount, kind) of which the lists are kept; a view of 300 tools weighs some 30 kB


class Views:
    def __init__(self, servers: Servers, mounts: Mapping[str, Mount], policy: Policy) -> None:
        self._servers = servers
        self.mounts = mounts
        self._policy = policy
        self._generation = -1
        self._names: dict[tuple[str, Kind], Names] = {}
        self._views: dict[tuple[Principal, str, Kind], View] = {}

    def mount(self, id: str) -> Mount:
        """Raises NOT_FOUND."""
        mount = self.mounts.get(id)
        if mount is None:
            raise GatewayError(Reason.NOT_FOUND, "There is no such mount here")
        return mount

    def served(self, mount: Mount) -> list[Served]:
        """The servers of which something may be on this mount."""
        named = {pattern.partition("/")[0] for pattern in (*mount.tools, *mount.aliases.values())}
        return [each for each in self._servers.all() if not named or mount.holds_server(each.id) or each.id in named]

    def names(self, mount: Mount, kind: Kind) -> Names:
        self._fresh()
        key = (mount.id, kind)
        if key not in self._names:
            self._names[key] = expose(mount, (each for s in self.served(mount) for each in s.offered.get(kind, ())))
        return self._names[key]

    def collisions(self, mount: Mount) -> tuple[Collision, ...]:
        """Whatever is left out there because it would be called like something else."""
        return tuple(
            Collision(kind, name, addresses)
            for kind in Kind
            for name, addresses in self.names(mount, kind).collisions.items()
        )

    def view(self, who: Principal, mount: Mount, kind: Kind) -> View:
        self._fresh()
        key = (who, mount.id, kind)
        view = self._views.get(key)
        if view is None:
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            view = self._views[key] = self._view(who, mount, kind)
        return view

    def may_know(self, who: Principal, definition: Definition) -> bool:
        """Whether the caller may use it, now or with more scopes: it has to know of it to ask for them."""
        served = self._servers.get(definition.server)
        if served is None:
            return False
        return self._policy.known(who, *served.question(USED_BY[definition.kind], definition.key))

    def _view(self, who: Principal, mount: Mount, kind: Kind) -> View:
        names = self.names(mount, kind)
        named = {name: each for name, each in names.named.items() if self.may_know(who, each)}
        stamp = digest([[name, each.hash] for name, each in named.items()])
        return View(mount.id, kind, named, stamp, self._ttl(mount))

    def _ttl(self, mount: Mount) -> int:
        ttls = [each.catalog.ttl_ms for each in self.served(mount) if each.catalog and each.catalog.ttl_ms is not None]
        return min(ttls, default=POLL_SECONDS * 1000)

    def _fresh(self) -> None:
        if self._generation != self._servers.generation:
            self._generation = self._servers.generation
            self._names.clear()
            self._views.clear()
