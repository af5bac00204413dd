"""What MCP servers offer, and the two small ports between whoever asks and the server that answers.

MCP's own content stays a JSON tree from end to end (`Tree`): the gateway interprets a few fields of it and rewrites
fewer, so fields it does not know, their order and every number survive the trip. The vocabulary is that of the
2026-07-28 revision (docs/adr/0009); older revisions are translated to it and from it by `gateway.dialects.mcp`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from gateway.model.errors import GatewayError, Reason
from gateway.model.login import Accounts, Ending
from gateway.model.value import value

Tree: TypeAlias = dict[str, Any]


class Kind(StrEnum):
    """The four lists of a server. The value is the member of the list result, and of `Catalog.definitions`."""

    TOOL = "tools"
    PROMPT = "prompts"
    RESOURCE = "resources"
    TEMPLATE = "resourceTemplates"

    @property
    def method(self) -> str:
        """The method that lists them (server/tools, server/prompts, server/resources)."""
        return "resources/templates/list" if self is Kind.TEMPLATE else f"{self.value}/list"

    @property
    def key(self) -> str:
        """The field that names one of them."""
        return _KEYS[self]

    @property
    def capability(self) -> str:
        """The server capability without which the list is not asked for."""
        return "resources" if self is Kind.TEMPLATE else self.value


_KEYS = {Kind.TOOL: "name", Kind.PROMPT: "name", Kind.RESOURCE: "uri", Kind.TEMPLATE: "uriTemplate"}


class Era(StrEnum):
    """How one talks to a server: each request for itself (2026-07-28 and later), or sessions (before)."""

    MODERN = "modern"
    LEGACY = "legacy"


@value
class Definition:
    """One tool, prompt, resource or template as its server describes it. `hash` is `digest(tree)`: whatever a
    server changes in it, the hash changes."""

    server: str
    kind: Kind
    key: str
    tree: Tree = field(hash=False)
    hash: str

    @classmethod
    def of(cls, server: str, kind: Kind, tree: Tree) -> Definition:
        """Raises ValueError when the tree does not say what it is called."""
        key = tree.get(kind.key)
        if not isinstance(key, str) or not key:
            raise ValueError(f"{kind.key} must be a text")
        return cls(server, kind, key, tree, digest(tree))

    @property
    def address(self) -> str:
        """How configuration, policy, audit and `call_tool` call it: `server/name`."""
        return f"{self.server}/{self.key}"


_canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def digest(tree: Any) -> str:
    """SHA-256 (hex) of the canonical form: UTF-8 JSON with sorted keys and without spaces. Two trees that differ only
    in the order of their keys are the same definition."""
    return measured(tree)[0]


def measured(tree: Any) -> tuple[str, int]:
    """The digest of a tree, and how many bytes its canonical form has."""
    body = _canonical(tree).encode("utf-8", "surrogatepass")
    return hashlib.sha256(body).hexdigest(), len(body)


@value
class Face:
    """What a server says about itself, by `server/discover` or `initialize`. `version` is the revision spoken with it,
    `info` its name and version (untrusted, for display), `capabilities` as it sent them."""

    era: Era
    version: str
    capabilities: Tree = field(hash=False)
    info: Tree = field(hash=False)
    instructions: str | None = None

    def offers(self, kind: Kind) -> bool:
        return isinstance(self.capabilities.get(kind.capability), dict)


@value
class Listing:
    """One whole list, all pages. `ttl_ms` is how long it may be believed (None: the server did not say), `private`
    that it is only for whoever asked (`cacheScope`)."""

    trees: tuple[Tree, ...]
    ttl_ms: int | None = None
    private: bool = False


@value
class Catalog:
    """All that one server offers, read together. `fetched` is milliseconds since the epoch."""

    server: str
    face: Face
    definitions: Mapping[Kind, tuple[Definition, ...]] = field(hash=False)
    fetched: int
    ttl_ms: int | None = None
    private: bool = False

    def find(self, kind: Kind, key: str) -> Definition | None:
        return next((each for each in self.definitions.get(kind, ()) if each.key == key), None)


@value
class ToolRequest:
    """What an agent sends with a tool's name. `asks` says that it can wait for an answer of its own caller's: the
    result may then be `input_required`, and a second request brings `responses` and `state` (basic/patterns/mrtr)."""

    arguments: Tree = field(hash=False)
    asks: bool = False
    responses: Tree | None = field(default=None, hash=False)
    state: str | None = None

    @property
    def params(self) -> Tree:
        more = {"inputResponses": self.responses, "requestState": self.state}
        return {"arguments": self.arguments, **{name: each for name, each in more.items() if each is not None}}


@value
class ToolResult:
    """What a tool answered (server/tools, tool result). `tree` is all of it, as the server sent it."""

    tree: Tree = field(hash=False)

    @property
    def questions(self) -> Tree:
        """What has to be answered first: key -> method and params. Empty for a result that is complete."""
        asked = self.tree.get("inputRequests") if self.tree.get("resultType") == "input_required" else None
        return asked if isinstance(asked, dict) else {}

    @property
    def unfinished(self) -> bool:
        """The tool goes on only when it is called again, with answers if it has asked."""
        return self.tree.get("resultType") == "input_required"

    @property
    def failed(self) -> bool:
        """The tool ran and says that it did not succeed; `text` says why."""
        return self.tree.get("isError") is True

    @property
    def text(self) -> str:
        """All text content, one under the other: what a person would read."""
        blocks = self.tree.get("content")
        texts = [each.get("text") for each in blocks if isinstance(each, dict)] if isinstance(blocks, list) else []
        return "\n".join(text for text in texts if isinstance(text, str))

    @property
    def structured(self) -> Any:
        """The result as data, in the form of the tool's `outputSchema`; None when there is none."""
        return self.tree.get("structuredContent")


