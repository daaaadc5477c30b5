"""``evals.import``: cases in the neutral format out of other formats. Does not judge whether the cases are good."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspacePath, resolve_path, shown_path
from pipeline.evals.cases import Case, describe_error, write_case_file
from pipeline.evals.importers import ROW_IMPORTERS, import_bfcl, import_mcp_tools
from pipeline.evals.tool_calls.prediction import load_json

_ROW_ERRORS = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
)  # any JSON may stand in a line
_HINT = "See docs/guides/evaluate.md for the formats and --format for their names."


class EvalImportRequest(Request):
    """What to import."""

    source: WorkspacePath = Field(min_length=1)
    """File to read: JSON Lines, or JSON for `mcp`."""
    out: WorkspacePath = Field(min_length=1)
    """Case file to write."""
    format: Literal["own", "openai", "sharegpt", "bfcl", "mcp"]
    """`own`: rows of `synth generate`; `mcp`: the answer of tools/list."""
    answers: WorkspacePath | None = None
    """BFCL answers; default possible_answer/ beside the questions."""


class EvalImportResult(Result):
    """What was written."""

    cases: str
    """Case file."""
    num_cases: int
    """Cases written."""
    kinds: dict[str, int]
    """Cases by expected kind."""


def import_cases(request: EvalImportRequest) -> EvalImportResult:
    """Turn rows, BFCL files or an MCP tool list into evaluation cases.

    Raises:
        InvalidInputError: If the file is missing, empty or not of the format; lines are named.
    """
    source = resolve_path(request.source)
    if request.format == "mcp":
        cases = _read_one(source, import_mcp_tools)
    elif request.format == "bfcl":
        cases = _read_bfcl(source, resolve_path(request.answers) if request.answers else None)
    else:
        importer = ROW_IMPORTERS[request.format]
        cases = [
            case for number, row in _read_rows(source) for case in _convert(importer, source, number, row)
        ]
    if not cases:
        raise InvalidInputError(f"{source} holds no case", hint=_HINT)
    twice = [identity for identity, count in Counter(case.id for case in cases).items() if count > 1]
    if twice:
        raise InvalidInputError(
            f"id {twice[0]!r} occurs twice in {source.name}", hint="Give each row its own id."
        )
    write_case_file(resolve_path(request.out), cases)
    out = shown_path(resolve_path(request.out))
    return EvalImportResult(
        cases=out,
        num_cases=len(cases),
        kinds=dict(Counter(case.expected.kind for case in cases)),
        next_step=f"llmops evals score --cases {out} --predictions FILE",
    )


EVALS_IMPORT = Operation(
    name="evals.import",
    request=EvalImportRequest,
    result=EvalImportResult,
    run=import_cases,
    positional=("source",),
)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read {path}: {error}", hint=_HINT) from error


def _read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = load_json(line)
        except ValueError as error:
            raise _refuse(path, number, error) from error
        if not isinstance(row, dict):
            raise InvalidInputError(f"{path.name}:{number}: a line is one JSON object", hint=_HINT)
        rows.append((number, row))  # pyright: ignore[reportUnknownArgumentType]  # keys of JSON objects are texts
    return rows


def _read_one(path: Path, importer: Callable[[Any], list[Case]]) -> list[Case]:
    try:
        return importer(load_json(_read_text(path)))
    except _ROW_ERRORS as error:
        raise InvalidInputError(f"{path.name}: {describe_error(error)}", hint=_HINT) from error


def _read_bfcl(path: Path, answers_path: Path | None) -> list[Case]:
    category = path.stem.removeprefix("BFCL_v4_").removeprefix("BFCL_v3_")
    if any(part in category for part in ("java", "multi_turn", "memory", "web_search", "format_sensitivity")):
        raise InvalidInputError(
            f"{path.name} cannot be imported: only single-turn Python categories are single calls to compare",
            hint="Take simple_python, multiple, parallel, parallel_multiple, irrelevance or a live file.",
        )
    beside = path.parent / "possible_answer" / path.name
    found = answers_path or (beside if beside.exists() else None)
    answers = {row.get("id"): row for _, row in _read_rows(found)} if found else {}
    return [
        case
        for number, row in _read_rows(path)
        for case in _convert(lambda r, _: [import_bfcl(r, answers.get(r["id"]), category)], path, number, row)
    ]


def _convert(
    importer: Callable[[dict[str, Any], int], list[Case]], path: Path, number: int, row: dict[str, Any]
) -> list[Case]:
    try:
        return importer(row, number)
    except _ROW_ERRORS as error:
        raise _refuse(path, number, error) from error


def _refuse(path: Path, number: int, error: Exception) -> InvalidInputError:
    return InvalidInputError(f"{path.name}:{number}: {describe_error(error)}", hint=_HINT)
