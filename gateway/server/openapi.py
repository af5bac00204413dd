"""The admin API as an OpenAPI 3.1 document, made of the very table that routes and checks its requests.

What is answered follows from the types of the answers, which the type checker holds the code to.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

import orjson

from gateway.dialects.a2a_v1.entrance import Entrance
from gateway.dialects.a2a_v1.errors import CODES
from gateway.model.errors import Reason
from gateway.model.value import value
from gateway.server.admin_fields import Field
from gateway.server.admin_operation import Events, Operation
from gateway.server.entrances import Entrances

Tree = dict[str, Any]

VERSION = "3.1.1"
_SCHEMAS = "#/components/schemas/"
_PLAIN: Mapping[Any, Tree] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}
# What any request may meet: the status, the name of the answer, and what it says.
_REFUSALS = (
    ("400", "Wrong", "What was sent is wrong: `fieldViolations` name each wrong field; or it cannot be done now."),
    ("401", "Unauthenticated", "Who are you: no credential that is known here."),
    ("403", "Forbidden", "Not you: the policy does not let this caller do that."),
    ("default", "Failed", "Any other refusal or failure."),
)


@value
class About:
    """What only the application knows: where the admin API is (None: whoever asks knows, as at a socket in the file
    system), the gateway's version, and how callers are let in."""

    url: str | None
    version: str
    entrances: Entrances


class OpenApi:
    """Made when it is first asked for, and again when callers are let in otherwise."""

    def __init__(self, operations: Iterable[Operation], about: About) -> None:
        self._operations = operations
        self._about = about
        self._made: tuple[Entrance, bytes] | None = None

    async def document(self) -> bytes:
        entrances = self._about.entrances
        await entrances.look()
        if self._made is None or self._made[0] is not entrances.current:
            tree = described(self._operations, self._about, entrances.current)
            self._made = entrances.current, orjson.dumps(tree)
        return self._made[1]


def described(operations: Iterable[Operation], about: About, entrance: Entrance) -> Tree:
    """The whole document."""
    schemas: Tree = {"Error": _ERROR}
    paths: Tree = {}
    for each in operations:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schemas)
    schemes = {name: _scheme(said) for name, said in entrance.schemes.items()}
    usable = {name: scheme for name, scheme in schemes.items() if scheme is not None}
    url = about.url
    return {
        "openapi": VERSION,
        "info": {
            "title": "Gateway admin API",
            "summary": "Agents, tools, keys, people, policy, approvals and the audit log of this gateway.",
            "description": "Each operation names the action that the policy decides about (`x-action`). "
            "A body or query with anything that is not named here is refused.",
            "version": about.version,
        },
        **({} if url is None else {"servers": [{"url": url}]}),
        "security": list(_requirements(entrance, usable)),
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": usable,
            "responses": {name: _refusal(said) for _, name, said in _REFUSALS},
        },
    }


def _operation(each: Operation, schemas: Tree) -> Tree:
    tree: Tree = {
        "operationId": _camel(each.id or each.verb),
        "summary": each.summary,
        "tags": [re.split(r"[/:.]", each.path)[2]],
        "x-action": each.verb,
        "parameters": [*_path_parameters(each), *(_parameter(field, "query") for field in each.query)],
        "responses": {
            **_answer(each, schemas),
            **{status: {"$ref": f"#/components/responses/{name}"} for status, name, _ in _REFUSALS},
        },
    }
    if each.body is not None:
        content = {"application/json": {"schema": _body(each.body, each.least)}}
        required = each.least > 0 or any(field.required for field in each.body)
        tree["requestBody"] = {"required": required, "content": content}
    return tree


def _camel(name: str) -> str:
    return name[0].lower() + name[1:]


def _body(fields: tuple[Field, ...], least: int) -> Tree:
    return {
        "type": "object",
        "properties": {field.name: {**field.schema, "description": field.about} for field in fields},
        "required": [field.name for field in fields if field.required],
        **({"minProperties": least} if least else {}),
        "additionalProperties": False,
    }


def _path_parameters(each: Operation) -> Iterator[Tree]:
    said = {field.name: field for field in each.words}
    for name, kind in re.findall(r"\{(\w+)(?::(\w+))?\}", each.path):
        if name in said:
            yield _parameter(said[name], "path")
        else:
            schema = {"type": "integer", "minimum": 0} if kind == "int" else {"type": "string", "minLength": 1}
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _parameter(field: Field, place: str) -> Tree:
    required = place == "path" or field.required
    return {"name": field.name, "in": place, "required": required, "schema": field.schema, "description": field.about}


