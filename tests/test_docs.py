"""What the pages say is true: links lead somewhere, tables follow the code, and every command that is shown gives what
is shown under it.

A `console` block is a terminal: lines with `$` are run, in the order of the page, against a gateway that the page
itself starts; the lines below are the whole output, except that `…` stands for anything (alone on a line: for any
lines).
A block with a file name behind its language is that file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from gateway.cli.grammar import ENVIRONMENT, parse
from gateway.config import Config, LocalAgent, RemoteAgent, TasksAgent, parse_compliance, schema
from gateway.config import parse as parse_config
from gateway.config.sections import KINDS
from gateway.core.tools.grants import Grants
from gateway.dialects.a2a_v1.errors import CODES
from gateway.dialects.acp import paths as acp
from gateway.dialects.strict_json import read
from gateway.model.errors import Reason
from gateway.model.task import MOVES, TaskState
from gateway.policing import book
from gateway.server.dispatch import MAX_BATCH
from tests import audit_events, make_docs
from tests.make_docs import PAGES, REFERENCE, ROOT, WHAT_TO_DO, all_limits, with_operations
from tests.ports import reserved

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PROSE = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS]
WITH_LINKS = [*PROSE, ROOT / "CONTRIBUTING.md", ROOT / "agents" / "README.md"]
PLAYED = [path for path in (ROOT / "README.md", *DOCS) if "```console" in path.read_text(encoding="utf-8")]
NOT_RUN = re.compile(r"make (test|conformance|bench)|git clone |pip install ")
HERE = "127.0.0.1"


@dataclass(frozen=True)
class Block:
    language: str
    name: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    found, inside = [], None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            if inside is None:
                language, _, name = line[3:].partition(" ")
                inside = (language, name, number, list[str]())
            else:
                language, name, begun, lines = inside
                found.append(Block(language, name, "\n".join(lines) + "\n", begun))
                inside = None
        elif inside is not None:
            inside[3].append(line)
    assert inside is None, f"{path.name}: a block is not closed"
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- Links, words and form. --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WITH_LINKS, ids=name_of)
def test_links_inside_the_project_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "http://", "mailto:")):
            file, _, anchor = target.partition("#")
            assert (path.parent / file).exists(), f"{target} in {name_of(path)}"
            assert not anchor, "a heading may change; link to the page"


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_no_page_speaks_of_one_machine_or_of_how_the_work_is_organised(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for pattern in (r"/(work|root|home/\w+)/", r"\bissue \d", r"#\d+\b"):
        assert not re.search(pattern, text, re.IGNORECASE), f"{pattern} in {name_of(path)}"
    if path.parent.name != "reference" and path.name != "dependencies.md":
        long = [
            line for line in text.splitlines() if len(line) > 132 and not line.startswith(("|", "-", "$", "…", "{"))
        ]
        assert not long, long


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        path = todo.pop().resolve()
        if path in seen:
            continue
        seen.add(path)
        if path.is_dir():
            todo += path.glob("*.md")
        elif path.suffix == ".md":
            for target in re.findall(r"\]\(([^)\s#]+)\)", path.read_text(encoding="utf-8")):
                if "://" not in target:
                    todo.append(path.parent / target)
    assert not [name_of(path) for path in DOCS if path.resolve() not in seen]


def test_decisions_have_a_number_each_and_one_form() -> None:
    found = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert len({path.name[:4] for path in found}) == len(found)
    for path in found:
        text = path.read_text(encoding="utf-8")
        number = int(path.name[:4])
        assert text.startswith(f"# {number}. ")
        for part in ("**Context.**", "**Decision.**", "**Consequences.**"):
            assert part in text, f"{path.name} has no {part}"


def test_commands_in_the_decisions_are_there() -> None:
    for path in (ROOT / "docs" / "adr").glob("*.md"):
        for command in re.findall(r"`((?:make|pytest) [^`]+)`", path.read_text(encoding="utf-8").replace("\n", " ")):
            words = shlex.split(command)
            if words[0] == "pytest":
                assert all((ROOT / word).exists() for word in words[1:]), command
            else:
                _is_a_target(words[1])
                for word in " ".join(words[2:]).removeprefix("ARGS=").split() if words[1] == "bench" else ():
                    assert word == "--short" or word in _benchmarks(), command


def _is_a_target(name: str) -> None:
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), f"make {name}"


def _benchmarks() -> str:
    return (ROOT / "benchmarks" / "scenarios.py").read_text(encoding="utf-8")


def test_the_changelog_says_what_each_change_means() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text
    headings = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert headings <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for line in re.findall(r"^- (.*)$", text, re.MULTILINE):
        assert line.endswith("."), line
        assert re.search(r"[:;,] ", line), f"a change and its consequence: {line}"


# --- Tables that follow from the code. ---------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_made_page_is_current(name: str) -> None:
    assert (REFERENCE / name).read_text(encoding="utf-8") == PAGES[name](), "python -m tests.make_docs"


def test_every_action_of_the_audit_log_is_explained_and_no_other() -> None:
    assert set(audit_events.EVENTS) == audit_events.in_the_code()
    sure = (audit_events.BOTH, audit_events.WITH)
    kept = {verb for verb, (_, how, _) in audit_events.EVENTS.items() if how in sure}
    assert audit_events.changing() - kept == {"InviteClient"}, "what it makes is nowhere in the store"


def test_the_table_of_operations_is_current() -> None:
    page = (REFERENCE / "http.md").read_text(encoding="utf-8")
    assert page == with_operations(page), "python -m tests.make_docs"


def test_every_reason_has_a_code_and_something_to_do() -> None:
    assert WHAT_TO_DO.keys() == CODES.keys() == set(Reason)


def test_every_limit_is_on_the_page_and_says_why() -> None:
    silent = [f"{limit.where}.{limit.name}" for found in all_limits().values() for limit in found if not limit.reason]
    assert not silent, "give the constant a comment that says why this size"


def test_the_picture_has_every_state_and_no_move_that_is_not_allowed() -> None:
    diagram = make_docs.diagram()
    boxed = set(re.findall(r"^        (\w+) -->", diagram, re.MULTILINE))
    drawn: set[tuple[str, str]] = set()
    for before, after in re.findall(r"(\w+) --> (\w+)", diagram):
        for one in boxed if before == "begun" else {before}:
            drawn |= {(one, other) for other in (boxed if after == "begun" else {after})}
    moves = {(a.name, b.name) for a, after in MOVES.items() for b in after if a is not b}
    assert drawn == moves
    assert {name for move in drawn for name in move} == {state.name for state in TaskState}


def test_every_setting_is_documented() -> None:
    page = (REFERENCE / "configuration.md").read_text(encoding="utf-8")
    properties = schema()["properties"]
    assert set(properties) == set(Config.model_fields)
    for section, model in Config.model_fields.items():
        assert f"## {section}" in page
        for name, inner in getattr(model.annotation, "model_fields", {}).items():
            assert f"| `{inner.alias or name}` |" in page, f"{section}.{name}"
    for kind in (LocalAgent, RemoteAgent, TasksAgent):
        _, _, table = page.partition(f"### agents with `{next(key for key in KINDS if KINDS[key] is kind)}`")
        for name, inner in kind.model_fields.items():
            assert f"| `{inner.alias or name}` |" in table.partition("\n#")[0], name


def test_every_route_is_documented_and_every_documented_path_is_one() -> None:
    page = (REFERENCE / "http.md").read_text(encoding="utf-8")
    table = page.partition("## Paths")[2].partition("## Operations")[0]
    listed = {
        path: {verb.strip() for verb in verbs.split(",") if verb.strip()}
        for path, verbs in re.findall(r"^\| `([^`]+)`[^|]*\| ([A-Z, ]*)\|", table, re.MULTILINE)
    }
    routes: dict[str, set[str]] = {}
    for route in _rest().routes:
        assert isinstance(route, Route)
        routes.setdefault(route.path, set()).update(route.methods or ())
    routes = {path: verbs - ({"HEAD"} if path.startswith("/admin") else set()) for path, verbs in routes.items()}
    doors = {"/", "/agents/{id}", "/agents/{id}/message:send", "/{tenant}/…", "/mcp", "/mcp/{mount}"}
    own = {"/acp" + re.sub(r"\([^)]*\)", "{id}", path): verb for verb, path, _, _ in acp.TABLE.rows}
    assert {path: ", ".join(sorted(listed.pop(path))) for path in [*listed] if path.startswith("/acp/")} == {
        path: "GET, POST" if path in ("/acp/runs/{id}",) else verb for path, verb in own.items()
    }
    assert listed.keys() - doors == routes.keys()
    assert {path: listed[path] for path in routes} == routes


def _rest() -> Starlette:
    """The router behind the doors, made without a gateway: only its routes are looked at."""
    from gateway.server import ops
    from gateway.server.admin import Admin
    from gateway.server.cards import Cards
    from gateway.server.catalogs import Catalogs
    from gateway.server.connect import Connect
    from gateway.server.oauth.consent import Consent
    from gateway.server.oauth.endpoints import Endpoints
    from gateway.server.own_connections import OwnConnections
    from gateway.server.protected_resources import ProtectedResources
    from gateway.server.webhooks import routes as webhooks

    unused = object()
    cards = Cards(unused, unused, unused, default_agent=None)  # type: ignore[arg-type]
    catalogs = Catalogs(unused, cards, "http://x")  # type: ignore[arg-type]
    admin = Admin(unused, unused, cards, unused)  # type: ignore[arg-type]
    resources = ProtectedResources("http://x", (), (), unused)  # type: ignore[arg-type]
    logins = SimpleNamespace(logins=True, url="https://gw.example")
    oauth = Endpoints(logins, unused, unused, unused)  # type: ignore[arg-type]
    looks = dict.fromkeys(("provider", "approvals", "proxies"), unused)
    pages = Consent(unused, unused, unused, unused, users=True, **looks)  # type: ignore[arg-type]
    outside = (*webhooks(unused, unused), *ops.routes(lambda: None))  # type: ignore[arg-type]
    connect = Connect(unused, unused, "http://x", lambda: "")  # type: ignore[arg-type]
    own = OwnConnections(unused, unused)  # type: ignore[arg-type]
    parts = (
        cards.routes(),
        catalogs.routes(),
        admin.routes(),
        outside,
        resources.routes(),
        oauth.routes(),
        pages.routes(),
        connect.routes(),
        own.routes(),
    )
    return Starlette(routes=[route for routes in parts for route in routes])


def test_the_batch_limit_in_the_prose_is_the_codes() -> None:
    assert f"at most {MAX_BATCH} elements" in (REFERENCE / "http.md").read_text(encoding="utf-8")


def test_every_variable_and_command_in_the_prose_exists() -> None:
    examples = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py"))
    known = {*ENVIRONMENT, *re.findall(r"\bGATEWAY_[A-Z]+\b", examples)}
    for path in PROSE:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\bGATEWAY_[A-Z]+\b", text)) <= known, path.name
        for target in re.findall(r"(?:`|\$ )make ([a-z]+)", text):
            _is_a_target(target)


def test_every_gateway_command_that_is_shown_is_one() -> None:
    for path in PLAYED:
        for block in blocks(path):
            for command in re.findall(r"^\$ (.*)$", block.text, re.MULTILINE) if block.language == "console" else ():
                for words in re.findall(r"(?:^|\(|&& )(?:\.venv/bin/)?gateway ([^|)>]*)", command):
                    parse(shlex.split(words.rstrip()))


# --- Examples. ---------------------------------------------------------------------------------------------

EVERY_BLOCK = [(path, block) for path in (ROOT / "README.md", *DOCS) for block in blocks(path)]


@pytest.mark.parametrize(
    ("path", "block"),
    [each for each in EVERY_BLOCK if each[1].language in ("json", "yaml", "python")],
    ids=lambda value: name_of(value) if isinstance(value, Path) else str(value.line),
)
def test_an_example_is_what_it_says_it_is(path: Path, block: Block) -> None:
    if block.language == "json":
        read(block.text.encode())
    elif block.language == "python":
        compile(block.text, f"{name_of(path)}:{block.line}", "exec")
    elif block.name.endswith("policy.yaml"):
        book(Grants(()), block.text)
    elif block.name == "compliance.yaml":
        parse_compliance(block.text, "compliance.yaml", ROOT)
    elif path != REFERENCE / "configuration.md":  # its demo is tested with the configuration
        base = ROOT / "examples" / "tutorial" if path.name == "tutorial.md" else ROOT
        parse_config(block.text, base=base)


def test_the_files_of_the_tutorial_are_those_in_examples() -> None:
    files = {block.name: block.text for block in blocks(ROOT / "docs" / "tutorial.md") if block.name}
    folder = ROOT / "examples" / "tutorial"
    assert files == {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}


# --- Terminals. --------------------------------------------------------------------------------------------


_AN_ID = re.compile(r"\b[0-9a-f]{32}\b")
_A_MOMENT = re.compile(r"\b\d{4}\\-\d\d\\-\d\dT[\d:]+\\\.\d+Z")


@dataclass
class Terminal:
    """A person who follows a page: a home, a folder, some ports, and what runs in other windows."""

    folder: Path
    ports: dict[str, int]
    running: list[tuple[subprocess.Popen[bytes], Path, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.work = self.folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        for name in ("examples", "agent_cards"):
            (self.work / name).symlink_to(ROOT / name)
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "GATEWAY_URL": f"http://{HERE}:{self.ports['8080']}",
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
        }

    def mine(self, text: str) -> str:
        """A text of the page, with this run's ports and folders."""
        for shown, port in self.ports.items():
            text = re.sub(rf"\b{shown}\b", str(port), text)
        return text.replace("/tmp/elsewhere", str(self.folder / "elsewhere"))

    def run(self, command: str, shown: str) -> None:
        if NOT_RUN.match(command) or (command.startswith("curl ") and shutil.which("curl") is None):
            return
        command = self.mine(command.replace(".venv/bin/gateway", "gateway").replace("make serve", "gateway serve"))
        if re.search(r"\bgateway serve\b", command) and "--port" not in command:
            command += f" --port {self.ports['8080']}"
        if match := re.fullmatch(r"export (\w+)=(.*)", command):
            self.environment[match[1]] = self._output(f"printf %s {match[2]}", errors=False)
        elif match := re.fullmatch(r"unset (\w+)", command):
            del self.environment[match[1]]
        elif re.search(r"\bgateway serve\b|^python examples/", command):
            self._in_another_window(command, shown)
        else:
            self.compare(command, shown, self._output(command))

    def _output(self, command: str, *, errors: bool = True) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        return done.stdout.decode()

    def _in_another_window(self, command: str, shown: str) -> None:
        log = self.folder / f"window-{len(self.running)}.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.work,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        serves = "gateway serve" in command
        # A server's words are there before the next command; another program's come as things happen.
        self.running.append((process, log, command, "" if serves else shown))
        if serves:
            until(lambda: "gateway send " in log.read_text() or process.poll() is not None)
            self.compare(command, shown, log.read_text())

    def last_words(self) -> None:
        for _, log, command, shown in self.running:
            if shown:
                until(lambda log=log, shown=shown: self.fits(shown, log.read_text()))
                self.compare(command, shown, log.read_text())

    def compare(self, command: str, shown: str, told: str) -> None:
        assert self.fits(shown, told), f"$ {command}\n--- the page shows\n{shown}\n--- it says\n{told}"

    def fits(self, shown: str, told: str) -> bool:
        wanted = []
        for line in self._plain(self.mine(shown)).splitlines():
            pattern = _A_MOMENT.sub(r"\\S+", _AN_ID.sub(r"\\S+", re.escape(line).replace("…", ".*")))
            wanted.append(r"(?:.*\n)*" if line == "…" else pattern + r"\n")
        return re.fullmatch("".join(wanted), self._plain(told)) is not None

    def _plain(self, text: str) -> str:
        """Without what depends on where this runs, and with one space between columns."""
        text = text.replace(str(self.home), "~")
        text = re.sub(
            r"(?:GATEWAY_\w+=\S+ )*[\w./-]*\bgateway (?=send|tasks|agents|keys|clients|policy|freeze|thaw|token|serve)",
            "gateway ",
            text,
        )
        return "".join(re.sub(r" +", " ", line).strip() + "\n" for line in text.splitlines())

    def close(self) -> None:
        for process, *_ in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def until(true: object, seconds: float = 60) -> None:
    """Wait for what other programs do; the comparison afterwards says what is missing."""
    assert callable(true)
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with contextlib.ExitStack() as stack:
        ports = {shown: stack.enter_context(reserved()) for shown in ("8080", "8090", "8070", "8081")}
        terminal = Terminal(tmp_path, ports)
        yield terminal
        terminal.close()


@pytest.mark.parametrize("path", PLAYED, ids=name_of)
def test_every_command_on_the_page_gives_what_is_shown(path: Path, terminal: Terminal) -> None:
    for block in blocks(path):
        if block.name:
            (terminal.work / block.name).write_text(terminal.mine(block.text), encoding="utf-8")
        if block.language == "console":
            for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
                terminal.run(command, shown)
    terminal.last_words()
