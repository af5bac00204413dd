"""The section about the key that seals what the gateway keeps of others' authorizations."""

from __future__ import annotations

from pydantic import Field, JsonValue, model_validator

from gateway.config.tools import Section, Value
from gateway.config.values import ImportString, Items, refuse


class Kms(Section):
    """A key service that wraps the key: an object of yours with wrap and unwrap, or a command."""

    run: ImportString | None = Field(None, description="Import string of the object or class, module:attribute.")
    options: dict[str, JsonValue] = Field(default_factory=dict, alias="with", description="Arguments for the class.")
    command: Items[str] | None = Field(
        None, description="Program (absolute path) and arguments; wrap or unwrap is added, base64 goes in and out."
    )

    @model_validator(mode="after")
    def _checked(self) -> Kms:
        if (self.run is None) is (self.command is None):
            raise refuse("has exactly one of run and command", "say who wraps the key")
        if self.command is not None and (not self.command or not self.command[0].startswith("/")):
            raise refuse("command must begin with an absolute path", "no shell looks for it")
        return self


class VaultSettings(Section):
    """The key that seals tokens at rest; without one it lies in a file of its own beside them."""

    key: Value | None = Field(None, description="32 bytes as base64 or hex: file or variable.")
    kms: Kms | None = Field(None, description="A key service that wraps the key; DATA/vault-key.wrapped holds it.")
    previous: Items[Value] = Field((), description="Keys from before; what they sealed is sealed anew at the start.")

    @model_validator(mode="after")
    def _checked(self) -> VaultSettings:
        if self.key is not None and self.kms is not None:
            raise refuse("key and kms exclude each other", "a key service keeps the key itself")
        for each in (*self.previous, *(() if self.key is None else (self.key,))):
            if each.text is not None or each.before:
                raise refuse("a key must have file or variable", "a secret never stands in this file")
        return self
