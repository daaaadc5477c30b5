"""Does a value occur in the conversation? Words, numbers and dates are looked up, meanings are not.

A date counts as grounded when the conversation names the day in any usual form, or any day in words ("Friday",
"tomorrow"): whether the words mean that day is the argument check's business.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, cast

from pipeline.evals.cases import Case, text_of
from pipeline.evals.facts import plain_number
from pipeline.evals.tool_calls.values import fold, parse_date

_NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
_DAY_WORDS = re.compile(
    r"\b(?:to(?:day|morrow|night)|yesterday|(?:mon|tues|wednes|thurs|fri|satur|sun)day|week(?:end)?s?|months?|days?"
    r"|jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)(?:uary|ruary|ch|il|ust|ember|ober)?\b"
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Ground:
    """The words and numbers of a conversation."""

    def __init__(self, case: Case) -> None:
        texts = [text_of(message) for message in case.messages]
        texts += [
            json.dumps(m["tool_calls"], ensure_ascii=False) for m in case.messages if m.get("tool_calls")
        ]
        self.words = fold(" ".join(texts))
        self.numbers = {plain_number(found) for found in _NUMBER.findall(self.words)}
        self.numbers |= {
            str(n) for n, word in enumerate(_NUMBER_WORDS) if re.search(rf"\b{word}\b", self.words)
        }

    def holds(self, value: Any) -> bool:
        """True when every part of a value can be found."""
        if isinstance(value, bool) or value is None:
            return True  # a yes or no stands in no text as such
        if isinstance(value, int | float):
            return plain_number(f"{value:.12g}") in self.numbers
        if isinstance(value, str):
            return self._holds_text(value)
        parts: Iterable[Any] = cast("dict[str, Any]", value).values() if isinstance(value, dict) else value
        return all(self.holds(part) for part in parts)

    def _holds_text(self, text: str) -> bool:
        words = fold(text)
        if not words or words in self.words:
            return True
        if parse_date(text) is not None:
            return _DAY_WORDS.search(self.words) is not None or parse_date(text) in self._days()
        return _NUMBER.fullmatch(words) is not None and plain_number(words) in self.numbers

    def _days(self) -> set[Any]:
        return {parse_date(found) for found in re.findall(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}", self.words)}
