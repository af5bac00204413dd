"""Parts: one kind of thing in 1.0, three in 0.3 (0.3.0 §6.5; a2a.proto of 0.3.0, `Part`).

    1.0                                     0.3 on JSON-RPC                        0.3 on HTTP+JSON
    {text}                                  {kind: text, text}                     {text}
    {raw|url, mediaType, filename}          {kind: file, file: {bytes|uri,         {file: {fileWithBytes|fileWithUri,
                                              mimeType, name}}                       mimeType, name}}
    {data}                                  {kind: data, data}                     {data: {data}}

In 0.3 `data` is an object. Another value is wrapped as {value: …} and marked in the metadata, the way a2a-sdk does it.
A part that is none of the three is given whole as data; a kind that we do not know passes as it is.
"""

from __future__ import annotations

from typing import Any

from gateway.dialects.a2a_v03.stowed import KEY, Tree, restored, stow

CONTENT = frozenset({"text", "raw", "url", "data"})
KINDS: dict[str, type] = {"text": str, "file": dict, "data": dict}
"""What stands in the member that is named like the kind."""

WRAPPED = "data_part_compat"
_BESIDE: dict[str, type] = {"filename": str, "mediaType": str}
_FILE_NAMES = (("mediaType", "mimeType"), ("filename", "name"))


def read(part: Any) -> Any:
    """A part of 0.3's JSON-RPC in 1.0's shape."""
    kind = part.get("kind") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(part.get(kind), KINDS[kind]):
        return part
    rest = {name: value for name, value in part.items() if name not in ("kind", kind)}
    if kind == "text":
        return restored({"text": part["text"], **rest}, _BESIDE)
    if kind == "data":
        return _read_data(part["data"], rest)
    return _read_file(part, part["file"], rest, "bytes", "uri")


def read_proto(part: Any) -> Any:
    """A part of 0.3's HTTP+JSON in 1.0's shape. Some clients write the other form here; it is read too."""
    if not isinstance(part, dict) or "kind" in part:
        return read(part)
    part = _camel(part)
    if isinstance(file := part.get("file"), dict):
        rest = {name: value for name, value in part.items() if name != "file"}
        return _read_file(part, _camel(file), rest, "fileWithBytes", "fileWithUri")
    if isinstance(data := part.get("data"), dict) and isinstance(data.get("data"), dict):
        rest = {name: value for name, value in part.items() if name != "data"}
        return _read_data(data["data"], rest)
    return restored(part, _BESIDE) if "text" in part else part


def write(part: Any) -> Any:
    """The other way round."""
    match _sorted(part):
        case ("text", text, rest):
            return {"kind": "text", "text": text, **rest}
        case ("data", data, rest):
            return {"kind": "data", "data": data, **rest}
        case ("raw" | "url" as name, content, rest):
            return {"kind": "file", **_written_file(content, rest, "bytes" if name == "raw" else "uri")}
        case other:
            return other[1]


def write_proto(part: Any) -> Any:
    match _sorted(part):
        case ("text", text, rest):
            return {"text": text, **rest}
        case ("data", data, rest):
            return {"data": {"data": data}, **rest}
        case ("raw" | "url" as name, content, rest):
            return _written_file(content, rest, "fileWithBytes" if name == "raw" else "fileWithUri")
        case other:
            return other[1]


def _sorted(part: Any) -> tuple[str, Any, Tree]:
    """What a part holds, its content and the rest; text and data with what 0.3 cannot say beside them stowed."""
    if not isinstance(part, dict):
        return "", part, {}
    given = _given(part)
    if len(given) != 1:
        return ("", part, {}) if "kind" in part else ("data", {"part": part}, {"metadata": {KEY: {"part": True}}})
    (name,) = given
    rest = {field: value for field, value in part.items() if field not in CONTENT and field != "kind"}
    if name in ("raw", "url"):
        return name, part[name], rest
    beside = {field: rest.pop(field) for field in _BESIDE.keys() & rest.keys() if rest[field] is not None}
    rest = stow({field: value for field, value in rest.items() if field not in _BESIDE}, beside)
    if name == "data" and not isinstance(part["data"], dict):
        metadata = rest.get("metadata")
        return name, {"value": part["data"]}, {**rest, "metadata": {**(metadata or {}), WRAPPED: True}}
    return name, part[name], rest


def _given(part: Tree) -> list[str]:
    return [name for name in part.keys() & CONTENT if name == "data" or part[name] is not None]


def _has_no_kind(part: Any) -> bool:
    return isinstance(part, dict) and "kind" not in part and len(_given(part)) != 1


def _read_data(data: Tree, rest: Tree) -> Tree:
    metadata = rest.get("metadata")
    if isinstance(metadata, dict):
        if rest == {"metadata": {KEY: {"part": True}}} and data.keys() == {"part"} and _has_no_kind(data["part"]):
            return dict(data["part"])
        if metadata.get(WRAPPED) is True and data.keys() == {"value"} and not isinstance(data["value"], dict):
            less = {name: value for name, value in metadata.items() if name != WRAPPED}
            rest = {name: value for name, value in rest.items() if name != "metadata"}
            return restored({"data": data["value"], **rest, **({"metadata": less} if less else {})}, _BESIDE)
    return restored({"data": data, **rest}, _BESIDE)


def _read_file(part: Tree, file: Tree, rest: Tree, raw: str, url: str) -> Tree:
    """Exactly one content, or the part stays what it is (and is refused where parts are judged)."""
    given = [name for name in (raw, url) if file.get(name) is not None]
    if len(given) != 1:
        return part
    made: Tree = {"raw" if given[0] == raw else "url": file[given[0]], **rest}
    for ours, theirs in _FILE_NAMES:
        if file.get(theirs) is not None:
            made[ours] = file[theirs]
    unknown = {name: value for name, value in file.items() if name not in (raw, url, "mimeType", "name")}
    return {**made, "file": unknown} if unknown else made


def _written_file(content: Any, rest: Tree, place: str) -> Tree:
    rest = dict(rest)
    unknown = rest.pop("file", None)
    file: Tree = {place: content if place.lower().endswith("uri") else _standard(content)}
    file |= unknown if isinstance(unknown, dict) else {}
    for ours, theirs in _FILE_NAMES:
        if (said := rest.pop(ours, None)) is not None:
            file[theirs] = said
    return {"file": file, **rest}


def _standard(raw: Any) -> Any:
    """Base64 in its plain alphabet and with its padding, which is what 0.3 means; ProtoJSON takes all four ways."""
    if not isinstance(raw, str):
        return raw
    text = raw.replace("-", "+").replace("_", "/").rstrip("=")
    return text + "=" * (-len(text) % 4)


_PROTO_NAMES = {"file_with_bytes": "fileWithBytes", "file_with_uri": "fileWithUri", "mime_type": "mimeType"}


def _camel(tree: Tree) -> Tree:
    """ProtoJSON takes a field under the name that it has in the proto, too."""
    return {_PROTO_NAMES.get(name, name): value for name, value in tree.items()}
