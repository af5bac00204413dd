"""The description of the admin API, held against what it does: every answer that a test's client gets from there must
have the shape that the description says, and no field beside it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx2
import jsonschema_rs
from starlette.routing import Match

from gateway.dialects.a2a_v1.entrance import PLAIN
from gateway.server.admin import Admin
from gateway.server.admin_operation import Operation
from gateway.server.entrances import Entrances
from gateway.server.openapi import About, described

Tree = dict[str, Any]


@cache
def admin() -> Admin:
    """One without a gateway: only its table is looked at."""
    unused: Any = object()
    return Admin(unused, unused, unused, About(None, "0", Entrances()))


@cache
def document() -> Tree:
    return described(admin().operations, About(None, "0", Entrances()), PLAIN)


def each(tree: Tree) -> Iterator[tuple[str, str, Tree]]:
    """Method, path and description of every operation of a document."""
    for path, methods in tree["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


async def conforms(answer: httpx2.Response) -> None:
    """A hook for a client."""
    request = answer.request
    if not request.url.path.startswith("/admin/") or answer.headers.get("content-type") != "application/json":
        return
    if request.method == "HEAD":  # the answer that GET would get, without its body
        return
    operation = asked(request.method, request.url.path)
    if operation is not None:
        await answer.aread()
        check(operation, answer.status_code, answer.json())


def asked(method: str, path: str) -> Operation | None:
    scope = {"type": "http", "method": method, "path": path}
    for operation, route in zip(admin().operations, admin().routes(), strict=True):
        if route.matches(scope)[0] is Match.FULL:
            return operation
    return None


def check(operation: Operation, status: int, body: Any) -> None:
    assert status >= 400 or status == operation.status, (operation.path, status)
    validator = _validator(operation.method, plain(operation.path), status)
    problems = [f"{each.instance_path}: {each.message}" for each in validator.iter_errors(body)]
    assert not problems, (operation.method, operation.path, status, problems)


@cache
def _validator(method: str, path: str, status: int) -> jsonschema_rs.Draft202012Validator:
    answers = document()["paths"][path][method.lower()]["responses"]
    answer = answers.get(str(status), answers["default"])
    if "$ref" in answer:
        answer = document()["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    schema = answer["content"]["application/json"]["schema"]
    components = _closed({"schemas": document()["components"]["schemas"]})
    return jsonschema_rs.Draft202012Validator({**schema, "components": components}, validate_formats=True)


def plain(path: str) -> str:
    """As OpenAPI writes a path."""
    return path.replace(":int}", "}")


def _closed(tree: Any) -> Any:
    """Clients may be sent more one day; today there is nothing that is not described."""
    if isinstance(tree, list):
        return [_closed(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    closed = {name: _closed(each) for name, each in tree.items()}
    if tree.get("type") == "object" and isinstance(tree.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed
