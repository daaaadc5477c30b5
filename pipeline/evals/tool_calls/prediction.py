"""One answer, parsed: its calls, its text, and what was wrong with its form.

Structured calls come as ``{name, arguments}`` or as an OpenAI assistant message; raw text goes through
:mod:`pipeline.evals.tool_calls.parsers`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class PredictedCall:
    """One call as the model made it."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer."""

    calls: tuple[PredictedCall, ...] = ()
    """Those that could be read."""
    text: str | None = None
    """Visible text beside the calls; None when only calls are known."""
    errors: tuple[str, ...] = ()
    """Codes of the parse layer."""
    parser: str | None = None
    """Which format the calls were in; None without any."""

    @property
    def attempted(self) -> bool:
        """A call was made or tried: broken call syntax is no restraint."""
        return bool(self.calls) or bool(set(self.errors) - {"no_output", "truncated"})


@dataclass(slots=True)
class CallReader:
    """Collects calls of unknown shape and what was wrong with them."""

    calls: list[PredictedCall] = field(default_factory=list[PredictedCall])
    errors: list[str] = field(default_factory=list[str])

    def add(self, name: Any, arguments: Any, *, encoded_is_right: bool) -> None:
        """Take a call; ``encoded_is_right`` where the wire format has arguments as a JSON text."""
        if not isinstance(name, str) or not name:
            self.errors.append("wrong_wrapper")
            return
        if isinstance(arguments, str):
            if not encoded_is_right:
                self.errors.append("string_encoded_arguments")
            try:
                arguments = load_json(arguments) if arguments.strip() else {}
            except ValueError:
                self.errors.append("not_json")
                return
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            self.errors.append("arguments_not_object")
            return
        self.calls.append(PredictedCall(name, cast("dict[str, Any]", arguments)))


def read_calls(calls: Iterable[Any], text: str | None = None) -> Prediction:
    """Read calls given as ``{name, arguments}`` dicts or models, or in OpenAI form."""
    reader = CallReader()
    for call in calls:
        raw: Any = call.model_dump() if isinstance(call, BaseModel) else call
        if isinstance(raw, Mapping):
            fields = cast("Mapping[str, Any]", raw)
            inner = fields.get("function")
            is_openai = isinstance(inner, Mapping)
            body = cast("Mapping[str, Any]", inner) if is_openai else fields
            reader.add(body.get("name"), body.get("arguments"), encoded_is_right=is_openai)
        else:
            reader.add(getattr(raw, "name", None), getattr(raw, "arguments", None), encoded_is_right=False)
    parser = "calls" if reader.calls or reader.errors else None
    return Prediction(tuple(reader.calls), text, tuple(reader.errors), parser)


def load_json(text: str) -> Any:
    """Parse strict JSON.

    Raises:
        ValueError: If the text is no JSON, also for NaN and Infinity and nesting too deep to read.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
