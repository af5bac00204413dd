"""The operator's file: sections, loading and settling it with flags and environment.

Imports nothing else of ours.
"""

from __future__ import annotations

from gateway.config.loading import demo_base, load, parse
from gateway.config.problems import ConfigError, Problem
from gateway.config.reference import markdown, schema
from gateway.config.sections import (
    AgentEntry,
    AnyAgent,
    Auth,
    AuthorizationServer,
    Config,
    Egress,
    Issuer,
    LocalAgent,
    RemoteAgent,
    Server,
    Store,
    TasksAgent,
)
from gateway.config.settings import Flags, Settings, config_path, is_loopback, settle
from gateway.config.values import RESERVED, Origin

__all__ = [
    "RESERVED",
    "AgentEntry",
    "AnyAgent",
    "Auth",
    "AuthorizationServer",
    "Config",
    "ConfigError",
    "Egress",
    "Flags",
    "Issuer",
    "LocalAgent",
    "Origin",
    "Problem",
    "RemoteAgent",
    "Server",
    "Settings",
    "Store",
    "TasksAgent",
    "config_path",
    "demo_base",
    "is_loopback",
    "load",
    "markdown",
    "parse",
    "schema",
    "settle",
]
