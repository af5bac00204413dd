"""One caller's subscription to a mount: only what it asked for, and of that only what it may see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from gateway.core.policy import Policy
from gateway.core.policy.refusals import refused
from gateway.core.tools.lists import LIST_CHANGED
from gateway.core.tools.naming import Mount
from gateway.core.tools.news import News, Reader
from gateway.core.tools.served import Served
from gateway.core.tools.servers import Servers
from gateway.core.tools.task_news import Followed, TaskNews
from gateway.core.tools.views import Views
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Principal
from gateway.model.tool import Change, Kind, Tree

MAX_URIS = 256  # resources of one subscription

_NOTIFICATION = {kind: method for method, kinds in LIST_CHANGED.items() for kind in kinds}


class Listening:
    """`next` gives changes, an empty list after a silence, None when the stream is over. `aclose` must be called."""

    def __init__(
        self,
        who: Principal,
        mount: Mount,
        kinds: frozenset[Kind],
        servers: Servers,
        views: Views,
        policy: Policy,
        followed: Followed,
    ) -> None:
        self._who = who
        self._mount = mount
        self._servers = servers
        self._views = views
        self._policy = policy
        self._reader: Reader = servers.board.read()
        self._stamps = {kind: views.view(who, mount, kind).stamp for kind in kinds}
        self._uris: dict[str, tuple[Served, str]] = {}
        self._tasks = TaskNews(self._reader, followed)

    @property
    def uris(self) -> Iterable[str]:
        return tuple(self._uris)

    @property
    def tasks(self) -> Iterable[str]:
        return self._tasks.ids

    def follow(self, id: str, changes: AsyncIterator[Tree]) -> bool:
        """Tell what happens to a task. False when there are too many."""
        return self._tasks.add(id, changes)

    def renew(self, who: Principal) -> None:
        """The caller goes on with another token: from here on it hears what that one lets it see."""
        if who == self._who:
            return
        self._who = who
        for uri, (served, key) in tuple(self._uris.items()):
            if not self._may_read(served, key):
                self.remove(uri)

    async def add(self, uri: str) -> bool:
        """Subscribe to a resource. False for one that is not there for this caller. Raises OVERLOADED, and
        PERMISSION_DENIED where nothing is missing but scopes."""
        if uri in self._uris:
            return True
        where = self._mount.locate(uri)
        served = self._servers.get(where[0]) if where is not None else None
        if served is None or where is None or not self._mount.holds_server(served.id):
            return False
        verb, target = served.question("resources/read", where[1])
        if not self._policy.visible(self._who, verb, target):
            decision = self._policy.presumed(self._who, verb, target)
            if decision.scopes:
                raise refused(decision, self._who, verb, target.id)
            return False
        if len(self._uris) >= MAX_URIS:
            raise GatewayError(Reason.OVERLOADED, f"One subscription takes at most {MAX_URIS} resources")
        self._uris[uri] = (served, where[1])
        await served.watch(where[1])
        return True

    def _may_read(self, served: Served, key: str) -> bool:
        """Now: the rules may be others than when the stream began."""
        return self._policy.visible(self._who, *served.question("resources/read", key))

    def remove(self, uri: str) -> None:
        if (watched := self._uris.pop(uri, None)) is not None:
            served, key = watched
            served.unwatch(key)

    async def next(self) -> list[Change] | None:
        while (news := await self._reader.next()) is not None:
            changes = [change for each in news for change in self._changes(each)]
            if changes or not news:
                return changes
        return None

    async def aclose(self) -> None:
        self._reader.close()
        await self._tasks.aclose()
        for uri in tuple(self._uris):
            self.remove(uri)

    def _changes(self, news: News | Change) -> Iterable[Change]:
        if isinstance(news, Change):
            yield news
        elif news.uri is not None:
            uri = self._mount.uri(news.server, news.uri)
            if uri in self._uris and self._may_read(*self._uris[uri]):
                yield Change("notifications/resources/updated", {"uri": uri})
        elif news.kind in self._stamps and self._concerns(news):
            yield Change(_NOTIFICATION[news.kind], {})

    def _concerns(self, news: News) -> bool:
        """Of servers that the caller sees nothing of it hears nothing either."""
        view = self._views.view(self._who, self._mount, news.kind)
        if view.stamp != self._stamps[news.kind]:
            self._stamps[news.kind] = view.stamp
            return True
        # Not templates too: one announcement of a server's is one for its callers.
        return (
            news.said
            and news.kind is not Kind.TEMPLATE
            and any(each.server == news.server for each in view.named.values())
        )
