"""The way to a task that an agent asked for, as its row has it: the outermost task in a column of its own, the rest as
JSON. Names of agents stand in it in one form, so that SQL can find them without reading JSON."""

from __future__ import annotations

import orjson

from gateway.model.trail import Asked, Trail


def written(trail: Trail | None) -> tuple[str | None, str | None]:
    """The outermost task and the rest."""
    if trail is None:
        return None, None
    asked = [(each.agent, each.digest.hex()) for each in trail.asked]
    rest = {"conversation": trail.conversation, "task": trail.task, "asked": asked}
    return trail.root, orjson.dumps(rest).decode()


def read(root: str | None, rest: str | None) -> Trail | None:
    if root is None or rest is None:
        return None
    tree = orjson.loads(rest)
    asked = tuple(Asked(agent, bytes.fromhex(digest)) for agent, digest in tree["asked"])
    return Trail(root, tree["conversation"], tree["task"], asked)


def needle(agent: str) -> str:
    """What `written` has of an agent that asked, and of nothing else: inside of a text every quote is escaped."""
    return f"[{orjson.dumps(agent).decode()},"
