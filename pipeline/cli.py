"""CLI adapter: ``llmops GROUP VERB``, one flag per request field.

Prints the result as one JSON object on stdout (a readable form on a terminal), everything else on stderr, and
exits 0 ok, 1 negative answer, 2 invalid input, 3 missing dependency, 4 does not fit, 5 internal error. Help for the
top level and groups is made from the catalogue alone, so it starts fast.
"""

import os
import sys
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

from pipeline.catalogue import GROUP_SUMMARIES
from pipeline.operations import OPERATIONS, find_operation

if TYPE_CHECKING:
    from collections.abc import Generator

    from pipeline.core.operation import Operation, Result

_USAGE_EXIT = 2
_PIPE_CLOSED_EXIT = 141
"""128 + SIGPIPE, what a shell shows for any program whose reader has gone."""


def entry_point() -> None:
    """Console script ``llmops``."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # `llmops ... | head` has read enough: nothing is left to say, not even at the flush when Python exits.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        status = _PIPE_CLOSED_EXIT
    sys.exit(status)


def main(argv: list[str]) -> int:
    """Run one command and return its exit status."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(_overview())  # noqa: T201
        return 0 if argv else _USAGE_EXIT
    if argv[0] == "--version":
        from pipeline import __version__

        print(f"llmops {__version__}")  # noqa: T201
        return 0
    verbs = [entry for entry in OPERATIONS if entry.name.split(".")[0] == argv[0]]
    if not verbs:
        return _usage_error(f"unknown group {argv[0]!r}", "Run `llmops --help` for the groups.")
    if len(argv) == 1 or argv[1] in {"-h", "--help"}:
        print(_group_help(argv[0]))  # noqa: T201
        return 0 if len(argv) > 1 else _USAGE_EXIT
    if argv[:2] == ["jobs", "work"] and len(argv) == 3:
        return _work(argv[2])
    found = next((entry for entry in verbs if entry.name == ".".join(argv[:2])), None)
    if found is None:
        return _usage_error(f"unknown command {' '.join(argv[:2])!r}", f"Run `llmops {argv[0]} --help`.")
    if (status := found.answer_quickly(argv[2:])) is not None:
        return status
    return _run_operation(find_operation(".".join(argv[:2])), argv[2:])


def _overview() -> str:
    lines = [
        "usage: llmops GROUP VERB [options]",
        "",
        "Make a language model your own: data, fine-tune, evaluate, export, serve, agent.",
        "",
        "groups:",
    ]
    groups = dict.fromkeys(entry.name.split(".")[0] for entry in OPERATIONS)
    lines += [f"  {group:<12}{GROUP_SUMMARIES[group]}" for group in groups]
    lines += [
        "",
        "Every command takes --request FILE|- (the whole request as JSON), --json and --help.",
        "",
        "examples:",
        "  llmops quickstart run                     everything, resumable",
        "  llmops models pull smollm2-135m",
        "  llmops deploy serve --model models/task-agent --port 8080",
        '  llmops agent run "Remind me to call Priya on Friday"',
        "  llmops jobs list",
    ]
    return "\n".join(lines)


def _group_help(group: str) -> str:
    lines = [f"usage: llmops {group} VERB [options]", "", f"{group}: {GROUP_SUMMARIES[group]}", "", "verbs:"]
    for entry in OPERATIONS:
        if entry.name.split(".")[0] == group:
            lines.append(f"  {entry.name.split('.')[1]:<12}{entry.summary}")
    return "\n".join([*lines, "", f"`llmops {group} VERB --help` explains the fields."])


def _usage_error(message: str, hint: str) -> int:
    from pipeline.core.errors import InvalidInputError

    print(InvalidInputError(message, hint=hint).to_json(), file=sys.stderr)  # noqa: T201
    return _USAGE_EXIT


def _run_operation(operation: "Operation[Any, Any]", argv: list[str]) -> int:
    from pipeline.core.errors import PipelineError
    from pipeline.core.jobs import submit
    from pipeline.request_arguments import read_request

    try:
        values, options = read_request(operation, argv)
        request = operation.parse(values)
        if options.detach:
            result = submit(operation, request)
        else:
            with _output_on_stderr() if "mcp" in operation.surfaces else nullcontext():
                result = operation.execute(request)
    except PipelineError as error:
        print(error.to_json(), file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return _report_interrupt(operation)
    except Exception as error:  # noqa: BLE001 - the outermost border: a bug becomes exit status 5, never a silent 1
        return _report_bug(error)
    _print_result(result, as_json=options.json or not sys.stdout.isatty())
    return 1 if result.is_negative() else 0


@contextmanager
def _output_on_stderr() -> "Generator[None]":
    """Send what libraries and child processes print to stderr: stdout is for the one result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _report_interrupt(operation: "Operation[Any, Any]") -> int:
    resumable = operation.long_running
    text = "Interrupted." + (
        " `llmops jobs list` shows the run, `llmops jobs resume RUN` continues it." if resumable else ""
    )
    print(f"\n{text}", file=sys.stderr)  # noqa: T201
    return 130


def _report_bug(error: Exception) -> int:
    import traceback

    from pipeline.core.errors import PipelineError

    traceback.print_exception(error, file=sys.stderr)
    wrapped = PipelineError(
        f"{type(error).__name__}: {error}", hint="This is a bug; please report the lines above."
    )
    print(wrapped.to_json(), file=sys.stderr)  # noqa: T201
    return wrapped.exit_code


def _print_result(result: "Result", *, as_json: bool) -> None:
    if as_json:
        print(result.model_dump_json())  # noqa: T201
        return
    from pipeline.render import render_result

    render_result(result)


def _work(run_id: str) -> int:
    """Body of a detached worker: run the operation of a run directory."""
    from pipeline.core.errors import PipelineError
    from pipeline.core.files import read_json
    from pipeline.core.lifeline import end_with_parent
    from pipeline.core.runs import Run
    from pipeline.core.settings import Settings

    if Settings.load().stop_on_stdin_close:
        end_with_parent()
    try:
        run = Run.open(run_id)
        operation = find_operation(run.manifest()["operation"])
        result = operation.execute(operation.parse(read_json(run.path / "request.json")), run)
    except PipelineError as error:
        print(error.to_json(), file=sys.stderr)  # noqa: T201
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - as above; the run directory has recorded it
        return _report_bug(error)
    return 1 if result.is_negative() else 0