@value
class Change:
    """A notification that belongs to no request: `notifications/tools/list_changed` and its sisters,
    `notifications/resources/updated`, and first of all `notifications/subscriptions/acknowledged`."""

    method: str
    params: Tree = field(hash=False)


ACKNOWLEDGED = "notifications/subscriptions/acknowledged"

TASKS = "io.modelcontextprotocol/tasks"
"""The extension by which a call may be answered with a task instead of its result (ext-tasks, SEP-2663)."""

TASK_CHANGED = "notifications/tasks"
TASK_ENDS = frozenset({"completed", "failed", "cancelled"})
"""The states of an MCP task after which nothing comes."""


def takes_tasks(capabilities: Tree) -> bool:
    """Whether a client of these capabilities may be answered with a task (ext-tasks, capability negotiation)."""
    extensions = capabilities.get("extensions")
    return isinstance(extensions, dict) and isinstance(extensions.get(TASKS), dict)


class PeerError(GatewayError):
    """A JSON-RPC error with which the other side answered, kept as it was said: `code`, `message`, `data`."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(Reason.UPSTREAM_FAILED, message)
        self.code = code
        self.data = data

    @property
    def retryable(self) -> bool:
        return False  # it was understood and refused


class CannotAsk(GatewayError):
    """The caller declared no such capability, or has no way to be asked while its request is in flight."""

    def __init__(self, method: str) -> None:
        super().__init__(Reason.UNSUPPORTED_OPERATION, f"The caller takes no {method}")
        self.method = method


class Caller(Protocol):
    """Whoever asked, as far as a server may know and use it while the request is in flight.

    `principal` (tenant and id) tells one caller from another: nothing of one caller's session is ever used for
    another. `capabilities` are the caller's own (ClientCapabilities), already without what the gateway cannot bridge.
    `client` is its `clientInfo` (None: not given). `log_level` is the least severe `notifications/message` it wants,
    None for none at all. `progress` says that it wants `notifications/progress`. `meta` holds the other entries of its
    `_meta` that travel on (`traceparent`, `tracestate`, `baggage`, and extensions' own): never a progress token, never
    the `io.modelcontextprotocol/*` entries, which each hop makes for itself. `hops` is how many agents asked each other
    to get here.
    """

    principal: str
    hops: int
    capabilities: Tree
    client: Tree | None
    log_level: str | None
    progress: bool
    meta: Tree

    async def notify(self, method: str, params: Tree) -> None:
        """Hand on `notifications/progress` (the token in `params` is ignored, the caller's own takes its place) or
        `notifications/message`. Never raises; what the caller did not ask for is dropped."""
        ...

    async def ask(self, method: str, params: Tree) -> Tree:
        """Put `elicitation/create`, `sampling/createMessage` or `roots/list` to the caller and wait for its result,
        for as long as the caller takes: whoever asks stops the clock of its own request meanwhile.

        Raises CannotAsk; PeerError with what the caller answered (such as -1, "user rejected"); CancelledError."""
        ...


class ServerAccounts(Accounts, Protocol):
    """The accounts of a server's callers, and the server as each of them reaches it."""

    def server(self, owner: str) -> ToolServer:
        """The server as it is reached with the owner's authorization; without one its requests raise LoginNeeded."""
        ...

    def connected(self, owner: str) -> bool:
        """Whether there is an authorization of the owner's, be it that it is none any more."""
        ...

    async def end_all(self) -> Mapping[Ending, int]:
        """Forget everybody's authorization, then give the tokens back; how many ended in which way."""
        ...

    async def aclose(self) -> None: ...


class ToolServer(Protocol):
    """One MCP server behind us, whatever its era and transport. Connects at first use, and again when it must.

    Every method raises GatewayError and nothing else: PeerError for an error that the server answered;
    UPSTREAM_FAILED, UPSTREAM_TIMEOUT, UPSTREAM_TOO_LARGE, EGRESS_REFUSED, UNAVAILABLE when it could not be reached or
    could not be understood. No method waits without an end of its own; canceling its task stops the work at the server
    too (HTTP of 2026-07-28: the response stream is closed; sessions and stdio: `notifications/cancelled`).
    """

    id: str

    async def face(self) -> Face:
        """What the server says about itself. Connects, and finds its era out, if that has not been done yet."""
        ...

    async def list(self, kind: Kind) -> Listing:
        """The whole list of one kind, page after page until the end, each tree as it came; a list of an older revision
        is brought up (`ttl_ms` None). Bounded in pages and items. A server without the capability has an empty list."""
        ...

    async def request(self, method: str, params: Tree, caller: Caller) -> Tree:
        """The result of `tools/call`, `prompts/get`, `resources/read`, `completion/complete` or `tasks/*`.

        `params` are in the server's own names and without `_meta`, which is made from `caller`. `inputResponses` and
        `requestState` in `params` go on as they are to a modern server. The result is the server's tree in the modern
        form: it has a `resultType` ("complete" where an older server sent none, and "input_required" or "task" only
        from a modern one). Progress and log messages go to `caller.notify`; a session server's own requests to
        `caller.ask`, whose refusal it is told."""
        ...

    def changes(self, uris: frozenset[str]) -> AsyncIterator[Change]:
        """The server's change notifications: of its lists and, for `uris`, of resources (its own URIs). The first one
        is `ACKNOWLEDGED`, as soon as nothing can be missed any more. Ends or raises when the connection does: whoever
        reads it opens it again, and looks at what may have changed meanwhile. Raises UNSUPPORTED_OPERATION for a
        server that sends none; it has to be asked from time to time."""
        ...

    def overhear(self, told: Callable[[Change], None]) -> None:
        """From here on `told` is called with changes that the server says where `changes` does not listen: in a session
        of a caller's. It must neither wait nor raise."""
        ...

    async def aclose(self) -> None:
        """End sessions, streams and processes. May be called twice."""
        ...
