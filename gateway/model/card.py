"""AgentCard: what an agent says about itself (A2A 1.0 §4.4, §8)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gateway.model.base import Model

# The bindings and the versions that this gateway speaks upstream and serves, in order of preference.
JSONRPC = "JSONRPC"
HTTP_JSON = "HTTP+JSON"
GRPC = "GRPC"
VERSION = "1.0"  # whose words the model has
VERSIONS = (VERSION, "0.3")
BINDINGS = (JSONRPC, HTTP_JSON, GRPC)


class AgentInterface(Model):
    url: str
    protocol_binding: str
    protocol_version: str
    tenant: str | None = None

    @property
    def version(self) -> str:
        """Major.Minor: patch numbers do not count (§3.6)."""
        return ".".join(self.protocol_version.split(".")[:2])


class AgentProvider(Model):
    url: str
    organization: str


class AgentExtension(Model):
    uri: str
    description: str | None = None
    required: bool | None = None
    params: dict[str, Any] | None = None


class AgentCapabilities(Model):
    streaming: bool | None = None
    push_notifications: bool | None = None
    extended_agent_card: bool | None = None
    extensions: tuple[AgentExtension, ...] | None = None


class AgentSkill(Model):
    id: str
    name: str
    description: str
    tags: tuple[str, ...]
    examples: tuple[str, ...] | None = None
    input_modes: tuple[str, ...] | None = None
    output_modes: tuple[str, ...] | None = None
    security_requirements: tuple[dict[str, Any], ...] | None = None


class AgentCard(Model):
    name: str
    description: str
    version: str
    supported_interfaces: tuple[AgentInterface, ...]
    capabilities: AgentCapabilities
    default_input_modes: tuple[str, ...]
    default_output_modes: tuple[str, ...]
    skills: tuple[AgentSkill, ...]
    provider: AgentProvider | None = None
    documentation_url: str | None = None
    icon_url: str | None = None
    security_schemes: dict[str, Any] | None = None
    security_requirements: tuple[dict[str, Any], ...] | None = None
    signatures: tuple[dict[str, Any], ...] | None = None

    @property
    def required_extensions(self) -> tuple[str, ...]:
        extensions = self.capabilities.extensions
        return tuple(extension.uri for extension in extensions if extension.required) if extensions else ()

    @property
    def extensions(self) -> tuple[str, ...]:
        return tuple(extension.uri for extension in self.capabilities.extensions or ())

    def interface(self, bindings: Collection[str] = BINDINGS) -> AgentInterface | None:
        """The first interface, in the card's own order of preference, that we can speak; the newest version of which
        there is one. None if there is none."""
        return next(iter(self.interfaces(bindings)), None)

    def interfaces(self, bindings: Collection[str] = BINDINGS) -> tuple[AgentInterface, ...]:
        """All that we can speak, the newest version first, then in the card's own order."""
        return tuple(
            candidate
            for version in VERSIONS
            for candidate in self.supported_interfaces
            if candidate.protocol_binding in bindings and candidate.version == version
        )
