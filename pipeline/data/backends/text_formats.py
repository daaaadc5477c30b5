# pyright: basic
"""The ``format``s of texts that are asserted: those ``jsonschema`` checks itself, and ours where it needs a package.

Without the package ``jsonschema`` says yes to everything; with ours a row has the same verdict on every machine. They
follow the standards that JSON Schema names and refuse only what these certainly exclude.
"""

import re
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker

# RFC 3986 and RFC 3987: a scheme, and none of what must be percent-encoded in every part
_IRI = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:(?:[^\s\x00-\x20\x7f<>"{}|\\^`%]|%[0-9A-Fa-f]{2})*')
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")  # RFC 1123
_MAX_HOSTNAME = 253
# ISO 8601: at least one unit, in order, those of the time after a T; only the last number may have a fraction
_NUMBER = r"[0-9]+(?:[.,][0-9]+(?=[A-Z]\Z))?"
_DURATION = re.compile(
    rf"P(?=[0-9T])(?:{_NUMBER}W|(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}D)?"
    rf"(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?)"
)
_JSON_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")  # RFC 6901


def is_iri(value: object) -> bool:
    """Tell whether a text is an absolute address, in any script; what is no text has no format."""
    if not isinstance(value, str):
        return True
    if not _IRI.fullmatch(value):
        return False
    try:
        _ = urlsplit(value).port
    except ValueError:  # a bracket that is not closed, a port that is no number
        return False
    return True


def is_uri(value: object) -> bool:
    """Tell whether a text is an absolute address of ASCII; what is no text has no format."""
    return not isinstance(value, str) or (value.isascii() and is_iri(value))


def is_hostname(value: object) -> bool:
    """Tell whether a text is a name of a host; what is no text has no format."""
    if not isinstance(value, str):
        return True
    return len(value) <= _MAX_HOSTNAME and all(_LABEL.fullmatch(label) for label in value.split("."))


def is_duration(value: object) -> bool:
    """Tell whether a text is a duration; what is no text has no format."""
    return not isinstance(value, str) or _DURATION.fullmatch(value) is not None


def is_json_pointer(value: object) -> bool:
    """Tell whether a text points into JSON; what is no text has no format."""
    return not isinstance(value, str) or _JSON_POINTER.fullmatch(value) is not None


def _make_checker() -> FormatChecker:
    checker = FormatChecker()
    checker.checkers = {
        **Draft202012Validator.FORMAT_CHECKER.checkers,
        "uri": (is_uri, ()),
        "iri": (is_iri, ()),
        "hostname": (is_hostname, ()),
        "duration": (is_duration, ()),
        "json-pointer": (is_json_pointer, ()),
    }
    return checker


FORMATS = _make_checker()
