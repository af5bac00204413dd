"""A2A over gRPC: `lf.a2a.v1.A2AService` for every agent on one port, and 0.3's `a2a.v1.A2AService` for the default one.

gRPC has no paths, so the word in `tenant` says which agent is meant: `AGENT`, or `AGENT/TENANT` for a tenant that the
agent's configuration names. Without a word it is the default agent. Cards say the word, and clients repeat it (§8.3.2).

Handlers take and give bytes: what cannot be read is refused here, with a reason, and not by the library with none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn, TypeAlias

import grpc

from gateway.core.gateway import Gateway
from gateway.dialects import a2a
from gateway.dialects.a2a_v03.grpc import GRPC as OLDER
from gateway.dialects.a2a_v1.grpc import GRPC
from gateway.dialects.grpc import DETAILS, Grpc, Rpc, status
from gateway.dialects.protobuf import Tree
from gateway.model.call import Call, GetExtendedCard, SendMessage, SubscribeToTask
from gateway.model.card import VERSION
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.principal import Principal
from gateway.server.auth import Authenticator
from gateway.server.cards import Cards
from gateway.server.extensions import active
from gateway.server.head import EdgeLimits
from gateway.server.incident import known
from gateway.server.open_streams import OpenCredential

Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]
FACES: tuple[Grpc, ...] = (GRPC, OLDER)

_FIELD = 32  # bytes that a field counts beside its own (RFC 7541 §4.1), as gRPC's core counts

MAX_METADATA = EdgeLimits().max_head
"""Bytes of a call's metadata: as much as the HTTP port takes of headers."""


class GrpcDoor:
    """`may_connect` is asked about the address of each caller; None lets everybody. `url` is where clients find this
    door, up to the path."""

    def __init__(
        self,
        gateway: Gateway,
        auth: Authenticator,
        cards: Cards,
        default_agent: str | None,
        may_connect: Callable[[str], bool] | None,
        url: str,
        now: Callable[[], int],
    ) -> None:
        self._gateway = gateway
        self._auth = auth
        self._cards = cards
        self._default = default_agent
        self._may_connect = may_connect
        self._url = url
        self._now = now

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """One handler per revision, with its methods."""
        return [
            grpc.method_handlers_generic_handler(
                face.service, {name: self._handler(face, name, rpc) for name, rpc in face.rpcs.items()}
            )
            for face in FACES
        ]

    def _handler(self, face: Grpc, name: str, rpc: Rpc) -> Any:
        async def unary(data: bytes, context: Context) -> bytes:
            return await self._answer(_Asked(face, name, rpc, data, context))

        async def stream(data: bytes, context: Context) -> None:
            await self._events(_Asked(face, name, rpc, data, context))

        return (
            grpc.unary_stream_rpc_method_handler(stream) if rpc.streams else grpc.unary_unary_rpc_method_handler(unary)
        )

    async def _answer(self, asked: _Asked) -> bytes:
        try:
            call, who = await self._admitted(asked)
            result = await _to_its_end(self._gateway.handle(call, who))
            if isinstance(call, GetExtendedCard):
                result = self._cards.extended(result, who, older=asked.face.version != VERSION)
            body = asked.face.encode(asked.rpc, call, result)
            await self._activate(asked, call)
        except Exception as error:
            await self._refuse(asked, known(error))
        return body

    async def _events(self, asked: _Asked) -> None:
        """Events as they come; the transport's own pace is the reader's. A reader that has gone, or whose deadline has
        passed, cancels this; the task goes on."""
        watch = None
        try:
            call, who = await self._admitted(asked)
            assert isinstance(call, SendMessage | SubscribeToTask)
            watch = await _to_its_end(self._gateway.open(call, who))
            await self._activate(asked, call)
            credential = OpenCredential(self._auth, asked.fields, "", self._now)
            async for group in watch:
                if credential.due and not await credential.holds():
                    raise GatewayError(Reason.UNAUTHENTICATED, "The credential of this stream is good no longer")
                for record in group:
                    await asked.context.write(asked.face.event(record))
                    if asked.face.ends is not None and asked.face.ends(record):
                        return
        except grpc.aio.InternalError:
            pass  # nobody is there to be told
        except Exception as error:
            await self._refuse(asked, known(error))
        finally:
            if watch is not None:
                await watch.aclose()

    async def _admitted(self, asked: _Asked) -> tuple[Call, Principal]:
        """What is asked, and by whom. A credential is looked at before anything that was said, but whose it may be for
        depends on the agent that is named: so the bytes are read first, and what is wrong with them is told last."""
        if self._may_connect is not None and not self._may_connect(_address(asked.context.peer())):
            raise GatewayError(Reason.PERMISSION_DENIED, "This address may not connect; see server.trusted_proxies")
        asked.fields = _fields(asked.context.invocation_metadata() or ())
        params: Tree | GatewayError
        try:
            params = asked.face.schema.read(asked.rpc.takes, asked.data)
        except GatewayError as error:
            params = error
        word = "" if isinstance(params, GatewayError) else params.pop("tenant", "")
        named, tenant = self._addressed(word)
        asked.path = f"/agents/{named}" if named else "/"
        # A call is a POST to the method's own path (gRPC over HTTP/2), whichever agent it is about.
        url = f"{self._url}/{asked.face.service}/{asked.name}"
        who = await self._auth.principal(asked.fields, asked.path, "POST", url=url)
        if isinstance(params, GatewayError):
            raise params
        agent = self._agent(named, tenant, who)
        asked.agent, asked.extensions = agent, a2a.extensions(asked.field(b"a2a-extensions"))
        if asked.face.older_extensions:
            asked.older_extensions = a2a.extensions(asked.field(b"x-a2a-extensions"))
        version = asked.field(b"a2a-version")
        if version != asked.face.version:
            a2a.agree(asked.face.version, version, f"{asked.face.service}/{asked.name}")
        extensions = asked.extensions + asked.older_extensions
        return asked.face.decode(asked.rpc.operation, params, agent, extensions), who

    def _addressed(self, word: str) -> tuple[str, str]:
        """The agent and the tenant that a word names, "" for none."""
        named, _, tenant = word.partition("/")
        default = None if self._default is None else self._gateway.registry.get(self._default)
        if (
            not tenant
            and default is not None
            and named in default.tenants
            and self._gateway.registry.get(named) is None
        ):
            return "", named  # a tenant of the default agent, as at its root
        return named, tenant

    def _agent(self, named: str, tenant: str, who: Principal) -> str:
        agent = named or self._default
        if agent is None:
            raise GatewayError(Reason.NOT_FOUND, "No default agent is configured; say which one in tenant")
        if tenant and tenant not in self._gateway.find(agent, who).tenants:
            raise invalid("tenant", "is not a tenant of this agent; send the one of the card's interface, or none")
        return agent

    async def _refuse(self, asked: _Asked, error: GatewayError) -> NoReturn:
        said, challenge = status(error), self._auth.challenge(error, asked.path)
        trailers: list[tuple[str, str | bytes]] = [(DETAILS, said.details), *_metadata(challenge)]
        await asked.context.abort(grpc.StatusCode[said.code], said.message, tuple(trailers))

    async def _activate(self, asked: _Asked, call: Call) -> None:
        """With the activated extensions, if the caller asked for some (docs/topics/extensions)."""
        if asked.extensions or asked.older_extensions:
            entry = self._gateway.registry.get(asked.agent)
            headers = active(entry, asked.extensions, asked.older_extensions)
            await asked.context.send_initial_metadata(_metadata(headers))


