"""Personal data that has a form: found by pattern and proven by checksum or number plan, so that hits are rarely wrong.

E-mail, phone, payment card, IBAN, national ids, public IP addresses, keys of services. Reserved values (example.com,
555-0100, 192.0.2.0/24 ...) are nobody's and are not findings; our surrogates are all of that kind. Names and street
addresses have no form: they need the optional backend (docs/decisions/0018).
"""

import importlib
import ipaddress
import re
from collections.abc import Callable, Generator
from functools import cache
from typing import Any, NamedTuple

KINDS = ("api_key", "email", "iban", "card", "national_id", "ip", "phone")


class Finding(NamedTuple):
    """One piece of personal data in a text."""

    kind: str
    """One of KINDS, or what the optional backend says."""
    start: int
    end: int
    key: str
    """The same for every spelling of the same thing."""


# What ends in xn-- letters is a top-level domain in another script (RFC 5891).
_EMAIL = re.compile(
    r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}"
    r"(?:[Xx][Nn]--[A-Za-z0-9-]{0,58}[A-Za-z0-9]|[A-Za-z]{2,24})(?![^\W_])"
)
# RFC 2606 and RFC 6761: names that nobody can own
_RESERVED_HOST = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost)$")

# Prefixes as the services document them (GitHub, OpenAI, AWS, Slack, Google, GitLab, Hugging Face, npm, Stripe) and JWTs.
_API_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-[\w-]{20,200}|gh[oprsu]_[A-Za-z0-9]{36,251}|github_pat_\w{22,255}|A[KS]IA[0-9A-Z]{16}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,250}|AIza[\w-]{35}|glpat-[\w-]{20,64}|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}"
    r"|[rs]k_live_[A-Za-z0-9]{16,247}|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000})(?![A-Za-z0-9])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_CARD_RUN = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,}(?![\d-])")
_MAX_CARD_CHARACTERS = 37  # 19 digits with a separator between any two
# How cards are written when other digits stand beside them; in any other grouping a hit would be chance.
_CARD_FORMS = [
    re.compile(rf"{form}(?!\d)")
    for form in (
        r"\d{13,19}",
        r"(?:\d{4}[ -]){4}\d{3}",
        r"(?:\d{4}[ -]){3}\d{4}",
        r"\d{4}[ -]\d{6}[ -]\d{4,5}",
    )
]
_DIGITS = re.compile(r"\d+")
# Issuer ranges in use (ISO/IEC 7812): Visa, Mastercard, American Express, Discover, JCB, Diners
_ISSUED_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}"
)
TEST_CARD_PREFIX = "400000"  # range of published test numbers; no bank issues it
TEST_BANK = "TEST"  # in the place of the bank code of an IBAN
# After a name and before a port stands a colon, which is a part of version 6 only.
_IP = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)|(?<![\w.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]|\.\d)"
)
_VERSION_BEFORE = re.compile(r"(?:\bv|version|release)\s*[:=]?\s*$", re.IGNORECASE)
_RESERVED_PHONE = re.compile(r"\+1\d{3}55501\d\d$")  # NANP: 555-0100 to 555-0199 are for fiction
_MIN_PHONE_DIGITS = 7
_DIGIT = re.compile(r"[0-9]")
_SURROGATE = re.compile(
    r"user\d{1,9}@example\.com"
    rf"|{TEST_CARD_PREFIX[:4]}[ -]?{TEST_CARD_PREFIX[4:]}\d\d(?:[ -]?\d{{4}}){{2}}(?!\d)"
    rf"|GB\d\d ?{TEST_BANK}(?: ?\d){{14}}(?!\d)"
    r"|(?<![\w.])(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}(?!\d)|(?<![\w.:])2001:db8::[0-9a-f]{1,4}(?![\w:])"
    r"|(?:\+1[ .-]?|(?<!\d))(?:\([2-9]\d\d\) |[2-9]\d\d[ .-]?)555[ .-]?01\d\d(?!\d)"
)
"""Reserved values in the spellings that surrogates have: no finding may reach into one."""


class _NationalId(NamedTuple):
    """A numbering scheme: module of python-stdnum, form, and a word that must stand before a bare number."""

    module: str
    form: re.Pattern[str]
    word: re.Pattern[str] | None


def _id(module: str, form: str, word: str | None = None) -> _NationalId:
    bare = re.compile(rf"(?<![\w-])(?<!\d ){form}(?![\w-]| \d)")
    return _NationalId(module, bare, re.compile(word, re.IGNORECASE) if word else None)