def _answer(each: Operation, schemas: Tree) -> Tree:
    if each.answer is None:
        return {"204": {"description": "Done."}}
    if isinstance(each.answer, Events):
        # 3.1 has no word for what the events of a stream hold.
        inside = schema_of(each.answer.each, schemas)
        media: Tree = {"text/event-stream": {"schema": {"type": "string", "x-event-data": inside}}}
        return {"200": {"description": "Events, until the caller has gone or nothing can follow.", "content": media}}
    media = {"application/json": {"schema": schema_of(each.answer, schemas)}}
    return {str(each.status): {"description": "Made." if each.status == 201 else "Done.", "content": media}}


# Types as schemas.


def schema_of(hint: Any, schemas: Tree) -> Tree:
    """The schema of what has this type once it is JSON; what has a name goes into `schemas`. Raises TypeError for one
    that no answer may have."""
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if is_typeddict(hint):
        if hint.__name__ not in schemas:
            schemas[hint.__name__] = {}  # it may be part of itself
            schemas[hint.__name__] = _object(hint, schemas)
        return {"$ref": _SCHEMAS + hint.__name__}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"type": "string", "enum": [each.value for each in hint]}
    return _composed(hint, schemas)


def _composed(hint: Any, schemas: Tree) -> Tree:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind, *more = inside
        return {**({} if kind is Any else schema_of(kind, schemas)), **dict(more)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each, schemas) for each in inside]}
    if origin is Literal:
        return {"type": "string", "enum": [*inside]}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(inside[1], schemas)}
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return {"type": "array", "items": schema_of(inside[0], schemas)}
    raise TypeError(f"{hint} has no schema")


def _object(hint: Any, schemas: Tree) -> Tree:
    properties, required = {}, []
    for name, each in get_type_hints(hint, include_extras=True).items():
        if get_origin(each) is NotRequired:
            each = get_args(each)[0]
        else:
            required.append(name)
        properties[name] = schema_of(each, schemas)
    about = {} if not hint.__doc__ else {"description": " ".join(hint.__doc__.split())}
    return {"type": "object", **about, "properties": properties, "required": required}


# Refusals (dialects/a2a_v1/errors.py).


def _refusal(about: str) -> Tree:
    return {"description": about, "content": {"application/json": {"schema": {"$ref": _SCHEMAS + "Error"}}}}


_ERROR: Tree = {
    "type": "object",
    "description": "A sentence for people, and in `details` a reason for machines.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "status", "message", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "status": {"type": "string", "enum": sorted({code.status for code in CODES.values()})},
                "message": {"type": "string"},
                "details": {
                    "type": "array",
                    "description": "An ErrorInfo, and a BadRequest where fields are wrong; "
                    "nothing where no route was known yet.",
                    "items": {
                        "type": "object",
                        "required": ["@type"],
                        "properties": {
                            "@type": {"type": "string"},
                            "reason": {"type": "string", "enum": [reason.value for reason in Reason]},
                            "domain": {"type": "string"},
                            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                            "fieldViolations": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["field", "description"],
                                    "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}


# How callers are let in: what cards say (dialects/a2a_v1/entrance.py), as far as OpenAPI 3.1 has words for it.

_FLOW = ("authorizationUrl", "tokenUrl", "refreshUrl", "scopes")
_FLOWS = ("clientCredentials", "authorizationCode")  # it has none for devices


def _scheme(said: Mapping[str, Any]) -> Tree | None:
    ((kind, inside),) = said.items()
    about = {name: inside[name] for name in ("description",) if name in inside}
    match kind:
        case "httpAuthSecurityScheme":
            return {"type": "http", "scheme": inside["scheme"].lower(), **about}
        case "mtlsSecurityScheme":
            return {"type": "mutualTLS", **about}
        case "openIdConnectSecurityScheme":
            return {"type": "openIdConnect", "openIdConnectUrl": inside["openIdConnectUrl"], **about}
        case "oauth2SecurityScheme":
            flows = {name: _flow(flow) for name, flow in inside["flows"].items() if name in _FLOWS}
            return {"type": "oauth2", "flows": flows, **about} if flows else None
    raise ValueError(f"{kind} has no word in OpenAPI")


def _flow(flow: Mapping[str, Any]) -> Tree:
    return {name: flow[name] for name in _FLOW if name in flow}


def _requirements(entrance: Entrance, usable: Mapping[str, Tree]) -> Iterator[Tree]:
    for each in entrance.requirements:
        if all(name in usable for name in each["schemes"]):
            yield {name: scopes["list"] for name, scopes in each["schemes"].items()}
