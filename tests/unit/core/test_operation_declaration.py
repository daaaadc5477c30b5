"""An operation: closed requests, one error for wrong input, a run directory when it is long."""

from pathlib import Path

import pytest
from pydantic import Field

from pipeline.core.errors import InvalidInputError, OperationFailedError
from pipeline.core.files import read_json
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.runs import Run, list_runs


class HalveRequest(Request):
    """What to halve."""

    number: int = Field(ge=0)
    """An even number."""


class HalveResult(Result):
    """The half."""

    half: int
    """Half of the number."""

    def is_negative(self) -> bool:
        return self.half == 0


def halve(request: HalveRequest) -> HalveResult:
    """Halve an even number.

    More words that are not the summary.
    """
    return HalveResult(half=request.number // 2)


def halve_slowly(request: HalveRequest, run: Run) -> HalveResult:
    """Halve an even number in a run directory."""
    if request.number % 2:
        raise OperationFailedError("odd", hint="Pass an even number.")
    (run.artifacts / "half.txt").write_text(str(request.number // 2), encoding="utf-8")
    return HalveResult(half=request.number // 2)


HALVE = Operation(name="demo.halve", request=HalveRequest, result=HalveResult, run=halve)
HALVE_SLOWLY = Operation(
    name="demo.halve_slowly", request=HalveRequest, result=HalveResult, run=halve_slowly, long_running=True
)


def test_a_short_operation_answers_and_leaves_no_run_behind(workspace: Path) -> None:
    assert HALVE.call({"number": 8}).half == 4
    assert HALVE.summary == "Halve an even number."
    assert list_runs() == []


def test_a_long_operation_leaves_its_request_result_and_artifacts_in_a_run(workspace: Path) -> None:
    assert HALVE_SLOWLY.call({"number": 8}).half == 4
    (run,) = list_runs()
    assert run.state() == "succeeded"
    assert read_json(run.path / "request.json") == {"number": 8}
    assert read_json(run.path / "result.json") == {"half": 4, "warnings": [], "next_step": ""}
    assert (run.artifacts / "half.txt").read_text(encoding="utf-8") == "4"


def test_a_failed_long_operation_can_run_again_in_the_same_directory(workspace: Path) -> None:
    with pytest.raises(OperationFailedError):
        HALVE_SLOWLY.call({"number": 7})
    (run,) = list_runs()
    assert run.state() == "failed"
    HALVE_SLOWLY.execute(HalveRequest(number=6), run)
    assert run.state() == "succeeded"
    assert len(list_runs()) == 1


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"number": -1}, "number: Input should be greater than or equal to 0"),
        ({}, "number: Field required"),
        ({"number": 2, "nmuber": 2}, "nmuber: Extra inputs are not permitted"),
        ({"number": "two"}, "number: Input should be a valid integer"),
    ],
)
def test_wrong_values_name_the_field_and_where_to_look(values: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem) as caught:
        HALVE.parse(values)
    assert caught.value.hint == "See `llmops demo halve --help` for the fields."


def test_several_problems_are_reported_together() -> None:
    with pytest.raises(InvalidInputError) as caught:
        HALVE.parse({"number": -1, "x": 1, "y": 2})
    assert len(caught.value.to_dict()["details"]["problems"]) == 3  # pyright: ignore[reportIndexIssue, reportUnknownArgumentType]


def test_a_request_cannot_be_changed_after_it_was_checked() -> None:
    request = HalveRequest(number=2)
    with pytest.raises(ValueError, match="frozen"):
        request.number = 3  # pyright: ignore[reportAttributeAccessIssue]