_WORD_WINDOW = 40  # characters before a number in which its name is looked for
_NATIONAL_IDS = (
    _id("us.ssn", r"\d{3}-\d{2}-\d{4}"),
    _id("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    _id("es.dni", r"\d{8}-?[A-Z]"),
    _id("es.nie", r"[XYZ]-?\d{7}-?[A-Z]"),
    _id("it.codicefiscale", r"[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]"),
    _id("fr.nir", r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}"),
    _id("in_.aadhaar", r"\d{4} \d{4} \d{4}"),
    _id("fi.hetu", r"\d{6}[-+A]\d{3}[0-9A-Y]"),
    _id("se.personnummer", r"\d{6}[-+]\d{4}"),
    _id("dk.cpr", r"\d{6}-\d{4}"),
    _id("de.idnr", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", r"steuer|\btax\b|idnr"),
    _id("nl.bsn", r"\d{9}", r"\bbsn\b|burgerservice"),
    _id("pl.pesel", r"\d{11}", r"\bpesel\b"),
    _id("ca.sin", r"\d{3}[ -]?\d{3}[ -]?\d{3}", r"\bsin\b|social insurance"),
    _id("gb.nhs", r"\d{3} ?\d{3} ?\d{4}", r"\bnhs\b"),
)


def find_pii(text: str, region: str = "US") -> list[Finding]:
    """Return the findings of a text in order, none overlapping another.

    Args:
        text: What to search.
        region: Country whose phone numbers may stand without a country code.
    """
    taken: list[Finding] = []
    searched = _SURROGATE.sub(lambda match: _cover(match.group()), text) if _DIGIT.search(text) else text
    while new := _find_surest(searched, region):
        # What was found is covered and the rest searched again, so that no finding is made up of what is left around
        # others, or hidden by them: what then replaces it cannot become part of another one.
        taken += new
        for finding in new:
            found = searched[finding.start : finding.end]
            searched = f"{searched[: finding.start]}{_cover(found)}{searched[finding.end :]}"
    return sorted(taken, key=lambda finding: finding.start)


def _cover(text: str) -> str:
    return "\n" * len(text)  # part of no pattern, and positions stay


def _find_surest(text: str, region: str) -> list[Finding]:
    """Return the findings of the first search that has any."""
    for finder in _finders(text, region):
        taken: list[Finding] = []
        for finding in finder:
            if all(finding.end <= other.start or finding.start >= other.end for other in taken):
                taken.append(finding)
        if taken:
            return taken
    return []


def _finders(text: str, region: str) -> Generator[Generator[Finding]]:
    """Yield the searches that the characters of the text make worth while, surest first."""
    num_digits = sum(character.isdigit() for character in text)
    yield _find_matches("api_key", _API_KEY, text, _accept_key)
    if "@" in text:
        yield _find_matches("email", _EMAIL, text, _accept_email)
    if num_digits:
        yield _find_ibans(text)
        yield _find_cards(text)
        yield _find_national_ids(text)
    if "." in text or ":" in text:
        yield _find_ips(text)
    if num_digits >= _MIN_PHONE_DIGITS:
        yield _find_phones(text, region)


def _find_matches(
    kind: str, pattern: re.Pattern[str], text: str, accept: Callable[[str], str | None]
) -> Generator[Finding]:
    for match in pattern.finditer(text):
        if (key := accept(match.group())) is not None:
            yield Finding(kind, match.start(), match.end(), key)


def _accept_key(found: str) -> str | None:
    return None if "EXAMPLE" in found else found


def _accept_email(found: str) -> str | None:
    folded = found.casefold()
    return None if _RESERVED_HOST.search(folded.rpartition("@")[2]) else folded


def _find_cards(text: str) -> Generator[Finding]:
    for run in _CARD_RUN.finditer(text):
        is_short = run.end() - run.start() <= _MAX_CARD_CHARACTERS
        if is_short and (key := _accept_card(run.group())) is not None:
            yield Finding("card", run.start(), run.end(), key)
        else:
            yield from _find_cards_in_run(text, run.start(), run.end())


def _find_cards_in_run(text: str, start: int, end: int) -> Generator[Finding]:
    """Yield the cards that begin and end at separators: an expiry date or a check number may stand beside them."""
    taken_to = start
    for group in _DIGITS.finditer(text, start, end):
        if group.start() < taken_to:
            continue
        for form in _CARD_FORMS:
            match = form.match(text, group.start(), end)
            if match and (key := _accept_card(match.group())) is not None:
                yield Finding("card", match.start(), match.end(), key)
                taken_to = match.end()
                break


def _accept_card(found: str) -> str | None:
    digits = re.sub(r"[ -]", "", found)
    is_real = _ISSUED_CARD.fullmatch(digits) and _module("luhn").is_valid(digits)
    return digits if is_real and not digits.startswith(TEST_CARD_PREFIX) else None


def _find_ibans(text: str) -> Generator[Finding]:
    for match in _IBAN.finditer(text):
        found = match.group()
        # What follows in capitals may have been taken along.
        while found and not _module("iban").is_valid(found):
            found = found.rpartition(" ")[0]
        compact = found.replace(" ", "")
        if found and compact[4:8] != TEST_BANK:
            yield Finding("iban", match.start(), match.start() + len(found), compact)


def _find_national_ids(text: str) -> Generator[Finding]:
    for scheme in _NATIONAL_IDS:
        for match in scheme.form.finditer(text):
            before = text[max(0, match.start() - _WORD_WINDOW) : match.start()]
            if (scheme.word is None or scheme.word.search(before)) and is_national_id(
                match.group(), scheme.module
            ):
                yield Finding("national_id", match.start(), match.end(), re.sub(r"[\W_]", "", match.group()))


def is_national_id(text: str, module: str = "") -> bool:
    """Tell whether the text is a valid number of a scheme, or of any."""
    modules = [module] if module else [scheme.module for scheme in _NATIONAL_IDS]
    return any(_module(name).is_valid(text) for name in modules)


def _find_ips(text: str) -> Generator[Finding]:
    for match in _IP.finditer(text):
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        is_version = _VERSION_BEFORE.search(text, max(0, match.start() - 12), match.start())
        if address.is_global and not is_version:
            yield Finding("ip", match.start(), match.end(), str(address))


def _find_phones(text: str, region: str) -> Generator[Finding]:
    import phonenumbers

    for match in phonenumbers.PhoneNumberMatcher(text, region):
        key = phonenumbers.format_number(match.number, phonenumbers.PhoneNumberFormat.E164)
        if not _RESERVED_PHONE.match(key):
            yield Finding("phone", match.start, match.end, key)


@cache
def _module(name: str) -> Any:
    return importlib.import_module(f"stdnum.{name}")
