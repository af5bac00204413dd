"""Protobuf and trees: there and back is identity, and a2a-sdk's stubs with protobuf's own JSON say the same."""

from __future__ import annotations

import contextlib
import math
import struct
from base64 import b64encode
from functools import cache
from typing import Any

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2
from a2a.types import a2a_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.a2a_v03 import schema as schema_v03
from gateway.dialects.a2a_v03.grpc import SCHEMA as OLDER
from gateway.dialects.a2a_v1.grpc import GRPC, SCHEMA
from gateway.dialects.a2a_v1.schema import MESSAGES
from gateway.dialects.grpc import read_status, rpcs, status
from gateway.model.errors import GatewayError, Reason, Violation

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
stamps = st.builds(
    lambda moment, digits: f"{moment.isoformat(timespec='seconds')}.{digits}Z",
    st.datetimes(),
    st.integers(0, 999).map("{:03}".format) | st.integers(0, 999_998).map(lambda n: f"{n * 1000 + 1:09}"),
)
KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "Struct": st.dictionaries(texts, json_values, max_size=2),
    "Value": json_values,
    "Timestamp": stamps,
}
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: texts,
    FieldDescriptor.TYPE_BYTES: st.binary(min_size=1, max_size=6).map(lambda raw: b64encode(raw).decode()),
    FieldDescriptor.TYPE_BOOL: st.just(True),
    FieldDescriptor.TYPE_INT32: st.integers(1, 2**31 - 1) | st.integers(-(2**31), -1),
}
DEFAULTS: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: "",
    FieldDescriptor.TYPE_BYTES: "",
    FieldDescriptor.TYPE_BOOL: False,
    FieldDescriptor.TYPE_INT32: 0,
}


@cache
def trees(message: Any) -> st.SearchStrategy[dict[str, Any]]:
    """What ProtoJSON can say of a message. A default is said where its absence can be told from it, and nowhere else;
    of a oneof at most one."""
    plain = {field.json_name: values(field) for field in message.fields if field.containing_oneof is None}
    chosen = [st.just(dict[str, Any]())]
    for one in message.oneofs:
        kinds = [st.fixed_dictionaries({field.json_name: values(field)}) for field in one.fields]
        chosen.append(st.one_of(st.just({}), *kinds))
    known = st.fixed_dictionaries({}, optional=plain)
    return st.builds(lambda tree, *more: {**tree, **{k: v for each in more for k, v in each.items()}}, known, *chosen)


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    of = field.message_type
    if of is not None and of.GetOptions().map_entry:
        return st.dictionaries(texts, one(of.fields_by_name["value"]), min_size=1, max_size=2)
    return st.lists(one(field), min_size=1, max_size=2) if field.is_repeated else one(field)


def one(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.name for value in field.enum_type.values if value.number])
    if field.message_type is not None:
        name = field.message_type.name
        return KNOWN[name] if name in KNOWN else trees(field.message_type)
    said = SCALARS[field.type]
    return said | st.just(DEFAULTS[field.type]) if field.has_presence else said


def told(message: Descriptor) -> Any:
    return [
        (
            field.name, field.number, field.type, field.json_name, field.is_repeated, field.has_presence,
            field.message_type and field.message_type.full_name,
            field.enum_type and field.enum_type.full_name,
            field.containing_oneof and field.containing_oneof.name,
        )
        for field in sorted(message.fields, key=lambda field: field.number)
    ]  # fmt: skip


@pytest.mark.requirement("a2a.grpc.proto")
def test_the_tables_are_those_of_the_published_proto() -> None:
    theirs = a2a_pb2.DESCRIPTOR
    assert SCHEMA.file.package == theirs.package
    assert set(MESSAGES) == set(theirs.message_types_by_name)
    for name, message in theirs.message_types_by_name.items():
        ours = SCHEMA.pool.FindMessageTypeByName(message.full_name)
        assert told(ours) == told(message), name
        for nested in message.nested_types:
            assert told(ours.nested_types_by_name[nested.name]) == told(nested)
    for name, enum in theirs.enum_types_by_name.items():
        found = SCHEMA.pool.FindEnumTypeByName(enum.full_name)
        assert {value.name: value.number for value in found.values} == {
            value.name: value.number for value in enum.values
        }, name
    service = theirs.services_by_name["A2AService"]
    assert GRPC.service == service.full_name
    assert {(name, rpc.takes, rpc.gives, rpc.streams) for name, rpc in GRPC.rpcs.items()} == {
        (method.name, method.input_type.name, method.output_type.name, method.server_streaming)
        for method in service.methods
    }


def test_the_tables_of_0_3_are_those_of_its_proto() -> None:
    theirs = a2a_v0_3_pb2.DESCRIPTOR
    assert set(schema_v03.MESSAGES) == set(theirs.message_types_by_name)
    for name, message in theirs.message_types_by_name.items():
        assert told(OLDER.pool.FindMessageTypeByName(message.full_name)) == told(message), name
    for name, enum in theirs.enum_types_by_name.items():
        assert schema_v03.ENUMS[name].split() == [value.name for value in enum.values]
    methods = {method.name: method for method in theirs.services_by_name["A2AService"].methods}
    assert methods.keys() == schema_v03.METHODS.keys()
    for name, rpc in rpcs(schema_v03.METHODS).items():
        method = methods[name]
        assert (rpc.takes, rpc.gives, rpc.streams) == (
            method.input_type.name, method.output_type.name, method.server_streaming,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["StreamResponse", "SendMessageRequest", "AgentCard"])
