# pyright: basic
"""Make the adapter beside this file: ``python tests/integration/scenario_adapter/make.py FOLDER`` (an empty folder).

LoRA rank 16 on every linear layer of SmolLM2-135M-Instruct, one pass over 1,394 rows of ``synth generate --mix setbacks``: of the
kinds that the agent's situations need, and every row about a task that is not there. On two cores it takes from 7 minutes
(AVX-512 BF16) to an hour (AVX2). Stored in bfloat16, half the size of what training writes.
"""

import json
import os
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from pipeline.models.pull import MODELS_PULL
from pipeline.synth.generate import SYNTH_GENERATE
from pipeline.train.run import TRAIN_RUN

HERE = Path(__file__).parent
NUM_ROWS_OF_KIND = {
    "create": 400, "complete": 160, "multi": 260, "ask": 160, "timeout": 140, "no_priority": 140, "list": 60, "talk": 40,
}  # fmt: skip
NOT_THERE_KINDS = {"update", "complete", "delete"}
RECIPE = {
    "method": "lora", "rank": 16, "alpha": 32, "learning_rate": 1e-3, "micro_batch_size": 8, "gradient_accumulation_steps": 2,
    "max_length": 544, "early_stopping_patience": None,
}  # fmt: skip
NUM_VALIDATION_ROWS = 48


def main() -> None:
    """Make rows, train, and store the adapter."""
    workspace = Path(sys.argv[1]).resolve()
    os.environ["LLMOPS_WORKSPACE"] = str(workspace)
    MODELS_PULL.call({"model": "smollm2-135m"})
    SYNTH_GENERATE.call({"out": "made", "num_rows": 5000, "test_rows": 20, "mix": "setbacks"})
    write(workspace / "data" / "train.jsonl", choose(read(workspace / "made" / "train.jsonl")))
    held_back = [
        line for line in read(workspace / "made" / "validation.jsonl") if kind_of(line) in NUM_ROWS_OF_KIND
    ]
    write(workspace / "data" / "validation.jsonl", held_back[:NUM_VALIDATION_ROWS])
    trained = TRAIN_RUN.call({"data": "data", "recipe": RECIPE})
    store(workspace / trained.output)


def store(adapter: Path) -> None:
    """Write the adapter in bfloat16 beside this file."""
    weights = {
        name: tensor.bfloat16() for name, tensor in load_file(adapter / "adapter_model.safetensors").items()
    }
    save_file(weights, HERE / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "HuggingFaceTB/SmolLM2-135M-Instruct"
    (HERE / "adapter_config.json").write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def choose(lines: list[str]) -> list[str]:
    """Return the first rows of each kind, and all about a task that is not there, in order."""
    left = dict(NUM_ROWS_OF_KIND)
    chosen: list[str] = []
    for line in lines:
        kind = kind_of(line)
        if left.get(kind, 0) > 0:
            left[kind] -= 1
            chosen.append(line)
        elif kind in NOT_THERE_KINDS and json.loads(line)["tags"]["outcome"] == "not_found":
            chosen.append(line)
    return chosen


def kind_of(line: str) -> str:
    """Return the kind of conversation a row is."""
    return json.loads(line)["tags"]["kind"]


def read(path: Path) -> list[str]:
    """Return the rows of a file."""
    return path.read_text(encoding="utf-8").splitlines()


def write(path: Path, lines: list[str]) -> None:
    """Write rows."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
