"""Training examples per second, ours against TRL's trainer (padded, packed) and Unsloth's CPU backend, and equal losses.

``python benchmarks/bench_train.py --unsloth-python ~/venv-unsloth/bin/python`` (environment of docs/decisions/0006; leave it
out to compare with TRL only). Every variant trains the same rows of the Task API (five tools in the prompt) from the
same weights with the same seed in a process of its own (one thread: threads that wait for a busy core count as work); variants take turns, ``--rounds`` times. Times go from the
first step's start to the last step's end: no loading, no saving. ``--losses`` instead trains 50 steps in 32 bits on
batches of equal rows and compares the logged losses.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VARIANTS = ("ours", "trl", "trl-packed", "unsloth")
BATCH = 8
PACKED_LENGTH, PACKED_BATCH = 1024, 3  # 3 x 1,024 tokens: about the tokens of eight rows


def main() -> int:
    """Run the children in turn and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m"))
    parser.add_argument("--unsloth-python", type=Path)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", default="lora,full")
    parser.add_argument("--dtype", default="bfloat16", help="float32 on a processor without AVX-512")
    parser.add_argument("--losses", action="store_true")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_child(options.child)))
        return 0
    variants = [name for name in VARIANTS if name != "unsloth" or options.unsloth_python]
    with tempfile.TemporaryDirectory() as scratch:
        rows = make_rows(
            options.model,
            100 if options.losses else options.rows,
            Path(scratch) / "rows.json",
            shortest=options.losses,
        )
        plan = {"model": str(options.model), "rows": str(rows), "folder": scratch, "threads": options.threads}
        if options.losses:
            compare_losses(plan, [name for name in variants if name != "trl-packed"], options.unsloth_python)
        else:
            for method in options.methods.split(","):
                compare_speed(plan, method, variants, options)
    return 0


