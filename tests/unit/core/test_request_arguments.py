"""Flags, positionals and --request become one request."""

import io
import json
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.request_arguments import read_request


class Recipe(Part):
    """A nested part."""

    rank: int = 8
    """Rank."""


class PaintRequest(Request):
    """What to paint."""

    target: str = ""
    """What to paint (100% of it)."""
    colours: tuple[str, ...] = ()
    """Colours."""
    coats: int = 1
    """How many coats."""
    dry: bool = True
    """Wait until dry."""
    finish: Literal["matt", "gloss"] | None = None
    """Finish."""
    recipe: Recipe | None = None
    """Nested."""
    note: str | None = None
    """Free text, which may look like [JSON]."""
    shades: dict[str, list[int]] = {}
    """A mapping."""


def paint(request: PaintRequest) -> Result:
    """Paint."""
    return Result(next_step=request.target)


PAINT = Operation(name="demo.paint", request=PaintRequest, result=Result, run=paint, positional=("target",))


def parse(*argv: str) -> PaintRequest:
    values, _ = read_request(PAINT, list(argv))
    return PAINT.parse(values)


def test_defaults_stay_when_nothing_is_given() -> None:
    assert parse() == PaintRequest()


@pytest.mark.parametrize(
    "argv",
    [
        ("wall", "--coats", "2"),
        ("--coats", "2", "wall"),
        ("--coats=2", "--target", "wall"),
        ("--target=wall", "--coats", "2"),
    ],
)
def test_a_positional_may_stand_anywhere_or_be_a_flag(argv: tuple[str, ...]) -> None:
    assert parse(*argv) == PaintRequest(target="wall", coats=2)


@pytest.mark.parametrize(
    ("argv", "colours"),
    [
        (("--colours", "red"), ("red",)),
        (("--colours", "red,blue"), ("red", "blue")),
        (("--colours", "red", "--colours", "blue"), ("red", "blue")),
        (("--colours", '["a,b", "c"]'), ("a,b", "c")),
        (("--colours", ""), ()),
    ],
)
def test_lists_are_repeated_flags_commas_or_json(argv: tuple[str, ...], colours: tuple[str, ...]) -> None:
    assert parse(*argv).colours == colours


def test_booleans_nested_values_and_choices() -> None:
    request = parse("--no-dry", "--recipe", '{"rank": 4}', "--finish", "gloss")
    assert request == PaintRequest(dry=False, recipe=Recipe(rank=4), finish="gloss")


def test_text_that_looks_like_json_stays_text() -> None:
    assert parse("--note", "[x] done").note == "[x] done"


def test_flags_overrule_the_request_file(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"target": "wall", "coats": 3}), encoding="utf-8")
    assert parse("--request", str(file), "--coats", "5") == PaintRequest(target="wall", coats=5)


def test_a_dash_reads_the_request_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"coats": 4}'))
    assert parse("--request", "-").coats == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_a_request_file_that_is_not_an_object_is_invalid_input(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "request.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message):
        parse("--request", str(file))


def test_a_request_file_that_cannot_be_read_is_invalid_input(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing.json", "binary", "."):
        with pytest.raises(InvalidInputError, match="cannot read the request"):
            parse("--request", str(tmp_path / name))


@pytest.mark.parametrize(
    "argv",
    [("--coat", "2"), ("--unknown",), ("--coats",), ("wall", "floor"), ("--finish", "rough"), ("--detach",)],
)
def test_wrong_arguments_are_invalid_input_with_a_hint(argv: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(*argv)
    assert "llmops demo paint --help" in caught.value.hint


def test_help_names_every_field_its_default_and_its_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for expected in (
        "TARGET",
        "100% of it",
        "--colours",
        "(default: 1)",
        "--dry, --no-dry",
        "One of: matt, gloss.",
    ):
        assert expected in shown


def test_only_a_long_operation_can_be_detached() -> None:
    def slow(request: PaintRequest, run: Any) -> Result:
        """Slow."""
        return Result()

    slow_operation = Operation(
        name="demo.slow", request=PaintRequest, result=Result, run=slow, long_running=True
    )
    _, options = read_request(slow_operation, ["--detach", "--json"])
    assert options.detach
    assert options.json


def test_a_mapping_is_given_as_json() -> None:
    values, _ = read_request(PAINT, ["--shades", '{"red": [1, 2]}'])
    assert values == {"shades": {"red": [1, 2]}}
