"""The map of the house, and whether the code still follows it.

Read the tables first: they say which layer may import which, which module alone may hold each dangerous primitive,
and the few exceptions, each with its reason. Every table is checked both ways: code that is not allowed fails,
and so does an allowance that nobody uses any more.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# --- The tables. -------------------------------------------------------------------------------------------

# Which layer may import which, of ours. A layer is a folder or a file right below `gateway/`, or `agents`.
LAYERS: dict[str, frozenset[str]] = {
    "gateway.model": frozenset(),
    "gateway.config": frozenset(),
    "gateway.logs": frozenset(),
    "gateway.watching": frozenset(),
    "gateway.renewing": frozenset({"gateway.model", "gateway.watching"}),
    "gateway.dialects": frozenset({"gateway.model"}),
    "gateway.core": frozenset({"gateway.model"}),
    "gateway.verifier": frozenset(),  # one file, for people who have nothing else of ours
    "gateway.stores": frozenset({"gateway.model", "gateway.verifier"}),
    "gateway.upstream": frozenset({"gateway.model", "gateway.dialects"}),
    "gateway.server": frozenset({"gateway.model", "gateway.dialects", "gateway.core"}),
    "gateway.identity": frozenset(
        {f"gateway.{name}" for name in ("config", "model", "core", "dialects", "upstream", "server", "giving")}
    ),
    "gateway.giving": frozenset(
        {f"gateway.{name}" for name in ("config", "model", "core", "dialects", "stores", "server")}
    ),
    "gateway.webhookkeys": frozenset({"gateway.stores", "gateway.server"}),
    "gateway.witnessing": frozenset(
        {f"gateway.{name}" for name in ("config", "model", "stores", "upstream", "verifier")}
    ),
    "gateway.authorizing": frozenset({f"gateway.{name}" for name in ("config", "model", "upstream")}),
    "gateway.admitting": frozenset(
        {f"gateway.{name}" for name in ("authorizing", "config", "model", "renewing", "upstream")}
    ),
    "gateway.tooling": frozenset(
        {f"gateway.{name}" for name in ("authorizing", "config", "model", "core", "upstream")}
    ),
    "gateway.checks": frozenset({"gateway.model"}),
    "gateway.complying": frozenset(
        {f"gateway.{name}" for name in ("config", "model", "core", "checks", "dialects", "upstream", "watching")}
    ),
    "gateway.policing": frozenset({f"gateway.{name}" for name in ("config", "model", "core", "watching")}),
    "gateway.credential": frozenset({"gateway.model", "gateway.core"}),
    "gateway.enrolling": frozenset({f"gateway.{name}" for name in ("config", "model", "core", "dialects", "upstream")}),
    "gateway.listening": frozenset({"gateway.config", "gateway.model"}),
    "gateway.chance": frozenset(),
    "gateway.callers": frozenset({f"gateway.{name}" for name in ("config", "core", "identity", "model")}),
    "gateway.extras": frozenset(
        {
            f"gateway.{name}"
            for name in (
                *("chance", "complying", "config", "core", "identity", "listening", "model"),
                *("server", "stores", "upstream", "witnessing"),
            )
        }
    ),
    "gateway.app": frozenset(
        {
            f"gateway.{name}"
            for name in (
                *("model", "config", "dialects", "core", "stores", "upstream", "server"),
                *(
                    "credential",
                    "enrolling",
                    "listening",
                    "admitting",
                    "authorizing",
                    "callers",
                    "chance",
                    "complying",
                    "extras",
                    "identity",
                    "policing",
                    "tooling",
                    "webhookkeys",
                    "renewing",
                ),
            )
        }
    ),
    "gateway.serving": frozenset(
        {f"gateway.{name}" for name in ("app", "config", "credential", "listening", "logs", "model", "server")}
    ),
    "gateway.cli": frozenset({"gateway.serving", "gateway.config", "gateway.model", "gateway.verifier"}),
    "gateway.__main__": frozenset({"gateway.cli"}),
    "gateway": frozenset(),
    "agents": frozenset({"gateway.model"}),
}

# Within `cli` only the command that runs the gateway may know it; the others speak to it over HTTP.
KNOWS_THE_SERVER = frozenset({"gateway.cli.serve"})

# A module that may be imported, and the only rooms (module prefixes) where it may be. Every third-party package
# has a line, so a new one asks for a decision; of the standard library, what reaches out of the process does.
ROOMS: dict[str, frozenset[str]] = {
    # The network.
    "gateway.upstream.pool": frozenset({"gateway.upstream.egress"}),
    "gateway.upstream.http1": frozenset({"gateway.upstream.pool"}),
    "gateway.upstream.grpc": frozenset({"gateway.upstream.a2a_grpc"}),
    "grpc": frozenset({"gateway.server.grpc", "gateway.server.a2a_grpc", "gateway.upstream.grpc"}),
    "grpc_health": frozenset({"gateway.server.grpc"}),
    "grpc_reflection": frozenset({"gateway.server.grpc"}),
    "httpx2": frozenset(
        {
            "gateway.upstream.cards",
            "gateway.upstream.httpx2_transport",
            "gateway.upstream.oauth.token_endpoint",
            "gateway.upstream.witness",
            "gateway.cli.client",
        }
    ),
    "http.server": frozenset({"gateway.cli.redirect"}),
    "idna": frozenset({"gateway.upstream.address"}),
    "socket": frozenset(
        {
            *("gateway.listening", "gateway.serving", "gateway.server.edge"),
            *("gateway.upstream.http1", "gateway.upstream.pool"),
            "gateway.upstream.grpc",  # the names of what it asks the resolver for
        }
    ),
    "ssl": frozenset({"gateway.listening", "gateway.server.edge", "gateway.upstream.egress", "gateway.upstream.pool"}),
    "select": frozenset({"gateway.upstream.http1", "gateway.upstream.watchdog"}),
    "http.client": frozenset(),
    "urllib.request": frozenset(),
    "smtplib": frozenset(),
    "ftplib": frozenset(),
    "webbrowser": frozenset(),  # some openers of addresses are shells
    "httptools": frozenset({"gateway.server.edge", "gateway.upstream.http1"}),
    "uvicorn": frozenset({"gateway.server.edge", "gateway.serving"}),
    "uvloop": frozenset({"gateway.cli.serve"}),
    "starlette": frozenset({"gateway.server", "gateway.app", "gateway.identity", "gateway.giving"}),
    # Other processes, and code by name.
    "subprocess": frozenset(),
    "multiprocessing": frozenset(),
    "pty": frozenset(),
    "pickle": frozenset(),
    "marshal": frozenset(),
    "ctypes": frozenset({"gateway.upstream.watchdog"}),
    "importlib": frozenset({"gateway.upstream.local", "gateway.cli", "gateway.tooling"}),  # the last: our own version
    # Secrets.
    "cryptography": frozenset(
        {
            "gateway.server.mcp.seal",
            "gateway.server.oauth.passwords",
            "gateway.upstream.oauth.vault",
            "gateway.stores.signingkeys",
            "gateway.verifier",
        }
    ),
    # Formats and data.
    "orjson": frozenset({"gateway.dialects", "gateway.server", "gateway.stores", "gateway.upstream"}),
    "json": frozenset({"gateway.cli", "gateway.config.reference", "gateway.model.tool", "gateway.verifier"}),
    "google": frozenset({"gateway.dialects.protobuf"}),
    "yaml": frozenset({"gateway.config.source"}),
    "sqlite3": frozenset({"gateway.stores", "gateway.verifier", "gateway.cli.auditfile", "agents.librarian"}),
    "authlib": frozenset(
        {
            "gateway.server.oauth.asking",
            "gateway.server.oauth.authorization_server",
            "gateway.server.oauth.consent",
            "gateway.server.oauth.endpoints",
            "gateway.server.oauth.grants",
            "gateway.upstream.oauth.token_endpoint",
        }
    ),
    "jsonschema_rs": frozenset({"gateway.checks.schemas"}),
    "re2": frozenset({"gateway.checks.patterns"}),
    "joserfc": frozenset({"gateway.dialects.oauth2.signature"}),
    "jsonrpcserver": frozenset({"gateway.server.dispatch"}),
    "pydantic": frozenset(
        {"gateway.model", "gateway.dialects", "gateway.config", "gateway.enrolling", "gateway.upstream.directory"}
    ),
    "pydantic_core": frozenset({"gateway.config"}),
    # Time, randomness, threads: given in everywhere else.
    "time": frozenset(
        {
            "gateway.chance",
            "gateway.stores.memory",
            "gateway.stores.batch",
            "gateway.stores.auditlog",
            "gateway.cli.follow",
            "gateway.cli.redirect",
            "gateway.upstream.watchdog",
            "gateway.verifier",
            "agents.librarian",
        }
    ),
    "random": frozenset(),
    "secrets": frozenset({"gateway.core.keys", "gateway.server.incident", "gateway.server.oauth.codes"}),
    "uuid": frozenset({"gateway.cli.send", "gateway.cli.serve"}),
    "threading": frozenset({"gateway.stores.writer", "gateway.checks.own"}),  # whose threads may hang for ever
    "concurrent.futures": frozenset({"agents.librarian", "gateway.stores.readers"}),
}

# Uses of a function that is a choke point or a danger. `where: reason`; nowhere else.
JSON_IN: dict[str, str] = {
    "gateway.dialects.strict_json": "the one reader",
    "gateway.dialects.a2a_v1.grpc": "reads back what a model of ours has just written, to get a plain tree",
    "gateway.dialects.a2a_v1.grpc_upstream": "the parameters that we have just written",
    "gateway.dialects.a2a_v03.responses": "reads back what a model of ours has just written, to get a plain tree",
    "gateway.dialects.a2a_v03.grpc": "reads back what we have just written, to get a plain tree",
    "gateway.dialects.a2a_v03.grpc_upstream": "the parameters that we have just written",
    "gateway.dialects.a2a_v03.upstream": "the parameters that we have just written",
    "gateway.dialects.tasks": "reads back what a model of ours has just written, to get a plain tree",
    "gateway.stores.auditlog": "rows that we wrote",
    "gateway.stores.opencalls": "rows that we wrote",
    "gateway.stores.rows": "rows that we wrote",
    "gateway.stores.trails": "rows that we wrote",
    "gateway.stores.approvals": "rows that we wrote",
    "gateway.stores.principals": "rows that we wrote",
    "gateway.stores.outbox": "rows that we wrote",
    "gateway.stores.pins": "rows that we wrote",
    "gateway.stores.agents": "rows that we wrote",
    "gateway.stores.cards": "rows that we wrote",
    "gateway.stores.clients": "rows that we wrote",
    "gateway.stores.people": "rows that we wrote",
    "gateway.stores.changes": "rows that we wrote",
    "gateway.core.registry": "a card as it stands in our own store; it came in through the one reader",
    "gateway.verifier": "what a log, an export or a proof claims; hashes and signatures decide whether it counts",
    "gateway.cli.auditformats": "rows that we wrote",
    "gateway.cli.keyset": "the person's own file of keys, handed on",
    "gateway.cli.client": "the gateway's own answers, on the caller's machine",
    "gateway.cli.policy": "the value of --with, typed by the person who asks",
    "gateway.cli.send": "the value of --data, typed by the person who sends it",
    "gateway.cli.tools": "arguments typed by the person who calls, and that person's own lock file",
    "gateway.cli.mcpjson": "an mcp.json of the person who imports it; what comes of it is checked as configuration",
    "gateway.cli.connect": "a client's own file, of which everything stays as it is",
}
USES: dict[str, dict[str, str]] = {
    "orjson.loads": JSON_IN,
    "json.loads": JSON_IN,
    "json.load": JSON_IN,
    ".model_validate_json": JSON_IN,
    "os.urandom": {
        "gateway.chance": "ids are made here and given in",
        "gateway.tooling": "pauses of tool servers, given in",
        "gateway.authorizing": "states of people's authorizations, given in",
        "gateway.server.mcp.seal": "a nonce that repeats would give the key away; nobody else may make it",
        "gateway.upstream.oauth.vault": "the same",
        "gateway.upstream.oauth.vault_keys": "the keys of what is sealed",
        "gateway.stores.signingkeys": "the keys that sign the audit log",
        "gateway.stores.auditlog": "a log's name, once",
        "gateway.stores.subjects": "a key for each person in the audit log",
        "gateway.server.oauth.passwords": "salts, made where passwords are hashed",
    },
    "datetime.datetime.now": {},
    "datetime.datetime.utcnow": {},
    "os.system": {},
    "os.popen": {},
    "os.fork": {"gateway.upstream.watchdog": "a program of its own, with one thread, that starts one command"},
    "asyncio.create_subprocess_exec": {},
    ".subprocess_exec": {"gateway.upstream.process": "commands of the operator's configuration, and no others"},
    ".subprocess_shell": {},
    "gateway.upstream.process.Command": {
        "gateway.tooling": "made from the operator's file, and nowhere else: no network call reaches a command",
        "gateway.authorizing": "the key service of the operator's file",
        "gateway.upstream.mcp.server": "handed on",
        "gateway.upstream.mcp.stdio": "handed on",
        "gateway.upstream.oauth.vault_keys": "handed on",
    },
    ".posix_spawn": {},
    "asyncio.create_subprocess_shell": {},
    "asyncio.open_connection": {},
    "asyncio.open_unix_connection": {},
    "asyncio.start_server": {},
    "eval": {},
    "exec": {},
    "compile": {},
    "__import__": {},
    "importlib.import_module": {
        "gateway.upstream.local": "agents by import string, from the operator's file",
        "gateway.cli": "the module of the one command that was asked for, from our own table",
    },
}

# Imports inside functions: none to hide a cycle, these to keep the start short.
LATE: dict[tuple[str, str], str] = {
    ("gateway.server.a2a_jsonrpc", "gateway.server.dispatch"): "jsonrpcserver, for what is not one plain call",
    ("gateway.server.mcp.seal", "cryptography.exceptions"): "only when something sealed comes or goes",
    ("gateway.server.mcp.seal", "cryptography.hazmat.primitives.ciphers.aead"): "the same",
    ("gateway.extras", "gateway.complying"): "RE2 and JSON Schema, where a compliance profile is named",
    ("gateway.extras", "gateway.server.grpc"): "grpcio and protobuf, where the port is configured",
    ("gateway.upstream.directory", "gateway.upstream.a2a_grpc"): "the same, when the first agent needs them",
    ("gateway.extras", "gateway.identity"): "joserfc, where tokens are checked",
    ("gateway.webhookkeys", "gateway.server.oauth.signing"): "joserfc, once there is a push to sign",
    ("gateway.extras", "gateway.server.card_signer"): "joserfc, when the first card is served",
    ("gateway.upstream.signatures", "gateway.dialects.oauth2.signature"): "joserfc, when a signed card comes",
    ("gateway.identity", "gateway.giving"): "authlib, where tokens are given out",
    ("gateway.server.oauth.passwords", "cryptography.exceptions"): "when somebody logs in",
    ("gateway.server.oauth.passwords", "cryptography.hazmat.primitives.kdf.argon2"): "the same",
    ("gateway.cli.token", "gateway.cli.client"): "the HTTP client, which printing a file does not need",
    ("gateway.upstream.oauth.token_endpoint", "authlib.integrations.httpx_client"): "at the first token",
    ("gateway.upstream.oauth.assertion", "gateway.dialects.oauth2.signature"): "joserfc, where a key is shown",
    ("gateway.upstream.oauth.proofs", "gateway.dialects.oauth2.signature"): "the same, where a token is bound to one",
    ("gateway.upstream.oauth.proofs", "gateway.dialects.oauth2.dpop"): "the same",
    ("gateway.upstream.oauth.identity", "gateway.dialects.oauth2.access_token"): "when a person has logged in",
    ("gateway.upstream.oauth.identity", "gateway.dialects.oauth2.id_token"): "the same",
    ("gateway.upstream.oauth.vault", "cryptography.exceptions"): "when there is a token to keep or to read",
    ("gateway.upstream.oauth.vault", "cryptography.hazmat.primitives.ciphers.aead"): "the same",
    ("gateway.stores.notary", "gateway.stores.sealing"): "cryptography, at the first checkpoint",
    ("gateway.stores.notary", "gateway.stores.witnesses"): "the same, where there are witnesses",
    ("gateway.extras", "gateway.witnessing"): "the same",
    ("gateway.cli.parser", "importlib.metadata"): "as slow as all the rest of --help; only --version needs it",
}

# What neither `gateway --help` nor a gateway without these surfaces may load.
HEAVY = frozenset(
    {"mcp", "cryptography", "authlib", "joserfc", "grpc", "google", "opentelemetry", "jsonrpcserver", "jsonschema"}
    | {"asyncpg", "re2", "jsonschema_rs"}
)
# What `gateway --help` and the commands that only talk do without.
SERVING = frozenset({"httptools", "starlette", "uvicorn", "pydantic", "sqlite3", "yaml"})


# --- Reading the code. -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    module: str
    target: str  # a module: ours are resolved to the file that is read
    name: str | None  # of `from target import name`, when the name is not a module itself
    line: int
    late: bool  # inside a function

    def __str__(self) -> str:
        return f"{self.module} (line {self.line}) imports {self.target}"


@cache
def texts() -> dict[str, str]:
    found = {}
    for path in sorted([*(ROOT / "gateway").rglob("*.py"), *(ROOT / "agents").rglob("*.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path.read_text(encoding="utf-8")
    return found


@cache
def sources() -> dict[str, ast.Module]:
    """Parsed. That takes seconds, so nothing asks for it while tests are still being collected."""
    return {name: ast.parse(text, name) for name, text in texts().items()}


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for module, tree in sources().items() for found in _imports(module, tree, late=False))


def _imports(module: str, node: ast.AST, *, late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, None, child.lineno, late)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module} line {child.lineno}: relative import; say the whole name"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                if whole in sources():
                    yield Import(module, whole, None, child.lineno, late)
                else:
                    yield Import(module, child.module or "", alias.name, child.lineno, late)
        inside = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(module, child, late=inside)


def ours(name: str) -> bool:
    return name.partition(".")[0] in ("gateway", "agents")


def layer(module: str) -> str:
    if module.partition(".")[0] == "agents":
        return "agents"
    return ".".join(module.split(".")[:2])


def within(module: str, rooms: frozenset[str]) -> bool:
    """Whether `module` is one of `rooms` or below one. A package that is itself a room (`gateway.cli`) is the whole
    of it."""
    return any(module == room or module.startswith(room + ".") for room in rooms)


def named(target: str, primitive: str) -> bool:
    return target == primitive or target.startswith(primitive + ".")


def brings(found: Import, primitive: str) -> bool:
    return named(found.target, primitive) or (
        found.name is not None and named(f"{found.target}.{found.name}", primitive)
    )


def unlisted(module: str, use: str) -> bool:
    return use in USES and module not in USES[use]


def accused(module: str, tree: ast.Module | None = None) -> list[str]:
    """What of a module, or of this text in its place, belongs into another room or needs a line in USES."""
    tree = sources()[module] if tree is None else tree
    brought = list(_imports(module, tree, late=False))
    rooms = [str(each) for each in brought for one in ROOMS if brings(each, one) and not within(module, ROOMS[one])]
    return rooms + [f"{module} line {line} uses {name}" for line, name in _uses(tree) if unlisted(module, name)]


@cache
def uses() -> tuple[tuple[str, int, str], ...]:
    """(module, line, dotted name) of everything that is mentioned by a name which an import explains, of builtins,
    and `.attribute` for the last part of any attribute."""
    return tuple((module, line, name) for module, tree in sources().items() for line, name in _uses(tree))


def _uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    known = {"eval": "eval", "exec": "exec", "compile": "compile", "__import__": "__import__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                known[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, f".{node.attr}"
        if isinstance(node, ast.Attribute | ast.Name):
            dotted = ast.unparse(node)
            first, dot, rest = dotted.partition(".")
            if first in known:
                yield node.lineno, known[first] + dot + rest


# --- The arrows. -------------------------------------------------------------------------------------------


def test_every_module_belongs_to_a_layer_of_the_map() -> None:
    assert {layer(module) for module in sources()} <= LAYERS.keys()


def test_no_import_points_the_wrong_way() -> None:
    wrong = [
        f"{found}, but {layer(found.module)} may import only {sorted(LAYERS[layer(found.module)]) or 'nothing'}"
        for found in imports()
        if ours(found.target)
        and layer(found.target) != layer(found.module)
        and layer(found.target) not in LAYERS[layer(found.module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_map_allows_no_arrow_that_nobody_uses() -> None:
    drawn = {(layer(found.module), layer(found.target)) for found in imports() if ours(found.target)}
    unused = [(above, below) for above, allowed in LAYERS.items() for below in allowed if (above, below) not in drawn]
    assert not unused


def test_only_the_serve_command_knows_the_server() -> None:
    knowing = {found.module for found in imports() if named(found.target, "gateway.serving")}
    assert knowing == KNOWS_THE_SERVER


def test_no_modules_import_each_other_in_a_circle() -> None:
    below = {
        module: sorted({found.target for found in imports() if found.module == module and found.target in sources()})
        for module in sources()
    }
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in below[module]:
                walk(target, (*path, module))
            done.add(module)

    for module in below:
        walk(module, ())


def test_imports_inside_functions_are_the_listed_ones() -> None:
    late = {(found.module, found.target): str(found) for found in imports() if found.late}
    assert late.keys() == LATE.keys(), sorted(late.values())


def test_nobody_imports_a_private_name_of_another_module() -> None:
    private = [
        str(found) + f"'s {found.name or ''}"
        for found in imports()
        if ours(found.target)
        and ((found.name or "").startswith("_") or any(part.startswith("_") for part in found.target.split(".")))
        and found.name != "__version__"
    ]
    assert not private, "\n".join(private)


@pytest.mark.parametrize("module", [name for name, text in texts().items() if "__all__" in text])
def test_a_list_of_public_names_names_what_is_there(module: str) -> None:
    tree = sources()[module]
    listed: list[str] = []
    there: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = ast.literal_eval(node.value)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            there.add(node.name)
        elif isinstance(node, ast.Assign):
            there |= {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            there.add(ast.unparse(node.target))
        elif isinstance(node, ast.ImportFrom):
            there |= {alias.asname or alias.name for alias in node.names}
    assert set(listed) <= there
    assert len(set(listed)) == len(listed)


def test_dialects_never_wait() -> None:
    waiting = [
        f"{module} line {node.lineno}"
        for module, tree in sources().items()
        if layer(module) == "gateway.dialects"
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    assert not waiting


# --- The choke points. -------------------------------------------------------------------------------------


def test_every_foreign_package_has_its_rooms() -> None:
    foreign = {
        found.target.partition(".")[0]: str(found)
        for found in imports()
        if not ours(found.target) and found.target.partition(".")[0] not in sys.stdlib_module_names
    }
    homeless = {package: first for package, first in foreign.items() if package not in ROOMS}
    assert not homeless


@pytest.mark.parametrize("primitive", ROOMS)
def test_a_primitive_stays_in_its_rooms(primitive: str) -> None:
    found = [each for each in imports() if brings(each, primitive)]
    strayed = [str(each) for each in found if not within(each.module, ROOMS[primitive])]
    assert not strayed, f"{primitive} belongs to {sorted(ROOMS[primitive])}: {strayed}"
    empty = [room for room in ROOMS[primitive] if not any(within(each.module, frozenset({room})) for each in found)]
    assert not empty, f"nobody there imports {primitive} any more: {empty}"


@pytest.mark.parametrize("function", USES)
def test_a_dangerous_function_is_used_only_where_it_is_listed(function: str) -> None:
    strayed = [f"{module} line {line}" for module, line, name in uses() if name == function and unlisted(module, name)]
    assert not strayed, f"{function}: {strayed}"


def test_no_allowance_is_left_over() -> None:
    used = {(name, module) for module, _, name in uses()}
    by_allowance: dict[int, tuple[dict[str, str], list[str]]] = {}
    for function, allowed in USES.items():
        by_allowance.setdefault(id(allowed), (allowed, []))[1].append(function)
    for allowed, functions in by_allowance.values():
        for module, reason in allowed.items():
            assert any((function, module) in used for function in functions), f"{module}: {reason}"


def test_only_the_egress_makes_a_connection() -> None:
    """The names that open connections, whatever they were imported as; that only the egress may import its pool stands
    in ROOMS."""
    openers = {".create_connection", ".sock_connect", ".connect_ex", ".create_datagram_endpoint", ".sendto"}
    openers |= {".ClientSession", ".TCPConnector", ".create_unix_connection"}
    assert {module for module, _, name in uses() if name in openers} == {"gateway.upstream.pool"}
    channels = {".insecure_channel", ".secure_channel"}
    assert {module for module, _, name in uses() if name in channels} == {"gateway.upstream.grpc"}


# --- The start. --------------------------------------------------------------------------------------------


def _loaded(code: str, *words: str | Path) -> set[str]:
    """The top-level packages that a fresh interpreter holds after `code`."""
    tail = "\nimport sys; print('\\n' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + tail, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_help_loads_nothing_heavy() -> None:
    loaded = _loaded("from gateway.cli import main\nassert main(['--help']) == 0")
    assert not loaded & (HEAVY | SERVING)


def test_commands_that_only_talk_load_no_server() -> None:
    loaded = _loaded("import gateway.cli.send, gateway.cli.tasks, gateway.cli.agents, gateway.cli.keys")
    assert not loaded & (HEAVY | {"httptools", "starlette", "uvicorn", "pydantic"})


# Starts and stops a gateway on the folder that is its first word, with the file that is its second, if there is one.
_START = """
import asyncio, sys
from pathlib import Path
import gateway.cli.serve
from gateway.app import assemble
from gateway.config import Flags, load, settle

