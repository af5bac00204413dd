"""The verbs of MCP, and whom they are asked of. `verb` is the MCP method name; policy rules and audit entries use it.

A `mount` is the endpoint that was called: "" for everything the caller may see (`/mcp`), a name for `/mcp/{mount}`,
and None for callers inside (an agent's `call_tool`, the operator) who say `server/name` themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, TypeAlias

from gateway.model.tool import Caller, Definition, Face, Kind, Tree
from gateway.model.trail import Trail
from gateway.model.value import value


@value
class Discover:
    """What a mount offers this caller (`server/discover`, `initialize`)."""

    verb: ClassVar[str] = "server/discover"
    mount: str


@value
class ListDefinitions:
    """All of one kind that the caller may see, under the mount's names."""

    mount: str
    kind: Kind

    @property
    def verb(self) -> str:
        return self.kind.method


@value
class UseServer:
    """`tools/call`, `prompts/get`, `resources/read` or `completion/complete`, in the mount's names.

    `params` are the caller's, without `_meta`. `live` says that the caller can be asked while the request is in
    flight (a session); others are asked by an answer that says what is needed (`resultType: input_required`).
    """

    mount: str | None
    method: str
    params: Tree = field(hash=False)
    caller: Caller = field(hash=False)
    live: bool = False
    trail: Trail | None = None  # where it comes from, if an agent asks

    @property
    def verb(self) -> str:
        return self.method


@value
class UseTask:
    """`tasks/get`, `tasks/update` or `tasks/cancel` of a task that a `tools/call` on this mount was answered with.
    `params` are the caller's, without `_meta`; `taskId` is the id that the gateway gave."""

    mount: str
    method: str
    params: Tree = field(hash=False)
    caller: Caller = field(hash=False)

    @property
    def verb(self) -> str:
        return self.method


@value
class Listen:
    """Change notifications of a mount: of these lists, of resources with these URIs (the mount's), and of these tasks,
    which are looked after as `caller`."""

    verb: ClassVar[str] = "subscriptions/listen"
    mount: str
    kinds: frozenset[Kind]
    uris: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    caller: Caller | None = field(default=None, hash=False)


@value
class ListServers:
    """The operator's view of all MCP servers and mounts (`gateway tools list`)."""

    verb: ClassVar[str] = "ListServers"


@value
class ApproveTools:
    """Let definitions out of quarantine: `address` is `server/name`, or `server` for all that waits there; `hash` is
    how the hash of the one begins that is meant, where there is more than one."""

    verb: ClassVar[str] = "ApproveTools"
    address: str
    hash: str = ""


@value
class ReloadTools:
    """Read the operator's file again and use what it says now about tools, mounts and grants."""

    verb: ClassVar[str] = "ReloadTools"


@value
class BeginLogin:
    """A person is about to authorize the gateway at a server; the answer will come to `redirect_uri`, on loopback."""

    verb: ClassVar[str] = "BeginLogin"
    server: str
    redirect_uri: str


@value
class FinishLogin:
    """The answer: `response` is the redirect URI as the browser called it, with a code in it."""

    verb: ClassVar[str] = "FinishLogin"
    server: str
    response: str

    def __repr__(self) -> str:
        return f"FinishLogin({self.server!r})"


@value
class ForgetLogin:
    """Forget what a person has authorized at a server."""

    verb: ClassVar[str] = "ForgetLogin"
    server: str


LoginCall: TypeAlias = BeginLogin | FinishLogin | ForgetLogin
OperatorCall: TypeAlias = ListServers | ApproveTools | ReloadTools | LoginCall
ToolCall: TypeAlias = Discover | ListDefinitions | UseServer | UseTask | Listen | OperatorCall


@value
class Offer:
    """The answer to `Discover`: capabilities that are bridged, and the instructions of the one server there is."""

    capabilities: Tree = field(hash=False)
    instructions: str | None = None


@value
class View:
    """What one caller may see of one kind on one mount: names there -> definitions, in a stable order.

    Equal views are one object as long as nothing changes, so what is made of one may be kept. `ttl_ms` is how long
    the shortest-lived part holds.
    """

    mount: str
    kind: Kind
    named: Mapping[str, Definition] = field(hash=False)
    stamp: str
    ttl_ms: int


@value
class Health:
    """One server as the operator sees it. `state` is "up", "down", "starting", or "callers" where
    only they have lists; `problem` says why in a sentence, and `said` has the last lines that the command of one that
    is down wrote to stderr."""

    server: str
    state: str
    face: Face | None
    problem: str | None
    definitions: tuple[Definition, ...]
    waiting: tuple[Waiting, ...]
    refused: Mapping[str, str] = field(hash=False)
    fetched: int | None = None
    said: tuple[str, ...] = ()


@value
class Collision:
    """Things that would all be called `name` on a mount, by their addresses; none of them is there."""

    kind: Kind
    name: str
    addresses: tuple[str, ...]


@value
class Inventory:
    """The answer to `ListServers`. `collisions` has every mount by its id, most of them with none."""

    servers: tuple[Health, ...]
    collisions: Mapping[str, tuple[Collision, ...]] = field(hash=False)


@value
class Waiting:
    """A definition in quarantine: why it waits, and the tree that was approved before (None: never)."""

    definition: Definition
    why: str
    before: Tree | None = field(hash=False)
