"""Credentials of callers other than the machine itself, asked for once the gateway under test is up."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

_open = build_opener(ProxyHandler({})).open


def key(port: int, data: Path) -> str:
    """An API key. Raises OSError while nobody answers."""
    made: str = _asked(port, "/admin/keys", _bearer(data), b'{"name": "bench"}', "application/json")["key"]
    return made


def token(port: int, data: Path) -> str:
    """An access token (JWT) of the gateway's own authorization server. Raises OSError while nobody answers."""
    made = _asked(port, "/admin/clients", _bearer(data), b'{"id": "bench"}', "application/json")
    basic = "Basic " + b64encode(f"bench:{made['secret']}".encode()).decode()
    form = b"grant_type=client_credentials"
    given: str = _asked(port, "/oauth/token", basic, form, "application/x-www-form-urlencoded")["access_token"]
    return given


def _bearer(data: Path) -> str:
    return f"Bearer {(data / 'token').read_text('utf-8').strip()}"


def _asked(port: int, path: str, credential: str, body: bytes, kind: str) -> dict[str, Any]:
    headers = {"Authorization": credential, "Content-Type": kind}
    with _open(Request(f"http://127.0.0.1:{port}{path}", body, headers), timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
