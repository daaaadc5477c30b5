# pyright: basic
"""DPO: the loss and gradients of TRL's DPOTrainer on the same pairs, and a run that learns to prefer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_jsonl, write_jsonl
from pipeline.core.runs import Run
from pipeline.synth.generate import SYNTH_GENERATE
from pipeline.train.backends.preference import PairCollator, PreferenceTrainer
from pipeline.train.backends.prefix import install_loss
from pipeline.train.run import TRAIN_RUN

pytestmark = pytest.mark.slow

IGNORED = -100


ADAPTER = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def _trained(model: Any) -> Any:
    """Give an adapted model other weights than it was made with, the same ones every time."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start: the loss would be ln 2 whatever the pairs
            torch.nn.init.normal_(parameter, std=0.3)
        elif "lora_A" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def _settings(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "per_device_train_batch_size": 3,
        "remove_unused_columns": False,
        "activation_checkpointing": False,
    }


def test_loss_and_gradients_are_those_of_trls_dpo_trainer(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompt = "You are a calculator that answers in one short sentence. What is {n} times three? Answer:"
    texts = [(prompt.format(n=n), f" It is {3 * n}.", f" It is {3 * n + 1}, I think.") for n in range(3)]
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in texts]
    trl = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        peft_config=ADAPTER,
        args=DPOConfig(**_settings(tmp_path / "trl"), beta=0.3, max_length=None),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )
    theirs = _trained(trl.model)
    batch = trl.data_collator([trl.train_dataset[i] for i in range(3)])
    expected: Any = trl.compute_loss(theirs, batch)
    expected.backward()

    def ids(text: str) -> list[int]:
        return tokenizer(text)["input_ids"]

    features = []
    for p, c, r in texts:
        chosen, rejected, head = (
            [*ids(p + c), tokenizer.eos_token_id],
            [*ids(p + r), tokenizer.eos_token_id],
            len(ids(p)),
        )
        features.append(
            {
                "input_ids": chosen,
                "labels": [IGNORED] * head + chosen[head:],
                "rejected_ids": rejected,
                "rejected_labels": [IGNORED] * head + rejected[head:],
                "length": len(chosen),
            }
        )
    ours = _trained(get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), ADAPTER))
    trainer = PreferenceTrainer(
        model=ours,
        args=SFTConfig(
            **_settings(tmp_path / "ours"), max_length=None, dataset_kwargs={"skip_prepare_dataset": True}
        ),
        processing_class=tokenizer,
        data_collator=PairCollator(0, share_prefix=True),
        train_dataset=Dataset.from_list(features),
    )
    trainer.beta = 0.3
    install_loss(ours.get_base_model(), autocast=False)
    collated = trainer.data_collator(features)
    assert collated["prefix_ids"].shape[1] > 0
    loss: Any = trainer.compute_loss(ours, collated)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert abs(float(loss.detach()) - 0.6931) > 1e-3
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


RECIPE = {
    "objective": "dpo",
    "rank": 8,
    "alpha": 16,
    "learning_rate": 3e-2,
    "max_steps": 12,
    "micro_batch_size": 4,
    "dtype": "float32",
    "report_to": [],
    "early_stopping_patience": None,
}


def test_a_run_on_broken_calls_learns_to_prefer_the_right_ones(tiny_model: Path, workspace: Path) -> None:
    SYNTH_GENERATE.call({"out": "data", "num_rows": 40, "validation_rows": 8, "test_rows": 4})
    result = TRAIN_RUN.call({"data": "data", "model": str(tiny_model), "recipe": RECIPE, "backend": "trl"})
    run = Run.open(result.run_id)
    metrics = [line for line in run.metrics() if "rewards/accuracies" in line]
    assert metrics[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # ln 2: adapter and base agree at the start
    assert min(line["loss"] for line in metrics) < 0.6
    pairs = read_jsonl(run.artifacts / "pairs.jsonl")
    assert len(pairs) == result.num_rows
    assert all(pair["messages"][-1] != pair["rejected"] for pair in pairs)
    facts = json.loads((run.artifacts / "training.json").read_text(encoding="utf-8"))
    assert facts["outcome"]["shared_prefix"]
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    PeftModel.from_pretrained(base, run.artifacts / "adapter")


def test_dpo_of_all_weights_is_refused(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match="dpo compares with the base"):
        TRAIN_RUN.parse({"data": "data", "recipe": {**RECIPE, "method": "full"}})


def test_rows_with_nothing_to_prefer_are_refused(tiny_model: Path, workspace: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    write_jsonl(workspace / "rows.jsonl", [{"messages": messages}])
    with pytest.raises(InvalidInputError, match=r"no preference pair can be made of rows\.jsonl"):
        TRAIN_RUN.call({"data": "rows.jsonl", "model": str(tiny_model), "recipe": RECIPE, "backend": "trl"})
