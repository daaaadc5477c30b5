"""A Task API in trouble: planned failures of single calls, so that recovery can be learnt and replayed exactly.

The store itself never fails by chance; which call fails is part of a row (:attr:`Example.faults`).
"""

from collections.abc import Mapping
from typing import Any

from pipeline.core.messages import ToolCall
from pipeline.task_api.store import TaskStore

FAULTS = {
    "timeout": "The Task API did not answer in time. Nothing was changed.",
    "conflict": "The task was changed by someone else at the same moment. Nothing was changed; read it again.",
}
"""Error code of a planned failure, and the message that comes with it."""


def execute(store: TaskStore, call: ToolCall, faults: Mapping[str, str]) -> dict[str, Any]:
    """Return the planned failure of a call, by its id, or what the store answers."""
    code = faults.get(call.id or "")
    if code in FAULTS:
        return {"error": code, "message": FAULTS[code]}
    return store.call(call.name, call.arguments)
