"""Where the key of the vault comes from: a file of its own beside what it seals, the operator's file or variable, or a
key service that wraps it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from gateway.model.errors import GatewayError
from gateway.upstream.oauth.vault import KEY_BYTES, BadKey, write
from gateway.upstream.process import Command, Process, start
from gateway.upstream.secret import Secret, settle

# A key service is asked once at the start; who waits longer should hear what it waits for.
KMS_SECONDS = 30.0
# A wrapped key is a few hundred bytes in every service that there is.
LONGEST_WRAPPED = 64 * 1024

_HEX = re.compile(r"[0-9a-fA-F]{64}")


class OwnKey:
    """A file of ours. Two of them while one follows the other: whatever stops in between, nothing is lost."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self._file = path
        self._next = path.with_name(f"{path.name}.next")

    async def load(self) -> list[bytes]:
        return [path.read_bytes() for path in (self._next, self._file) if path.exists()]

    async def make(self) -> bytes:
        key = os.urandom(KEY_BYTES)
        write(self._next, key)
        return key

    def finish(self) -> None:
        if self._next.exists():
            self._next.replace(self._file)


class GivenKey:
    """The operator's. `make` reads it again, and finds the one that has been put in its place."""

    def __init__(self, secret: Secret, ours: Mapping[str, str]) -> None:
        self._secret = secret
        self._ours = ours
        self.path: Path | None = None

    async def load(self) -> list[bytes]:
        return [self.read()]

    async def make(self) -> bytes:
        return self.read()

    def finish(self) -> None:
        """It is not ours to keep."""

    def read(self) -> bytes:
        """Raises BadKey, which names the place and never the value."""
        try:
            key = decoded(settle(self._secret, self._ours))
        except GatewayError as error:
            raise BadKey(error.message, f"put a key there: {HINT}") from None
        except ValueError:
            raise BadKey(f"{self._secret.place} holds no key of {KEY_BYTES} bytes", HINT) from None
        if len(set(key)) < KEY_BYTES // 2:  # random ones have some 30 different bytes
            raise BadKey(f"{self._secret.place} holds a key that can be guessed", HINT)
        return key


HINT = "openssl rand -base64 32 makes one"


def decoded(text: str) -> bytes:
    """32 bytes as hex, or as base64 of either alphabet. Raises ValueError."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if len(key) != KEY_BYTES:
        raise ValueError
    return key


class Kms(Protocol):
    """A key service: what it has wrapped only it can unwrap."""

    async def wrap(self, key: bytes) -> bytes: ...

    async def unwrap(self, wrapped: bytes) -> bytes: ...


class WrappedKey:
    """A key that lies wrapped in `path` and is unwrapped at the start."""

    def __init__(self, path: Path, kms: Kms) -> None:
        self.path: Path | None = None
        self._kms = kms
        self._file = path
        self._next = path.with_name(f"{path.name}.next")

    async def load(self) -> list[bytes]:
        there = [path for path in (self._next, self._file) if _there(path)]
        return [await self._unwrapped(path) for path in there]

    async def make(self) -> bytes:
        key = os.urandom(KEY_BYTES)
        wrapped = await self._asked("wrap", key)
        if not wrapped or key in wrapped or len(wrapped) > LONGEST_WRAPPED:
            raise BadKey("the key service gave back the key as it was, or nothing", "its `wrap` must encrypt")
        write(self._next, wrapped)
        if await self._unwrapped(self._next) != key:
            self._next.unlink()
            raise BadKey("the key service does not unwrap what it has wrapped", "nothing was changed")
        return key

    def finish(self) -> None:
        if self._next.exists():
            self._next.replace(self._file)

    async def _unwrapped(self, path: Path) -> bytes:
        key = await self._asked("unwrap", _read(path))
        if len(key) != KEY_BYTES:
            raise BadKey(f"the key service unwraps {path} to {len(key)} bytes, not {KEY_BYTES}", "is it the same key?")
        return key

    async def _asked(self, what: str, data: bytes) -> bytes:
        try:
            async with asyncio.timeout(KMS_SECONDS):
                answer: Any = await getattr(self._kms, what)(data)
        except BadKey:
            raise
        except TimeoutError:
            raise BadKey(f"the key service did not {what} within {KMS_SECONDS:.0f} s", "nothing was changed") from None
        except Exception as error:
            # Its text may hold what it was given; the kind of error has to do.
            raise BadKey(f"the key service failed to {what}: {type(error).__name__}", "nothing was changed") from error
        if not isinstance(answer, bytes):
            raise BadKey(f"the key service's {what} gave {type(answer).__name__}, not bytes", "return bytes")
        return answer


class CodeKms:
    """The operator's own object with `wrap` and `unwrap`; plain functions run in a thread."""

    def __init__(self, found: Any) -> None:
        self._found = found

    async def wrap(self, key: bytes) -> bytes:
        return await _called(self._found.wrap, key)

    async def unwrap(self, wrapped: bytes) -> bytes:
        return await _called(self._found.unwrap, wrapped)


async def _called(function: Callable[[bytes], Any], data: bytes) -> bytes:
    found: Any = function(data) if inspect.iscoroutinefunction(function) else await asyncio.to_thread(function, data)
    made: bytes = await found if isinstance(found, Awaitable) else found
    return made


def _there(path: Path) -> bool:
    return path.exists()


def _read(path: Path) -> bytes:
    return path.read_bytes()


class CommandKms:
    """A command, called with `wrap` or `unwrap` as its last word: one line of base64 comes in, one goes out."""

    def __init__(self, command: Callable[[str], Command], ours: Mapping[str, str]) -> None:
        self._command = command
        self._ours = ours

    async def wrap(self, key: bytes) -> bytes:
        return await self._run("wrap", key)

    async def unwrap(self, wrapped: bytes) -> bytes:
        return await self._run("unwrap", wrapped)

    async def _run(self, what: str, data: bytes) -> bytes:
        line = _Line()
        process: Process | None = None
        try:
            process = await start("the key service", self._command(what), line, self._ours)
            process.write(base64.b64encode(data))
            said = await line.came
            return base64.b64decode(said, validate=True)
        except GatewayError as error:
            raise BadKey(error.message, "nothing was changed") from None
        except binascii.Error:
            raise BadKey(f"the key service's command did not {what} to a line of base64", "try it by hand") from None
        finally:
            if process is not None:
                await process.stop()


class _Line:
    """The first line that a command says."""

    def __init__(self) -> None:
        self.came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def line(self, line: bytes) -> None:
        if not self.came.done():
            self.came.set_result(line.strip())

    def too_long(self, ends: bytes) -> None:
        self.ended("")

    def ended(self, why: str) -> None:
        # What it said on its way out may hold what it was given.
        if not self.came.done():
            self.came.set_exception(BadKey("the key service's command ended without an answer", "try it by hand"))
