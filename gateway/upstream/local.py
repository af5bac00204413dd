"""Local agents, and other code of the operator's own, loaded by import string."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import AsyncGeneratorType
from typing import Any

from gateway.model.agent import Context, parts
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message, Part
from gateway.model.task import Event

# What nearly every agent gives comes first: asking an abstract class takes a microsecond.
_EVENTS = (AsyncGeneratorType, AsyncIterator)


class LoadError(Exception):
    """An import string that does not give what it should: why, and what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class LocalAgent:
    """An author's class or function behind the `Agent` port."""

    def __init__(self, work: Callable[[Context, Message], Any], owner: Any) -> None:
        self._work = work
        self._owner = owner
        self.resumable = bool(getattr(owner, "resumable", False))

    def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        running = self._work(context, message)
        # The author's own generator, not one around it: who runs it also closes it.
        return running if isinstance(running, _EVENTS) else self._once(context, running)

    async def _once(self, context: Context, running: Awaitable[Any]) -> AsyncIterator[Event]:
        answer = await running
        if answer is not None:
            yield _as_event(context, answer)

    def follow(self, context: Context) -> AsyncIterator[Event]:
        raise GatewayError(Reason.UNSUPPORTED_OPERATION, "A local agent's run ends with the process it ran in")

    async def cancel(self, context: Context) -> Event | None:
        return None

    async def aclose(self) -> None:
        close = getattr(self._owner, "aclose", None)
        if close is not None:
            await close()


def load(run: str, options: Mapping[str, Any], *, base: Path, also: Path) -> LocalAgent:
    """The agent that `run` (`module:attribute`) names, made with `options`. Modules are looked for in `base`, the
    folder of the configuration file, then in `also`. Raises LoadError."""
    found = _find(run, base, also)
    if inspect.isclass(found):
        agent = _make(run, found, options, base)
        if not callable(getattr(agent, "run", None)):
            raise LoadError(f"{run} has no method run(context, message)", "give the class one; see agents/README.md")
        return LocalAgent(agent.run, agent)
    if not (inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)):
        raise LoadError(f"{run} is neither a class nor an async function", "write `async def` before its name")
    if options:
        raise LoadError(f"{run} is a function and takes no options", "remove `with`, or make it a class")
    return LocalAgent(found, found)


def load_function(run: str, *, base: Path, also: Path) -> Callable[..., Any]:
    """The function that `run` names, found as agents are. Raises LoadError."""
    found = _find(run, base, also)
    if not inspect.isroutine(found):
        raise LoadError(f"{run} is no function", "name one that takes a Subject and gives a list of Finding")
    return found


def load_object(run: str, options: Mapping[str, Any], *, base: Path, needs: tuple[str, ...]) -> Any:
    """The object that `run` names, or one of the class with `options`, which has these methods. Raises LoadError."""
    found = _find(run, base, base)
    if inspect.isclass(found):
        found = _make(run, found, options, base)
    elif options:
        raise LoadError(f"{run} is no class and takes no options", "remove `with`, or name a class")
    for name in needs:
        if not callable(getattr(found, name, None)):
            raise LoadError(f"{run} has no method {name}", f"give it {' and '.join(needs)}")
    return found


def _find(run: str, base: Path, also: Path) -> Any:
    for folder in (also, base):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    module_name, _, attribute = run.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        hint = "modules are looked for beside the configuration file"
        raise LoadError(f"cannot import {module_name}: {error}", hint) from error
    except Exception as error:
        # The author's own module level code: any failure in it is theirs to see, as a sentence.
        raise LoadError(f"{module_name} failed while it was imported: {error!r}", "correct the module") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        names = ", ".join(name for name in vars(module) if not name.startswith("_"))[:200]
        raise LoadError(f"{module_name} has no {attribute!r}", f"it has {names}") from None


def _make(run: str, made: type[Any], options: Mapping[str, Any], base: Path) -> Any:
    arguments = dict(options)
    try:
        signature = inspect.signature(made)
        if "base" in signature.parameters:
            arguments.setdefault("base", base)
        signature.bind(**arguments)
    except (TypeError, ValueError) as error:
        raise LoadError(f"`with` does not fit {run}: {error}", "see the agent's own documentation") from error
    try:
        return made(**arguments)
    except Exception as error:
        raise LoadError(f"{run} refuses its options: {error}", "correct `with` of this agent") from error


def _as_event(context: Context, answer: Any) -> Event:
    """What a plain function may return: a text or parts for a direct reply, any event, or data."""
    if isinstance(answer, str | Part):
        return context.reply(answer)
    if isinstance(answer, list | tuple) and answer and all(isinstance(item, Part) for item in answer):
        return context.reply(parts(answer))
    if isinstance(answer, dict | list | int | float | bool):
        return context.reply(Part(data=answer, media_type="application/json"))
    event: Event = answer
    return event
