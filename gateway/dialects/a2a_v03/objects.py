"""Messages, tasks and events in the two forms of 0.3, and in 1.0's (0.3.0 §6, §7.2; a2a.proto of 0.3.0).

`final` is not in these trees' 1.0 side. It speaks of the stream, not of the task, and each side's streams are its own:
what an agent says of its stream is not passed on, and we say it of ours (`ends_stream`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.dialects.a2a_v03 import parts, words
from gateway.dialects.a2a_v03.stowed import Tree, restored, stow
from gateway.model.task import INTERRUPTED, TERMINAL

Convert = Callable[[Any], Any]
_ENDS = {str(state) for state in TERMINAL | INTERRUPTED}


@dataclass(frozen=True, slots=True)
class Form:
    """How one binding of 0.3 writes. `content` is where a message has its parts; with `kinds` an object says in
    `kind` what it is, without it the place where it stands does. `beside` are a message's fields that have no place."""

    content: str
    kinds: bool
    beside: Mapping[str, type]
    states: Mapping[str, str]
    roles: Mapping[str, str]
    read_states: Mapping[str, str]
    read_roles: Mapping[str, str]
    read_part: Convert
    write_part: Convert


JSON = Form(
    "parts",
    kinds=True,
    beside={},
    states=words.STATES,
    roles=words.ROLES,
    read_states=words.reversed_words(words.STATES),
    read_roles=words.reversed_words(words.ROLES),
    read_part=parts.read,
    write_part=parts.write,
)
# Read more widely than written: some HTTP+JSON clients send the words and parts of the other form.
PROTO = Form(
    "content",
    kinds=False,
    beside={"referenceTaskIds": list},
    states=words.PROTO_STATES,
    roles=words.PROTO_ROLES,
    read_states=words.reversed_words(words.STATES) | words.reversed_words(words.PROTO_STATES),
    read_roles=words.reversed_words(words.ROLES) | words.reversed_words(words.PROTO_ROLES),
    read_part=parts.read_proto,
    write_part=parts.write_proto,
)


# 0.3 -> 1.0. What is no object stays what it is, for validation to refuse.


def read_message(form: Form, tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    made = _without_kind(tree, "message")
    if "role" in made:
        made["role"] = words.word(form.read_roles, made["role"])
    if form.content in made:
        made["parts"] = made.pop(form.content)
    _each(made, "parts", form.read_part)
    return restored(made, form.beside)


def read_status(form: Form, tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    made = dict(tree)
    if "state" in made:
        made["state"] = words.word(form.read_states, made["state"])
    if "update" in made and not form.kinds:
        made["message"] = made.pop("update")
    if made.get("message") is not None:
        made["message"] = read_message(form, made["message"])
    return made


def read_artifact(form: Form, tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    made = dict(tree)
    _each(made, "parts", form.read_part)
    return made


def read_task(form: Form, tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    made = _without_kind(tree, "task")
    if "status" in made:
        made["status"] = read_status(form, made["status"])
    _each(made, "artifacts", lambda artifact: read_artifact(form, artifact))
    _each(made, "history", lambda message: read_message(form, message))
    return made


def read_status_update(form: Form, tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    made = _without_kind(tree, "status-update")
    made.pop("final", None)
    if "status" in made:
        made["status"] = read_status(form, made["status"])
    return made


def read_artifact_update(form: Form, tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    made = _without_kind(tree, "artifact-update")
    if "artifact" in made:
        made["artifact"] = read_artifact(form, made["artifact"])
    return made


# 1.0 -> 0.3. These trees are our own models', so they have their shape.


def write_message(form: Form, tree: Tree) -> Tree:
    made = {name: value for name, value in tree.items() if name not in form.beside and name != "parts"}
    made = stow(made, {name: tree[name] for name in form.beside.keys() & tree.keys()})
    made["role"] = words.word(form.roles, tree["role"])
    made[form.content] = [form.write_part(part) for part in tree["parts"]]
    return {"kind": "message", **made} if form.kinds else made


def write_status(form: Form, tree: Tree) -> Tree:
    made = {**tree, "state": words.word(form.states, tree["state"])}
    if made.get("message") is not None:
        made["message"] = write_message(form, made["message"])
    return made


def write_artifact(form: Form, tree: Tree) -> Tree:
    return {**tree, "parts": [form.write_part(part) for part in tree["parts"]]}


def write_task(form: Form, tree: Tree) -> Tree:
    made = {**tree, "status": write_status(form, tree["status"])}
    _each(made, "artifacts", lambda artifact: write_artifact(form, artifact))
    _each(made, "history", lambda message: write_message(form, message))
    return {"kind": "task", **made} if form.kinds else made


def write_status_update(form: Form, tree: Tree) -> Tree:
    made = {**tree, "status": write_status(form, tree["status"]), "final": ends_stream(tree)}
    return {"kind": "status-update", **made} if form.kinds else made


def write_artifact_update(form: Form, tree: Tree) -> Tree:
    made = {**tree, "artifact": write_artifact(form, tree["artifact"])}
    return {"kind": "artifact-update", **made} if form.kinds else made


def ends_stream(update: Tree) -> bool:
    """A stream of 0.3 ends when its task has ended or waits for its client (a2a.proto of 0.3.0, `StreamResponse`)."""
    return update["status"]["state"] in _ENDS


# Events, which 1.0 tells apart by the key around them.

KINDS = {
    "task": "task",
    "message": "message",
    "status-update": "statusUpdate",
    "artifact-update": "artifactUpdate",
}
_READ: dict[str, Callable[[Form, Any], Any]] = {
    "task": read_task,
    "message": read_message,
    "statusUpdate": read_status_update,
    "artifactUpdate": read_artifact_update,
}
_WRITE: dict[str, Callable[[Form, Tree], Tree]] = {
    "task": write_task,
    "message": write_message,
    "statusUpdate": write_status_update,
    "artifactUpdate": write_artifact_update,
}
_PROTO_KEYS = {"msg": "message", "status_update": "statusUpdate", "artifact_update": "artifactUpdate"}


def read_event(form: Form, tree: Any) -> Any:
    """An event (or what a message was answered with) as 1.0's StreamResponse."""
    if not isinstance(tree, dict):
        return tree
    if form.kinds:
        key = _key_of(tree)
        return tree if key is None else {key: _READ[key](form, tree)}
    named = {_PROTO_KEYS.get(name, name): value for name, value in tree.items()}
    return {name: _READ[name](form, value) if name in _READ else value for name, value in named.items()}


def write_event(form: Form, tree: Tree) -> Tree:
    """1.0's StreamResponse as an event."""
    ((key, value),) = tree.items()
    made = _WRITE[key](form, value)
    return made if form.kinds else {key: made}


def _key_of(tree: Tree) -> str | None:
    """By its `kind`; the examples of 0.3.0 leave it out here and there, and then its fields tell."""
    kind = tree.get("kind")
    if isinstance(kind, str):
        return KINDS.get(kind)
    if "parts" in tree:
        return "message"
    if "artifact" in tree:
        return "artifactUpdate"
    if "status" in tree:
        return "task" if "id" in tree else "statusUpdate"
    return None


def _without_kind(tree: Tree, kind: str) -> Tree:
    return {name: value for name, value in tree.items() if name != "kind" or value != kind}


def _each(tree: Tree, name: str, convert: Convert) -> None:
    if isinstance(values := tree.get(name), list):
        tree[name] = [convert(value) for value in values]
