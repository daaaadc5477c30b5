from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import DoesNotFitError, InvalidInputError
from pipeline.core.files import require_disk, write_json
from pipeline.core.runs import Run
from pipeline.export.card import default_gguf
from pipeline.export.gate import find_subject
from pipeline.export.gate_checks import check_metadata
from pipeline.export.gate_corpus import build_corpus
from pipeline.export.run import EXPORT_RUN
from pipeline.export.source import read_training


def test_the_gate_is_refused_at_once_when_the_file_it_compares_is_not_asked_for() -> None:
    with pytest.raises(InvalidInputError, match="add f16"):
        EXPORT_RUN.parse({"run": "run:x", "quantizations": ["q8_0"]})
    assert EXPORT_RUN.parse({"run": "run:x", "quantizations": ["q8_0"], "verify": False}).verify is False


@pytest.mark.parametrize("name", ["../evil", "Two Words", "", ".hidden", "a/b"])
def test_a_name_that_could_leave_the_models_folder_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        EXPORT_RUN.parse({"run": "run:x", "name": name})


def test_small_models_are_served_in_8_bits_and_large_ones_in_4() -> None:
    everything = ["f16", "q8_0", "q4_k_m"]
    assert default_gguf(everything, 134_515_008) == "model-q8_0.gguf"
    assert default_gguf(everything, 8_000_000_000) == "model-q4_k_m.gguf"
    assert default_gguf(["f16"], 134_515_008) == "model-f16.gguf"
    assert default_gguf([], 134_515_008) is None


@pytest.mark.usefixtures("workspace")
def test_a_run_that_trained_nothing_is_refused_with_its_state() -> None:
    run = Run.create("train.run", {})
    with pytest.raises(InvalidInputError, match=r"not a finished training run \(state: running\)"):
        read_training(f"run:{run.id}")


@pytest.mark.usefixtures("workspace")
def test_an_adapter_of_a_run_that_trained_all_weights_is_refused(tiny_model: Path) -> None:
    run = Run.create("train.run", {})
    (run.artifacts / "model").mkdir()
    (run.artifacts / "model" / "model.safetensors").write_bytes(b"")
    facts = {"base_model_path": str(tiny_model), "method": "full"}
    write_json(run.artifacts / "training.json", facts)
    run.finish({})
    with pytest.raises(InvalidInputError, match="trained all weights, so there is no adapter"):
        EXPORT_RUN.call({"run": run.id, "formats": ["adapter"]})


def test_verifying_a_folder_without_gguf_or_reference_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no GGUF"):
        find_subject(tmp_path, None)
    (tmp_path / "model-f16.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidInputError, match="no merged model") as caught:
        find_subject(tmp_path, None)
    assert "--reference" in caught.value.hint


def test_more_disk_than_there_is_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match="The export needs"):
        require_disk(tmp_path / "new", 1 << 60, "The export")


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, None),
        ({"tokenizer.chat_template": "other"}, "template:m"),
        ({"tokenizer.chat_template": None}, "template:m"),
        ({"tokenizer.ggml.eos_token_id": 0}, "special_ids:m"),
        ({"tokenizer.ggml.padding_token_id": None}, "special_ids:m"),
        ({"tokenizer.ggml.add_bos_token": True}, "no_added_bos:m"),
        ({"tokenizer.ggml.add_bos_token": None}, "no_added_bos:m"),
    ],
)
def test_each_wrong_entry_of_the_metadata_fails_its_own_check(
    changes: dict[str, Any], failing: str | None
) -> None:
    right = {
        "tokenizer.chat_template": "ours",
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }
    checks = check_metadata("m", {**right, **changes}, "ours", {"bos": 1, "eos": 2, "padding": 2})
    assert [check.id for check in checks if check.passed is False] == ([failing] if failing else [])


def test_the_corpus_has_calls_parallel_calls_results_and_text_that_is_hard_to_quote() -> None:
    corpus = {case.id: case for case in build_corpus("You are a task assistant.")}
    assert len(corpus["results"].messages[2]["tool_calls"]) == 2
    assert [m["role"] for m in corpus["result"].messages] == ["system", "user", "assistant", "tool"]
    assert '\\"' in corpus["quotes"].messages[0]["content"]
    assert not corpus["unicode"].messages[0]["content"].isascii()
    assert sum(case.is_answered for case in corpus.values()) == 12
