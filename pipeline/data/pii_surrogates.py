"""Surrogates: what stands in for personal data. Of the same type and spelling, nobody's, and never found again.

One :class:`Surrogates` serves one row: the same thing gets the same surrogate in every text and argument of the row, so a
call still says what the user said. The values are reserved for documentation and fiction (``pii_patterns.py``).
"""

import re
from collections.abc import Callable
from typing import Any

from pipeline.core.pii_patterns import TEST_BANK, TEST_CARD_PREFIX, Finding, is_national_id

_DIGITS = re.compile(r"\d")
_DOCUMENTATION_NETS = ("192.0.2", "198.51.100", "203.0.113")  # RFC 5737
_NAMES = ("Alex", "Sam", "Robin", "Kim", "Jo", "Chris", "Pat", "Noor", "Toni", "Lee")


class Surrogates:
    """The surrogates of one row."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._counts: dict[str, int] = {}

    def replace(self, finding: Finding, found: str) -> str:
        """Return what to write in place of ``found``."""
        identity = (finding.kind, finding.key)
        if identity not in self._numbers:
            self._counts[finding.kind] = self._counts.get(finding.kind, 0) + 1
            self._numbers[identity] = self._counts[finding.kind]
        make = _MAKERS.get(finding.kind, _make_other)
        return make(found, self._numbers[identity])


def replace_in_text(text: str, findings: list[Finding], surrogates: Surrogates) -> str:
    """Return the text with all findings replaced."""
    pieces: list[str] = []
    cursor = 0
    for finding in findings:
        pieces += [
            text[cursor : finding.start],
            surrogates.replace(finding, text[finding.start : finding.end]),
        ]
        cursor = finding.end
    return "".join([*pieces, text[cursor:]])


def _make_email(found: str, number: int) -> str:
    return f"user{number}@example.com"


def _make_phone(found: str, number: int) -> str:
    # +1 NPA 555 0100..0199, another area code for every hundred
    area, line = str(202 + (number - 1) // 100), f"01{(number - 1) % 100:02d}"
    is_international = found.lstrip("(").startswith(("+", "00"))
    digits = len(_DIGITS.findall(found))
    if digits == len(found.lstrip("+")):
        return f"{'+1' if is_international else ''}{area}555{line}"
    if found.startswith("("):
        return f"({area}) 555-{line}"
    separator = next((character for character in found[2:] if character in " .-"), "-")
    start = f"+1{separator}" if is_international else ""
    return f"{start}{area}{separator}555{separator}{line}"


def _make_card(found: str, number: int) -> str:
    from stdnum import luhn

    body = f"{TEST_CARD_PREFIX}{number:09d}"
    digits = body + luhn.calc_check_digit(body)
    separator = next((character for character in found if character in " -"), "")
    return separator.join(digits[start : start + 4] for start in range(0, 16, 4))


def _make_iban(found: str, number: int) -> str:
    account = f"{TEST_BANK}{number:014d}"  # the form of a British one
    # ISO 13616: 98 minus the remainder by 97 of the number with letters as two digits, country and 00 at its end
    check = 98 - int("".join(str(int(character, 36)) for character in f"{account}GB00")) % 97
    iban = f"GB{check:02d}{account}"
    return " ".join(iban[i : i + 4] for i in range(0, len(iban), 4)) if " " in found else iban


def _make_national_id(found: str, number: int) -> str:
    shape = re.sub(r"[A-Za-z]", "X", found)  # letters may spell a name
    while True:
        digits = iter(str(number).zfill(len(_DIGITS.findall(found))))
        made = "".join(next(digits) if character.isdigit() else character for character in shape)
        if not is_national_id(made):
            return made
        number += 1_000


def _make_ip(found: str, number: int) -> str:
    if ":" in found:
        return f"2001:db8::{number:x}"  # RFC 3849
    net, host = divmod(number - 1, 254)
    return f"{_DOCUMENTATION_NETS[net % len(_DOCUMENTATION_NETS)]}.{host + 1}"


def _make_key(found: str, number: int) -> str:
    prefix = next(
        (p for p in ("sk-", "github_pat_", "xoxb-", "AKIA", "hf_", "glpat-") if found.startswith(p)), ""
    )
    prefix = prefix or found[: max(3, found.find("_") + 1 if "_" in found[:8] else 0)]
    return f"{prefix}EXAMPLE{number:0{max(1, min(13, len(found) - len(prefix) - 7))}d}"


def _make_name(found: str, number: int) -> str:
    return _NAMES[(number - 1) % len(_NAMES)] + ("" if number <= len(_NAMES) else f" {number // len(_NAMES)}")


def _make_other(found: str, number: int) -> str:
    return f"example {number}"


_MAKERS: dict[str, Callable[[str, int], str]] = {
    "email": _make_email,
    "phone": _make_phone,
    "card": _make_card,
    "iban": _make_iban,
    "national_id": _make_national_id,
    "ip": _make_ip,
    "api_key": _make_key,
    "name": _make_name,
}


def surrogate_number(value: int, findings: list[Finding], surrogates: Surrogates) -> Any:
    """Return what stands in for a number that is personal data as a whole: a number, so that its type stays."""
    made = replace_in_text(str(value), findings, surrogates)
    digits = "".join(_DIGITS.findall(made))
    return int(digits)