class _Asked:
    """One call as it came, and what is found out about it."""

    def __init__(self, face: Grpc, name: str, rpc: Rpc, data: bytes, context: Context) -> None:
        self.face = face
        self.name = name
        self.rpc = rpc
        self.data = data
        self.context = context
        self.agent = ""
        self.path = "/"  # of what it is about, where HTTP has it
        self.extensions: tuple[str, ...] = ()
        self.older_extensions: tuple[str, ...] = ()  # under the name that 0.3 has for them
        self.fields: dict[bytes, bytes] = {}

    def field(self, name: bytes) -> str | None:
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")


def _fields(metadata: Iterable[tuple[str, str | bytes]]) -> dict[bytes, bytes]:
    """Raises GatewayError for more than the HTTP port takes. gRPC's core has the same limit, and holds only those to it
    that acknowledge its settings: a byte that names a field again (RFC 7541 §6.1) could be kilobytes here."""
    found: dict[bytes, list[bytes]] = {}
    size = 0
    for key, value in metadata:
        size += len(key) + len(value) + _FIELD
        if size > MAX_METADATA:
            raise GatewayError(Reason.INVALID_REQUEST, f"Send at most {MAX_METADATA} bytes of metadata")
        said = value if isinstance(value, bytes) else value.encode("latin-1", "replace")
        found.setdefault(key.encode("ascii"), []).append(said)
    # As HTTP has it (RFC 9110 §5.3); two credentials are so none that is known.
    return {field: b",".join(said) for field, said in found.items()}


async def _to_its_end(work: Awaitable[Any]) -> Any:
    """What has begun is not torn by a caller that leaves: it ends unheard."""
    doing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        doing.add_done_callback(_unheard)
        raise


def _unheard(doing: asyncio.Future[Any]) -> None:
    if not doing.cancelled() and doing.exception() is None and hasattr(doing.result(), "aclose"):
        asyncio.ensure_future(doing.result().aclose())  # noqa: RUF006 (closing a watch does not wait)


def _metadata(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in headers)


def _address(peer: str) -> str:
    """`ipv4:127.0.0.1:52100`, `ipv6:[::1]:52100` (or with the brackets percent-encoded) -> the address."""
    family, _, place = peer.partition(":")
    host = place.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]")
    return host.strip("[]") if family in ("ipv4", "ipv6") else ""
