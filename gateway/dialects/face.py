"""What a revision of A2A has to give so that the doors can speak it: one value per binding, made of pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway.dialects.paths import Operation
from gateway.model.call import Call
from gateway.model.errors import GatewayError
from gateway.model.rows import Record

Decode: TypeAlias = Callable[[str, dict[str, Any], str, tuple[str, ...]], Call]
Encode: TypeAlias = Callable[[Call, Any], bytes]


@dataclass(frozen=True, slots=True)
class JsonRpc:
    """`decode` takes method, parameters, agent and activated extensions; `encode` a call and its result. `event` is
    the result member for one event, None if that is the record's own body; `ends` says after which event a stream ends
    though its task may go on."""

    version: str
    methods: frozenset[str]
    streaming: frozenset[str]
    decode: Decode
    encode: Encode
    event: Callable[[Record], bytes] | None
    ends: Callable[[Record], bool] | None = None
    older_extensions: bool = False  # X-A2A-Extensions is read, too
    refuses_in_stream: bool = False  # a stream that cannot begin is a stream of one error


@dataclass(frozen=True, slots=True)
class HttpJson:
    """The same for HTTP+JSON; `match` knows which operation a verb and a path mean, `error` gives status and body."""

    version: str
    match: Callable[[str, str], Operation | frozenset[str] | None]
    decode: Decode
    encode: Encode
    event: Callable[[Record], bytes]
    error: Callable[[GatewayError, int | None], tuple[int, bytes]]
    media_type: str
    ends: Callable[[Record], bool] | None = None
    older_extensions: bool = False
