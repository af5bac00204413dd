"""Whose signatures stand on a card: finding their keys, by the operator's word or at the card's own origin.

A key counts when the operator gave it for this agent, and then no other does; else when it stands in a key set (`jku`)
at the very origin that the operator named for the card. A `jku` elsewhere is a stranger's address in a stranger's text:
it is not even fetched. What a header says of keys in other ways (`jwk`, `x5c`, `x5u`) is not read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.dialects.a2a_v1 import signing
from gateway.dialects.a2a_v1.signing import BadSignature, Form, Header
from gateway.model.errors import GatewayError
from gateway.model.identity import Documents
from gateway.model.provenance import CardKeys, Finding, Standing
from gateway.upstream.address import BadUrl, origin_of

if TYPE_CHECKING:
    from gateway.dialects.oauth2.signature import VerifyKeys

Tree = dict[str, Any]

MAX_KEY_SETS = 2  # fetched for one card: the old place and the new one while keys move


class Looked(NamedTuple):
    """What the signatures of a card are worth, and the card that is covered by the first one that fits."""

    findings: tuple[Finding, ...]
    card: Tree


class CardSignatures:
    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def look(self, card: Tree, card_url: str, keys: CardKeys | None, *, trusted: bool) -> Looked:
        """Never raises for what stands in the card; a key set that cannot be had is a finding."""
        try:
            listed = signing.signatures(card)
        except BadSignature as error:
            return Looked((Finding(Standing.UNKNOWN, f"cannot be checked: {error}"),), card)
        if not listed:
            return Looked((), card)
        search = _Search(self._documents, card_url, keys, trusted)
        # Beside the loop: the forms of a card of a mebibyte take half a second.
        forms = await asyncio.to_thread(lambda: tuple(signing.forms(card)))
        findings, covered = [], None
        seen: list[Any] = []
        for signature in listed:
            if signature in seen:
                continue
            seen.append(signature)
            finding, form = await _finding(forms, signature, search)
            findings.append(finding)
            covered = covered or form
        return Looked(tuple(findings), card if covered is None else covered.card)


async def _finding(forms: tuple[Form, ...], signature: Any, search: _Search) -> tuple[Finding, Form | None]:
    try:
        header = signing.header(signature)
    except BadSignature as error:
        return Finding(Standing.UNKNOWN, f"cannot be checked: {error}"), None
    claims = (header.kid, header.alg, header.jku)
    try:
        keys, whose = await search.keys(header)
    except _NoKey as error:
        return Finding(Standing.UNKNOWN, str(error), *claims), None
    key = keys.find(header.kid, header.alg)
    if key is None:
        says = f"has the key {header.kid!r}, which is not one of those {whose}"
        return Finding(Standing.UNKNOWN, says, *claims), None
    try:
        form = signing.fits(forms, signature, header.alg, key)
    except BadSignature as error:
        return Finding(Standing.INVALID, str(error), *claims), None
    if form is None:
        says = f"does not fit the card, though its key is one of those {whose}: something was changed after signing"
        return Finding(Standing.INVALID, says, *claims), None
    says = f"by one of the keys {whose}; signed is {signing.FORMS[form.name]}"
    return Finding(Standing.VERIFIED, says, *claims, form.name), form


class _NoKey(Exception):
    """Nobody whom we believe says what the key is; the sentence says why."""


class _Search:
    """The key sets for the signatures of one card."""

    def __init__(self, documents: Documents, card_url: str, given: CardKeys | None, trusted: bool) -> None:
        self._documents = documents
        self._card_url = card_url
        self._given = given
        self._trusted = trusted
        self._known: dict[str, VerifyKeys | _NoKey] = {}

    async def keys(self, header: Header) -> tuple[VerifyKeys, str]:
        """The set in which the key has to be, and whose it is, as the end of a sentence. Raises _NoKey."""
        if self._given is not None and self._given.document is not None:
            return _read(self._given.document, "the keys that were given for this agent"), "that were given for it"
        if self._given is not None and self._given.url is not None:
            return await self._fetched(self._given.url, trusted=True), f"at {self._given.url}, which was given for it"
        if header.jku is None:
            raise _NoKey("names no place of its key (jku), and no keys were given for this agent (card_keys)")
        try:
            foreign = origin_of(header.jku) != origin_of(self._card_url)
        except BadUrl as error:
            raise _NoKey(f"names a place of its key that is no usable URL: {error}") from None
        if foreign:
            raise _NoKey(
                f"says that its key is at {header.jku}, at another origin than the card: it is not fetched; "
                "if you trust that place, give it as card_keys_url"
            )
        return await self._fetched(header.jku, trusted=self._trusted), f"that the card's own origin has at {header.jku}"

    async def _fetched(self, url: str, *, trusted: bool) -> VerifyKeys:
        if url not in self._known:
            if len(self._known) >= MAX_KEY_SETS:
                raise _NoKey(f"has its key in yet another set; more than {MAX_KEY_SETS} are not fetched")
            self._known[url] = await self._fetch(url, trusted)
        found = self._known[url]
        if isinstance(found, _NoKey):
            raise found
        return found

    async def _fetch(self, url: str, trusted: bool) -> VerifyKeys | _NoKey:
        try:
            return _read(await self._documents.get(url, trusted=trusted), f"the key set at {url}")
        except GatewayError as error:
            return _NoKey(f"has its key at {url}, which cannot be had: {error.message}")
        except _NoKey as error:
            return error


def _read(document: bytes, name: str) -> VerifyKeys:
    # Imported at first use: joserfc only where a card with signatures comes.
    from gateway.dialects.oauth2.signature import BadKeys, read_keys

    try:
        return read_keys(document, signing.ALGORITHMS)
    except BadKeys as error:
        raise _NoKey(f"cannot be checked: {name} {error}") from None
