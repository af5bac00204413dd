"""What is in people's hands for a moment: authorization codes (RFC 6749 §4.1.2) and device codes (RFC 8628 §3.2).

Both are in memory alone. A restart asks people to begin again; nothing that was given out depends on them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.keys import random_word
from gateway.model.errors import GatewayError, Reason
from gateway.model.people import Person
from gateway.model.value import value

CODE_SECONDS = 60
"""Life of an authorization code: a redirect and a request (RFC 9700 §4.5 wants it short)."""

DEVICE_SECONDS = 600
"""Life of a device code: time to find a browser and to log in."""

INTERVAL = 5
"""Seconds between two questions of a device (RFC 8628 §3.2)."""

MAX_CODES = 10_000
"""Codes of either kind at one time. Each authorization code stands for a person who has just said yes."""

LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""Of a user code: no vowels, so no words (RFC 8628 §6.1). Eight of them are 34 bits, and guesses are limited."""


@value
class Asked:
    """What a client has asked a person for."""

    client: str
    scopes: tuple[str, ...]
    audience: str


@dataclass(slots=True)
class Code:
    """`challenge` is the S256 one (RFC 7636 §4.2), `key` the thumbprint that tokens are to be bound to (RFC 9449
    §10). `grant` is set when the code is used; who comes with it again ends that grant."""

    asked: Asked
    person: Person
    redirect_uri: str
    challenge: str
    until: float
    key: str | None = None
    grant: str | None = None
    replayed: bool = False

    # As authlib asks for them.

    code_challenge_method = "S256"

    @property
    def code_challenge(self) -> str:
        return self.challenge

    def get_redirect_uri(self) -> str:
        return self.redirect_uri


class Codes:
    """By the SHA-256 of the code. `now` gives milliseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._codes: dict[str, Code] = {}

    def make(self, asked: Asked, person: Person, redirect_uri: str, challenge: str, key: str | None) -> str:
        now = self._now() / 1000
        if len(self._codes) >= MAX_CODES:
            self._codes = {mark: code for mark, code in self._codes.items() if code.until > now}
        if len(self._codes) >= MAX_CODES:
            raise GatewayError(Reason.OVERLOADED, "Too many people log in at this moment; try again", retry_after=30)
        word = random_word()
        self._codes[_mark(word)] = Code(asked, person, redirect_uri, challenge, now + CODE_SECONDS, key)
        return word

    def find(self, word: str) -> Code | None:
        """Used ones too, until they would have ended."""
        code = self._codes.get(_mark(word))
        return code if code is not None and code.until > self._now() / 1000 else None


@dataclass(slots=True)
class Device:
    """A device that waits. `person` is who said yes; `denied`, that somebody said no; `asks`, when it may ask again."""

    asked: Asked
    user_code: str
    until: float
    person: Person | None = None
    denied: bool = False
    interval: float = INTERVAL
    asks: float = 0.0

    # As authlib asks for it.

    def get_client_id(self) -> str:
        return self.asked.client


class Devices:
    """By the SHA-256 of the device code, and by user code. `now` gives milliseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._devices: dict[str, Device] = {}
        self._typed: dict[str, Device] = {}

    def make(self, asked: Asked) -> tuple[str, Device]:
        self._sweep()
        if len(self._devices) >= MAX_CODES:
            raise GatewayError(Reason.OVERLOADED, "Too many devices wait at this moment; try again", retry_after=30)
        word, typed = random_word(), self._user_code()
        device = Device(asked, typed, self._now() / 1000 + DEVICE_SECONDS)
        self._devices[_mark(word)] = self._typed[typed] = device
        return word, device

    def find(self, word: str) -> Device | None:
        """Ended ones too, for as long as they are remembered."""
        return self._devices.get(_mark(word))

    def waiting(self, typed: str) -> Device | None:
        """The device that shows this code, while nobody has answered for it. Case and punctuation do not count."""
        device = self._typed.get(plain(typed))
        if device is None or self.is_over(device) or device.person is not None or device.denied:
            return None
        return device

    def is_over(self, device: Device) -> bool:
        return device.until <= self._now() / 1000

    def too_soon(self, device: Device) -> bool:
        """Whether the device asks faster than it was told; if so, it must wait longer from now on (RFC 8628 §3.5)."""
        now = self._now() / 1000
        soon = now < device.asks
        if soon:
            device.interval += INTERVAL
        device.asks = now + device.interval - 0.5  # a clock may be that much faster
        return soon

    def drop(self, word: str) -> None:
        device = self._devices.pop(_mark(word), None)
        if device is not None:
            self._typed.pop(device.user_code, None)

    def _user_code(self) -> str:
        while True:
            code = "".join(secrets.choice(LETTERS) for _ in range(8))
            if code not in self._typed:
                return code

    def _sweep(self) -> None:
        """Those that ended long enough ago that nobody asks any more."""
        past = self._now() / 1000 - DEVICE_SECONDS
        for mark, device in list(self._devices.items()):
            if device.until > past:
                break  # they end in the order in which they were made
            del self._devices[mark]
            self._typed.pop(device.user_code, None)


def plain(typed: str) -> str:
    return "".join(letter for letter in typed.upper() if letter in LETTERS)[:8]


def shown(user_code: str) -> str:
    return f"{user_code[:4]}-{user_code[4:]}"


def _mark(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()
