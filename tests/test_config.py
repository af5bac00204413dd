"""The operator's file: what it means, and what is said when it is wrong, to the letter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError

from gateway.config import (
    RESERVED,
    Config,
    ConfigError,
    Flags,
    GrantEntry,
    IdentityProviderEntry,
    LimitsEntry,
    LocalAgent,
    MountEntry,
    OAuthEntry,
    RemoteAgent,
    Settings,
    TasksAgent,
    ToolServerEntry,
    Value,
    config_path,
    demo_base,
    is_loopback,
    load,
    markdown,
    parse,
    schema,
    settle,
    source,
)
from gateway.config.credentials import AgentCredentials, AgentOAuth
from gateway.config.document import read_document
from gateway.config.loading import DEMO_AGENTS
from gateway.config.problems import dotted
from gateway.config.reference import schema_text
from gateway.config.sections import (
    KINDS,
    AuthorizationServer,
    ClientCertificates,
    Introspection,
    Issuer,
    LoginProvider,
    Tls,
    keys,
)
from gateway.config.source import MAX_BYTES, MAX_DEPTH

ROOT = Path(__file__).parent.parent
HOME = {"HOME": "/home/op"}
NAME = "must be a name of a-z, 0-9 and '-', at most 63 long, without '-' at either end"
TAKEN = "is a reserved name; choose another: the gateway's own paths start with it"
URL = "must be an http:// or https:// URL"
EXAMPLE = f"{URL}; for example https://agent.example/path"
ASCII = f"{URL}; it may hold visible ASCII characters only, no spaces or backslashes"
ORIGIN = "must be an origin, scheme://host[:port] in lower case"
HOST = "must be a host or host:port; for example gw.example or [2001:db8::1]:8443"
STORE = "must be sqlite:///PATH or memory:; for example sqlite:///gateway.db, or sqlite:////var/lib/gw.db"
BITS = "is not a network: the address has bits set beyond the prefix"
PRINCIPAL = "must be the name of a principal: 1 to 128 visible ASCII characters, no spaces"
EVERYONE = "must name an origin; '*' would let every web page in; list the origins, one by one"
YAML = "not YAML that the gateway reads"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def file(text: str) -> Path:
        path = tmp_path / "gateway.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return file


def said(text: str) -> list[str]:
    """What the gateway says about a configuration, line by line; nothing if it is accepted."""
    try:
        parse(dedent(text), name="gateway.yaml", base=Path("/conf"))
    except ConfigError as error:
        return str(error).split("\n")
    return []


def accepted(text: str) -> Config:
    return parse(dedent(text), name="gateway.yaml", base=Path("/conf"))


def refused_file(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, cwd=path.parent)
    return str(caught.value)


# --- where the configuration comes from ---


def test_without_a_file_the_demo_is_served(tmp_path: Path) -> None:
    config = load(None, cwd=tmp_path)
    assert list(config.agents) == ["echo", "librarian"]
    assert all(agent.public for agent in config.agents.values())
    librarian = config.agents["librarian"]
    assert isinstance(librarian, LocalAgent)
    assert (librarian.options, librarian.concurrency) == ({"folder": "docs"}, 64)
    assert config.base == demo_base()
    assert config.agents["echo"].model_dump()["card"] == demo_base() / "agent_cards/echo.json"


def test_a_file_in_the_data_folder_may_grant_tools_to_the_agents_of_the_demo(tmp_path: Path) -> None:
    tools = "tools:\n  docs: {url: https://docs.example/mcp}\n"
    file = tmp_path / "data" / "gateway.yaml"
    file.parent.mkdir()
    file.write_text(tools + 'grants:\n  - {to: "agent:librarian", tools: [docs]}\n')
    config = load(None, cwd=tmp_path, data=file.parent)
    assert set(config.agents) == set(DEMO_AGENTS)
    assert [grant.to for grant in config.grants] == ["agent:librarian"]
    file.write_text(tools + 'grants:\n  - {to: "agent:libarian", tools: [docs]}\n')
    with pytest.raises(ConfigError, match="did you mean 'librarian'"):
        load(None, cwd=tmp_path, data=file.parent)


def test_the_demo_of_a_source_tree_lies_beside_the_package() -> None:
    assert demo_base() == ROOT


def test_the_demo_of_a_wheel_lies_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[load.__module__]
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site" / "gateway" / "config" / "loading.py"))
    (tmp_path / "site" / "agents").mkdir(parents=True)  # openai-agents installs exactly this folder
    assert demo_base() == tmp_path.resolve() / "site" / "gateway" / "_demo"


def test_gateway_yaml_of_the_working_folder_wins_over_the_demo(write: Callable[[str], Path]) -> None:
    file = write("agents: {mine: {card_url: https://a.example/card}}")
    assert list(load(None, cwd=file.parent).agents) == ["mine"]


def test_a_link_to_nowhere_is_reported_and_not_replaced_by_the_demo(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match=r"^gateway\.yaml: no such file; create it"):
        load(None, cwd=tmp_path)


def test_paths_start_at_the_folder_of_the_file_and_not_at_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "gw.yaml").write_text(
        "agents: {a: {run: 'm:f', card: cards/a.json, extended_card: /x.json}}\nstore: {url: 'sqlite:///d/g.db'}\n"
    )
    config = load(Path("etc/gw.yaml"), cwd=tmp_path)
    agent = config.agents["a"]
    assert isinstance(agent, LocalAgent)
    assert config.base == tmp_path / "etc"
    assert agent.card == tmp_path / "etc/cards/a.json"
    assert agent.extended_card == Path("/x.json")
    assert config.store.url == f"sqlite:///{tmp_path}/etc/d/g.db"


# --- files that cannot be read ---


def test_a_missing_file(tmp_path: Path) -> None:
    assert refused_file(tmp_path / "gw.yaml") == "gw.yaml: no such file; create it, or name another with --config"


def test_a_missing_file_that_the_configuration_names(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"policy\.yaml: no such file; create it, or name another in the configuration"
    ):
        read_document(tmp_path / "policy.yaml")


def test_a_file_elsewhere_is_called_by_its_full_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^/nowhere/gw\.yaml: no such file"):
        load(Path("/nowhere/gw.yaml"), cwd=tmp_path)


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    expected = "conf: is a directory; name the file in it, for example conf/gateway.yaml"
    assert refused_file(tmp_path / "conf") == expected


def test_a_device_is_not_opened() -> None:
    expected = "null: is not a file; a pipe or device cannot be read again on reload; write it to a file"
    assert refused_file(Path("/dev/null")) == expected


def test_a_file_of_another_user(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    # chmod does not stop root, and tests run as root in containers.
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    file = write("agents: {}")
    monkeypatch.setattr(Path, "open", denied)
    assert refused_file(file) == "gateway.yaml: may not be read by this user; change its owner or mode"


def test_a_link_to_itself(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert refused_file(loop).startswith("loop.yaml: cannot be read: ")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_bytes(b"#" * MAX_BYTES)
    assert load(file, cwd=tmp_path).agents == {}
    file.write_bytes(b"#" * (MAX_BYTES + 1))
    assert refused_file(file) == "gateway.yaml: is larger than 1048576 bytes; is it the right file?"


def test_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_bytes(b"agents: {}\n# caf\xe9\n")
    assert refused_file(file) == "gateway.yaml:2: is not UTF-8 (byte 0xe9); save it as UTF-8"


def test_a_byte_order_mark_is_no_trouble(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_bytes(b"\xef\xbb\xbfauth: {anonymous: true}\n")
    assert load(file, cwd=tmp_path).auth.anonymous is True


# --- YAML ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agents: {\n", f"gateway.yaml:2: {YAML}: while parsing a flow node, "
         "expected the node content, but found '<stream end>'"),
        ("a: 1\n\tb: 2\n", f"gateway.yaml:2: {YAML}: while scanning for the next token, "
         "found character '\\t' that cannot start any token"),
        ("agents: {}\n---\nagents: {}\n", f"gateway.yaml:2: {YAML}: "
         "expected a single document in the stream, but found another document"),
        ("agents:\n  a: &x {}\n  b: *x\n", f"gateway.yaml:3: {YAML}: "
         "aliases (*name) are not accepted, write the value out"),
        ("auth: {}\nx: \x07\n", "gateway.yaml:2: the character U+0007 is not accepted; "
         "remove it, or write it as \\u… in double quotes"),
        ("[a]\n", "gateway.yaml:1: must be a mapping (key: value)"),
        ("auth:\n  anonymous: !yes true\n",
         "gateway.yaml:2: auth.anonymous: the tag !yes is not accepted; leave it out"),
        ("egress: !!set {a}\n", "gateway.yaml:1: egress: the tag !!set is not accepted; leave it out"),
        ("agents:\n  ? [a]\n  : {}\n", "gateway.yaml:2: agents: a key must be text"),
        ("auth:\n  anonymous: !!int x\n",
         "gateway.yaml:2: auth.anonymous: cannot be read as int; put it in quotes if it is text"),
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_used_names_line_and_reason(text: str, expected: str) -> None:
    assert expected in said(text)


def test_a_key_written_twice_names_both_lines_and_does_not_hide_other_problems() -> None:
    assert said("auth:\n  anonymous: false\n  anonymous: true\negress: {alow: []}\n") == [
        "gateway.yaml:3: auth.anonymous: is written twice, first on line 2; keep one",
        "gateway.yaml:4: egress.alow: unknown key; did you mean 'allow'?",
    ]


def test_a_file_may_hold_so_many_values_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert source.MAX_NODES == 100_000
    monkeypatch.setattr(source, "MAX_NODES", 100)  # the real number takes seconds
    items = 100 - 13  # five mappings and lists, and eight keys and values around the items
    text = "agents: {{a: {{run: 'm:f', card: c, with: {{x: [{}]}}}}}}"
    assert said(text.format("1," * items)) == []
    assert said(text.format("1," * (items + 1))) == [f"gateway.yaml:1: {YAML}: more than 100 values"]


def test_nesting_is_bounded() -> None:
    def nested(depth: int) -> str:
        return "agents: {a: {run: 'm:f', card: c, with: {x: " + "[" * depth + "]" * depth + "}}}"

    inside = MAX_DEPTH - 4
    assert said(nested(inside)) == []
    assert said(nested(inside + 1)) == [f"gateway.yaml:1: {YAML}: nested more than {MAX_DEPTH} deep"]


def test_scalars_are_those_of_yaml_1_2() -> None:
    local = accepted("""\
        agents:
          no:
            run: m:f
            card: c
            with: {a: yes, b: 010, c: 80:80, d: 2024-01-01, e: 0x1f, f: 1e3, g: ~, h: , i: .inf}
        """).agents["no"]
    assert isinstance(local, LocalAgent)
    numbers = {"b": 10, "e": 31, "f": 1000.0}
    words = {"a": "yes", "c": "80:80", "d": "2024-01-01", "i": ".inf"}
    assert local.options == numbers | words | {"g": None, "h": None}


@pytest.mark.parametrize("text", ["", "# nothing\n", "agents:\nserver:\nauth: ~\n"])
def test_nothing_written_means_the_defaults(text: str) -> None:
    assert accepted(text).model_dump() == Config().model_dump()


def test_control_characters_of_the_file_do_not_reach_the_terminal() -> None:
    assert said('egress: {"\\e[2J": 1}') == [
        "gateway.yaml:1: egress.\\x1b[2J: unknown key; known here: allow_loopback, allow, deny"
    ]


# --- sections and fields ---


def test_all_problems_are_found_at_once_in_the_order_of_the_file() -> None:
    assert said("""\
        server:
          public_url: htps://gw.example
          default_agent: ecko
          drain_seconds: -1
          allowed_hosts: gw.example
        agents:
          echo:
            runn: "agents.echo:Echo"
            card: 3
            public: yes
            concurrency: 0
          admin: {tasks_url: pul, tenants: [a, a, v1]}
        egres: {}
        """) == [
        f"gateway.yaml:2: server.public_url: {EXAMPLE}",
        "gateway.yaml:3: server.default_agent: there is no agent 'ecko'; did you mean 'echo'?",
        "gateway.yaml:4: server.drain_seconds: must be at least 0",
        "gateway.yaml:5: server.allowed_hosts: must be a list",
        "gateway.yaml:8: agents.echo.runn: unknown key; did you mean 'run'?",
        "gateway.yaml:9: agents.echo.card: must be text",
        "gateway.yaml:10: agents.echo.public: must be true or false",
        "gateway.yaml:11: agents.echo.concurrency: must be at least 1",
        "gateway.yaml:12: agents.admin.tenants[1]: 'a' is listed twice; choose another name",
        f"gateway.yaml:12: agents.admin: {TAKEN}",
        f"gateway.yaml:12: agents.admin.tenants[2]: {TAKEN}",
        f"gateway.yaml:12: agents.admin.tasks_url: {URL}, or pull; for example https://agent.example/path",
        "gateway.yaml:13: egres: unknown key; did you mean 'egress'?",
    ]


# What makes an agent of each kind complete, so that only the key under test is wrong.
COMPLETE = {
    "run": "run: 'm:f', card: c",
    "card_url": "card_url: 'https://a.example'",
    "tasks_url": "tasks_url: pull",
    "tools": "tools: ['*']",
}


def every_key() -> Iterator[tuple[str, str]]:
    """(YAML with %s where a key stands, key) for every key that the file may hold."""
    sections: list[tuple[str, type[BaseModel]]] = [("%s: {}", Config)]
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections.append((f"{name}: {{%s: 1}}", field.annotation))
    sections += [(f"agents: {{a: {{{COMPLETE[kind]}, %s: 1}}}}", model) for kind, model in KINDS.items()]
    sections += [
        ("tools: {a: {url: 'https://a.example', %s: 1}}", ToolServerEntry),
        ("tools: {a: {url: 'https://a.example', headers: {x: {%s: 1}}}}", Value),
        ("tools: {a: {url: 'https://a.example', oauth: {%s: 1}}}", OAuthEntry),
        ("tools: {a: {url: 'https://a.example', oauth: {identity_provider: {%s: 1}}}}", IdentityProviderEntry),
        ("tools: {a: {command: [/bin/a], limits: {%s: x}}}", LimitsEntry),
        ("mounts: {a: {%s: 1}}", MountEntry),
        ("grants: [{to: a, %s: 1}]", GrantEntry),
        ("server: {tls: {%s: 1}}", Tls),
        ("auth: {issuers: [{issuer: 'https://idp.example', %s: 1}]}", Issuer),
        ("auth: {authorization_server: {%s: x}}", AuthorizationServer),
        ("auth: {issuers: [{issuer: 'https://idp.example', introspection: {%s: 1}}]}", Introspection),
        ("auth: {authorization_server: {login: {%s: x}}}", LoginProvider),
        ("auth: {client_certificates: {%s: x}}", ClientCertificates),
        ("agents: {a: {card_url: 'https://a.example', credentials: {%s: 1}}}", AgentCredentials),
        ("agents: {a: {card_url: 'https://a.example', credentials: {oauth: {%s: 1}}}}", AgentOAuth),
    ]
    for text, model in sections:
        yield from ((text, key) for key in keys(model))


def misspellings(key: str) -> set[str]:
    """Slips of the hand: a letter left out, doubled, two swapped; another spelling convention."""
    slips = {key[:i] + key[i + 1 :] for i in range(len(key)) if len(key) > 3}
    slips |= {key[: i + 1] + key[i:] for i in range(len(key))}
    slips |= {key[:i] + key[i + 1] + key[i] + key[i + 2 :] for i in range(len(key) - 1) if len(key) > 3}
    return slips | {key.upper(), key.replace("_", "-")}


@pytest.mark.parametrize(("text", "key"), list(every_key()))
def test_a_misspelled_key_is_answered_with_the_right_one(text: str, key: str) -> None:
    wrong = {slip for slip in misspellings(key) if slip != key and slip not in {known for _, known in every_key()}}
    assert len(wrong) >= 3
    for slip in wrong:
        assert [line for line in said(text % slip) if f"{slip}: unknown key; did you mean '{key}'?" in line], slip


def test_a_key_like_no_other_is_answered_with_all_that_there_are() -> None:
    assert (
        said("zzz:")
        == said("zzz: 1")
        == [
            "gateway.yaml:1: zzz: unknown key; known here: server, agents, tools, mounts, grants, auth, policy, push, "
            "compliance, cards, store, audit, vault, egress"
        ]
    )


@pytest.mark.parametrize("section", ["teams"])
def test_sections_of_later_surfaces_are_not_accepted_silently(section: str) -> None:
    assert len(said(f"{section}: {{}}")) == 1
    assert said(f"{section}: {{}}")[0].startswith(f"gateway.yaml:1: {section}: unknown key; ")


def test_an_agent_has_exactly_one_kind() -> None:
    one = "an agent has exactly one of run, card_url, tasks_url, tools"
    assert said("agents: {a: {public: true, queue: x}}") == [
        f"gateway.yaml:1: agents.a: {one}; say how it is reached",
        "gateway.yaml:1: agents.a.queue: must be a whole number",
    ]
    assert said("agents: {a: {card_url: 'https://a.example', tasks_url: pull}}") == [
        f"gateway.yaml:1: agents.a.tasks_url: {one}; keep 'card_url' or 'tasks_url'"
    ]


def test_a_key_of_another_kind_says_whose_it_is() -> None:
    assert said("agents: {a: {card_url: 'https://a.example', worker: w, with: {}}}") == [
        "gateway.yaml:1: agents.a.worker: unknown key; only agents with 'tasks_url' have it",
        "gateway.yaml:1: agents.a.with: unknown key; only agents with 'run' have it",
    ]


def test_a_required_key_is_asked_for_once_and_not_where_a_slip_stands_for_it() -> None:
    asked = "gateway.yaml:2: agents.a.card: is required; card: File with the agent's card."
    assert said("agents:\n  a: {run: 'm:f'}\n") == [asked]
    slip = "gateway.yaml:2: agents.a.crad: unknown key; did you mean 'card'?"
    assert said("agents:\n  a: {run: 'm:f', crad: c}\n") == [slip]


@pytest.mark.parametrize("entry", ["[]", "text", "3"])
def test_an_agent_that_is_not_a_mapping(entry: str) -> None:
    assert said(f"agents:\n  a: {entry}\n") == ["gateway.yaml:2: agents.a: must be a mapping (key: value)"]


def test_the_kinds_of_agent_become_values_of_their_own_type() -> None:
    agents = accepted("""\
        agents:
          l: {run: "my.module:Agent", card: c.json}
          r: {card_url: "https://r.example/card.json", deadline: 5, tenants: [acme]}
          p: {tasks_url: pull}
          w: {tasks_url: "http://w.example/tasks", worker: "svc:worker", card: w.json}
        """).agents
    assert [type(agent) for agent in agents.values()] == [LocalAgent, RemoteAgent, TasksAgent, TasksAgent]
    r, p, w = agents["r"], agents["p"], agents["w"]
    assert (r.concurrency, r.queue, r.public, r.deduplicate, r.deadline) == (64, 256, False, True, 5)
    assert r.tenants == ("acme",)
    assert isinstance(p, TasksAgent)
    assert isinstance(w, TasksAgent)
    assert (p.worker, p.card, p.deadline) == ("p", None, 900)
    assert (w.worker, w.card) == ("svc:worker", Path("/conf/w.json"))


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (lambda config: config, "auth"),
        (lambda config: config.auth, "anonymous"),
        (lambda config: config.agents["a"], "public"),
    ],
)
def test_a_configuration_cannot_be_changed(part: Callable[[Config], BaseModel], field: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part(accepted("agents: {a: {tasks_url: pull}}")), field, True)


# --- names ---


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_is_refused_for_agents_and_tenants(name: str) -> None:
    text = f"agents:\n  {name}: {{tasks_url: pull}}\n  a: {{tasks_url: pull, tenants: [{name}]}}\n"
    assert said(text) == [
        f"gateway.yaml:2: agents.{name}: {TAKEN}",
        f"gateway.yaml:3: agents.a.tenants[0]: {TAKEN}",
    ]


def test_the_reserved_names_are_those_of_the_surfaces() -> None:
    assert " ".join(sorted(RESERVED)) == "acp admin agents console livez mcp message metrics oauth readyz tasks v1"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Echo", "; did you mean 'echo'?"),
        ("my_agent", "; did you mean 'my-agent'?"),
        ("\uff45cho", "; did you mean 'echo'?"),
        ("-a", ""),
        ("a-", ""),
        ("a.b", ""),
        ("é", ""),
        ("a" * 64, ""),
        ('"a\\n"', ""),
    ],
)
def test_a_name_that_is_no_label_is_refused_with_the_one_that_was_meant(name: str, hint: str) -> None:
    lines = said(f"agents:\n  {name}: {{tasks_url: pull}}\n")
    assert len(lines) == 1
    assert lines[0].endswith(NAME + hint)


@pytest.mark.parametrize("name", ["a", "1", "a-1", "a" * 63, "xn--caf-dma"])
def test_a_label_is_a_name(name: str) -> None:
    assert list(accepted(f"agents: {{{name}: {{tasks_url: pull}}}}").agents) == [name]


@pytest.mark.parametrize("other", ["ECHO", "\uff45cho"])
def test_two_names_that_read_the_same_are_one_too_many(other: str) -> None:
    lines = said(f"agents:\n  echo: {{tasks_url: pull}}\n  {other}: {{tasks_url: pull}}\n")
    assert f"gateway.yaml:3: agents.{other}: reads the same as 'echo'; choose another name" in lines


# --- words ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("server: {public_url: 'ftp://a.example'}", f"server.public_url: {EXAMPLE}"),
        ("server: {public_url: 'https://u:p@a.example'}",
         "server.public_url: must not hold a user name or password"),
        ("server: {public_url: 'https://a.example?x'}",
         "server.public_url: must not have a query; leave out '?' and what follows"),
        ("server: {public_url: 'https://a.example#x'}",
         "server.public_url: must not have a fragment; leave out '#' and what follows"),
        ("server: {public_url: 'https://a.example:99999'}",
         f"server.public_url: {URL}; the host or port cannot be read"),
        ("server: {public_url: 'https://a.example:0'}", f"server.public_url: {EXAMPLE}"),
        ("server: {public_url: 'https://127.1'}", f"server.public_url: {EXAMPLE}"),
        ("server: {public_url: 'https://a.example/ b'}",
         f"server.public_url: {ASCII}"),
        ("server: {public_url: 'https:\\\\a.example'}",
         f"server.public_url: {ASCII}"),
        ("server: {public_url: 3}", "server.public_url: must be text; put it in quotes"),
        ("server: {allowed_hosts: ['https://a']}",
         f"server.allowed_hosts[0]: {HOST}"),
        ("server: {allowed_hosts: ['*']}",
         f"server.allowed_hosts[0]: {HOST}"),
        ("server: {allowed_hosts: ['a:0']}",
         f"server.allowed_hosts[0]: {HOST}"),
        ("server: {cors_origins: ['*']}",
         f"server.cors_origins[0]: {EVERYONE}"),
        ("server: {cors_origins: ['https://A.example/']}",
         f"server.cors_origins[0]: {ORIGIN}; did you mean 'https://a.example'?"),
        ("server: {drain_seconds: true}", "server.drain_seconds: must be a number"),
        ("server: {drain_seconds: 3601}", "server.drain_seconds: must be at most 3600"),
        ("agents: {a: {tasks_url: pull, deadline: 0}}", "agents.a.deadline: must be more than 0"),
        ("agents: {a: {tasks_url: pull, worker: 'a b'}}",
         f"agents.a.worker: {PRINCIPAL}"),
        ("agents: {a: {tasks_url: pull, worker: ''}}",
         f"agents.a.worker: {PRINCIPAL}"),
        ("agents: {a: {run: echo.py, card: c}}",
         'agents.a.run: must be an import string, module:attribute; for example "agents.echo:Echo"'),
        ("agents: {a: {run: 'm:f', card: ''}}", "agents.a.card: must be a path"),
        ("agents: {a: {run: 'm:f', card: c, with: []}}", "agents.a.with: must be a mapping (key: value)"),
        ("agents: []", "agents: must be a mapping (key: value)"),
        ("server: 3", "server: must be a mapping (key: value)"),
        ("auth: {anonymous: 1}", "auth.anonymous: must be true or false"),
        ("store: {url: 'postgresql://db/x'}",
         f"store.url: {STORE}"),
        ("store: {url: 'sqlite:///'}",
         f"store.url: {STORE}"),
        ("egress: {allow: [10.0.0.1/8]}", f"egress.allow[0]: {BITS}; did you mean '10.0.0.0/8'?"),
        ("server: {trusted_proxies: [10.0.0.1/8]}", f"server.trusted_proxies[0]: {BITS}; did you mean '10.0.0.0/8'?"),
        ("server: {trusted_proxies: [proxy.lan]}",
         "server.trusted_proxies[0]: must be an address or a CIDR network; for example 10.0.0.0/8; a name can change"),
        ("egress: {allow: [10.0.0.0/33]}",
         "egress.allow[0]: must be a host, host:port or CIDR network; for example 10.0.0.0/8"),
        ("server: {default_agent: x}",
         "server.default_agent: there is no agent 'x'; there are no agents in this file"),
    ],
)  # fmt: skip
def test_a_value_that_is_refused_says_what_it_must_be(text: str, reason: str) -> None:
    assert said(text) == [f"gateway.yaml:1: {reason}"]


def test_words_that_are_accepted() -> None:
    config = accepted("""\
        server:
          public_url: https://gw.example/base/
          allowed_hosts: [GW.example, "gw.example:8443", "[2001:db8::1]:8443", "::1", 10.0.0.1]
          cors_origins: ["https://app.example", "http://localhost:3000"]
        store: {url: "memory:"}
        egress: {allow: [10.0.0.0/8, "2001:db8::/32", db.lan, "db.lan:5432"], deny: [169.254.169.254]}
        """)
    assert config.server.public_url == "https://gw.example/base"
    assert config.server.allowed_hosts == (
        "gw.example",
        "gw.example:8443",
        "[2001:db8::1]:8443",
        "::1",
        "10.0.0.1",
    )
    assert config.server.cors_origins == ("https://app.example", "http://localhost:3000")
    assert config.store.url == "memory:"
    assert config.egress.allow == ("10.0.0.0/8", "2001:db8::/32", "db.lan", "db.lan:5432")
    assert config.egress.deny == ("169.254.169.254",)


def test_a_problem_found_later_still_knows_its_line() -> None:
    config = accepted("agents:\n  a:\n    run: m:f\n    card: c\n")
    problem = config.problem(("agents", "a", "card"), "no such file", "create it")
    assert str(problem) == "gateway.yaml:4: agents.a.card: no such file; create it"
    assert str(config.problem(("server", "public_url"), "r")) == "gateway.yaml:1: server.public_url: r"


def test_places_are_written_as_people_write_them() -> None:
    assert dotted(("agents", "a", "tenants", 0)) == "agents.a.tenants[0]"


# --- flags, environment, file, default ---


def settled(text: str = "", flags: Flags | None = None, environ: dict[str, str] | None = None) -> Settings:
    return settle(accepted(text), flags or Flags(), HOME if environ is None else environ, cwd=Path("/cwd"))


def unsettled(text: str = "", flags: Flags | None = None, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settled(text, flags, environ)
    return str(caught.value).split("\n")


def test_defaults() -> None:
    settings = settled("agents: {b: {tasks_url: pull}, a: {tasks_url: pull}}")
    assert (settings.host, settings.port, settings.anonymous) == ("127.0.0.1", 8080, False)
    assert settings.public_url == "http://127.0.0.1:8080"
    assert settings.data == Path("/home/op/.local/share/gateway")
    assert settings.store == "sqlite:////home/op/.local/share/gateway/gateway.db"
    assert settings.default_agent == "b"
    assert settled().default_agent is None


def test_the_file_names_another_default_agent() -> None:
    text = "server: {default_agent: a}\nagents: {b: {tasks_url: pull}, a: {tasks_url: pull}}"
    assert settled(text).default_agent == "a"


@pytest.mark.parametrize(
    ("flags", "environ", "data"),
    [
        (Flags(data=Path("d")), {"GATEWAY_DATA": "/e", "XDG_DATA_HOME": "/x", **HOME}, "/cwd/d"),
        (Flags(), {"GATEWAY_DATA": "e", "XDG_DATA_HOME": "/x", **HOME}, "/cwd/e"),
        (Flags(), {"GATEWAY_DATA": "", "XDG_DATA_HOME": "/x", **HOME}, "/x/gateway"),
        (Flags(), {"XDG_DATA_HOME": "relative", **HOME}, "/home/op/.local/share/gateway"),
    ],
)
def test_data_by_flag_then_environment_then_xdg_then_home(flags: Flags, environ: dict[str, str], data: str) -> None:
    settings = settled("", flags, environ)
    assert settings.data == Path(data)
    assert settings.store == f"sqlite:///{data}/gateway.db"


def test_without_a_home_data_must_be_said() -> None:
    expected = ["command line: --data: no folder to keep data in: HOME is not set; say --data DIR"]
    assert unsettled(environ={}) == expected


def test_store_by_flag_then_file() -> None:
    text = "store: {url: 'sqlite:///f.db'}"
    assert settled(text).store == "sqlite:////conf/f.db"
    assert settled(text, Flags(store="sqlite:///flag.db")).store == "sqlite:////cwd/flag.db"
    assert settled(text, Flags(store="memory:")).store == "memory:"
    assert unsettled(text, Flags(store="redis:")) == [f"command line: --store: {STORE}"]


def test_configuration_file_by_flag_then_environment() -> None:
    environ = {"GATEWAY_CONFIG": "e.yaml"}
    assert config_path(Flags(config=Path("f.yaml")), environ) == Path("f.yaml")
    assert config_path(Flags(), environ) == Path("e.yaml")
    assert config_path(Flags(), {"GATEWAY_CONFIG": ""}) is None


def test_anonymous_by_flag_then_file() -> None:
    assert settled("auth: {anonymous: true}").anonymous is True
    assert settled("auth: {anonymous: true}", Flags(anonymous=False)).anonymous is False
    assert settled("", Flags(anonymous=True)).anonymous is True


def test_anonymous_is_refused_beyond_loopback_at_the_place_that_said_it() -> None:
    public = "server: {public_url: 'https://gw.example', trusted_proxies: [192.0.2.1]}\n"
    reason = "is refused on 0.0.0.0: everyone who reaches it could use the public agents"
    hint = "leave it out, or listen on 127.0.0.1"
    outside = Flags(host="0.0.0.0")
    assert unsettled(public + "auth:\n  anonymous: true\n", outside) == [
        f"gateway.yaml:3: auth.anonymous: {reason}; {hint}"
    ]
    assert unsettled(public, Flags(host="0.0.0.0", anonymous=True)) == [f"command line: --anonymous: {reason}; {hint}"]
    assert settled(public + "auth:\n  anonymous: true\n", Flags(host="0.0.0.0", anonymous=False)).anonymous is False


def test_listening_beyond_loopback_needs_a_public_url() -> None:
    assert unsettled("server:\n  trusted_proxies: [192.0.2.1]\n", Flags(host="0.0.0.0")) == [
        "gateway.yaml:1: server.public_url: is required to listen on 0.0.0.0, beyond loopback; "
        "set it to the URL that clients use"
    ]
    server = "server: {public_url: 'https://gw.example/', trusted_proxies: [192.0.2.1, '2001:db8::/32']}"
    assert settled(server, Flags(host="::")).public_url == "https://gw.example"


def test_listening_beyond_loopback_needs_tls_or_the_proxy_that_ends_it() -> None:
    public = "server:\n  public_url: https://gw.example\n"
    reason = "is required to listen on 10.0.0.1, beyond loopback; set it, or server.trusted_proxies to the addresses of"
    outside = Flags(host="10.0.0.1")
    assert unsettled(public, outside) == [f"gateway.yaml:1: server.tls: {reason} the proxy that ends TLS"]
    assert settled(public + "  tls: {cert: c.pem, key: k.pem}\n", outside).host == "10.0.0.1"
    assert unsettled("server: {tls: {cert: c.pem, key: k.pem}}\n") == [
        "gateway.yaml:1: server.public_url: is required with tls; set it to the name in the certificate"
    ]


def test_rules_that_are_broken_together_are_reported_together() -> None:
    lines = unsettled("", Flags(host="0.0.0.0", port=-1, store="x", anonymous=True), {})
    fields = [line.split(": ")[1] for line in lines]
    assert sorted(fields) == ["--anonymous", "--data", "--port", "--store", "server.public_url", "server.tls"]


@pytest.mark.parametrize("host", ["", "[::1]", "a b", "127.1"])
def test_a_host_that_is_none(host: str) -> None:
    expected = "command line: --host: must be an IP address without brackets, or a name; for example 127.0.0.1"
    assert unsettled("", Flags(host=host)) == [expected]


@pytest.mark.parametrize(("port", "fits"), [(-1, False), (0, True), (65535, True), (65536, False)])
def test_a_port_is_sixteen_bits(port: int, fits: bool) -> None:
    if fits:
        assert settled("", Flags(port=port)).port == port
    else:
        expected = ["command line: --port: must be 0 to 65535; 0 lets the system choose"]
        assert unsettled("", Flags(port=port)) == expected


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("LocalHost", True),
     ("0.0.0.0", False), ("::", False), ("192.168.0.1", False), ("localhost.example", False), ("gw", False)],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_own_url_follows_the_port_that_the_system_chose() -> None:
    assert settled("", Flags(host="::1", port=0)).bound(5000).public_url == "http://[::1]:5000"
    named = settled("server: {public_url: 'https://gw.example'}", Flags(port=0)).bound(5000)
    assert (named.port, named.public_url) == (5000, "https://gw.example")


# --- what is published ---


def test_the_reference_page_is_current() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: python -m gateway.config > docs/reference/configuration.md"


def test_the_published_schema_is_current() -> None:
    published = (ROOT / "docs/reference/gateway.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run: python -m gateway.config schema > docs/reference/gateway.schema.json"


def test_every_key_has_one_row_with_its_help_or_a_heading_on_the_page() -> None:
    page = markdown()
    rows = {row.split("`")[1]: row.split(" | ")[-1] for row in page.splitlines() if row.startswith("| `")}
    for _, key in every_key():
        assert f"\n## {key}\n\n" in page or len(rows[key].split()) > 2, key


def test_the_schema_knows_no_key_that_the_file_may_not_hold() -> None:
    published = json.loads(schema_text())
    objects = [shape for shape in [published, *published["$defs"].values()] if "properties" in shape]
    assert {key for shape in objects for key in shape["properties"]} == {key for _, key in every_key()}
    assert all(shape["additionalProperties"] is False for shape in objects)


@pytest.mark.parametrize(
    ("document", "fits"),
    [
        ({}, True),
        ({"agents": {"echo": {"run": "agents.echo:Echo", "card": "c.json", "with": {"any": [1]}}}}, True),
        ({"agents": {"p": {"tasks_url": "pull"}, "r": {"card_url": "https://a.example"}}}, True),
        ({"agents": {"echo": {"run": "agents.echo:Echo"}}}, False),
        ({"agents": {"Echo": {"tasks_url": "pull"}}}, False),
        ({"agents": {"admin": {"tasks_url": "pull"}}}, False),
        ({"agents": {"a": {"tasks_url": "pull", "card_url": "https://a.example"}}}, False),
        ({"egres": {}}, False),
        ({"auth": {"anonymous": "yes"}}, False),
        ({"store": {"url": "redis:"}}, False),
        ({"tools": {"docs": {"url": "https://a.example/mcp", "headers": {"X": "y", "Z": {"file": "z"}}}}}, True),
        ({"tools": {"docs": {"url": "https://a.example/mcp", "quarantine": "never"}}}, False),
        ({"tools": {"files": {"command": ["/bin/x"], "sandbox": ["/usr/bin/bwrap", "--unshare-all"]}}}, True),
        ({"tools": {"files": {"command": ["/bin/x"], "sandbox": "/usr/bin/bwrap"}}}, False),
        ({"tools": {"Docs": {"url": "https://a.example/mcp"}}}, False),
        ({"grants": [{"to": "ann", "arguments": {"folder": ["public", 1, None]}}]}, True),
        ({"grants": [{"tools": ["*"]}]}, False),
    ],
)
def test_an_editor_with_the_schema_judges_as_the_gateway_does(document: dict[str, object], fits: bool) -> None:
    Draft202012Validator.check_schema(schema())
    assert Draft202012Validator(schema()).is_valid(document) is fits
    assert (said(json.dumps(document)) == []) is fits


def test_the_printer_prints_the_page_the_schema_and_its_usage() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway.config", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)

    assert run().stdout == markdown()
    assert run("schema").stdout == schema_text()
    wrong = run("shcema")
    assert (wrong.returncode, wrong.stderr) == (2, "python -m gateway.config [page|schema]\n")


# --- oauth of a tool server ---


@pytest.mark.parametrize(
    ("url", "oauth", "words"),
    [
        ("http://a.example", "{}", "oauth needs an https URL"),
        ("http://127.0.0.1.evil.example", "{}", "oauth needs an https URL"),
        ("https://a.example", "{client_id: a, client_secret: {text: b}}", "client_secret must have file or variable"),
        ("https://a.example", "{client_secret: {variable: B}}", "client_secret belongs to a client_id"),
        ("https://a.example", "{client_metadata: 'http://a.example/c.json'}", "client_metadata must be an https URL"),
        ("https://a.example", "{client_metadata: 'https://a.example'}", "client_metadata must be an https URL"),
        ("https://a.example", "{registration: preregistered}", "registration: preregistered does not fit"),
        ("https://a.example", "{registration: cimd, client_id: a}", "registration: cimd does not fit"),
        ("https://a.example", "{grant: client_credentials, client_id: a}", "client_credentials need a client_secret"),
        ("https://a.example", "{scopes: ['a b']}", "'a b' is no scope"),
        ("https://a.example", "{client_id: a, client_key: {text: b}}", "client_key must have file or variable"),
        ("https://a.example", "{client_key: {variable: K}}", "client_key belongs to a client_id"),
        (
            "https://a.example",
            "{client_id: a, client_key: {variable: K}, client_secret: {variable: S}}",
            "client_secret and client_key exclude each other",
        ),
        ("https://a.example", "{grant: jwt_bearer, client_id: a}", "jwt_bearer and assertion belong together"),
        ("https://a.example", "{assertion: {variable: A}}", "jwt_bearer and assertion belong together"),
        ("https://a.example", "{grant: id_jag, client_id: a}", "id_jag and identity_provider belong together"),
        (
            "https://a.example",
            "{grant: id_jag, identity_provider: {issuer: 'http://a.example', client_id: b}}",
            "issuer must be an https URL",
        ),
        (
            "https://a.example",
            "{grant: id_jag, login: caller, "
            "identity_provider: {issuer: 'https://a.example', client_id: b, subject: {variable: S}}}",
            "leave out identity_provider.subject",
        ),
        (
            "https://a.example",
            "{grant: id_jag, identity_provider: {issuer: 'https://a.example', client_id: b, subjekt: {variable: S}}}",
            "subject",
        ),
        ("https://a.example", "{grant: jwt_bearer, assertion: {variable: A}, login: caller}", "grant: jwt_bearer"),
        ("https://a.example", "{dpop: always}", "dpop"),
        ("https://a.example", "{}, headers: {authorization: x}", "oauth and an Authorization header"),
    ],
)
def test_the_oauth_of_a_tool_server_is_checked_for_sense(url: str, oauth: str, words: str) -> None:
    assert words in "".join(said(f"tools: {{a: {{url: '{url}', oauth: {oauth}}}}}"))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/mcp", "http://localhost/mcp", "http://[::1]:1", "HTTPS://a.example"]
)
def test_oauth_is_for_https_and_for_this_machine(url: str) -> None:
    entry = accepted(f"tools: {{a: {{url: '{url}', oauth: {{}}}}}}").tools["a"]
    assert entry.oauth is not None
    assert (entry.oauth.implied, entry.oauth.grant) == ("dynamic", "authorization_code")
