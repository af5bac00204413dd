"""The tasks of whoever asks, read where they were sent: at each agent they may use.

The admin API has everybody's and is the operator's. A key that is not the operator's sees its own tasks all the same,
by the A2A operations of the agents in its catalogue.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.cli.client import Gateway, Json
from gateway.cli.exits import Stop

_PAGE = 100
_AGENT = re.compile(r"/agents/([^/?#]+)/?$")


def agents_of(gateway: Gateway) -> list[str]:
    """The ids of the agents that the caller may see, as the addresses on their cards say them."""
    found = []
    for card in gateway.get("agents").get("agents") or ():
        urls = (_AGENT.search(str(each.get("url"))) for each in card.get("supportedInterfaces") or ())
        found += [match[1] for match in urls if match is not None][:1]
    return found


def listed(gateway: Gateway, agents: list[str], limit: int, **filters: Any) -> tuple[list[Json], bool]:
    """At most `limit` entries of agent and task, those first that changed last, and whether there are more."""
    found: list[Json] = []
    more = False
    for agent in agents:
        tasks, rest = _at(gateway, agent, limit, {name: value for name, value in filters.items() if value is not None})
        found += [{"agent": agent, "task": task} for task in tasks]
        more = more or rest
    found.sort(key=_changed, reverse=True)
    return found[:limit], more or len(found) > limit


def find(gateway: Gateway, agents: list[str], id: str) -> Json:
    """Agent and task. Raises Stop where none of the agents knows the task."""
    missing = Stop("Task not found")
    for agent in agents:
        try:
            return {"agent": agent, "task": gateway.call(agent, "GetTask", {"id": id})}
        except Stop as error:
            missing = error
    raise missing


def _at(gateway: Gateway, agent: str, limit: int, filters: Json) -> tuple[list[Json], bool]:
    found: list[Json] = []
    token = ""
    while len(found) < limit:
        page = {"pageSize": min(limit - len(found), _PAGE), **({"pageToken": token} if token else {})}
        answer = gateway.call(agent, "ListTasks", {**filters, **page})
        found += answer.get("tasks") or []
        token = answer.get("nextPageToken") or ""
        if not token:
            break
    return found, bool(token)


def _changed(entry: Json) -> str:
    return str((entry["task"].get("status") or {}).get("timestamp"))
