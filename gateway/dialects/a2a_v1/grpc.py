"""What A2A 1.0 gives the gRPC door (§10): the same trees as JSON-RPC, in protobuf."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.dialects.a2a_v1 import requests, responses, schema
from gateway.dialects.grpc import Grpc, Rpc, rpcs
from gateway.dialects.protobuf import Schema
from gateway.model.call import Call
from gateway.model.card import VERSION
from gateway.model.rows import Record

SCHEMA = Schema(schema.FILE, schema.PACKAGE, schema.MESSAGES, schema.ENUMS, schema.METHODS, schema.SERVICE)


def encode(rpc: Rpc, call: Call, result: Any) -> bytes:
    return SCHEMA.write(rpc.gives, orjson.loads(responses.encode(call, result)))


def event(record: Record) -> bytes:
    """A record's body is a StreamResponse of 1.0 in JSON."""
    return SCHEMA.write("StreamResponse", orjson.loads(record.body))


GRPC = Grpc(
    version=VERSION,
    service=f"{schema.PACKAGE}.{schema.SERVICE}",
    schema=SCHEMA,
    rpcs=rpcs(schema.METHODS),
    decode=requests.decode,
    encode=encode,
    event=event,
)
