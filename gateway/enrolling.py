"""Agents of the operator's file, as the registry takes them. What is wrong is said with the line that is to blame."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydantic import ValidationError

from gateway.config import Config, ConfigError, LocalAgent, RemoteAgent, TasksAgent, ToolsAgent, demo_base
from gateway.config.problems import Problem as ConfigProblem
from gateway.core.gate import Gate
from gateway.core.registry import Registered, Source
from gateway.dialects.strict_json import read
from gateway.model.card import AgentCapabilities, AgentCard, AgentSkill
from gateway.model.errors import GatewayError
from gateway.model.principal import Kind
from gateway.model.provenance import CardKeys
from gateway.model.rows import Balance
from gateway.model.tool import digest
from gateway.upstream.egress import Egress
from gateway.upstream.local import LoadError, load
from gateway.upstream.tasks import TasksAgent as TasksUpstream


def enrolled(
    config: Config, id: str, agent: LocalAgent | RemoteAgent | TasksAgent | ToolsAgent, egress: Egress, now: int
) -> Registered:
    """One agent of the configuration file. Raises ConfigError at the line that is to blame."""
    entry = Registered(
        id=id,
        kind="local",
        gate=Gate(agent.concurrency, agent.queue),
        deadline=agent.deadline,
        deduplicate=agent.deduplicate,
        public=agent.public,
        tenants=tuple(agent.tenants),
        changed=now,
        worker=f"{Kind.KEY}:{agent.worker}" if isinstance(agent, TasksAgent) else None,
    )
    if agent.extended_card is not None:
        entry.extended = _card(config, id, "extended_card", agent.extended_card)
    if isinstance(agent, LocalAgent):
        entry.at = agent.run if not agent.options else f"{agent.run} [sha256 {digest(agent.options)[:16]}]"
        entry.card, entry.changed = _card(config, id, "card", agent.card), _modified(agent.card)
        try:
            entry.agent = load(agent.run, agent.options, base=config.base, also=demo_base())
        except LoadError as error:
            raise ConfigError([config.problem(("agents", id, "run"), error.reason, error.hint)]) from error
    elif isinstance(agent, RemoteAgent):
        entry.kind, entry.trusted, entry.balance = "remote", True, Balance(agent.balance)
        entry.sources = tuple(Source(url) for url in dict.fromkeys((agent.card_url, *agent.replicas)))
        entry.card_keys, entry.require_signature = _card_keys(config, id, agent), agent.require_signature
    elif isinstance(agent, TasksAgent):
        entry.kind, entry.at = "tasks", f"{agent.tasks_url} {entry.worker}"
        entry.card = _plain_card(id) if agent.card is None else _card(config, id, "card", agent.card)
        entry.agent = TasksUpstream(id, agent.tasks_url, egress)
    else:
        entry.at, entry.behind = " ".join(agent.tools), tuple({each.partition("/")[0]: None for each in agent.tools})
    return entry


def _card_keys(config: Config, id: str, agent: RemoteAgent) -> CardKeys | None:
    if agent.card_keys is None:
        return None if agent.card_keys_url is None else CardKeys(url=agent.card_keys_url)
    place, hint = ("agents", id, "card_keys"), 'give a JWK set: {"keys": [...]}'
    if agent.card_keys_url is not None:
        raise ConfigError([config.problem(place, "cannot stand beside card_keys_url", "give one of the two")])
    try:
        document = agent.card_keys.read_bytes()
        tree = read(document)
    except OSError as error:
        raise ConfigError([config.problem(place, f"cannot read {agent.card_keys}: {error.strerror}", hint)]) from error
    except GatewayError as error:
        raise ConfigError([config.problem(place, f"is not strict JSON: {error.message}", hint)]) from error
    if not isinstance(tree, dict) or not isinstance(tree.get("keys"), list):
        raise ConfigError([config.problem(place, f"{agent.card_keys.name} is no JWK set", hint)])
    return CardKeys(document)


def _modified(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns // 1_000_000
    return 0


def _card(config: Config, id: str, field: str, path: Path) -> AgentCard:
    def problem(reason: str, hint: str) -> ConfigProblem:
        return config.problem(("agents", id, field), reason, hint)

    try:
        return AgentCard.model_validate(read(path.read_bytes()))
    except OSError as error:
        raise ConfigError([problem(f"cannot read {path}: {error.strerror}", "give the path of a card")]) from error
    except GatewayError as error:
        raise ConfigError([problem(f"{path.name} is not strict JSON: {error.message}", "correct the file")]) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        reason = f"{path.name} is not an A2A card: {where}: {first['msg']}"
        raise ConfigError([problem(reason, "agent_cards/README.md says what a card needs")]) from error


def _plain_card(id: str) -> AgentCard:
    """The card of an agent that speaks only the older messages and brought none."""
    return AgentCard(
        name=id,
        description=f"{id}, an agent that takes agents/tasks/create",
        version="1.0.0",
        supported_interfaces=(),
        capabilities=AgentCapabilities(),
        default_input_modes=("text/plain", "application/json"),
        default_output_modes=("text/plain", "application/json"),
        skills=(AgentSkill(id=id, name=id, description=f"Whatever {id} does", tags=("tasks",)),),
    )
