"""The operator's file: sections, loading and settling it with flags and environment.

Imports nothing else of ours.
"""

from __future__ import annotations

from gateway.config.compliancefile import ComplianceFile, ComplianceRule, parse_compliance
from gateway.config.credentials import AgentCredentials, AgentOAuth
from gateway.config.document import document_problem, read_document
from gateway.config.loading import demo_base, load, parse
from gateway.config.policyfile import (
    ApprovalsEntry,
    LimitEntry,
    PolicyFile,
    RuleEntry,
    amount,
    parse_policy,
    span,
    zone_of,
)
from gateway.config.problems import ConfigError, Problem, did_you_mean
from gateway.config.reference import compliance_tables, markdown, policy_tables, schema
from gateway.config.sections import (
    AgentEntry,
    AnyAgent,
    Auth,
    AuthorizationServer,
    Config,
    Egress,
    Issuer,
    LocalAgent,
    LoginProvider,
    PolicySettings,
    RemoteAgent,
    Server,
    Store,
    TasksAgent,
    Tls,
    ToolsAgent,
)
from gateway.config.settings import AdminListener, Flags, Settings, config_path, data_folder, is_loopback, settle
from gateway.config.tools import (
    GrantEntry,
    IdentityProviderEntry,
    LimitsEntry,
    MountEntry,
    OAuthEntry,
    ToolServerEntry,
    Value,
)
from gateway.config.values import RESERVED, Origin

__all__ = [
    "RESERVED",
    "AdminListener",
    "AgentCredentials",
    "AgentEntry",
    "AgentOAuth",
    "AnyAgent",
    "ApprovalsEntry",
    "Auth",
    "AuthorizationServer",
    "ComplianceFile",
    "ComplianceRule",
    "Config",
    "ConfigError",
    "Egress",
    "Flags",
    "GrantEntry",
    "IdentityProviderEntry",
    "Issuer",
    "LimitEntry",
    "LimitsEntry",
    "LocalAgent",
    "LoginProvider",
    "MountEntry",
    "OAuthEntry",
    "Origin",
    "PolicyFile",
    "PolicySettings",
    "Problem",
    "RemoteAgent",
    "RuleEntry",
    "Server",
    "Settings",
    "Store",
    "TasksAgent",
    "Tls",
    "ToolServerEntry",
    "ToolsAgent",
    "Value",
    "amount",
    "compliance_tables",
    "config_path",
    "data_folder",
    "demo_base",
    "did_you_mean",
    "document_problem",
    "is_loopback",
    "load",
    "markdown",
    "parse",
    "parse_compliance",
    "parse_policy",
    "policy_tables",
    "read_document",
    "schema",
    "settle",
    "span",
    "zone_of",
]
