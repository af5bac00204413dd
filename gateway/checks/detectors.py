"""What secrets and personal data look like: a name, a pattern, and, where there is one, the arithmetic that must agree.

Patterns are RE2 (linear time, whatever the text). Formats with a prefix or a checksum are told apart from ordinary
words and numbers almost surely; what has neither, like passwords and names of people, is not looked for here: a
detector that cries wolf is switched off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from gateway.model.value import value


@value
class Detector:
    pattern: str  # RE2; its first group, if it has one, is what is found
    agrees: Callable[[str], bool] | None = None


def luhn(text: str) -> bool:
    """Card numbers: ISO/IEC 7812-1, annex B."""
    digits = [int(each) for each in reversed(re.sub(r"[^0-9]", "", text))]
    doubled = (sum(divmod(2 * each, 10)) for each in digits[1::2])
    return len(set(digits)) > 1 and (sum(digits[0::2]) + sum(doubled)) % 10 == 0


# Country -> length (SWIFT IBAN registry); an unknown country is no IBAN.
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SD": 18,
    "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22,
    "VG": 24, "XK": 20,
}  # fmt: skip


def iban(text: str) -> bool:
    """ISO 13616: the country's length, and 1 when divided by 97."""
    bare = text.replace(" ", "").upper()
    if _IBAN_LENGTHS.get(bare[:2]) != len(bare):
        return False
    turned = bare[4:] + bare[:4]
    return int("".join(str(int(each, 36)) for each in turned)) % 97 == 1


def social_security(text: str) -> bool:
    """United States: not one of the numbers that were never given out (SSA, since 2011)."""
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def ipv4(text: str) -> bool:
    return all(int(each) < 256 for each in text.split("."))


SECRETS: Mapping[str, Detector] = {
    "private-key": Detector(
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z0-9 ]+-----|\z)"
    ),
    "aws-access-key": Detector(r"\b((?:AKIA|ASIA)[A-Z2-7]{16})\b"),
    "github-token": Detector(r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{82})\b"),
    "gitlab-token": Detector(r"\b(gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent)-[A-Za-z0-9_-]{20,300})"),
    "slack-token": Detector(r"\b(xox[abeprs]-[A-Za-z0-9-]{10,250}|xapp-[0-9]-[A-Za-z0-9-]{10,250})"),
    "slack-webhook": Detector(r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,}"),
    "google-api-key": Detector(r"\b(AIza[A-Za-z0-9_-]{35})"),
    "google-oauth-secret": Detector(r"\b(GOCSPX-[A-Za-z0-9_-]{28})"),
    "anthropic-key": Detector(r"\b(sk-ant-[A-Za-z0-9_-]{20,200})"),
    "openai-key": Detector(r"\b(sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,200}T3BlbkFJ[A-Za-z0-9_-]{20,200})"),
    "stripe-key": Detector(r"\b((?:sk|rk)_(?:live|test)_[A-Za-z0-9]{10,200})\b"),
    "npm-token": Detector(r"\b(npm_[A-Za-z0-9]{36})\b"),
    "pypi-token": Detector(r"\b(pypi-AgE[A-Za-z0-9_-]{50,500})"),
    "hugging-face-token": Detector(r"\b(hf_[A-Za-z]{34})\b"),
    "sendgrid-key": Detector(r"\b(SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})"),
    "jwt": Detector(r"\b(ey[A-Za-z0-9_-]{15,}\.ey[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"),
    "url-password": Detector(r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@\"']{0,100}:([^\s/@\"']{3,100})@[^\s/@\"']"),
    "bearer-token": Detector(r"(?i)\bauthorization[\"']?\s*[:=]\s*[\"']?bearer\s+([A-Za-z0-9._~+/=-]{16,})"),
    "gateway-key": Detector(r"\b(gw_[A-Za-z0-9_-]{40,})"),
}

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

PERSONAL: Mapping[str, Detector] = {
    "email": Detector(rf"\b([A-Za-z0-9._%+-]{{1,64}}@(?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}})\b"),
    "card-number": Detector(r"\b([2-6][0-9](?:[ -]?[0-9]){11,17})\b", luhn),
    "iban": Detector(r"\b([A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30})\b", iban),
    "us-ssn": Detector(r"\b([0-9]{3}-[0-9]{2}-[0-9]{4})\b", social_security),
    # E.164, written internationally: without the plus any number could be one.
    "phone": Detector(r"(?:^|[^0-9A-Za-z])(\+[1-9](?:[ ()./-]{0,2}[0-9]){7,14})\b"),
    "ip-address": Detector(r"\b([0-9]{1,3}(?:\.[0-9]{1,3}){3})\b", ipv4),
}

DETECTORS: Mapping[str, Detector] = {**SECRETS, **PERSONAL}
GROUPS: Mapping[str, tuple[str, ...]] = {"secrets": tuple(SECRETS), "personal-data": tuple(PERSONAL)}
