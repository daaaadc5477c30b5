import json
from pathlib import Path

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.export.card import order_by_preference
from pipeline.export.gate_task import check_accuracy, points_lost, read_turns

_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "list_tasks", "arguments": '{"status": "open"}'},
}
_ROW = {
    "id": "r1",
    "messages": [
        {"role": "user", "content": "What is open?"},
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "{}"},
        {"role": "assistant", "content": "Nothing."},
    ],
}


def test_one_turn_in_fifty_may_be_lost_and_two_may_not() -> None:
    assert points_lost(46 / 50, 47 / 50) == 2.0
    assert check_accuracy("m", 46 / 50, 47 / 50, 50, is_default=True).passed is True
    assert check_accuracy("m", 45 / 50, 47 / 50, 50, is_default=True).passed is False
    # A file that is not served by default is only reported.
    assert check_accuracy("m", 45 / 50, 47 / 50, 50, is_default=False).passed is None


def test_eight_bits_are_preferred_for_small_models_and_four_for_large_ones() -> None:
    files = [Path(f"model-{q}.gguf") for q in ("f16", "q4_k_m", "q5_k_m", "q8_0")]
    small, large = order_by_preference(files, 135_000_000), order_by_preference(files, 8_000_000_000)
    assert [path.stem for path in small] == ["model-q8_0", "model-f16", "model-q5_k_m", "model-q4_k_m"]
    assert large[0].stem == "model-q4_k_m"


def test_every_assistant_turn_is_asked_with_what_was_said_before_it(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(_ROW) + "\n", encoding="utf-8")
    first, second = read_turns(path, 50)
    assert (len(first.messages), first.calls) == (1, [("list_tasks", {"status": "open"})])
    assert (len(second.messages), second.calls) == (3, [])
    path.write_text(json.dumps(_ROW | {"messages": 3}), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="not a file of conversations"):
        read_turns(path, 50)
