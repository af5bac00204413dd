"""What a request is for: the name that a caller says, made into a server and what is called so there."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.tools.naming import Mount
from gateway.core.tools.own_lists import OwnLists
from gateway.core.tools.served import Served
from gateway.core.tools.servers import Servers
from gateway.core.tools.views import Views
from gateway.model.approval import Approval
from gateway.model.errors import invalid
from gateway.model.principal import Principal
from gateway.model.tool import Definition, Kind, Tree
from gateway.model.toolcall import UseServer, Waiting
from gateway.model.value import value


@value
class Found:
    """What a request is for: the server, the key there, and the request in the server's own names."""

    served: Served
    verb: str  # what must be allowed
    key: str
    params: Tree
    rename: Callable[[str], str]
    who: Principal
    hash: str | None = None  # of the definition that is in force
    released: Approval | None = None  # with which the request may be made

    def declared(self, schema: str) -> Tree | None:
        """What a tool itself says about what it takes or gives."""
        definition = self.served.lists(self.who).find(Kind.TOOL, self.key) if self.verb == "tools/call" else None
        return None if definition is None else definition.tree.get(schema)

    def waiting(self) -> Waiting | None:
        """What of this name is in quarantine just now, for this caller."""
        for each in self.served.lists(self.who).waiting:
            if each.definition.key == self.key:
                return each
        return None


class Finder:
    def __init__(self, servers: Servers, own: OwnLists, views: Views) -> None:
        self._servers = servers
        self._own = own
        self._views = views

    async def find(self, call: UseServer, who: Principal) -> Found | None:
        """Waits for servers that are still on their way. None for what is not there; what is in quarantine is found.
        Raises INVALID_PARAMS for parameters that name nothing."""
        await self._servers.settled()
        if self._servers.personal:
            await self._own.settled(who)
        found = self._find(call, who)
        if found is None and await self._servers.started():
            found = self._find(call, who)
        return found

    def _find(self, call: UseServer, who: Principal) -> Found | None:
        mount = None if call.mount is None else self._views.mount(call.mount)
        if call.method == "tools/call":
            return self._named(mount, Kind.TOOL, call.params, "tools/call", who)
        if call.method == "prompts/get":
            return self._named(mount, Kind.PROMPT, call.params, "prompts/get", who)
        if call.method == "resources/read":
            return self._resource(mount, call.params, who)
        return self._completed(mount, call.params, who)

    def _named(self, mount: Mount | None, kind: Kind, params: Tree, verb: str, who: Principal) -> Found | None:
        name = params.get("name")
        if not isinstance(name, str):
            raise invalid("name", "must be a text")
        if not isinstance(params.get("arguments", {}), dict):
            raise invalid("arguments", "must be an object")
        address = self._address(mount, kind, name, who)
        if address is None:
            return None
        served, key = address
        lists = served.lists(who)
        definition = lists.find(kind, key)
        if definition is None and not any(each.definition.key == key for each in lists.waiting):
            return None
        hash = None if definition is None else definition.hash
        return Found(served, verb, key, {**params, "name": key}, _renaming(mount, served), who, hash)

    def _address(self, mount: Mount | None, kind: Kind, name: str, who: Principal) -> tuple[Served, str] | None:
        if mount is None:
            server, _, key = name.partition("/")
            served = self._servers.get(server)
            return None if served is None else (served, key)
        definition = self._views.names(mount, kind, who).named.get(name) or self._quarantined(mount, kind, name, who)
        served = self._servers.get(definition.server) if definition is not None else None
        return None if served is None or definition is None else (served, definition.key)

    def _quarantined(self, mount: Mount, kind: Kind, name: str, who: Principal) -> Definition | None:
        for served in self._views.served(mount):
            for each in served.lists(who).waiting:
                definition = each.definition
                if definition.kind is kind and mount.holds(definition) and name in mount.name(definition):
                    return definition
        return None

    def _resource(self, mount: Mount | None, params: Tree, who: Principal) -> Found | None:
        uri = params.get("uri")
        if not isinstance(uri, str):
            raise invalid("uri", "must be a text")
        where = self._place(mount, uri)
        if where is None:
            return None
        served, inner = where
        return Found(served, "resources/read", inner, {**params, "uri": inner}, _renaming(mount, served), who)

    def _place(self, mount: Mount | None, uri: str) -> tuple[Served, str] | None:
        if mount is None:
            server, _, inner = uri.partition("/")
        else:
            server, inner = mount.locate(uri) or ("", "")
            if not server or not mount.holds_server(server):
                return None
        served = self._servers.get(server)
        return None if served is None else (served, inner)

    def _completed(self, mount: Mount | None, params: Tree, who: Principal) -> Found | None:
        """Completion of an argument belongs to the prompt or template it is for, and is allowed with it."""
        ref = params.get("ref")
        if not isinstance(ref, dict):
            raise invalid("ref", "must be an object")
        if ref.get("type") == "ref/prompt":
            found = self._named(mount, Kind.PROMPT, {"name": ref.get("name")}, "prompts/get", who)
            inner = {"name": found.key} if found is not None else {}
        elif ref.get("type") == "ref/resource":
            found = self._resource(mount, {"uri": ref.get("uri")}, who)
            inner = {"uri": found.key} if found is not None else {}
        else:
            raise invalid("ref.type", "must be ref/prompt or ref/resource")
        if found is None:
            return None
        return Found(found.served, found.verb, found.key, {**params, "ref": {**ref, **inner}}, found.rename, who)


def _renaming(mount: Mount | None, served: Served) -> Callable[[str], str]:
    return (lambda uri: uri) if mount is None else (lambda uri: mount.uri(served.id, uri))
