"""Which operations are tools: a small default set for a client's context, whole groups by name, the rest on request.

A tool list costs every conversation its length, so the default set holds what the usual ways need, each with its main
fields only. ``operations_find`` and ``operations_call`` reach every other operation and field. Decision 0090.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.catalogue import CatalogueEntry
from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation
from pipeline.operations import OPERATIONS

# Operation -> the request fields a client sees; the others are accepted too and shown by operations_find.
DEFAULT_FIELDS: dict[str, tuple[str, ...]] = {
    "decide.recommend": (
        "use_case",
        "requests_per_day",
        "is_measurable",
        "num_examples",
        "stable_months",
        "costs",
    ),
    "vram.probe": (),
    "vram.estimate": ("model", "method", "quantization", "gpu", "max_length", "micro_batch_size"),
    "models.pull": ("model",),
    "synth.generate": ("out", "num_rows", "seed"),
    "data.inspect": ("file",),
    "data.validate": ("file",),
    "data.preview": ("data", "model"),
    "train.run": ("data", "model", "preset"),
    "train.curve": ("run_id",),
    "train.diagnose": ("run_id",),
    "evals.run": ("cases", "serve", "base_url", "model", "limit"),
    "evals.compare": ("before", "after"),
    "export.run": ("run", "name"),
    "deploy.serve": ("model", "port", "engine"),
    "agent.run": ("text", "base_url", "model"),
    "lesson.show": ("number",),
    "lesson.check": ("number", "folder"),
    "jobs.status": ("run_id", "wait_seconds"),
    "jobs.list": (),
    "jobs.logs": ("run_id", "tail", "grep"),
    "jobs.cancel": ("run_id",),
}
ALWAYS_LOADED = ("decide.recommend", "vram.estimate")
"""Entry points that a client which loads tools late should load at once."""
APP_URIS = {"train.curve": "ui://train/loss-curve.html"}
"""Tools that a client which renders MCP Apps shows as a page; all others get the numbers."""
DEFAULT_GROUP, ALL_GROUPS = "default", "all"


@dataclass(frozen=True, slots=True)
class Offer:
    """What one server offers."""

    groups: tuple[str, ...] = (DEFAULT_GROUP,)
    """``default``, ``all`` or operation groups such as ``data``; operations of named groups are shown whole."""
    read_only: bool = False
    """Leave out whatever changes something."""

    def tools(self) -> list[tuple[Operation[Any, Any], tuple[str, ...] | None]]:
        """Return the operations that are tools, each with the fields to show; None shows all of them."""
        loaded = ((entry, entry.load()) for entry in OPERATIONS if self._lists(entry))
        return [
            (operation, None if self._shows_whole(entry) else DEFAULT_FIELDS[entry.name])
            for entry, operation in loaded
            if self.allows(operation)
        ]

    def find_tool(self, name: str) -> Operation[Any, Any] | None:
        """Return the operation that a listed tool of that name runs."""
        entry = next((entry for entry in OPERATIONS if tool_name(entry.name) == name), None)
        if entry is None or not self._lists(entry) or not self.allows(operation := entry.load()):
            return None
        return operation

    def _lists(self, entry: CatalogueEntry) -> bool:
        return self._shows_whole(entry) or (DEFAULT_GROUP in self.groups and entry.name in DEFAULT_FIELDS)

    def _shows_whole(self, entry: CatalogueEntry) -> bool:
        return ALL_GROUPS in self.groups or entry.name.partition(".")[0] in self.groups

    def allows(self, operation: Operation[Any, Any]) -> bool:
        """True when a client of this server may call the operation, listed or not."""
        return "mcp" in operation.surfaces and (operation.read_only or not self.read_only)

    def entry(self, name: str) -> CatalogueEntry | None:
        """Find an operation by its name or its tool name."""
        return next((entry for entry in OPERATIONS if name in {entry.name, tool_name(entry.name)}), None)

    @classmethod
    def of_groups(cls, names: Iterable[str], *, read_only: bool = False) -> "Offer":
        """Check group names as given on the command line.

        Raises:
            InvalidInputError: If a group does not exist.
        """
        known = {DEFAULT_GROUP, ALL_GROUPS, *(entry.name.partition(".")[0] for entry in OPERATIONS)}
        wanted = tuple(names) or (DEFAULT_GROUP,)
        if unknown := sorted(set(wanted) - known):
            raise InvalidInputError(
                f"unknown tool groups {unknown}", hint=f"Choose from {', '.join(sorted(known))}."
            )
        return cls(groups=wanted, read_only=read_only)


def tool_name(operation_name: str) -> str:
    """Return the tool name of an operation: ``group.verb`` is ``group_verb``."""
    return operation_name.replace(".", "_")
