import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mcp_server.costs import cost_of
from pipeline.core.errors import DoesNotFitError
from pipeline.export import convert
from pipeline.export.convert import EXPORT_CONVERT


class _Usage(NamedTuple):
    free: int


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were written, instead of converted."""
    paths: list[Path] = []

    def write(folder: Path, path: Path, quantization: str, **_: Any) -> dict[str, int]:
        paths.append(path)
        return {"F16": path.write_bytes(b"GGUF")}

    monkeypatch.setattr(convert, "write_gguf_file", write)
    return paths


def test_a_file_in_a_folder_that_is_not_there_yet_is_written(
    tiny_model: Path, workspace: Path, written: list[Path]
) -> None:
    result = EXPORT_CONVERT.call({"model": str(tiny_model), "out": "new/folder/base.gguf"})
    assert result.path == "new/folder/base.gguf"
    assert written == [workspace / "new" / "folder" / "base.gguf"]


@pytest.mark.parametrize(("quantization", "fits"), [("f16", True), ("q8_0", False)])
def test_the_16_bit_file_beside_the_target_counts_in_what_the_disk_must_hold(
    quantization: str, fits: bool, tiny_model: Path, written: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_params = (tiny_model / "model.safetensors").stat().st_size // 4  # the fixture's weights have 32 bits

    def usage(_: Path) -> _Usage:
        return _Usage(free=int(num_params * 2.3) + (64 << 20))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    request = {"model": str(tiny_model), "quantization": quantization, "out": "new/base.gguf"}
    if fits:
        EXPORT_CONVERT.call(request)
    else:
        with pytest.raises(DoesNotFitError, match="The conversion needs"):
            EXPORT_CONVERT.call(request)
    assert len(written) == fits


def test_an_agent_is_asked_before_a_file_is_replaced_and_only_then(workspace: Path) -> None:
    published = workspace / "models" / "mine" / "model-q8_0.gguf"
    request = EXPORT_CONVERT.parse({"model": "smollm2-135m", "out": "models/mine/model-q8_0.gguf"})
    assert cost_of(EXPORT_CONVERT, request) == ""
    published.parent.mkdir(parents=True)
    published.write_bytes(b"GGUF")
    assert "models/mine/model-q8_0.gguf are replaced" in cost_of(EXPORT_CONVERT, request)
    assert cost_of(EXPORT_CONVERT, EXPORT_CONVERT.parse({"model": "smollm2-135m"})) == ""