async def start():
    data = Path(sys.argv[1])
    config = load(Path(sys.argv[2]) if sys.argv[2:] else None, cwd=data)
    app = await assemble(settle(config, Flags(port=8080, data=data), {}))
    await app.start()
    await app.aclose()

asyncio.run(start())
"""


@pytest.mark.parametrize(("dialect", "called"), [("a2a_v03", "A2A 0.3"), ("acp", "ACP")])
def test_what_a_dialect_needs_beside_its_folder_is_what_the_page_lists(dialect: str, called: str) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = page.partition(f"{called} needed beside `gateway/dialects/{dialect}/`:")[2].lstrip().partition("\n\n")[0]
    folder = f"gateway.dialects.{dialect}"
    users = {each.module for each in imports() if within(each.target, frozenset({folder}))}
    files = {f"`{name.replace('.', '/')}.py`" for name in users if not within(name, frozenset({folder}))}
    assert set(re.findall(r"^\| (`\S+`)", told, re.MULTILINE)) == files
    assert not {name for name in users if layer(name) in ("gateway.model", "gateway.core", "gateway.stores")}


def test_a_started_gateway_loads_nothing_that_its_surfaces_do_not_need(tmp_path: Path) -> None:
    loaded = _loaded(_START, tmp_path)
    assert "starlette" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("auth", "brings"),
    [
        ("issuers: [{issuer: 'https://idp.example'}]", {"joserfc", "cryptography"}),
        ("authorization_server: {}", {"joserfc", "cryptography", "authlib"}),
    ],
)
def test_a_gateway_that_knows_tokens_loads_what_it_needs_for_them(tmp_path: Path, auth: str, brings: set[str]) -> None:
    file = tmp_path / "gw.yaml"
    file.write_text(f"auth: {{{auth}}}\n")
    assert _loaded(_START, tmp_path, file) & HEAVY == brings


def test_a_gateway_with_a_grpc_port_loads_what_it_needs_for_it(tmp_path: Path) -> None:
    file = tmp_path / "gw.yaml"
    file.write_text("server: {grpc_port: 0}\n")
    assert _loaded(_START, tmp_path, file) & HEAVY == {"grpc", "google"}
