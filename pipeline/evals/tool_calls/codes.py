"""Error codes of an answer by layer; the first failing layer names the cause, the others follow it.

A code says what was seen. ``coercible`` and ``integer_as_float`` are flags, not errors of their own.
"""

from collections.abc import Iterable

LAYERS: dict[str, tuple[str, ...]] = {
    "parse": (
        "no_output",
        "truncated",
        "not_json",
        "wrong_wrapper",
        "prose_around_call",
        "arguments_not_object",
        "string_encoded_arguments",
    ),
    "schema": (
        "unknown_tool",
        "missing_required",
        "undeclared_argument",
        "type_error",
        "enum_violation",
        "format_violation",
        "range_violation",
    ),
    "decision": ("called_when_none", "silent_when_call", "asked_when_answerable", "guessed_missing_argument"),
    "selection": ("wrong_tool", "missing_call", "extra_call", "duplicate_call", "wrong_order"),
    "arguments": ("lost_constraint", "extra_argument", "date_resolution", "wrong_value", "ungrounded_value"),
    "state": ("call_error", "state_mismatch", "side_effect", "repeated_failure"),
    "reply": (
        "no_question",
        "claims_undone_action",
        "wrong_fact",
        "missing_fact",
        "no_confirmation",
        "persona",
    ),
}
_ORDER = {code: rank for rank, code in enumerate(code for codes in LAYERS.values() for code in codes)}
_LAYER_OF = {code: layer for layer, codes in LAYERS.items() for code in codes}


def sort_codes(codes: Iterable[str]) -> tuple[str, ...]:
    """Return codes once each, the cause first."""
    return tuple(sorted(set(codes), key=_ORDER.__getitem__))


def layer_of(code: str) -> str:
    """Return the layer of a code."""
    return _LAYER_OF[code]


def has_layer(codes: Iterable[str], *layers: str) -> bool:
    """True when any code is of one of the layers."""
    return any(_LAYER_OF[code] in layers for code in codes)
