"""What may stand for a principal: one vocabulary for rules, grants and persons.

`ann` or `key:ann` is a key, `agent:echo` an agent, `client:robot` and `user:ada` are a client and a person of the
gateway's own authorization server, `oauth:ISSUER#SUBJECT` somebody at an issuer, `spiffe://DOMAIN/PATH` a workload.
gateway/model/whom.py has the ids that they stand for.
"""

from __future__ import annotations

import re

_ROLE = r"role:[!-~]{1,128}"
_SUBJECT = r"oauth:https?://[!-\"$-~]{1,255}#[!-~]{1,256}|oauth:gateway#[!-~]{1,256}"

# A star stands for any letters.
_PATTERN = (
    r"(?:key:|agent:|client:)?[A-Za-z0-9._*-]{1,63}|user:[a-z0-9._@*-]{1,63}"
    rf"|{_SUBJECT}|spiffe://[A-Za-z0-9._/*-]{{1,2048}}"
)
_ONE = (
    r"(?:key:|agent:|client:)?[A-Za-z0-9._-]{1,63}|user:[a-z0-9][a-z0-9._@-]{0,62}"
    rf"|{_SUBJECT}|spiffe://[a-z0-9._-]{{1,255}}(?:/[A-Za-z0-9._-]+)+"
)

# One principal, whose words have no star.
ONE = re.compile(_ONE)
# Everybody with a credential, the anonymous, a principal, or all who have a role.
GRANTED = re.compile(rf"\*|anonymous|{_ONE}|{_ROLE}")
# Further: everybody at all, the machine's own credential, a worker, and several by a pattern.
RULED = re.compile(rf"\*|anybody|local|worker|anonymous|{_PATTERN}|{_ROLE}")

WORDS = "a key's name, agent:NAME, client:NAME, user:NAME, oauth:ISSUER#SUBJECT, spiffe://DOMAIN/PATH"
