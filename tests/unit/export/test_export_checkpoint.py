import json
import struct
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError, InvalidInputError
from pipeline.export.checkpoint import SUPPORTED_ARCHITECTURES, read_checkpoint


def _write_model(folder: Path, *, architecture: str = "LlamaForCausalLM", dtype: str = "BF16") -> Path:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, 12]},
            "b": {"dtype": dtype, "shape": [4], "data_offsets": [12, 20]},
        }
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(20))
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}), encoding="utf-8")
    for name in ("tokenizer.json", "chat_template.jinja", "source.json", "LICENSE"):
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


def test_shapes_and_parameters_are_read_from_the_header_alone(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(_write_model(tmp_path))
    assert checkpoint.num_params == 10  # 2 x 3 + 4
    assert checkpoint.tensors["a"].shape == (2, 3)


@pytest.mark.parametrize(
    ("stored", "merged"), [("BF16", "bfloat16"), ("F16", "float16"), ("F32", "bfloat16")]
)
def test_the_merged_model_takes_the_bases_16_bit_type(tmp_path: Path, stored: str, merged: str) -> None:
    assert read_checkpoint(_write_model(tmp_path, dtype=stored)).dtype == merged


def test_everything_but_weights_and_their_digests_goes_along(tmp_path: Path) -> None:
    names = [path.name for path in read_checkpoint(_write_model(tmp_path)).companions]
    assert names == ["LICENSE", "chat_template.jinja", "config.json", "tokenizer.json"]


def test_a_truncated_weight_file_is_an_integrity_error_that_counts_the_bytes(tmp_path: Path) -> None:
    weights = _write_model(tmp_path) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-7])
    with pytest.raises(IntegrityError) as caught:
        read_checkpoint(tmp_path)
    assert caught.value.details == {"found_bytes": len(whole) - 7, "needed_bytes": len(whole)}


def test_a_weight_file_without_a_header_is_an_integrity_error(tmp_path: Path) -> None:
    (_write_model(tmp_path) / "model.safetensors").write_bytes(b"<html>not found</html>")
    with pytest.raises(IntegrityError, match="no readable header"):
        read_checkpoint(tmp_path)


def test_another_architecture_is_refused_with_the_supported_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="BloomForCausalLM") as caught:
        read_checkpoint(_write_model(tmp_path, architecture="BloomForCausalLM"))
    assert caught.value.details["supported"] == list(SUPPORTED_ARCHITECTURES)


def test_a_folder_without_a_model_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no config\.json"):
        read_checkpoint(tmp_path)
