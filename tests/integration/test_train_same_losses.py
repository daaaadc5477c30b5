# pyright: basic
"""Fifty steps of `train run` are fifty steps of TRL's own SFTTrainer on padded batches: the same losses within 1e-3.

TRL gets the same rows in the same order and computes everything itself: padding, full logits, attention, PEFT's
forward, its own loss. `benchmarks/bench_train.py --losses` does the same with the real model, and with Unsloth.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from pipeline.core.files import write_jsonl
from pipeline.core.runs import Run
from pipeline.train.backends.encode import encode_rows
from pipeline.train.backends.sampler import MixedLengthSampler
from pipeline.train.rows import read_examples
from pipeline.train.run import TRAIN_RUN

pytestmark = pytest.mark.slow

NUM_STEPS, BATCH = 50, 2
RECIPE = {
    "rank": 8,
    "alpha": 16,
    "learning_rate": 5e-3,
    "max_steps": NUM_STEPS,
    "micro_batch_size": BATCH,
    "dtype": "float32",
    "report_to": [],
}


@pytest.fixture
def data(workspace: Path) -> Path:
    """A hundred short rows of several lengths behind one system prompt; full logits of long ones take TRL minutes."""

    def row(number: int) -> dict[str, Any]:
        question = f"What is {number} times {number % 7}?" + " Please." * (number % 5)
        system = {
            "role": "system",
            "content": "You are a calculator that answers in one short sentence, always.",
        }
        answer = {"role": "assistant", "content": f"It is {number * (number % 7)}."}
        return {"messages": [system, {"role": "user", "content": question}, answer]}

    write_jsonl(workspace / "train.jsonl", [row(number) for number in range(100)])
    return workspace / "train.jsonl"


def _losses_of_trl(model_folder: Path, data: Path, out: Path) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    rows = encode_rows(read_examples(data), tokenizer, 1024).rows
    order = MixedLengthSampler([len(row.token_ids) for row in rows], BATCH, 0)

    class InOurOrder(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return order

    columns = [
        {"input_ids": row.token_ids, "labels": row.labels, "attention_mask": [1] * len(row.token_ids)}
        for row in rows
    ]
    torch.manual_seed(0)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"
    )
    trainer = InOurOrder(
        model=get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config),
        args=SFTConfig(
            output_dir=str(out),
            max_steps=NUM_STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=5e-3,
            warmup_steps=2,  # 3 % of 50, rounded up
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            bf16=False,
            use_cpu=True,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            optim="adamw_torch_fused",
            activation_checkpointing=False,
        ),
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=None, padding=True, label_pad_token_id=-100),
        train_dataset=Dataset.from_list(columns),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_fifty_steps_have_the_losses_of_trls_trainer(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    result = TRAIN_RUN.call({"data": str(data), "model": str(tiny_model), "recipe": RECIPE, "backend": "trl"})
    run = Run.open(result.run_id)
    facts = json.loads((run.artifacts / "training.json").read_text(encoding="utf-8"))
    assert facts["outcome"]["shared_prefix"]
    ours = [line["loss"] for line in run.metrics() if "loss" in line]
    theirs = _losses_of_trl(tiny_model, data, tmp_path / "trl")
    assert len(ours) == NUM_STEPS
    assert ours[0] - ours[-1] > 0.2  # it learns, so equal losses mean equal steps
    assert ours == pytest.approx(theirs, rel=1e-3)
