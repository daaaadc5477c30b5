"""A Hugging Face model folder, read without loading a weight: configuration, tensor shapes, completeness."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import IntegrityError, InvalidInputError
from pipeline.core.files import read_json

SUPPORTED_ARCHITECTURES = {
    "LlamaForCausalLM": "Llama, SmolLM2",
    "SmolLM3ForCausalLM": "SmolLM3",
    "MistralForCausalLM": "Mistral",
    "Qwen2ForCausalLM": "Qwen2.5",
    "Qwen3ForCausalLM": "Qwen3",
    "Gemma2ForCausalLM": "Gemma 2",
    "Gemma3ForCausalLM": "Gemma 3 (text)",
    "Phi3ForCausalLM": "Phi-3, Phi-4-mini",
}
"""What a test converts, serves and compares token by token; the converter knows more, and nobody has compared them."""
_LENGTH_BYTES = 8
_WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".gguf")
_NOT_COPIED = ("source.json",)  # lists the digests of the base's weights, which a merged model no longer has


@dataclass(frozen=True, slots=True)
class TensorFact:
    """One stored tensor."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors spells it: ``BF16``, ``F16``, ``F32``."""
    file: str
    """Name of the file that holds it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is in a model folder."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorFact]

    @property
    def num_params(self) -> int:
        """Parameters stored (a tied output matrix counts once)."""
        return sum(math.prod(fact.shape) for fact in self.tensors.values())

    @property
    def dtype(self) -> str:
        """``float16`` or ``bfloat16``: the 16-bit type of the weights; full precision is merged to bfloat16."""
        kinds = {fact.dtype for fact in self.tensors.values()}
        return "float16" if "F16" in kinds and "BF16" not in kinds else "bfloat16"

    @property
    def weight_files(self) -> dict[str, list[str]]:
        """Names of the tensors by weight file, in the order of the files."""
        return {
            file: [name for name, fact in self.tensors.items() if fact.file == file]
            for file in sorted({fact.file for fact in self.tensors.values()})
        }

    @property
    def companions(self) -> list[Path]:
        """Files that go along with the weights unchanged: configuration, tokenizer, template, licence."""
        files = (path for path in sorted(self.folder.iterdir()) if path.is_file())
        return [p for p in files if not p.name.endswith(_WEIGHT_SUFFIXES) and p.name not in _NOT_COPIED]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a model folder's configuration and tensor headers.

    Raises:
        InvalidInputError: If the folder holds no supported model.
        IntegrityError: If a weight file is truncated.
    """
    for needed in ("config.json", "tokenizer.json", "chat_template.jinja"):
        if not (folder / needed).is_file():
            raise InvalidInputError(
                f"{folder} has no {needed}",
                hint="Name a Hugging Face model folder; `llmops models pull smollm2-135m` makes one.",
            )
    config = read_json(folder / "config.json")
    architecture = (config.get("architectures") or ["unknown"])[0]
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise InvalidInputError(
            f"export does not know the architecture {architecture!r}",
            hint=f"Use a model of these families: {', '.join(SUPPORTED_ARCHITECTURES.values())}.",
            supported=list(SUPPORTED_ARCHITECTURES),
        )
    tensors: dict[str, TensorFact] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= _read_header(path)
    if not tensors:
        raise InvalidInputError(f"{folder} has no *.safetensors", hint="Only safetensors weights are read.")
    return Checkpoint(folder, config, tensors)


def _read_header(path: Path) -> dict[str, TensorFact]:
    try:
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(_LENGTH_BYTES), "little")
            header: dict[str, Any] = json.loads(handle.read(length))
        facts = {name: fact for name, fact in header.items() if name != "__metadata__"}
        needed = _LENGTH_BYTES + length + max(fact["data_offsets"][1] for fact in facts.values())
    except (ValueError, KeyError, MemoryError, OverflowError) as error:
        raise IntegrityError(
            f"{path.name} has no readable header", hint="Fetch or train the model again."
        ) from error
    if path.stat().st_size != needed:
        raise IntegrityError(
            f"{path.name} has {path.stat().st_size} bytes, its header promises {needed}",
            hint="The file is truncated or damaged: fetch or train the model again.",
            found_bytes=path.stat().st_size,
            needed_bytes=needed,
        )
    return {name: TensorFact(tuple(fact["shape"]), fact["dtype"], path.name) for name, fact in facts.items()}