@given(data=st.data())
def test_there_and_back_is_identity_in_0_3(name: str, data: st.DataObject) -> None:
    tree = data.draw(trees(OLDER.classes[name].DESCRIPTOR))
    assert OLDER.read(name, OLDER.write(name, tree)) == tree


@pytest.mark.parametrize("name", ["StreamResponse", "SendMessageRequest", "ListTasksRequest", "AgentCard"])
@given(data=st.data())
def test_there_and_back_is_identity(name: str, data: st.DataObject) -> None:
    tree = data.draw(trees(SCHEMA.classes[name].DESCRIPTOR))
    assert SCHEMA.read(name, SCHEMA.write(name, tree)) == tree


def test_a_number_keeps_its_sign_even_if_it_is_nothing() -> None:
    tree = {"tenant": "t", "metadata": {"below": -0.0, "above": 0.0, "whole": -3}}
    read = SCHEMA.read("SendMessageRequest", SCHEMA.write("SendMessageRequest", tree))
    assert {name: repr(each) for name, each in read["metadata"].items()} == {
        "below": "-0.0",
        "above": "0",
        "whole": "-3",
    }


@pytest.mark.parametrize("name", ["StreamResponse", "SendMessageRequest", "AgentCard"])
@given(data=st.data())
def test_the_sdks_stubs_read_what_we_write_and_write_what_we_read(name: str, data: st.DataObject) -> None:
    tree = data.draw(trees(SCHEMA.classes[name].DESCRIPTOR))
    theirs = getattr(a2a_pb2, name)
    read = theirs.FromString(SCHEMA.write(name, tree))
    assert read == ParseDict(tree, theirs())
    assert SCHEMA.read(name, read.SerializeToString()) == tree
    assert SCHEMA.write(name, MessageToDict(read)) == SCHEMA.write(name, SCHEMA.read(name, SCHEMA.write(name, tree)))


@given(data=st.binary(max_size=64))
def test_any_bytes_are_read_or_refused_with_a_reason(data: bytes) -> None:
    with contextlib.suppress(GatewayError):
        assert isinstance(SCHEMA.read("SendMessageRequest", data), dict)


def test_fields_without_a_place_and_nulls_are_left_out() -> None:
    tree = {"text": "hi", "newer": {"a": 1}, "filename": None, "metadata": {"kept": None}}
    assert SCHEMA.read("Part", SCHEMA.write("Part", tree)) == {"text": "hi", "metadata": {"kept": None}}
    assert SCHEMA.read("Part", SCHEMA.write("Part", {"data": None})) == {"data": None}


def test_a_timestamp_keeps_its_moment_and_what_is_none_is_not_said() -> None:
    for said, kept in (
        ("2026-11-21T08:00:00Z", "2026-11-21T08:00:00.000Z"),
        ("2026-11-21T09:00:00.5+01:00", "2026-11-21T08:00:00.500Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
    ):
        assert SCHEMA.read("TaskStatus", SCHEMA.write("TaskStatus", {"timestamp": said})) == {"timestamp": kept}
    for said in ("yesterday", "2026-02-30T00:00:00Z", "2026-11-21T08:00:00"):
        assert SCHEMA.write("TaskStatus", {"timestamp": said}) == b""


def _number(value: float) -> bytes:
    return (
        a2a_pb2.Part(text="x").SerializeToString() + b"\x2a\x10\x0a\x0e\x0a\x01n\x12\x09\x11" + struct.pack("<d", value)
    )


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("Message", b"\x0a\x02\xff\xfe", "UTF-8"),
        ("Message", b"\x0a\x05abc", "no such message"),
        ("Message", a2a_pb2.Message(message_id="a\0b").SerializeToString(), "NUL"),
        ("Part", _number(math.nan), "finite"),
        ("Part", _number(math.inf), "finite"),
        ("TaskStatus", b"\x1a\x07\x08\x80\x80\x80\x80\x80\x20", "years"),
        ("Part", b"\x22" * 3000, "no such message"),
    ],
)
def test_what_json_would_not_take_is_not_taken_here_either(name: str, data: bytes, words: str) -> None:
    with pytest.raises(GatewayError, match=words) as refused:
        SCHEMA.read(name, data)
    assert refused.value.reason is Reason.PARSE_ERROR


def test_a_message_of_too_many_values_is_refused() -> None:
    wide = ParseDict({"data": [None] * 150_000}, a2a_pb2.Part()).SerializeToString()
    with pytest.raises(GatewayError, match="100000 values"):
        SCHEMA.read("Part", wide)


def test_an_error_travels_whole() -> None:
    error = GatewayError(
        Reason.INVALID_PARAMS, "käse", metadata={"a": "b"}, violations=(Violation("x.y", "is bad"),), retry_after=3
    )
    said = status(error)
    assert said.code == "INVALID_ARGUMENT"
    info, bad, retry = read_status(said.details)["details"]
    assert (info["reason"], info["domain"], info["metadata"]) == ("INVALID_PARAMS", "a2a-protocol.org", {"a": "b"})
    assert bad["fieldViolations"] == [{"field": "x.y", "description": "is bad"}]
    assert retry["retryDelay"] == {"seconds": 3}
