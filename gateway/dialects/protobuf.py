"""Protobuf <-> the trees that ProtoJSON has for it, from a revision's table of messages (`a2a_*/schema.py`). Pure.

Strategy: protobuf's own C code takes the bytes apart and puts them together; what stands between its messages and our
trees are functions made once per field. Trees are what the JSON bindings read too, so every rule behind them is written
once. (protobuf's own `json_format` does the same at ten times the time.) The schema lives in a pool of its own: another
library's copy of the same names in this process disturbs nobody.

A message is one line of fields, `name=number:type`. Without a type it is a string; after the type `*` says repeated,
`?` that its absence is told from its default, `|name` that it belongs to this oneof, `>name` that JSON calls it so.

Rule 1: no string contains NUL, as in `strict_json`. That strings are UTF-8, protobuf itself sees to.
Rule 2: numbers in free JSON (`Struct`, `Value`) are finite. Integral ones are read as integers.
Rule 3: a tree has at most MAX_NODES values; protobuf's reader bounds the depth (100 messages, some 33 levels of JSON).
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import copysign, isfinite
from typing import Any, Final, TypeAlias

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from gateway.dialects.strict_json import MAX_NODES
from gateway.model.errors import GatewayError, Reason

Tree: TypeAlias = dict[str, Any]
Convert: TypeAlias = Callable[[Any], Any]

_Proto = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Proto.TYPE_STRING,
    "bytes": _Proto.TYPE_BYTES,
    "bool": _Proto.TYPE_BOOL,
    "int32": _Proto.TYPE_INT32,
}
_KNOWN = {"Struct", "Value", "Timestamp", "Duration", "Empty", "Any"}
_FILES = (struct_pb2, timestamp_pb2, duration_pb2, empty_pb2, any_pb2)
_FIELD = re.compile(
    r"(?P<name>\w+)=(?P<number>\d+)(?::(?:map<(?P<map>\w+)>|(?P<type>\w+)))?"
    r"(?P<many>\*)?(?P<maybe>\?)?(?:\|(?P<one>\w+))?(?:>(?P<json>\w+))?"
)

_EXACT: Final = float(2**53)  # beyond it a double has no digits after the point, and not every integer
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (UTC; a zone would be written twice)
_YEARS: Final = (-62135596800, 253402300799)  # the years 1 to 9999
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


class Schema:
    """The messages, enums and methods of one file."""

    def __init__(
        self,
        file: str,
        package: str,
        messages: Mapping[str, str],
        enums: Mapping[str, str] = {},
        methods: Mapping[str, str] = {},
        service: str = "",
    ) -> None:
        self.package = package
        self.pool = DescriptorPool()
        for known in _FILES:
            self.pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        self.file = _file(file, package, messages, enums, methods, service)
        self.pool.AddSerializedFile(self.file.SerializeToString())
        found = [self._found(f"{package}.{name}") for name in messages]
        found += [self._found(f"google.protobuf.{name}") for name in ("Empty", "Any", "Duration")]
        self.classes: dict[str, type[Message]] = {each.name: GetMessageClass(each) for each in found}
        self._value, self._struct = (
            GetMessageClass(self._found(f"google.protobuf.{name}")) for name in ("Value", "Struct")
        )
        self._write_known: dict[str, Convert] = {
            "google.protobuf.Struct": self._write_struct,
            "google.protobuf.Value": self._write_value,
            "google.protobuf.Timestamp": _write_timestamp,
        }
        self._readers: dict[str, Convert] = {}
        self._writers: dict[str, Convert] = {}
        for each in found:
            self._readers[each.full_name] = self._reader(each)
            self._writers[each.full_name] = self._writer(each)

    def _found(self, full_name: str) -> Descriptor:
        return self.pool.FindMessageTypeByName(full_name)

    def read(self, name: str, data: bytes) -> Tree:
        """The tree of a message. Raises GatewayError(PARSE_ERROR), which quotes nothing of the bytes."""
        kind = self.classes[name]
        try:
            message = kind.FromString(data)
        except DecodeError:
            raise _refused("the bytes are no such message, or hold a string that is not UTF-8") from None
        tree: Tree = self._readers[kind.DESCRIPTOR.full_name](message)
        if len(data) > 2 * MAX_NODES:  # no value takes less than two bytes
            _count(tree)
        return tree

    def write(self, name: str, tree: Tree) -> bytes:
        """The bytes of a message. What the schema has no place for is left out. Raises ValueError for a tree that is
        no such message."""
        kind = self.classes[name]
        try:
            return kind(**self._writers[kind.DESCRIPTOR.full_name](tree)).SerializeToString()
        except (TypeError, AttributeError, EncodeError, DecodeError) as error:
            raise ValueError(f"cannot be said as {name}: {error}") from error

    # One function per message and field, made once.

    def _reader(self, message: Descriptor) -> Convert:
        table: dict[int, tuple[str, Convert]] = {
            field.number: (field.json_name, self._read_field(field)) for field in message.fields
        }

        def read(value: Any) -> Tree:
            made = {}
            for field, said in value.ListFields():
                name, convert = table[field.number]
                made[name] = convert(said)
            return made

        return read

    def _read_field(self, field: FieldDescriptor) -> Convert:
        one = self._read_one(_value_of(field))
        if _is_map(field):
            return lambda said: {_text(key): one(said[key]) for key in said}
        return (lambda said: [one(each) for each in said]) if field.is_repeated else one

    def _read_one(self, field: FieldDescriptor) -> Convert:
        if field.enum_type is not None:
            # A number that is newer than this table stays a number, which is then no name of a state.
            names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
            return lambda said: names.get(said, said)
        if field.message_type is None:
            return _READ_SCALAR.get(field.type, _same)
        known = _READ_KNOWN.get(field.message_type.full_name)
        # By name and when it is called: messages contain each other.
        name, readers = field.message_type.full_name, self._readers
        return known or (lambda said: readers[name](said))

    def _writer(self, message: Descriptor) -> Convert:
        table = {field.json_name: (field.name, self._write_field(field), _is_value(field)) for field in message.fields}

        def write(tree: Any) -> Tree:
            made = {}
            for name, said in tree.items():
                entry = table.get(name)
                if entry is None:
                    continue
                field, convert, any_json = entry
                # ProtoJSON: null is "not given", except where any JSON may stand.
                if said is not None or any_json:
                    made[field] = convert(said)
            return made

        return write

    def _write_field(self, field: FieldDescriptor) -> Convert:
        one = self._write_one(_value_of(field))
        if _is_map(field):
            return self._write_map(field, one)
        return (lambda said: [one(each) for each in said]) if field.is_repeated else one

    def _write_map(self, field: FieldDescriptor, one: Convert) -> Convert:
        of = _value_of(field).message_type
        if of is None:
            return lambda said: {key: one(each) for key, each in said.items()}
        kind = GetMessageClass(of)
        return lambda said: {key: kind(**one(each)) for key, each in said.items()}

    def _write_one(self, field: FieldDescriptor) -> Convert:
        if field.message_type is None:
            return _WRITE_SCALAR.get(field.type, _same)
        name, writers = field.message_type.full_name, self._writers
        return self._write_known.get(name) or (lambda said: writers[name](said))

    def _write_value(self, said: Any) -> Message:
        value = self._value()
        _fill(value, said)
        return value

    def _write_struct(self, said: Any) -> Message:
        struct = self._struct()
        _fill_struct(struct, said)
        return struct


# --- The file that the tables are. --------------------------------------------------------------------------


def _file(
    name: str,
    package: str,
    messages: Mapping[str, str],
    enums: Mapping[str, str],
    methods: Mapping[str, str],
    service: str,
) -> descriptor_pb2.FileDescriptorProto:
    dependencies = [known.DESCRIPTOR.name for known in _FILES]
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, dependency=dependencies, syntax="proto3")
    for called, line in messages.items():
        _message(file.message_type.add(name=called), f".{package}", line, enums)
    for called, line in enums.items():
        enum = file.enum_type.add(name=called)
        for number, value in enumerate(line.split()):
            enum.value.add(name=value, number=number)
    if service:
        served = file.service.add(name=service)
        for called, line in methods.items():
            takes, *stream, gives = line.split()
            served.method.add(
                name=called,
                input_type=_qualified(f".{package}", takes),
                output_type=_qualified(f".{package}", gives),
                server_streaming=bool(stream),
            )
    return file


def _message(message: descriptor_pb2.DescriptorProto, package: str, line: str, enums: Mapping[str, str]) -> None:
    fields = [match for match in map(_FIELD.fullmatch, line.split()) if match is not None]
    assert len(fields) == len(line.split()), line
    oneofs = list(dict.fromkeys(match["one"] for match in fields if match["one"]))
    # A field with `?` is the only one of a oneof that nobody sees; those come last.
    hidden = [f"_{match['name']}" for match in fields if match["maybe"]]
    for one in (*oneofs, *hidden):
        message.oneof_decl.add(name=one)
    for match in fields:
        field = message.field.add(name=match["name"], number=int(match["number"]), label=_Proto.LABEL_OPTIONAL)
        if match["map"]:
            _entry(message, field, package, match["map"], enums)
            continue
        _type(field, package, match["type"] or "string", enums)
        if match["json"]:
            field.json_name = match["json"]
        if match["many"]:
            field.label = _Proto.LABEL_REPEATED
        if match["one"]:
            field.oneof_index = oneofs.index(match["one"])
        if match["maybe"]:
            field.proto3_optional = True
            field.oneof_index = len(oneofs) + hidden.index(f"_{match['name']}")


def _entry(
    message: descriptor_pb2.DescriptorProto,
    field: descriptor_pb2.FieldDescriptorProto,
    package: str,
    of: str,
    enums: Mapping[str, str],
) -> None:
    """A map is a list of pairs that knows what it is."""
    name = "".join(word.capitalize() for word in field.name.split("_")) + "Entry"
    entry = message.nested_type.add(name=name)
    entry.options.map_entry = True
    _type(entry.field.add(name="key", number=1, label=_Proto.LABEL_OPTIONAL), package, "string", enums)
    _type(entry.field.add(name="value", number=2, label=_Proto.LABEL_OPTIONAL), package, of, enums)
    field.label, field.type = _Proto.LABEL_REPEATED, _Proto.TYPE_MESSAGE
    field.type_name = f"{package}.{message.name}.{name}"


def _type(field: descriptor_pb2.FieldDescriptorProto, package: str, name: str, enums: Mapping[str, str]) -> None:
    if name in _SCALARS:
        field.type = _SCALARS[name]
    else:
        field.type = _Proto.TYPE_ENUM if name in enums else _Proto.TYPE_MESSAGE
        field.type_name = _qualified(package, name)


def _qualified(package: str, name: str) -> str:
    return f".google.protobuf.{name}" if name in _KNOWN else f"{package}.{name}"


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_value(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"


def _value_of(field: FieldDescriptor) -> FieldDescriptor:
    of = field.message_type
    return of.fields_by_name["value"] if of is not None and of.GetOptions().map_entry else field


# --- Values. ------------------------------------------------------------------------------------------------


def _same(said: Any) -> Any:
    return said


def _text(said: str) -> str:
    if "\0" in said:
        raise _refused("a string contains the character NUL, which is not accepted")
    return said


def _base64(said: bytes) -> str:
    return b64encode(said).decode("ascii")


def _bytes(said: str) -> bytes:
    # ProtoJSON takes both alphabets, padded or not.
    plain = said.replace("-", "+").replace("_", "/").rstrip("=")
    return b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _read_struct(said: Any) -> Tree:
    fields = said.fields
    return {_text(key): _read_value(fields[key]) for key in fields}


def _read_value(said: Any) -> Any:
    for field, value in said.ListFields():
        return _KINDS[field.number](value)
    return None


def _number(said: float) -> int | float:
    if not isfinite(said):
        raise _refused("a number is not finite")
    whole = said.is_integer() and -_EXACT <= said <= _EXACT and (said or copysign(1, said) > 0)  # -0.0 keeps its sign
    return int(said) if whole else said


_KINDS: dict[int, Convert] = {
    1: lambda said: None,
    2: _number,
    3: _text,
    4: _same,
    5: _read_struct,
    6: lambda said: [_read_value(each) for each in said.values],
}


def _fill(value: Any, said: Any) -> None:
    """Make `value` (a Value) say what the tree says. An integer beyond 2^53 becomes the double that is nearest: there
    is nothing else for it here."""
    kind = type(said)
    if kind is str:
        value.string_value = said
    elif kind is dict:
        value.struct_value.SetInParent()
        _fill_struct(value.struct_value, said)
    elif kind is list or kind is tuple:
        value.list_value.SetInParent()
        for each in said:
            _fill(value.list_value.values.add(), each)
    elif said is None:
        value.null_value = 0
    elif kind is bool:
        value.bool_value = said
    else:
        value.number_value = said


def _fill_struct(struct: Any, said: Mapping[str, Any]) -> None:
    for key, each in said.items():
        _fill(struct.fields[key], each)


def _read_timestamp(said: Any) -> str:
    first, last = _YEARS
    if not first <= said.seconds <= last or not 0 <= said.nanos < 10**9:
        raise _refused("a timestamp is outside the years 1 to 9999")
    # Milliseconds, as A2A asks (§5.6.1), unless there is more to say.
    digits = f"{said.nanos:09d}"
    shown = digits[:3] if digits.endswith("000000") else digits[:6] if digits.endswith("000") else digits
    return f"{(_EPOCH + timedelta(seconds=said.seconds)).isoformat()}.{shown}Z"


def _write_timestamp(said: Any) -> Tree | None:
    """None, and so no timestamp, for a text that is none: protobuf has no words for it."""
    match = _STAMP.fullmatch(said) if isinstance(said, str) else None
    try:
        moment = datetime.fromisoformat(match[1] + match[3]) if match else None
    except ValueError:
        moment = None
    if match is None or moment is None:
        return None
    return {
        "seconds": round((moment - _EPOCH.replace(tzinfo=UTC)).total_seconds()),
        "nanos": int((match[2] or "").ljust(9, "0")),
    }


_READ_SCALAR: dict[int, Convert] = {_Proto.TYPE_STRING: _text, _Proto.TYPE_BYTES: _base64}
_WRITE_SCALAR: dict[int, Convert] = {_Proto.TYPE_BYTES: _bytes}
_READ_KNOWN: dict[str, Convert] = {
    "google.protobuf.Struct": _read_struct,
    "google.protobuf.Value": _read_value,
    "google.protobuf.Timestamp": _read_timestamp,
}


def _count(tree: Tree) -> None:
    """Level by level, as `strict_json` does. Raises PARSE_ERROR."""
    level: list[Iterable[Any]] = [tree.values()]
    nodes = 0
    while level:
        below: list[Iterable[Any]] = []
        for value in chain.from_iterable(level):
            nodes += 1
            if type(value) is dict:
                below.append(value.values())
            elif type(value) is list:
                below.append(value)
        if nodes > MAX_NODES:
            raise _refused(f"the message has more than {MAX_NODES} values")
        level = below


def _refused(what: str) -> GatewayError:
    return GatewayError(Reason.PARSE_ERROR, f"Not acceptable as protobuf: {what}.")


__all__ = ["Schema", "Tree"]
