"""The shape that every noun of A2A shares: frozen, camelCase on the wire, unknown fields kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

# Ids are opaque to us; the bound keeps keys and indexes small and is four times a UUID with a prefix.
Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
# The same where ProtoJSON's empty string means "not given".
OptionalId = Annotated[str, StringConstraints(max_length=256)]

_set = object.__setattr__  # values are frozen; a copy is made before it is one


class Model(BaseModel):
    """A value of the A2A 1.0 data model (`a2a.proto`, ProtoJSON form, spec §5.5).

    Both spellings of a field are read (`contextId`, `context_id`), as ProtoJSON asks; camelCase is written.
    Unknown fields stay in the value, so what a newer peer says survives the trip through the gateway.
    Presence is what was set: a field that nobody set is not written.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        protected_namespaces=(),
    )

    # Every field in its order, with its default: what `of` begins with.
    _blank: ClassVar[dict[str, Any]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._blank = {name: None if field.is_required() else field.default for name, field in cls.model_fields.items()}

    @classmethod
    def of(cls, **values: Any) -> Self:
        """A value of our own making: its fields are known to be right, and nothing is checked.

        Validating what we say ourselves would be 50 µs of a ten-event stream.
        """
        made = object.__new__(cls)
        content = cls._blank.copy()
        content.update(values)
        _set(made, "__dict__", content)
        _set(made, "__pydantic_fields_set__", set(values))
        _set(made, "__pydantic_extra__", {})
        _set(made, "__pydantic_private__", None)
        return made

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without its detour over the copy protocol: this is the most frequent step of a stream."""
        if deep:
            return super().model_copy(update=update, deep=True)
        update = update or {}
        copy = object.__new__(type(self))
        _set(copy, "__dict__", {**self.__dict__, **update})
        _set(copy, "__pydantic_fields_set__", self.__pydantic_fields_set__ | update.keys())
        _set(copy, "__pydantic_extra__", self.__pydantic_extra__)
        _set(copy, "__pydantic_private__", None)
        return copy

    def wire(self) -> bytes:
        """The ProtoJSON bytes of this value."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_unset=True)


def timestamp(ms: int) -> str:
    """Milliseconds since the epoch as `2026-11-21T08:00:00.000Z` (A2A §5.6.1: UTC, millisecond precision)."""
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=64)  # thousands of stamps share a second
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def milliseconds(text: str) -> int | None:
    """The other way round; None when `text` is no RFC 3339 timestamp with an offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else round(moment.timestamp() * 1000)
