"""Checks of chapter 66, Agentic and Function-Calling: outputs parsed again, calls executed again, rates with intervals."""

import json
from typing import Any, cast

from pipeline.core.files import read_json
from pipeline.core.paths import resolve_path
from pipeline.core.runs import Run
from pipeline.data.preview import DATA_PREVIEW
from pipeline.evals.intervals import wilson
from pipeline.lessons.checks.chapter_63 import (
    inspect,
    require_groups,
    require_replay,
    require_valid,
    require_variety,
)
from pipeline.lessons.checks.chapter_64 import (
    require_bound,
    require_learning,
    require_one_model,
    require_spec,
    require_spec_first,
    training_run,
)
from pipeline.lessons.checks.computed import find_run, is_close
from pipeline.lessons.work import Work
from pipeline.train.curve import open_training_run

RATES = ("well_formed", "right_tools", "right_arguments", "right_state")
_MIN_OUTPUTS = 10
_MIN_TOOL_ROWS = 100
_AGENT = 'llmops agent run "TEXT"'


def check_66_1(work: Work) -> None:
    """Outputs judged by a schema: the learner's verdicts are the validator's."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    step = (
        "Write schema.json, and outputs.jsonl with {text, valid} for ten outputs of a model or of your own."
    )
    schema = work.read_json("schema.json", next_step=step)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise work.stop("schema.json is a JSON Schema", reason=str(error.message), next_step=step) from error
    validator = Draft202012Validator(schema)
    rows = work.read_rows("outputs.jsonl", next_step=step)
    wrong = [
        index for index, row in enumerate(rows, start=1) if row.get("valid") is not _is_valid(validator, row)
    ]
    work.require(
        "every verdict is the validator's",
        not wrong,
        reason=f"lines {wrong[:5]}",
        next_step="A sentence around the JSON, a missing field, a word for a date: all are invalid.",
    )
    counts = [sum(row.get("valid") is value for row in rows) for value in (True, False)]
    work.require(
        f"{_MIN_OUTPUTS} outputs, three or more of each kind",
        len(rows) >= _MIN_OUTPUTS and min(counts) >= 3,
        reason=f"{counts[0]} valid, {counts[1]} invalid",
        next_step="Add outputs that nearly pass.",
    )
    work.require(
        "the schema forbids what it does not name and demands something",
        schema.get("additionalProperties") is False and schema.get("required"),
        reason=f"required {schema.get('required')}",
        next_step="An open schema accepts nearly everything.",
    )


def _is_valid(validator: Any, row: dict[str, Any]) -> bool:
    try:
        value: object = json.loads(str(row.get("text")))
    except ValueError:
        return False
    return bool(validator.is_valid(value))


def check_66_2(work: Work) -> None:
    """Tool definitions that can be called, and rows whose calls pass them."""
    rows_path = require_valid(work, "rows.jsonl", 5)
    rows = work.read_rows("rows.jsonl", next_step="Write rows with `tools`, calls and results.")
    tools = [
        tool["function"] for row in rows for tool in cast("list[dict[str, Any]]", row.get("tools") or [])
    ]
    create = next((tool for tool in tools if tool.get("name") == "create_task"), dict[str, Any]())
    parameters = cast("dict[str, Any]", create.get("parameters") or {})
    priority = cast("dict[str, Any]", parameters.get("properties", {}).get("priority") or {})
    work.require(
        "create_task wants a title and knows three priorities",
        "title" in parameters.get("required", [])
        and set(priority.get("enum", [])) == {"low", "medium", "high"},
        reason=f"required {parameters.get('required')}, priorities {priority.get('enum')}",
        next_step="See pipeline/task_api/tools.json.",
    )
    facts = inspect(work, rows_path)
    roles = facts["turns_by_role"]
    work.require(
        "calls, their results and a reply after them are shown",
        facts["calls_by_tool"]
        and roles.get("tool", 0) > 0
        and roles.get("assistant", 0) > roles.get("tool", 0),
        reason=f"turns: {roles}",
        next_step="A conversation goes on after the result: the reply is trained too.",
    )
    invented = [row.get("id", index) for index, row in enumerate(rows, start=1) if _invents(row)]
    work.require(
        "no call has a priority that nobody asked for",
        not invented,
        reason=f"rows {invented[:5]}",
        next_step="Leave optional arguments out when the user did not give them.",
    )


def _invents(row: dict[str, Any]) -> bool:
    messages = cast("list[dict[str, Any]]", row.get("messages") or [])
    said = " ".join(str(m.get("content")) for m in messages if m.get("role") == "user").lower()
    calls = [call for m in messages for call in cast("list[dict[str, Any]]", m.get("tool_calls") or [])]
    urgent = ("urgent", "asap", "important", "critical", "whenever", "no rush")
    for call in calls:
        arguments = call["function"]["arguments"]
        values = json.loads(arguments) if isinstance(arguments, str) else arguments
        wanted = str(values.get("priority", ""))
        if wanted and wanted not in said and not any(word in said for word in urgent):
            return True
    return False


def check_66_3(work: Work) -> None:
    """Tool rows: executed, varied, with several calls, with failures, and with requests that need none."""
    path = require_valid(work, "tool_rows.jsonl", _MIN_TOOL_ROWS)
    rows = work.read_rows(
        "tool_rows.jsonl", next_step="llmops synth generate --out learning/66.3 --num-rows 200 --mix full"
    )
    require_replay(work, path)
    require_groups(work, rows)
    require_variety(work, "tool_rows.jsonl", rows)
    counts = {
        "rows with two calls or more": sum(_num_calls(row) >= 2 for row in rows),
        "rows whose call fails": sum('"error"' in _results(row) for row in rows),
        "rows that need no call": sum(_num_calls(row) == 0 for row in rows),
    }
    for what, count in counts.items():
        work.require(
            f"{what}: three at least",
            count >= 3,
            reason=f"{count} of {len(rows)}",
            next_step="Add such conversations.",
        )


def _num_calls(row: dict[str, Any]) -> int:
    return sum(len(message.get("tool_calls") or []) for message in row.get("messages", []))


def _results(row: dict[str, Any]) -> str:
    return " ".join(str(m.get("content")) for m in row.get("messages", []) if m.get("role") == "tool")


def check_66_4(work: Work) -> None:
    """A training run on rows with tools, whose training text shows the tools and whose loss fell."""
    claim = work.read_json("training.json", next_step='Write {"run": RUN, "num_call_rows": N}.')
    run, _ = training_run(work, claim.get("run"))
    request = read_json(run.path / "request.json")
    data = resolve_path(request["data"])
    train = data / "train.jsonl" if data.is_dir() else data
    facts = inspect(work, train)
    work.require(
        "the number of rows with tools is the file's",
        facts["num_rows_with_tools"] > 0 and claim.get("num_call_rows") == facts["num_rows_with_tools"],
        reason=f"{facts['num_rows_with_tools']} rows with tools",
        next_step=f"llmops data inspect {train}",
    )
    preview = {"data": str(train), "model": request["model"], "num_rows": 2}
    shown = work.call(DATA_PREVIEW, preview, next_step=f"llmops data preview {train}").model_dump(mode="json")
    work.require(
        "no turn and no call is lost in the template",
        shown["num_refused"] == 0 and shown["num_untrained"] == 0,
        reason=f"{shown['num_refused']} refused, {shown['num_untrained']} untrained",
        next_step="Take a model whose template knows tools.",
    )
    require_learning(work, open_training_run(run.id).curve)


def details_of(run: Run) -> list[dict[str, Any]]:
    """Return the turns of an evaluation."""
    return [
        json.loads(line)
        for line in (run.artifacts / "details.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def count_check(rows: list[dict[str, Any]], name: str) -> tuple[int, int, float]:
    """Return right, total and the lower bound of one check over the turns that have it."""
    values = [bool(row["checks"][name]) for row in rows if name in row.get("checks", {})]
    return sum(values), len(values), wilson(sum(values), len(values))[0] or 0.0


def check_66_5(work: Work) -> None:
    """Four rates, each counted again from the turns, each with its interval."""
    step = "llmops evals run --cases datasets/tool_calls/test.jsonl --serve models/task-agent"
    report = work.read_json("tool_eval.json", next_step=f"{step}; then write run and the four rates.")
    run, _ = find_run(work, report.get("run"), "evals.run", next_step=step)
    rows = details_of(run)
    for name in RATES:
        right, total, low = count_check(rows, name)
        said = cast("dict[str, Any]", report.get(name) or {})
        expected = {"right": right, "total": total, "low": low}
        work.require(
            f"{name}: counted and with its lower bound",
            total > 0 and all(is_close(said.get(key), value, 2e-3) for key, value in expected.items()),
            reason=f"counted {right} of {total}, lower bound {low:.4f}",
            next_step="Copy right, total and low of the run's result.",
        )
    silent = sum(row["kind"] == "reply" or not row["gold"].get("tool_calls") for row in rows)
    work.require(
        "requests that need no call are in the test",
        silent > 0,
        reason=f"{silent} turns without a call",
        next_step="A model that always calls would look perfect otherwise.",
    )


def agent_run(work: Work, run_id: object) -> dict[str, Any]:
    """Return the result of a succeeded agent run.

    Raises:
        NotYetError: If there is none.
    """
    return find_run(work, run_id, "agent.run", next_step=_AGENT)[1]


def check_66_6(work: Work) -> None:
    """The Agents SDK talked to a local server, called a tool that worked, and answered."""
    claim = work.read_json("agent.json", next_step=f'{_AGENT}, then write {{"run": RUN}}.')
    result = agent_run(work, claim.get("run"))
    worked = [
        item
        for item in result["items"]
        if item.get("tool") and "error" not in (item.get("result") or {"error": 1})
    ]
    work.require(
        "a tool was called and worked",
        worked,
        reason=f"{len(result['items'])} items",
        next_step="Ask for something that needs a tool.",
    )
    work.require(
        "the model ran on this machine or your network",
        "openai.com" not in result["base_url"],
        reason=result["base_url"],
        next_step="llmops deploy serve, or Ollama on 11434.",
    )
    ids = [str(item["result"]["task"]["id"]) for item in worked if "task" in (item.get("result") or {})]
    work.require(
        "the reply rests on what the tool returned",
        not ids or any(number in result["output"] for number in ids),
        reason=f"reply: {result['output'][:100]!r}",
        next_step="Look at the reply: an id that the tool never returned is invented.",
    )


def check_66_7(work: Work) -> None:
    """Four situations that go wrong, each met by asking, explaining or mending."""
    step = f'Write scenarios.json: {{"missing_title", "unknown_id", "invalid_priority", "two_requests": RUN}}; {_AGENT}'
    scenarios = work.read_json("scenarios.json", next_step=step)
    found = {
        name: agent_run(work, scenarios.get(name))
        for name in ("missing_title", "unknown_id", "invalid_priority", "two_requests")
    }
    calls = {name: [item for item in result["items"] if item.get("tool")] for name, result in found.items()}
    work.require(
        "without a title it asks and creates nothing",
        not any(item["tool"] == "create_task" for item in calls["missing_title"])
        and "?" in found["missing_title"]["output"],
        reason=found["missing_title"]["output"][:120],
        next_step="Add rows that ask, and train again.",
    )
    missing = [item for item in calls["unknown_id"] if _error_of(item) == "not_found"]
    work.require(
        "an unknown id is tried, explained, and not claimed as done",
        missing and any(str(v) in found["unknown_id"]["output"] for v in _numbers(missing)),
        reason=found["unknown_id"]["output"][:120],
        next_step="The reply names the id that does not exist.",
    )
    allowed = {None, "low", "medium", "high"}
    priorities = {
        item["arguments"].get("priority") for item in calls["invalid_priority"] if not _failed(item)
    }
    work.require(
        "a priority that does not exist is never stored",
        priorities <= allowed,
        reason=f"stored {sorted(map(str, priorities))}",
        next_step="The tool refuses it; the agent asks or takes none.",
    )
    work.require(
        "two requests in one sentence are both done",
        sum(not _failed(item) for item in calls["two_requests"]) >= 2,
        reason=f"{len(calls['two_requests'])} calls",
        next_step="Add rows with two calls.",
    )


def _failed(item: dict[str, Any]) -> bool:
    return bool(_error_of(item))


def _error_of(item: dict[str, Any]) -> str:
    """Return the error of a tool item; one without any result counts as failed."""
    return str(cast("dict[str, Any]", item.get("result") or {"error": "no_result"}).get("error", ""))


def _numbers(items: list[dict[str, Any]]) -> list[int]:
    given = (cast("dict[str, Any]", item.get("arguments") or {}) for item in items)
    return [value for arguments in given for value in arguments.values() if isinstance(value, int)]


def check_66_8(work: Work) -> None:
    """The capstone: one model from spec to agent, tool accuracy and valid JSON by their lower bounds."""
    gates = require_spec(work, ("min_tool_accuracy", "min_valid_json", "max_latency_ms"))
    runs = work.read_json("runs.json", next_step='Write {"train", "export", "evaluate", "agent": RUN}.')
    train, _ = training_run(work, runs.get("train"))
    _, exported = find_run(work, runs.get("export"), "export.run", next_step="llmops export run run:RUN")
    measured, result = find_run(
        work, runs.get("evaluate"), "evals.run", next_step="llmops evals run --cases TEST"
    )
    require_spec_first(work, train)
    require_one_model(work, train, exported, measured)
    rows = details_of(measured)
    require_bound(work, "right tools", count_check(rows, "right_tools"), float(gates["min_tool_accuracy"]))
    require_bound(work, "valid JSON", count_check(rows, "well_formed"), float(gates["min_valid_json"]))
    silent = [row for row in rows if row["kind"] == "reply" or not row["gold"].get("tool_calls")]
    work.require(
        "restraint was measured",
        silent,
        reason=f"{len(silent)} turns need no call",
        next_step="Test requests without calls.",
    )
    later = sum(row["turn"] > 0 for row in rows)
    work.require(
        "later turns were measured",
        later,
        reason=f"{later} turns",
        next_step="Test conversations, not sentences.",
    )
    agent = agent_run(work, runs.get("agent"))
    work.require(
        "an agent works with it",
        any(not _failed(item) for item in agent["items"] if item.get("tool")),
        reason=f"{len(agent['items'])} items",
        next_step=_AGENT,
    )
    latency = cast("dict[str, Any]", result.get("latency") or {})
    p95 = next((value for name, value in latency.items() if "p95" in name), None)
    work.require(
        "fast enough on this machine, or the hardware that is is named",
        (isinstance(p95, (int, float)) and p95 <= float(gates["max_latency_ms"]))
        or gates.get("latency_hardware"),
        reason=f"p95 {p95} ms",
        next_step="Name in latency_hardware where the limit holds.",
    )
