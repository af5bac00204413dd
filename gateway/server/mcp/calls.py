"""What both eras share: from a method and its parameters to a verb, and from what comes of it to a result."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from gateway.core.gateway import Gateway
from gateway.core.tools.listening import Listening
from gateway.dialects.mcp import forms
from gateway.dialects.mcp.message import SERVER_INFO
from gateway.dialects.mcp.versions import MODERN
from gateway.model.errors import invalid
from gateway.model.principal import Principal
from gateway.model.tool import Caller, Era, Kind, Tree
from gateway.model.toolcall import Discover, ListDefinitions, Listen, Offer, UseServer, UseTask, View
from gateway.server.mcp.exchange import Exchange
from gateway.server.mcp.lists import Lists

LISTS: dict[str, Kind] = {kind.method: kind for kind in Kind}
USES = frozenset({"tools/call", "prompts/get", "resources/read", "completion/complete"})
TASK_USES = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})

DISCOVERY_TTL_MS = 300_000  # what a mount can do changes only with the gateway's version
READ_TTL_MS = 0  # of a resource whose server does not say: read it again

# The filter of `subscriptions/listen`, and what each word of it opens.
FILTERS: dict[str, tuple[Kind, ...]] = {
    "toolsListChanged": (Kind.TOOL,),
    "promptsListChanged": (Kind.PROMPT,),
    "resourcesListChanged": (Kind.RESOURCE, Kind.TEMPLATE),
}


class Calls:
    def __init__(self, gateway: Gateway, lists: Lists, info: Tree) -> None:
        self._gateway = gateway
        self._lists = lists
        self.info = info

    async def discover(self, mount: str, who: Principal) -> bytes:
        """The result of `server/discover`."""
        offer: Offer = await self._gateway.handle(Discover(mount), who)
        result: Tree = {
            "resultType": "complete",
            "supportedVersions": list(MODERN),
            "capabilities": offer.capabilities,
            "_meta": {SERVER_INFO: self.info},
        }
        if offer.instructions is not None:
            result["instructions"] = offer.instructions
        return orjson.dumps(forms.cached(result, DISCOVERY_TTL_MS, private=True))

    async def initialize(self, mount: str, who: Principal, version: str) -> bytes:
        """The result of `initialize`, in a session of `version`, which has no extension that the gateway takes part
        in."""
        offer: Offer = await self._gateway.handle(Discover(mount), who)
        capabilities = {name: each for name, each in offer.capabilities.items() if name != "extensions"}
        result: Tree = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": self.info}
        if offer.instructions is not None:
            result["instructions"] = offer.instructions
        return orjson.dumps(result)

    async def list(self, mount: str, who: Principal, method: str, params: Tree, era: Era) -> bytes:
        view: View = await self._gateway.handle(ListDefinitions(mount, LISTS[method]), who)
        return self._lists.page(view, params.get("cursor"), era, self._renaming(mount))

    async def use(
        self, mount: str, who: Principal, method: str, params: Tree, caller: Exchange, *, version: str | None = None
    ) -> bytes:
        """A request to a server; `version` is a session's."""
        sent = {name: each for name, each in params.items() if name != "_meta"}
        call = UseServer(mount, method, sent, caller, live=version is not None)
        result: Tree = await self._gateway.handle(call, who)
        if version is not None:
            return orjson.dumps(forms.legacy(result, version))
        if method in forms.CACHED and result.get("resultType") == "complete":
            result = forms.cached(result, READ_TTL_MS, private=True)
        return orjson.dumps(result)

    async def use_task(self, mount: str, who: Principal, method: str, params: Tree, caller: Exchange) -> bytes:
        sent = {name: each for name, each in params.items() if name != "_meta"}
        return orjson.dumps(await self._gateway.handle(UseTask(mount, method, sent, caller), who))

    async def listen(
        self,
        mount: str,
        who: Principal,
        kinds: frozenset[Kind],
        uris: frozenset[str],
        tasks: frozenset[str] = frozenset(),
        caller: Caller | None = None,
    ) -> Listening:
        return await self._gateway.listen(Listen(mount, kinds, uris, tasks, caller), who)

    def _renaming(self, mount: str) -> Callable[[str, str], str]:
        return self._gateway.tools.views.mount(mount).uri


def subscription(params: Tree) -> tuple[Tree, frozenset[str], frozenset[str]]:
    """The words of a filter that are wanted, the URIs, and the ids of tasks. Raises INVALID_PARAMS."""
    wanted = params.get("notifications")
    if not isinstance(wanted, dict):
        raise invalid("notifications", "must be an object")
    uris = _texts(wanted, "resourceSubscriptions", "URIs")
    tasks = _texts(wanted, "taskIds", "task ids")
    return {word: True for word in FILTERS if wanted.get(word) is True}, uris, tasks


def _texts(wanted: Tree, word: str, what: str) -> frozenset[str]:
    found = wanted.get(word, [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise invalid(f"notifications.{word}", f"must be a list of {what}")
    return frozenset(found)
