"""Command line -> request values: flags made from the request model, ``--request FILE|-`` underneath them."""

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation

_PREFIX = "field:"


class CliOptions(NamedTuple):
    """What the command line says besides the request."""

    json: bool
    detach: bool


def read_request(operation: Operation[Any, Any], argv: list[str]) -> tuple[dict[str, Any], CliOptions]:
    """Parse the arguments after ``GROUP VERB``.

    Raises:
        InvalidInputError: If a flag is unknown or lacks its value, or the request file is not one JSON object.
    """
    # "Intermixed" because a positional may also follow flags, which plain parsing gets wrong before Python 3.13.
    arguments = vars(_build_parser(operation).parse_intermixed_args(argv))
    values = _read_file(arguments["request"]) if arguments["request"] else {}
    for key, given in arguments.items():
        if key.startswith(_PREFIX):
            name = key.removeprefix(_PREFIX)
            values[name] = _convert(operation.request.model_fields[name], given)
    return values, CliOptions(json=arguments["json"], detach=arguments.get("detach", False))


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments like every other wrong input."""

    def error(self, message: str) -> NoReturn:
        raise InvalidInputError(message, hint=f"See `{self.prog} --help` for the fields.")


def _build_parser(operation: Operation[Any, Any]) -> argparse.ArgumentParser:
    command = operation.name.replace(".", " ")
    docstring = inspect.getdoc(operation.run) or ""
    parser = _Parser(
        prog=f"llmops {command}",
        allow_abbrev=False,
        description=docstring.partition("Raises:")[0].strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fields = operation.request.model_fields
    for name in operation.positional:
        # Without a value it leaves the flag of the same field alone.
        parser.add_argument(
            f"{_PREFIX}{name}",
            nargs="*" if _is_repeatable(fields[name]) else "?",
            default=argparse.SUPPRESS,
            metavar=name.upper(),
            help=_help(fields[name]),
        )
    for name, field in fields.items():
        options: dict[str, Any] = {"metavar": "VALUE", "help": _help(field), "default": argparse.SUPPRESS}
        if field.annotation is bool:
            options = {**options, "action": argparse.BooleanOptionalAction}
            del options["metavar"]
        elif _is_repeatable(field):
            options["action"] = "append"
        if name in operation.positional:
            options["help"] = argparse.SUPPRESS
        parser.add_argument("--" + name.replace("_", "-"), dest=f"{_PREFIX}{name}", **options)
    parser.add_argument("--request", metavar="FILE|-", help="the whole request as JSON; flags overrule it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON also on a terminal")
    if operation.long_running:
        parser.add_argument(
            "--detach", action="store_true", help="start as a background job and return its run id"
        )
    return parser


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if choices := _choices(field.annotation):
        text += f" One of: {', '.join(choices)}."
    default: Any = (
        None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    )
    if default not in (None, "", (), []):
        shown = ",".join(map(str, default)) if isinstance(default, list | tuple) else default  # pyright: ignore[reportUnknownArgumentType] - Any at a JSON border
        text += f" (default: {shown})"
    return text.replace("%", "%%")


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _is_repeatable(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in {list, tuple}


def _convert(field: FieldInfo, given: Any) -> Any:
    # Repeated flags and comma lists both make a list; nested values come as JSON text.
    if isinstance(given, list):
        texts = [str(text) for text in given]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if len(texts) == 1 and texts[0].startswith("["):
            return _parse_json(texts[0])
        return [part for text in texts for part in text.split(",") if part]
    if (
        isinstance(given, str)
        and given[:1] in {"{", "["}
        and (
            get_origin(field.annotation) is dict or str not in (field.annotation, *get_args(field.annotation))
        )
    ):
        return _parse_json(given)
    return given


def _read_file(source: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"cannot read the request {source!r}: {error}", hint="Pass a JSON file, or - for stdin."
        ) from error
    values = _parse_json(text)
    if not isinstance(values, dict):
        raise InvalidInputError(
            "the request is not a JSON object", hint='Pass an object such as {"field": value}.'
        )
    return values  # pyright: ignore[reportUnknownVariableType]


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"not valid JSON: {error}", hint="Check quotes and commas.") from error