def make_rows(model: Path, num_rows: int, path: Path, *, shortest: bool) -> Path:
    """Generate, encode once with the model's own template, and keep token ids and labels."""
    from transformers import AutoTokenizer

    from pipeline.synth.generate import SYNTH_GENERATE
    from pipeline.train.backends.encode import encode_rows
    from pipeline.train.rows import read_examples

    os.environ["LLMOPS_WORKSPACE"] = str(path.parent)
    num_made = 3 * num_rows if shortest else num_rows
    SYNTH_GENERATE.call({"out": "data", "num_rows": num_made, "validation_rows": 4, "test_rows": 4})
    examples = read_examples(path.parent / "data" / "train.jsonl")
    encoded = encode_rows(examples, AutoTokenizer.from_pretrained(model), 1024).rows
    encoded = sorted(encoded, key=lambda row: row.num_tokens)[:num_rows] if shortest else encoded[:num_rows]
    rows = [{"input_ids": row.token_ids, "labels": row.labels} for row in encoded]
    tokens = [len(row.token_ids) for row in encoded]
    trained = sum(label != -100 for row in encoded for label in row.labels)
    print(
        f"{len(rows)} rows, {sum(tokens) / len(rows):.0f} tokens on average, longest {max(tokens)}; ", end=""
    )
    print(f"{trained / sum(tokens):.0%} trained")
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def compare_speed(
    plan: dict[str, Any], method: str, variants: list[str], options: argparse.Namespace
) -> None:
    """Alternate the variants and print medians and the median of each round's ratio."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name in variants:
            child = {**plan, "variant": name, "method": method, "dtype": options.dtype, "mode": "speed"}
            found[name].append(start_child(child, options.unsloth_python))
            print(f"{method} {name}: {found[name][-1]['cpu']:.1f} s CPU", file=sys.stderr, flush=True)
    print(
        f"\n{method}, {options.dtype}, {options.rows} rows, batch {BATCH}, {options.threads} thread(s); medians of {options.rounds} rounds"
    )
    print(
        f"{'variant':<12}{'CPU s/row':>11}{'wall s/row':>12}{'rows/s':>9}{'CPU ratio':>11}{'wall ratio':>12}{'GiB':>6}"
    )
    for name in variants:
        runs = found[name]
        cpu, wall = (statistics.median(run[key] / options.rows for run in runs) for key in ("cpu", "wall"))
        ratios = [
            statistics.median(run[key] / ours[key] for run, ours in zip(runs, found["ours"], strict=True))
            for key in ("cpu", "wall")
        ]
        peak = statistics.median(run["peak_gib"] for run in runs)
        print(
            f"{name:<12}{cpu:>11.2f}{wall:>12.2f}{1 / wall:>9.2f}{ratios[0]:>11.2f}{ratios[1]:>12.2f}{peak:>6.1f}"
        )


def compare_losses(plan: dict[str, Any], variants: list[str], unsloth_python: Path | None) -> None:
    """Train 50 steps of two rows in 32 bits in the same row order, and print how far the losses are apart."""
    child = {**plan, "method": "lora", "dtype": "float32", "mode": "losses"}
    print("\nlora, float32, 50 steps of 2 rows: relative difference of losses to ours")
    print(f"{'variant':<12}{'step 1':>11}{'step 50':>11}{'largest':>11}{'mean loss':>11}", flush=True)
    ours: list[float] = []
    for name in variants:
        losses: list[float] = start_child({**child, "variant": name}, unsloth_python)["losses"]
        ours = ours or losses  # the first variant
        apart = [abs(a - b) / b for a, b in zip(losses, ours, strict=True)]
        mean = statistics.mean(losses)
        print(f"{name:<12}{apart[0]:>11.1e}{apart[-1]:>11.1e}{max(apart):>11.1e}{mean:>11.6f}", flush=True)


def start_child(child: dict[str, Any], unsloth_python: Path | None) -> dict[str, Any]:
    """Run one variant in a process of its own."""
    python = str(unsloth_python) if child["variant"] == "unsloth" else sys.executable
    done = subprocess.run(
        [python, __file__, "--child", json.dumps(child)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{child['variant']} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_child(child: dict[str, Any]) -> dict[str, Any]:
    """Train as one variant; return seconds and losses."""
    if child["variant"] == "unsloth":
        os.environ.update(UNSLOTH_CPU_BF16="1", UNSLOTH_DISABLE_STATISTICS="1")
        os.environ["UNSLOTH_COMPILE_LOCATION"] = str(Path(child["folder"]) / "unsloth")
        import unsloth  # noqa: F401 - patches the libraries below, and must come before them
    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(child["threads"])
    trainer = make_trainer(child)
    seen: dict[str, Any] = {"losses": []}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            seen["start"] = (time.process_time(), time.monotonic())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen["end"] = (time.process_time(), time.monotonic())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                seen["losses"].append(logs["loss"])

    trainer.add_callback(Clock())
    trainer.train()
    cpu, wall = (end - start for start, end in zip(seen["start"], seen["end"], strict=True))
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # KiB on Linux
    return {"cpu": cpu, "wall": wall, "losses": seen["losses"], "peak_gib": peak_gib}


def make_trainer(child: dict[str, Any]) -> Any:
    """Return the variant's trainer on the rows, with its own defaults wherever they make it faster."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    variant, is_loss_mode = child["variant"], child["mode"] == "losses"
    rows = json.loads(Path(child["rows"]).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(child["model"])
    model = load(child)
    settings = common_settings(child, len(rows))
    if variant == "ours":
        return make_ours(child, model, tokenizer, rows, settings)
    from transformers import DataCollatorForSeq2Seq
    from trl import SFTConfig, SFTTrainer

    class Trainer(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return same_order(rows, settings) if is_loss_mode else super()._get_train_sampler(train_dataset)

    columns = [{key: row[key] for key in ("input_ids", "labels")} for row in rows]
    if variant == "trl-packed":
        settings |= {
            "packing": True,
            "max_length": PACKED_LENGTH,
            "per_device_train_batch_size": PACKED_BATCH,
        }
        return Trainer(
            model=model,
            args=SFTConfig(**settings),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(columns),
        )
    settings |= {
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "remove_unused_columns": False,
    }
    return Trainer(
        model=model,
        args=SFTConfig(**settings),
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=None, padding=True, label_pad_token_id=-100),
        train_dataset=Dataset.from_list(
            [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in columns]
        ),
    )


def common_settings(child: dict[str, Any], num_rows: int) -> dict[str, Any]:
    """Return what all variants share."""
    is_loss_mode = child["mode"] == "losses"
    return {
        "output_dir": str(Path(child["folder"]) / "out"),
        "per_device_train_batch_size": 2 if is_loss_mode else BATCH,
        **({"max_steps": 50} if is_loss_mode else {"num_train_epochs": 1}),
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "bf16": child["dtype"] == "bfloat16",
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
        "optim": "adamw_torch_fused",
        "dataloader_pin_memory": False,
        gradient_checkpointing_name(): False,
    }


def gradient_checkpointing_name() -> str:
    """Return what this release calls it."""
    from trl import SFTConfig

    return next(n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(SFTConfig, n))


def same_order(rows: list[dict[str, list[int]]], settings: dict[str, Any]) -> Any:
    """Return our row order, for all variants."""
    from pipeline.train.backends.sampler import MixedLengthSampler

    return MixedLengthSampler(
        [len(row["input_ids"]) for row in rows], settings["per_device_train_batch_size"], 0
    )


def load(child: dict[str, Any]) -> Any:
    """Load the model as each variant's users do: 16-bit base with an adapter, 32-bit weights when all of them train."""
    import torch

    is_full = child["method"] == "full"
    dtype = torch.float32 if is_full else getattr(torch, child["dtype"])
    lora = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    if child["variant"] == "unsloth":
        from unsloth import FastLanguageModel

        model, _ = FastLanguageModel.from_pretrained(
            child["model"],
            max_seq_length=1024,
            dtype=dtype,
            load_in_4bit=False,
            full_finetuning=is_full,
            use_gradient_checkpointing=False,
        )
        if not is_full:
            model = FastLanguageModel.get_peft_model(
                model, **lora, target_modules=names, use_gradient_checkpointing=False, random_state=0
            )
        return model
    if child["variant"] == "ours":
        from pipeline.train.backends.load import load_model
        from pipeline.train.job import TrainJob
        from pipeline.train.recipe import TrainRecipe

        recipe = TrainRecipe(method=child["method"], rank=16, alpha=32, dtype=child["dtype"])
        path = Path(child["model"])
        job = TrainJob(
            recipe=recipe,
            base_model=path,
            train_examples=[],
            validation_examples=[],
            run=None,
            checkpoints=path,
            output=path,
        )  # type: ignore[arg-type] # fmt: skip - loading needs no run
        return load_model(job, "cpu", getattr(torch, child["dtype"]), False)
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(child["model"], dtype=dtype)
    if is_full:
        return model
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora, target_modules=names))


def make_ours(
    child: dict[str, Any], model: Any, tokenizer: Any, rows: list[Any], settings: dict[str, Any]
) -> Any:
    """Return the trainer of `llmops train run`."""
    from datasets import Dataset
    from trl import SFTConfig

    from pipeline.train.backends.fast_layers import map_large_blocks
    from pipeline.train.backends.load import find_causal
    from pipeline.train.backends.prefix import PrefixCollator, install_loss
    from pipeline.train.backends.trainer import PrefixTrainer

    map_large_blocks()
    settings |= {
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "remove_unused_columns": False,
    }
    trainer = PrefixTrainer(
        model=model,
        args=SFTConfig(**settings),
        processing_class=tokenizer,
        data_collator=PrefixCollator(tokenizer.pad_token_id, share_prefix=True),
        train_dataset=Dataset.from_list([{**row, "length": len(row["input_ids"])} for row in rows]),
    )
    trainer.order_batch_size = settings["per_device_train_batch_size"]
    install_loss(find_causal(model), autocast=child["method"] == "full")
    return trainer


if __name__ == "__main__":
    raise SystemExit(main())
