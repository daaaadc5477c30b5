# pyright: basic
"""The gate on real weights and the real engine: it passes what is right and fails each thing made wrong on purpose."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pipeline.core.errors import IntegrityError, InvalidInputError
from pipeline.core.files import read_json, sha256_file, write_json
from pipeline.core.runs import Run
from pipeline.export import gate
from pipeline.export import run as export_run
from pipeline.export.backends import llama_cpp_converter
from pipeline.export.backends.llama_cpp_converter import convert_adapter, convert_folder
from pipeline.export.backends.merge import merge_adapter
from pipeline.export.checkpoint import read_checkpoint
from pipeline.export.gguf import write_f16_gguf, write_gguf_file
from pipeline.export.run import EXPORT_RUN
from pipeline.export.verify import EXPORT_VERIFY
from pipeline.inference.server import start_server
from pipeline.inference.server_spec import AdapterSpec, ServerSpec

pytestmark = pytest.mark.slow
# What llama.cpp's converter wrote for this very model; see the file for its origin.
KNOWN = json.loads(Path(__file__).with_name("starter_gguf_metadata.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def adapter(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with random, small but not zero, weights on two layers."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(starter_model, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], layers_to_transform=[3, 17])
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(folder))
    return folder


def _undo_rotary_order(path: Path) -> None:
    """Put the rows of q and k back into Hugging Face's halves, as a converter that forgets the step leaves them."""
    reader = gguf.GGUFReader(path, "r+")
    heads = {"attn_q": 9, "attn_k": 3}  # SmolLM2-135M
    for tensor in reader.tensors:
        num_heads = heads.get(tensor.name.split(".")[-2])
        if num_heads:
            pairs = tensor.data.reshape(num_heads, -1, 2, tensor.data.shape[-1])
            tensor.data[:] = pairs.swapaxes(1, 2).reshape(tensor.data.shape)
    reader.data.flush()


def _failed(path: Path, reference: Path) -> set[str]:
    report = gate.run_gate(gate.find_subject(path, reference))
    assert read_json(path.with_suffix(".gate.json"))["passed"] is report.passed
    assert report.passed is not any(check.passed is False for check in report.checks)
    return {check.id.split(":")[0] for check in report.checks if check.passed is False}


def test_f16_of_the_starter_has_the_metadata_of_llama_cpps_own_converter(starter_gguf: Path) -> None:
    fields = gguf.GGUFReader(starter_gguf).fields
    for key, expected in KNOWN["metadata"].items():
        values: Any = fields[key].contents()
        assert [kind.name for kind in fields[key].types] == expected["types"], key
        if "value" in expected:
            assert values == expected["value"], key
        else:
            digest = hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()
            assert (len(values), digest) == (expected["length"], expected["sha256"]), key


def test_quantised_files_hold_the_quantised_values_of_the_f16_file(
    starter_model: Path, starter_gguf: Path, tmp_path: Path
) -> None:
    counts = write_gguf_file(starter_model, tmp_path / "q.gguf", "q4_k_m", name="starter")
    # 30 layers x (q k output gate up) + 16 v fall to Q5_0; 14 v and the tied embedding to Q8_0; 61 norms.
    assert counts == {"Q5_0": 166, "Q8_0": 15, "Q6_K": 14, "Q4_K": 16, "F32": 61}
    full = {t.name: t for t in gguf.GGUFReader(starter_gguf).tensors}
    steps = {"Q5_0": 1 / 16, "Q8_0": 1 / 127, "Q6_K": 1 / 32, "Q4_K": 1 / 8}
    for tensor in gguf.GGUFReader(tmp_path / "q.gguf").tensors[:40]:
        before = full[tensor.name].data.astype(np.float32)
        after = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if tensor.tensor_type.name == "F32":
            assert np.array_equal(after, before)
        else:
            limit = steps[tensor.tensor_type.name] * float(np.abs(before).max())
            assert float(np.abs(after - before).max()) <= limit, tensor.name


def test_the_untuned_starter_passes(starter_model: Path, starter_gguf: Path) -> None:
    report = gate.run_gate(gate.find_subject(starter_gguf, starter_model))
    outcome = {check.id.split(":")[0]: check for check in report.checks}
    assert report.passed, [check for check in report.checks if check.passed is False]
    assert outcome["prompt_text"].measured == outcome["prompt_tokens"].measured == "13 of 13 equal"
    assert {"greedy_parity", "next_token_logprobs", "stop", "streaming"} <= outcome.keys()
    assert report.files == {starter_gguf.name: sha256_file(starter_gguf)}


