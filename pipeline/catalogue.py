"""An entry of the catalogue: where an operation lives and what it does, without importing it."""

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from pipeline.core.operation import Operation


class CatalogueEntry(NamedTuple):
    """Where an operation lives and what it does, without importing it."""

    name: str
    target: str
    summary: str
    quick: str = ""
    """`module:function` that may answer a command line before the operation is loaded; it returns None if not."""

    def load(self) -> "Operation[Any, Any]":
        """Import the module and return its operation."""
        module, _, constant = self.target.partition(":")
        return cast("Operation[Any, Any]", getattr(importlib.import_module(module), constant))

    def answer_quickly(self, argv: list[str]) -> int | None:
        """Let the entry's quick function answer a command line; None when it has none or leaves it."""
        if not self.quick:
            return None
        module, _, function = self.quick.partition(":")
        return cast("int | None", getattr(importlib.import_module(module), function)(argv))


GROUP_SUMMARIES: dict[str, str] = {
    "quickstart": "the whole chain, from weights to a served agent",
    "doctor": "is this machine ready?",
    "vram": "will it fit?",
    "decide": "prompt, retrieve, fine-tune or both?",
    "economics": "does it pay?",
    "models": "base models",
    "data": "inspect, validate, preview, convert, clean, split, report",
    "synth": "make conversations with exact ground truth",
    "train": "fine-tune",
    "evals": "measure, with intervals",
    "export": "adapter, merged model, GGUF, and the proof that they are equal",
    "deploy": "serve a model",
    "agent": "OpenAI Agents SDK on a served model",
    "lesson": "the course: 49 lessons with guides and acceptance checks",
    "jobs": "watch, cancel and resume long operations",
}
