"""People who have logged in here, for the pages that others make: as callers, without a credential to be shown."""

from __future__ import annotations

from starlette.requests import Request

from gateway.core.people import People
from gateway.model.people import Person
from gateway.model.principal import Kind, Principal
from gateway.server.oauth.browser import Browsers


class Visitors:
    """`known_as` is what the gateway calls its own issuer in principals."""

    def __init__(self, browsers: Browsers, people: People, known_as: str) -> None:
        self._browsers = browsers
        self._people = people
        self._known_as = known_as

    def who(self, request: Request) -> tuple[Principal, str] | None:
        """Who sits at this browser, and the name to show; None for nobody."""
        person = self._browsers.of(request).person
        if person is None or not self._people.is_here(person):
            return None
        return principal_of(person, self._known_as), person.name


def principal_of(person: Person, known_as: str) -> Principal:
    """As an access token of theirs would have it."""
    return Principal(Kind.OAUTH, f"{known_as}#{person.subject}", person.tenant, roles=frozenset(person.roles))
