"""Parts: A2A's four kinds and ACP's one, both ways, without loss.

Strategy: each side is written by what its content implies. Then it is read back, and what did not come back is said
beside it (`a2a` there, `metadata.acp` here). So the way back is right by construction, whatever a newer peer adds.
What looks like such a note of ours is believed only where writing it again gives exactly what came.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import orjson

from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError

Tree: TypeAlias = dict[str, Any]

A2A: Final = "a2a"
ACP: Final = "acp"

TEXT, JSON, BYTES = "text/plain", "application/json", "application/octet-stream"
_ORDER = ("text", "raw", "url", "data")
CONTENT: Final = frozenset(_ORDER)
_KINDS = frozenset({"citation", "trajectory"})  # of ACP's part metadata: its readers know no others
_NOTES: dict[str, type] = {"metadata": dict, "more": dict, "content": str, "absent": bool}


def write_part(part: Tree, *, files: bool = True) -> Tree:
    """ACP's MessagePart for a part of A2A (as its JSON). `files`: a file's name becomes the part's name, which says
    elsewhere that the part is an artifact."""
    if _note(part) is not None:
        made = _write(part, files, noted=True)
        if _read(made, files, noted=isinstance(made.get(A2A), dict)) == part:
            return made
    return _write(part, files, noted=False)


def read_part(part: Tree, *, files: bool = True) -> Tree:
    """The other way round; `part` has been looked at (requests.py), so its members have their types."""
    plain = normal(part)
    if isinstance(plain.get(A2A), dict):
        made = _read(plain, files, noted=True)  # what it ignores of a stranger's note, the comparison finds
        if write_part(made, files=files) == plain:
            return made
    return _read(plain, files, noted=False)


def normal(part: Tree) -> Tree:
    """A part with ACP's defaults said, and without what says nothing."""
    made = {name: value for name, value in part.items() if value is not None}
    made.setdefault("content_type", TEXT)
    if "content" in made:
        made.setdefault("content_encoding", "plain")
    else:
        made.pop("content_encoding", None)
    return made


def _note(part: Tree) -> Tree | None:
    metadata = part.get("metadata")
    note = metadata.get(ACP) if isinstance(metadata, dict) else None
    if not isinstance(note, dict) or not note or not note.keys() <= _NOTES.keys():
        return None
    if not all(isinstance(value, _NOTES[name]) for name, value in note.items()):
        return None
    return note if note.get("metadata", {"kind": "citation"}).get("kind") in _KINDS else None


def _write(part: Tree, files: bool, *, noted: bool) -> Tree:
    note = (_note(part) or {}) if noted else {}
    made, rest = _content(part), {name: value for name, value in part.items() if name not in CONTENT}
    if note:
        rest["metadata"] = {name: value for name, value in rest["metadata"].items() if name != ACP}
        if not rest["metadata"]:
            del rest["metadata"]
    if files and isinstance(rest.get("filename"), str):
        made["name"] = rest.pop("filename")
    said, implied = dict[str, Any](), _implied(made, None)
    kind = next((name for name in _ORDER if name in part), "")
    if kind not in implied:
        said["kind"], implied = kind, _implied(made, kind)
    if more := {name: value for name, value in rest.items() if name not in implied or implied[name] != value}:
        said["part"] = more
    if "content" in note:
        made["content"] = note["content"]
    if note.get("absent"):
        made = {name: value for name, value in made.items() if not name.startswith("content") or name == "content_type"}
        said.pop("kind", None)
    made |= {name: note[name] for name in ("metadata",) if name in note} | note.get("more", {})
    return {**made, A2A: said} if said else made


def _content(part: Tree) -> Tree:
    media = part.get("mediaType")
    if "text" in part:
        return {"content_type": media or TEXT, "content": part["text"], "content_encoding": "plain"}
    if "raw" in part:
        return {"content_type": media or BYTES, "content": part["raw"], "content_encoding": "base64"}
    if "url" in part:
        return {"content_type": media or BYTES, "content_url": part["url"]}
    if "data" in part:
        text = orjson.dumps(part["data"]).decode()
        return {"content_type": media or JSON, "content": text, "content_encoding": "plain"}
    return {"content_type": media or TEXT}  # a newer peer's kind of part


def _read(part: Tree, files: bool, *, noted: bool) -> Tree:
    rest = dict(part)
    said: Tree = rest.pop(A2A) if noted else {}
    made = _implied(part, said.get("kind"))
    note: Tree = {}
    if "content" not in part and "content_url" not in part and "kind" not in said:
        note["absent"] = True
    if "data" in made and orjson.dumps(made["data"]).decode() != part["content"]:
        note["content"] = part["content"]
    for name in ("content_type", "content", "content_encoding", "content_url"):
        rest.pop(name, None)
    if files and "name" in rest:
        made["filename"] = rest.pop("name")
    if isinstance(rest.get("metadata"), dict):
        note["metadata"] = rest.pop("metadata")
    members = said.get("part")
    if isinstance(members, dict):
        made |= {name: value for name, value in members.items() if name not in CONTENT}
    if rest:
        note["more"] = rest
    if note:
        before = made.get("metadata")
        made["metadata"] = {**(before if isinstance(before, dict) else {}), ACP: note}
    return made


def _implied(part: Tree, kind: Any) -> Tree:
    """What the content alone says. `kind` decides between text and data, where both would do, and "" for neither."""
    if kind == "":
        return {}
    type = part["content_type"]
    if "content_url" in part:
        return {"url": part["content_url"], **_media(type, BYTES)}
    content = part.get("content", "")
    if part.get("content_encoding") == "base64":
        return {"raw": content, **_media(type, BYTES)}
    if kind == "data" or (type == JSON and kind != "text"):
        try:
            return {"data": read(content.encode()), **_media(type, JSON)}
        except GatewayError:
            pass  # it only says that it is JSON
    return {"text": content, **_media(type, TEXT)}


def _media(type: str, usual: str) -> Tree:
    return {} if type == usual else {"mediaType": type}
