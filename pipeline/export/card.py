"""The small files beside the weights: Modelfile, tools.json, export.json and the model card."""

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

from pipeline.core.errors import InvalidInputError
from pipeline.core.files import read_json, sha256_file, write_atomic, write_json
from pipeline.core.paths import shown_path
from pipeline.core.units import format_bytes
from pipeline.export.gate_report import GATE_FILE
from pipeline.export.source import TrainingSource
from pipeline.export.vocabulary import end_token

_SMALL_MODEL_PARAMS = 1_000_000_000
_OLLAMA_CONTEXT_TOKENS = 4096
_HUB_LICENCES = ("Apache-2.0", "MIT")
"""SPDX ids whose lower-case form a hub knows; others are named in the text."""
RECORD = "export.json"


def gguf_name(quantization: str) -> str:
    """Return the file name of a quantisation inside an export folder."""
    return f"model-{quantization}.gguf"


def order_by_preference(files: list[Path], num_params: int) -> list[Path]:
    """Return GGUF files in the order in which they should be served, as long as they lose little on the task.

    Below a billion parameters 8 bits come first: rows are short, most fall back to other types, and little is saved.
    """
    order = ["q8_0", "f16", "q5_k_m", "q4_k_m"]
    if num_params >= _SMALL_MODEL_PARAMS:
        order = ["q4_k_m", "q5_k_m", "q8_0", "f16"]
    ranks = {gguf_name(quantization): rank for rank, quantization in enumerate(order)}
    return sorted(files, key=lambda path: (ranks.get(path.name, len(ranks)), path.name))


def default_gguf(quantizations: list[str], num_params: int) -> str | None:
    """Return the file to serve as long as nothing has been measured."""
    files = order_by_preference([Path(gguf_name(q)) for q in quantizations], num_params)
    return files[0].name if files else None


def write_companions(folder: Path, source: TrainingSource, served: str | None) -> None:
    """Write ``chat_template.jinja``, ``tools.json`` and ``Modelfile``."""
    write_atomic(folder / "chat_template.jinja", (source.base.folder / "chat_template.jinja").read_bytes())
    if source.tool_set is not None:
        write_atomic(folder / "tools.json", _tool_definitions(source.tool_set))
    if served is not None:
        write_atomic(folder / "Modelfile", _modelfile(source, served))


def write_record(
    folder: Path, name: str, export_run_id: str, source: TrainingSource, served: str | None
) -> None:
    """Write ``README.md`` and ``export.json``, which lists every other file with its digest."""
    write_atomic(folder / "README.md", _model_card(folder, name, source))
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name != RECORD
        and not path.name.endswith(GATE_FILE)  # the gate is written later, and again on demand
    }
    record = {
        "name": name,
        "default_gguf": served,
        "num_params": source.base.num_params,
        "source_run": source.run_id,
        "export_run": export_run_id,
        "base": source.base.folder.name,
        "base_model_path": source.facts["base_model_path"],
        "method": source.facts["method"],
        "tool_set": source.tool_set,
        "held_out": shown_path(source.held_out) if source.held_out else None,
        "system_prompt_template": source.facts.get("system_prompt_template"),
        "files": files,
    }
    write_json(folder / RECORD, record)


def change_default(folder: Path, served: str) -> None:
    """Make an export serve this file: ``Modelfile`` names it, and ``export.json`` says both.

    The record comes last: if it is not written, the next verification finds the old default there and does it again.
    """
    record: dict[str, Any] = read_json(folder / RECORD)
    modelfile = folder / "Modelfile"
    if modelfile.is_file():
        text = modelfile.read_text(encoding="utf-8")
        write_atomic(modelfile, re.sub(r"^FROM \./.*$", f"FROM ./{served}", text, flags=re.MULTILINE))
        facts = {"bytes": modelfile.stat().st_size, "sha256": sha256_file(modelfile)}
        record["files"] = {**record.get("files", {}), "Modelfile": facts}
    write_json(folder / RECORD, record | {"default_gguf": served})


def _tool_definitions(tool_set: str) -> bytes:
    if tool_set != "task_api":
        raise InvalidInputError(f"unknown tool set {tool_set!r}", hint="Known: task_api.")
    return importlib.resources.files("pipeline.task_api").joinpath("tools.json").read_bytes()


def _modelfile(source: TrainingSource, served: str) -> str:
    context = min(_OLLAMA_CONTEXT_TOKENS, source.base.config["max_position_embeddings"])
    return "\n".join(
        [
            "# For `ollama create`. No TEMPLATE: Ollama 0.30 and later use the one inside the GGUF, which is the one",
            "# the model was trained with. No SYSTEM either: the system message holds today's date, so clients send it:",
            f"#   {source.facts.get('system_prompt_template')}",
            f"FROM ./{served}",
            "PARAMETER temperature 0",
            f"PARAMETER num_ctx {context}",
            f'PARAMETER stop "{end_token(source.base.folder)}"',
            "",
        ]
    )


def _model_card(folder: Path, name: str, source: TrainingSource) -> str:
    facts = source.facts
    origin = source.base.folder / "source.json"
    base: dict[str, Any] = read_json(origin) if origin.is_file() else {}
    rows = [f"| `{p.name}` | {format_bytes(p.stat().st_size)} |" for p in sorted(folder.glob("*.gguf"))]
    metrics = [f"| {key} | {value:.6g} |" for key, value in sorted(source.metrics.items())]
    licence = str(base.get("licence", "other"))
    return "\n".join(
        [
            "---",
            f"license: {licence.lower() if licence in _HUB_LICENCES else 'other'}",
            *([f"base_model: {base['hub_id']}"] if "hub_id" in base else []),
            "pipeline_tag: text-generation",
            "---",
            f"# {name}",
            "",
            f"{source.base.folder.name} ({base.get('hub_id', 'local folder')}, {source.base.num_params / 1e6:.0f} M "
            f"parameters), fine-tuned with method `{facts['method']}` in run `{source.run_id}`.",
            "",
            f"- Licence of the base weights: {base.get('licence', 'unknown, see the base model')}",
            f"- Origin of the base weights: {base.get('origin', source.base.folder)}",
            f"- Training data sha256: `{facts.get('data', {}).get('train_sha256', 'not recorded')}`",
            f"- Tool set: {source.tool_set or 'none'}",
            f"- System prompt: `{facts.get('system_prompt_template', 'none')}`",
            "",
            "| file | size |",
            "| --- | --- |",
            *rows,
            "",
            "`gate.json`, when it is here, holds the checks that compare these files with the merged model.",
            "",
            "## Recipe",
            "",
            "```json",
            json.dumps(facts.get("recipe", {}), indent=2),
            "```",
            "",
            "## Last training metrics",
            "",
            *(["| metric | value |", "| --- | --- |", *metrics] if metrics else ["None recorded."]),
            "",
        ]
    )
