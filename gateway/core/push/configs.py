"""Use cases on push notification configurations (A2A §3.1.7 to §3.1.10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from gateway.core.act import Act
from gateway.core.audit import Ticket
from gateway.core.cursor import Cursors
from gateway.core.engine import Engine
from gateway.core.registry import Registered
from gateway.core.services import Services
from gateway.core.standing import standing, webhook
from gateway.core.tasks import Tasks
from gateway.model.call import CreatePushConfig, DeletePushConfig, GetPushConfig, ListPushConfigs, PushConfigPage
from gateway.model.changes import DropPushConfig, PutPushConfig
from gateway.model.errors import GatewayError, Reason, invalid, task_not_found
from gateway.model.principal import Kind
from gateway.model.push import PushConfig

MAX_CONFIGS = 16  # per task: each multiplies the outbox
PROVEN_MS = 3_600_000  # how long a webhook is believed that has shown once that it is its maker's
MAX_PROVEN = 4096  # such webhooks that are remembered; the others are asked once more

Proof: TypeAlias = Callable[[str, str], Awaitable[bool]]


class Pushes:
    """`judge` raises INVALID_PARAMS for a webhook URL that its text alone rules out. `challenge` (where the operator
    asks for it) says whether whoever answers at a URL gives a token back."""

    def __init__(
        self,
        services: Services,
        engine: Engine,
        tasks: Tasks,
        cursors: Cursors,
        judge: Callable[[str], None],
        challenge: Proof | None = None,
    ) -> None:
        self._services = services
        self._engine = engine
        self._tasks = tasks
        self._cursors = cursors
        self._judge = judge
        self._challenge = challenge
        self._proven: dict[tuple[str, str, str], int] = {}

    def check(self, entry: Registered, config: PushConfig | None = None) -> None:
        if not entry.pushes:
            raise GatewayError(
                Reason.PUSH_NOTIFICATION_NOT_SUPPORTED, "This agent offers no push notifications; see its card"
            )
        if config is not None:
            self._judge(config.url)

    async def prove(self, url: str, ticket: Ticket) -> None:
        """Where the operator asks for it: no event goes to a URL whose owner did not agree. Raises INVALID_PARAMS."""
        if self._challenge is None:
            return
        now, key = self._services.now(), (ticket.principal.tenant, ticket.principal.owner, url)
        if now - self._proven.get(key, -PROVEN_MS) < PROVEN_MS:
            return
        try:
            agreed = await self._challenge(url, self._services.new_id())
        except GatewayError as error:
            raise invalid("url", f"did not answer the ownership challenge: {error.message}") from error
        if not agreed:
            raise invalid("url", "did not give the validationToken of the ownership challenge back as its whole answer")
        self._proven.pop(key, None)
        self._proven[key] = now
        if len(self._proven) > MAX_PROVEN:
            del self._proven[next(iter(self._proven))]

    def named(self, config: PushConfig) -> PushConfig:
        """With an id: the caller's, or one of ours."""
        return config.model_copy(update={"id": config.id or self._services.new_id()})

    async def create(self, call: CreatePushConfig, act: Act, entry: Registered) -> PushConfig:
        self.check(entry)
        ticket = act.ticket
        row = await self._tasks.row(ticket.principal, call.task_id, entry.id)
        self.check(entry, call.config)
        config = self.named(call.config).model_copy(update={"task_id": row.id})
        present = await self._services.store.push_configs(row.tenant, row.id, limit=MAX_CONFIGS)
        if len(present) >= MAX_CONFIGS and config.id not in {known.id for known in present}:
            raise GatewayError(
                Reason.INVALID_PARAMS, f"A task has at most {MAX_CONFIGS} push configurations; delete one first"
            )
        act.before = standing(webhook(known) for known in present if known.id == config.id)
        if self._challenge is not None:
            await act.begin()
        await self.prove(config.url, ticket)
        await act.commit(PutPushConfig(row.tenant, config))
        turn = self._engine.turn(row.tenant, row.id)
        if turn is not None:
            turn.push = True
        return config

    async def get(self, call: GetPushConfig, ticket: Ticket, entry: Registered) -> PushConfig:
        self.check(entry)
        row = await self._tasks.row(ticket.principal, call.task_id, entry.id)
        config = await self._stored(row.tenant, row.id, call.id)
        if config is None:
            raise task_not_found(call.task_id)
        return _shown(config, ticket)

    async def _stored(self, tenant: str, task_id: str, id: str) -> PushConfig | None:
        if id:
            return await self._services.store.push_config(tenant, task_id, id)
        first = await self._services.store.push_configs(tenant, task_id, limit=1)
        return first[0] if first else None

    async def list(self, call: ListPushConfigs, ticket: Ticket, entry: Registered) -> PushConfigPage:
        self.check(entry)
        row = await self._tasks.row(ticket.principal, call.task_id, entry.id)
        bound = repr(("push", row.tenant, row.id))
        after = self._cursors.open(call.page_token, bound) if call.page_token else ""
        configs = await self._services.store.push_configs(row.tenant, row.id, limit=call.page_size + 1, after=after)
        more, configs = len(configs) > call.page_size, configs[: call.page_size]
        token = self._cursors.seal(configs[-1].id or "", bound) if more else ""
        return PushConfigPage(tuple(_shown(config, ticket) for config in configs), token)

    async def delete(self, call: DeletePushConfig, act: Act, entry: Registered) -> None:
        self.check(entry)
        row = await self._tasks.row(act.ticket.principal, call.task_id, entry.id)
        known = await self._services.store.push_config(row.tenant, row.id, call.id)
        act.before = {} if known is None else standing([webhook(known)])
        await act.commit(DropPushConfig(row.tenant, row.id, call.id))


def _shown(config: PushConfig, ticket: Ticket) -> PushConfig:
    """Nobody in particular may have set it, so its secrets are shown to nobody in particular."""
    if ticket.principal.kind is not Kind.ANONYMOUS:
        return config
    view = config.model_copy()
    view.__pydantic_fields_set__.difference_update({"token", "authentication"})
    return view
