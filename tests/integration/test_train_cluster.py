# pyright: basic
"""Sharding without GPUs: counts against hand arithmetic, and two real processes against one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from pipeline.train.cluster import TRAIN_CLUSTER

pytestmark = pytest.mark.slow

# Llama 3 8B (arXiv:2407.21783, table 3): 32 layers, 4096 wide, feed-forward 14336, 8 key and value heads of 128.
CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
LAYER = 4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 14336 + 2 * 4096
TOTAL = 32 * LAYER + 2 * 128256 * 4096 + 4096

_TWO_PROCESSES = """
import json, sys, torch, torch.distributed as dist
from transformers import AutoModelForCausalLM
from torch.distributed.device_mesh import init_device_mesh
from pipeline.train.backends.sharding import find_layer_classes, shard
torch.set_num_threads(1)
dist.init_process_group("gloo")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
num = shard(model, find_layer_classes(model), init_device_mesh("cpu", (2,)))
ids = torch.arange(64).reshape(4, 16)[dist.get_rank() * 2 :][:2]
loss = model(input_ids=ids, labels=ids).loss
loss.backward()
norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).full_tensor()
mean = loss.detach().clone()
dist.all_reduce(mean)
local = sum(p.to_local().numel() for p in model.parameters())
if dist.get_rank() == 0:
    print(json.dumps({"loss": mean.item() / 2, "norm": norm.item(), "local": local, "num": num}))
dist.destroy_process_group()
"""


@pytest.fixture
def llama_8b(workspace: Path) -> Path:
    folder = workspace / "models" / "llama-8b"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder


def test_every_gpu_holds_its_share_of_every_parameter(workspace: Path, llama_8b: Path) -> None:
    result = TRAIN_CLUSTER.call(
        {"model": "llama-8b", "gpus_per_machine": 8, "gpu_memory_bytes": 80_000_000_000}
    )
    assert result.num_parameters == TOTAL == 8_030_261_248
    assert result.wrapped_classes == ["LlamaDecoderLayer"]
    assert result.num_wrapped == 32
    # All sizes divide by 8. Full fine-tuning: 32-bit weights and gradients, two moments.
    assert result.weights_bytes == 4 * TOTAL // 8
    assert result.gradients_bytes == 4 * TOTAL // 8
    assert result.optimizer_bytes == 8 * TOTAL // 8
    # Embedding, head and last norm are one unit, larger than a layer; gathered in bfloat16.
    assert result.gathered_bytes == 2 * (2 * 128256 * 4096 + 4096)
    assert result.fits


def test_an_adapter_is_the_only_thing_with_gradients_and_moments(workspace: Path, llama_8b: Path) -> None:
    recipe = {"rank": 16, "target_modules": ["q_proj"], "dtype": "bfloat16"}
    result = TRAIN_CLUSTER.call({"model": "llama-8b", "recipe": recipe, "gpus_per_machine": 2})
    adapter = 32 * 16 * (4096 + 4096)
    assert result.num_parameters == TOTAL + adapter
    assert result.gradients_bytes == 4 * adapter // 2
    assert result.optimizer_bytes == 8 * adapter // 2
    assert result.weights_bytes == 2 * (TOTAL + adapter) // 2


def test_too_few_gpus_are_a_no_with_the_number(workspace: Path, llama_8b: Path) -> None:
    result = TRAIN_CLUSTER.call(
        {"model": "llama-8b", "gpus_per_machine": 1, "gpu_memory_bytes": 80_000_000_000}
    )
    assert result.is_negative()
    assert any("do not fit" in warning for warning in result.warnings)


def test_accelerate_reads_the_configuration_as_it_was_meant(workspace: Path, llama_8b: Path) -> None:
    result = TRAIN_CLUSTER.call({"model": "llama-8b", "num_machines": 2, "gpus_per_machine": 4})
    read: Any = load_config_from_file(str(workspace / result.configuration))
    assert (read.num_machines, read.num_processes, str(read.mixed_precision)) == (2, 8, "bf16")
    assert read.fsdp_config["fsdp_version"] == 2
    assert read.fsdp_config["fsdp_transformer_layer_cls_to_wrap"] == "LlamaDecoderLayer"
    assert read.fsdp_config["fsdp_activation_checkpointing"] is True
    assert "--machine_rank" in result.command


def test_two_sharded_processes_have_the_loss_and_gradient_of_one(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    script = tmp_path / "two.py"
    script.write_text(_TWO_PROCESSES, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*torchrun, str(script), str(tiny_model)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    sharded = json.loads(done.stdout.decode().strip().splitlines()[-1])
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.arange(64).reshape(4, 16)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert sharded["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert sharded["norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert sharded["num"] == 2
    assert sharded["local"] == pytest.approx(sum(p.numel() for p in model.parameters()) / 2, rel=0.01)