@pytest.mark.usefixtures("few_cases")
def test_the_models_original_template_fails(starter_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "model"
    shutil.copytree(starter_model, other)
    # The shape of SmolLM2's own template: a default system prompt, and no tools.
    (other / "chat_template.jinja").write_text(
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        encoding="utf-8",
    )
    write_f16_gguf(other, tmp_path / "m.gguf")
    assert {"template", "prompt_text", "prompt_tokens"} <= _failed(tmp_path / "m.gguf", starter_model)


@pytest.mark.parametrize(
    ("key", "value", "failing"),
    [
        ("tokenizer.ggml.eos_token_id", 0, {"special_ids"}),
        ("tokenizer.ggml.add_bos_token", 1, {"no_added_bos", "prompt_text"}),
    ],
)
@pytest.mark.usefixtures("few_cases")
def test_a_changed_end_token_or_an_added_bos_fails(
    key: str, value: int, failing: set[str], starter_model: Path, starter_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    shutil.copyfile(starter_gguf, path)
    field = gguf.GGUFReader(path, "r+").fields[key]
    field.parts[field.data[0]][0] = value
    assert failing <= _failed(path, starter_model)


@pytest.mark.usefixtures("few_cases")
def test_rotary_rows_left_in_hugging_face_order_fail_although_the_model_still_talks(
    starter_model: Path, starter_gguf: Path, tmp_path: Path
) -> None:
    shutil.copyfile(starter_gguf, tmp_path / "m.gguf")
    _undo_rotary_order(tmp_path / "m.gguf")
    failed = _failed(tmp_path / "m.gguf", starter_model)
    assert {"greedy_parity", "next_token_logprobs"} <= failed
    assert not failed & {"template", "special_ids", "prompt_text", "prompt_tokens"}


@pytest.mark.usefixtures("few_cases")
def test_a_model_that_cannot_call_tools_fails_as_an_export_that_was_trained_on_them(
    starter_model: Path, starter_gguf: Path, tmp_path: Path
) -> None:
    shutil.copyfile(starter_gguf, tmp_path / "model-f16.gguf")
    write_json(tmp_path / "export.json", {"tool_set": "task_api", "default_gguf": "model-f16.gguf"})
    assert "tool_call" in _failed(tmp_path / "model-f16.gguf", starter_model)


@pytest.mark.parametrize("kept_bytes", [100, 1_000_000, 200_000_000])
def test_a_truncated_file_is_an_integrity_error(
    kept_bytes: int, starter_model: Path, starter_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    with starter_gguf.open("rb") as source:
        path.write_bytes(source.read(kept_bytes))
    with pytest.raises(IntegrityError, match=r"m\.gguf is damaged"):
        gate.run_gate(gate.find_subject(path, starter_model))


def test_merging_a_lora_gives_the_logits_of_the_peft_model(
    starter_model: Path, adapter: Path, tmp_path: Path
) -> None:
    base = read_checkpoint(starter_model)
    for path in base.companions:
        shutil.copyfile(path, tmp_path / path.name)
    assert merge_adapter(base, adapter, tmp_path) == 4  # q and v of two layers
    tokens = torch.tensor([[1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2]])
    plain = AutoModelForCausalLM.from_pretrained(starter_model, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.inference_mode():
        before = plain(tokens).logits
        with_adapter = PeftModel.from_pretrained(plain, adapter).eval()
        wanted, found = with_adapter(tokens).logits, merged(tokens).logits
        exact = with_adapter.merge_and_unload()(tokens).logits
    effect, rounding = float((wanted - before).abs().max()), float((wanted - found).abs().max())
    assert effect > 0.5
    assert rounding < 0.1 * effect  # the four merged matrices are stored in bfloat16
    assert torch.allclose(exact, wanted, atol=1e-3, rtol=1e-4)  # before rounding it is the same model
    stored, deltas = (
        load_file(tmp_path / "model.safetensors"),
        load_file(adapter / "adapter_model.safetensors"),
    )
    for name in ("model.layers.3.self_attn.q_proj", "model.layers.17.self_attn.v_proj"):
        down, up = (deltas[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        original = load_file(starter_model / "model.safetensors")[f"{name}.weight"]
        assert torch.equal(stored[f"{name}.weight"], (original.float() + 8 / 4 * up @ down).bfloat16())


def test_a_base_in_several_files_is_merged_file_by_file(tiny_model: Path, tmp_path: Path) -> None:
    base_folder, adapter, target = tmp_path / "base", tmp_path / "lora", tmp_path / "merged"
    target.mkdir()
    shutil.copytree(tiny_model, base_folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.save_pretrained(base_folder, max_shard_size="7MB")
    lora = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules="all-linear"))
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    lora.save_pretrained(str(adapter))
    base = read_checkpoint(base_folder)
    assert merge_adapter(base, adapter, target) == 14  # seven matrices in each of two layers
    assert {p.name for p in target.glob("*.safetensors")} == set(base.weight_files)
    assert len(base.weight_files) > 1
    shutil.copyfile(base_folder / "config.json", target / "config.json")
    merged: Any = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    expected = lora.merge_and_unload().state_dict()  # the second implementation
    for name, value in merged.state_dict().items():
        assert torch.equal(value.bfloat16(), expected[name].bfloat16()), name


def test_an_adapter_of_another_base_or_kind_is_refused(
    tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    base = read_checkpoint(tiny_model)
    with pytest.raises(InvalidInputError, match="does not fit"):
        merge_adapter(base, adapter, tmp_path)
    other = shutil.copytree(adapter, tmp_path / "dora")
    config = read_json(other / "adapter_config.json")
    write_json(other / "adapter_config.json", {**config, "use_dora": True})
    with pytest.raises(InvalidInputError, match="use_dora"):
        merge_adapter(base, other, tmp_path)


def test_base_and_gguf_adapter_together_answer_like_the_merged_model(
    starter_model: Path, starter_gguf: Path, adapter: Path, tmp_path: Path
) -> None:
    for path in read_checkpoint(starter_model).companions:
        shutil.copyfile(path, tmp_path / path.name)
    strong = shutil.copytree(adapter, tmp_path / "strong")  # as it is, it hardly moves a short prompt
    config = read_json(strong / "adapter_config.json")
    write_json(strong / "adapter_config.json", {**config, "lora_alpha": 64})
    merge_adapter(read_checkpoint(starter_model), strong, tmp_path)
    convert_folder(tmp_path, tmp_path / "merged.gguf", name="merged")
    convert_adapter(strong, starter_model, tmp_path / "adapter.gguf")
    question = [{"role": "user", "content": "Name a fruit."}]

    def ask(gguf_path: Path, model: str, adapters: tuple[AdapterSpec, ...] = ()) -> dict[str, float]:
        spec = ServerSpec(model_path=str(gguf_path), name="base", adapters=adapters, exact_numerics=True)
        body = {"model": model, "messages": question, "temperature": 0, "max_tokens": 1}
        with start_server(spec) as server:
            url = f"{server.root_url}/v1/chat/completions"
            answer = httpx.post(url, json=body | {"logprobs": True, "top_logprobs": 20}, timeout=120).json()
        likely = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {item["token"]: item["logprob"] for item in likely}

    def distance(one: dict[str, float], other: dict[str, float]) -> float:
        return max(abs(one[token] - other[token]) for token in one.keys() & other.keys())

    pair = (AdapterSpec(name="tuned", path=str(tmp_path / "adapter.gguf")),)
    plain, merged = ask(starter_gguf, "base"), ask(tmp_path / "merged.gguf", "base")
    effect = distance(plain, merged)
    assert effect > 0.2
    assert (
        distance(ask(starter_gguf, "tuned", pair), merged) < 0.1 * effect
    )  # the merged one is rounded to bfloat16
    assert distance(ask(starter_gguf, "base", pair), plain) < 1e-4


def test_a_converter_that_is_not_the_reviewed_one_does_not_run(
    starter_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp_converter, "_REVIEWED_DIGEST", "0" * 64)
    with pytest.raises(IntegrityError, match="not the one that was reviewed"):
        convert_folder(starter_model, tmp_path / "m.gguf", name="m")


def test_weights_that_16_bits_cannot_hold_are_refused(starter_model: Path, tmp_path: Path) -> None:
    config = LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=49152
    )
    model = LlamaForCausalLM(config)
    model.get_parameter("model.layers.0.mlp.up_proj.weight").data[0, 0] = 1e6
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(starter_model / name, tmp_path / name)
    with pytest.raises(IntegrityError, match=r"blk\.0\.ffn_up\.weight has values"):
        write_f16_gguf(tmp_path, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


@pytest.fixture
def trained_run(workspace: Path, starter_model: Path, adapter: Path) -> Run:
    """A training run as `train run` leaves it, with the random adapter and no tools."""
    run = Run.create("train.run", {})
    shutil.copytree(adapter, run.artifacts / "adapter")
    facts = {
        "base_model_path": str(starter_model),
        "method": "lora",
        "tool_set": None,
        "recipe": {"rank": 4},
        "data": {"train_sha256": "0" * 64},
    }
    write_json(run.artifacts / "training.json", facts)
    run.log_metrics(loss=0.25)
    run.finish({})
    assert workspace in run.path.parents
    return run


def _export(trained: Run, **values: Any) -> Any:
    return EXPORT_RUN.call({"run": f"run:{trained.id}", "name": "mine", **values})


def test_an_export_is_complete_passes_its_gate_and_is_not_made_twice(
    trained_run: Run, workspace: Path
) -> None:
    result = _export(trained_run, quantizations=["f16", "q8_0"])
    folder = workspace / "models" / "mine"
    assert result.published
    assert result.gate_passed, result.failed_checks
    assert result.default_gguf == "model-q8_0.gguf"
    assert {p.name for p in folder.iterdir()} == {
        *("adapter", "merged", "model-f16.gguf", "model-q8_0.gguf", "Modelfile", "README.md"),
        *("chat_template.jinja", "export.json", "gate.json"),
    }
    base = Path(read_json(folder / "export.json")["base_model_path"])
    assert (folder / "merged" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert 'PARAMETER stop "<|im_end|>"' in (folder / "Modelfile").read_text(encoding="utf-8")
    assert "TEMPLATE " not in (folder / "Modelfile").read_text(encoding="utf-8").replace("No TEMPLATE:", "")
    assert "| loss | 0.25 |" in (folder / "README.md").read_text(encoding="utf-8")
    again = _export(trained_run, quantizations=["f16", "q8_0"])
    assert again.reused
    (folder / "model-q8_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(IntegrityError, match="is damaged"):
        EXPORT_VERIFY.call({"model": "models/mine"})


def test_a_failed_gate_leaves_the_published_model_alone(
    trained_run: Run, workspace: Path, monkeypatch: pytest.MonkeyPatch, few_cases: None
) -> None:
    _export(trained_run, quantizations=["f16"], verify=False)
    before = sha256_file(workspace / "models" / "mine" / "export.json")

    def convert_wrongly(folder: Path, path: Path, **values: Any) -> dict[str, int]:
        types = write_f16_gguf(folder, path, **values)
        _undo_rotary_order(path)
        return types

    monkeypatch.setattr(export_run, "write_f16_gguf", convert_wrongly)
    result = _export(trained_run, quantizations=["f16"])
    assert result.is_negative()
    assert not result.published
    assert any(text.startswith("greedy_parity") for text in result.failed_checks)
    assert sha256_file(workspace / "models" / "mine" / "export.json") == before


def _wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the export did not get that far"
        time.sleep(0.05)


def test_kill_9_leaves_the_old_export_and_a_resume_does_not_merge_again(
    trained_run: Run, workspace: Path
) -> None:
    _export(trained_run, quantizations=["f16"], verify=False)
    before = sha256_file(workspace / "models" / "mine" / "export.json")
    values = {"run": trained_run.id, "name": "mine", "quantizations": ["f16", "q8_0"], "verify": False}
    run = Run.create("export.run", values, state="queued")
    merged = run.artifacts / "export" / "merged" / "model.safetensors"
    worker = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "jobs", "work", run.id],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    _wait_for(merged.is_file, 120)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert run.state() == "interrupted"
    assert sha256_file(workspace / "models" / "mine" / "export.json") == before
    inode = merged.stat().st_ino
    EXPORT_RUN.execute(EXPORT_RUN.parse(values), run)
    folder = workspace / "models" / "mine"
    assert (folder / "merged" / "model.safetensors").stat().st_ino == inode
    assert {p.name for p in folder.glob("*.gguf")} == {"model-f16.gguf", "model-q8_0.gguf"}
