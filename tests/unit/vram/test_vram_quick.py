"""The command that starts without pydantic answers exactly what the usual way answers."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.vram import quick
from pipeline.vram.estimate import VRAM_ESTIMATE, VramEstimateRequest
from pipeline.vram.fields import Fields
from pipeline.vram.quick import describe_fields, is_plainly_right, run_estimate
from pipeline.vram.registry import read_packaged

LLAMA: dict[str, Any] = {"model": "meta-llama/Llama-3.1-8B"}
REQUESTS: list[dict[str, Any]] = [
    LLAMA,
    {**LLAMA, "method": "qlora", "gpu": "T4"},
    {**LLAMA, "method": "full", "gpu": "T4"},
    {**LLAMA, "task": "inference", "gguf": "q4_k_m", "kv_cache": "q8_0"},
    {**LLAMA, "target_modules": ["q_proj"], "lora_dropout": 0.05, "rank": None, "kbit_upcast": False},
    {"config": {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}},
]


@pytest.mark.parametrize("values", REQUESTS)
def test_both_ways_print_the_same(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    usual = VRAM_ESTIMATE.call(values)
    assert run_estimate(["--request", str(file)]) == (1 if usual.is_negative() else 0)
    assert capsys.readouterr().out == usual.model_dump_json() + "\n"


@pytest.mark.parametrize(
    "values",
    [
        {**LLAMA, "rank": "16"},
        {**LLAMA, "rank": 0},
        {**LLAMA, "rank": True},
        {**LLAMA, "max_length": 1.0},
        {**LLAMA, "lora_dropout": 1},
        {**LLAMA, "stack": "nobody"},
        {**LLAMA, "surprise": 1},
        {**LLAMA, "target_modules": [1]},
        {**LLAMA, "out": "plan"},
        {"model": ""},
        [],
    ],
)
def test_what_is_not_plainly_right_is_left_to_the_usual_way(
    values: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(values)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert run_estimate(["--request", "-"]) is None
    assert sys.stdin.read() == text  # the usual way can read it again


def test_the_command_reports_a_wrong_field_as_every_command_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for values, named in (({**LLAMA, "rank": 0}, "rank"), ({"model": "no/such"}, "no/such")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(values)))
        assert main(["vram", "estimate", "--request", "-"]) == 2
        error = json.loads(capsys.readouterr().err)
        assert error["code"] == "invalid_input"
        assert named in error["message"]


def test_the_packaged_rules_are_those_of_the_request() -> None:
    made = describe_fields(VramEstimateRequest.model_json_schema())
    assert read_packaged("estimate_fields.json") == made, (
        f"write this into {quick.__name__}'s estimate_fields.json"
    )
    assert list(made) == list(Fields._fields)
    defaults = {name: field.default for name, field in VramEstimateRequest.model_fields.items()}
    assert Fields()._asdict() == defaults


def test_integers_are_not_booleans_and_limits_hold() -> None:
    rules = [{"type": "integer", "minimum": 1, "maximum": 5}, {"type": "null"}]
    assert [is_plainly_right(value, rules) for value in (1, 5, None, 0, 6, True, 1.0, "1")] == [
        *[True] * 3,
        *[False] * 5,
    ]


def test_it_loads_neither_pydantic_nor_anything_heavy(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(REQUESTS[1]), encoding="utf-8")
    code = (
        "import sys; from pipeline.cli import main; "
        f"status = main(['vram', 'estimate', '--request', {str(file)!r}]); "
        "heavy = {'pydantic', 'rich', 'psutil', 'torch', 'numpy', 'dataclasses', 'pathlib', 'inspect'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert json.loads(done.stdout)["fits"] is True
