"""Artifacts: in A2A things with an id, in ACP parts of what the agent says (a part that has a name is one).

What an ACP agent says comes to us as artifacts, so that it streams: `message-1` is its first message, and a named part
of it `message-1/NAME`. Any other artifact keeps what ACP cannot say of it beside each of its parts.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Any, Final

from pydantic import ValidationError

from gateway.dialects.acp.parts import ACP, Tree, read_part, write_part
from gateway.model.errors import GatewayError, Reason
from gateway.model.task import ArtifactUpdate

BESIDE: Final = "a2a_artifact"
_MAX_ID: Final = 256  # as many characters as an id of ours may have


def bare(place: int, name: str | None, envelope: Tree) -> Tree:
    """The artifact of the parts called `name` in an ACP agent's message number `place`, without its parts."""
    id = f"message-{place}" if name is None else f"message-{place}/{name}"
    if len(id) > _MAX_ID:
        id = f"message-{place}/{blake2s(id.encode(), digest_size=16).hexdigest()}"
    named = {} if name is None else {"name": name}
    return {"artifactId": id, **named, "metadata": {ACP: {"message": place, **envelope}}}


def note_of(artifact: Tree) -> Tree | None:
    """Which message of an ACP agent the artifact was, if it says so."""
    metadata = artifact.get("metadata")
    note = metadata.get(ACP) if isinstance(metadata, dict) else None
    if not isinstance(note, dict) or type(note.get("message")) is not int:
        return None
    return note


def write_parts(update: ArtifactUpdate, place: int, envelope: Tree, known: set[str]) -> list[Tree]:
    """The parts that an update brings, as those of message number `place`. `known` are artifacts that have begun."""
    tree = update.model_dump(mode="json", by_alias=True, exclude_unset=True)
    artifact: Tree = tree.pop("artifact")
    parts = [write_part(part, files=False) for part in artifact.pop("parts")]
    name, id = artifact.get("name"), artifact["artifactId"]
    about = {key: value for key, value in tree.items() if key not in ("taskId", "contextId")}
    implied = artifact == bare(place, name, envelope) and {"append": False, **about} == {"append": id in known}
    for number, part in enumerate(parts):
        if name is not None:
            part["name"] = name
        if not implied:
            part[BESIDE] = _more(artifact) if number else {"artifact": artifact, **about}
    known.add(id)
    return parts


def _more(artifact: Tree) -> Tree:
    return {"artifact": {"artifactId": artifact["artifactId"]}, "append": True}


def read_update(
    part: Tree, place: int, envelope: Tree, known: set[str], *, task_id: str, context_id: str
) -> ArtifactUpdate:
    """The update that a part of an agent's message number `place` is. `known` are the artifacts that have begun.
    Raises INVALID_AGENT_RESPONSE."""
    rest = {name: value for name, value in part.items() if value is not None}
    said = rest.pop(BESIDE, None)
    name = rest.pop("name", None)
    if isinstance(said, dict) and isinstance(said.get("artifact"), dict):
        artifact, about = dict(said["artifact"]), {key: each for key, each in said.items() if key != "artifact"}
    else:
        artifact, about = bare(place, name, envelope), {}
        about["append"] = artifact["artifactId"] in known
    artifact["parts"] = [read_part(rest, files=False)]
    tree: dict[str, Any] = {**about, "taskId": task_id, "contextId": context_id, "artifact": artifact}
    try:
        update = ArtifactUpdate.model_validate(tree)
    except ValidationError:
        raise GatewayError(Reason.INVALID_AGENT_RESPONSE, "The agent sent an artifact that is none") from None
    known.add(update.artifact.artifact_id)
    return update
