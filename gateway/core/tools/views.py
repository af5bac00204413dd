"""What one caller may see of one mount, decided by the same policy as the calls."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.policy import Policy
from gateway.core.tools.catalogs import POLL_SECONDS
from gateway.core.tools.naming import Mount, Names, expose
from gateway.core.tools.served import Served, owner_in
from gateway.core.tools.servers import Servers
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
        self._names: dict[tuple[str, Kind, str], Names] = {}
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

    def names(self, mount: Mount, kind: Kind, who: Principal | None = None) -> Names:
        """Of all callers, or of one who has lists of their own."""
        self._fresh()
        owner = self._apart(who)
        key = (mount.id, kind, owner)
        if key not in self._names:
            if len(self._names) >= MAX_VIEWS:
                self._names.clear()
            lists = (each.own.get(owner, each) for each in self.served(mount))
            self._names[key] = expose(mount, (each for one in lists for each in one.offered.get(kind, ())))
        return self._names[key]

    def _apart(self, who: Principal | None) -> str:
        """The owner of lists that are not those of all."""
        if who is None or not self._servers.personal:
            return ""
        owner = owner_in(who)
        return owner if any(owner in each.own for each in self._servers.personal) else ""

    def forget(self, owner: str) -> None:
        """Somebody's own lists have changed."""
        self._names = {key: each for key, each in self._names.items() if key[2] != owner}
        self._views = {key: each for key, each in self._views.items() if owner_in(key[0]) != owner}

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
        names = self.names(mount, kind, who)
        named = {name: each for name, each in names.named.items() if self.may_know(who, each)}
        stamp = digest([[name, each.hash] for name, each in named.items()])
        return View(mount.id, kind, named, stamp, self._ttl(mount))

    def _ttl(self, mount: Mount) -> int:
        served = self.served(mount)
        if not all(each.tried.is_set() for each in served):
            return 0  # what is still starting is missing here, and nobody shall go on with a list without it
        ttls = [each.catalog.ttl_ms for each in served if each.catalog and each.catalog.ttl_ms is not None]
        return min(ttls, default=POLL_SECONDS * 1000)

    def _fresh(self) -> None:
        if self._generation != self._servers.generation:
            self._generation = self._servers.generation
            self._names.clear()
            self._views.clear()
