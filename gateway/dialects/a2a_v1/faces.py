"""What A2A 1.0 gives the doors."""

from __future__ import annotations

from operator import attrgetter

from gateway.dialects.a2a_v1 import errors, paths, requests, responses
from gateway.dialects.face import HttpJson, JsonRpc
from gateway.model.card import VERSION

JSONRPC = JsonRpc(
    version=VERSION,
    methods=frozenset(requests.DECODE),
    streaming=requests.STREAMING,
    decode=requests.decode,
    encode=responses.encode,
    event=None,  # a record's body is written in 1.0
)
HTTP_JSON = HttpJson(
    version=VERSION,
    match=paths.match,
    decode=requests.decode,
    encode=responses.encode,
    event=attrgetter("body"),
    error=errors.http_error,
    media_type="application/a2a+json",
)
