"""What A2A 0.3 gives the doors."""

from __future__ import annotations

from gateway.dialects.a2a_v03 import errors, paths, requests, responses
from gateway.dialects.face import HttpJson, JsonRpc

JSONRPC = JsonRpc(
    version=requests.VERSION,
    methods=frozenset(requests.METHODS),
    streaming=requests.STREAMING,
    decode=requests.decode,
    encode=responses.encode,
    event=responses.event,
    ends=responses.ends,
    older_extensions=True,
    # Clients of 0.3 read nothing but events here, and would not see why (0.3.0 §3.3.1, §7.2.1).
    refuses_in_stream=True,
)
HTTP_JSON = HttpJson(
    version=requests.VERSION,
    match=paths.match,
    decode=requests.decode_proto,
    encode=responses.encode_proto,
    event=responses.event_proto,
    error=errors.http_error,
    media_type="application/json",  # 0.3.0 §3.2.3
    ends=responses.ends,
    older_extensions=True,
)
