"""Checks of chapter 64, Supervised Fine-Tuning: runs that really ended, curves judged again, gates with intervals."""

import json
import math
from typing import Any, cast

from pipeline.core.files import read_json, sha256_file
from pipeline.core.paths import resolve_path
from pipeline.core.runs import Run
from pipeline.data.preview import DATA_PREVIEW
from pipeline.doctor.run import DOCTOR_RUN
from pipeline.lessons.checks.chapter_63 import require_learning_spec
from pipeline.lessons.checks.computed import find_run, is_close, require_same, require_skill
from pipeline.lessons.work import Work
from pipeline.train.compare import TRAIN_COMPARE
from pipeline.train.curve import Curve, open_training_run
from pipeline.train.diagnose import TRAIN_DIAGNOSE
from pipeline.train.recipe import TrainRecipe
from pipeline.vram.parameters import VRAM_PARAMETERS

_MIN_STEPS = 10
_MIN_REASONS = 5
_MIN_RUNS = 3
_EXPORTS = ("merged", "gguf")
MAX_TRAINING_SECONDS = 7200
MAX_EVAL_LOSS = 1.0


def check_64_0(work: Work) -> None:
    """A learning spec whose criteria name checks, and a first fine-tuning skill."""
    require_learning_spec(work)
    require_skill(work, "llmops-fine-tuner", {"train"}, needs_prompts=False)


def check_64_1(work: Work) -> None:
    """The adapter's size follows from rank and targets, and one matrix is counted by hand."""
    step = "llmops vram parameters --model meta-llama/Meta-Llama-3-8B --rank 16"
    card = work.read_json("lora.json", next_step=f"Fill the card: {step}")
    request = {"model": str(card.get("model", "")), "rank": card.get("rank")}
    counted = work.call(VRAM_PARAMETERS, request, next_step=step).model_dump(mode="json")
    names = ("adapter_parameters", "adapter_file_bytes_16bit", "adapter_file_bytes_fp32")
    require_same(work, card, counted, names, next_step=step)
    share = counted["adapter_parameters"] / counted["num_parameters"]
    require_same(work, card, {"share": share}, ("share",), next_step="adapter_parameters / num_parameters")
    matrix = cast("dict[str, Any]", card.get("one_matrix") or {})
    inputs, outputs = matrix.get("inputs"), matrix.get("outputs")
    is_counted = isinstance(inputs, int) and isinstance(outputs, int) and isinstance(card.get("rank"), int)
    work.require(
        "one matrix counted by hand: rank x (inputs + outputs)",
        is_counted and matrix.get("lora") == card["rank"] * (cast("int", inputs) + cast("int", outputs)),
        reason=f"{matrix}",
        next_step='Add one_matrix: {"inputs": 4096, "outputs": 4096, "lora": ...}.',
    )


def check_64_2(work: Work) -> None:
    """A recipe that is valid, explained, and whose steps are counted."""
    step = "llmops train presets; write recipe.json, reasons.json and steps.json"
    recipe = _read_recipe(work, step)
    reasons = work.read_json("reasons.json", next_step=step)
    explained = {
        name for name, text in reasons.items() if name in TrainRecipe.model_fields and len(str(text)) >= 20
    }
    work.require(
        f"{_MIN_REASONS} values have a reason of their own",
        len(explained) >= _MIN_REASONS and len({str(reasons[name]) for name in explained}) == len(explained),
        reason=f"explained: {sorted(explained)}",
        next_step="Say for each what you would see if it were wrong.",
    )
    plan = work.read_json("steps.json", next_step='Write {"num_rows", "num_steps", "warmup_steps"}.')
    rows = int(plan.get("num_rows") or 0)
    batch = recipe.micro_batch_size * recipe.gradient_accumulation_steps
    steps = math.ceil(math.ceil(rows / batch) * recipe.num_epochs)
    expected = {"num_steps": steps, "warmup_steps": math.ceil(steps * recipe.warmup_ratio)}
    require_same(work, plan, expected, ("num_steps", "warmup_steps"), next_step="ceil(rows / batch) x epochs")


def _read_recipe(work: Work, step: str) -> TrainRecipe:
    values = work.read_json("recipe.json", next_step=step)
    try:
        return TrainRecipe.model_validate(values)
    except ValueError as error:
        raise work.stop("recipe.json is a recipe", reason=str(error)[:200], next_step=step) from error


def check_64_3(work: Work) -> None:
    """The environment report is this machine's, and nothing that trains is broken."""
    step = "llmops doctor run --json > learning/64.3/environment.json"
    report = work.read_json("environment.json", next_step=step)
    fresh = work.call(DOCTOR_RUN, {}, next_step=step).model_dump(mode="json")
    require_same(work, report, fresh, ("python", "ready", "libraries"), next_step=step)
    versions = {row["name"]: row["installed"] for row in fresh["libraries"] if "installed" in row}
    work.require(
        "torch, transformers, trl and peft are installed",
        fresh["ready"] and all(versions.get(name, True) for name in ("torch", "transformers", "trl", "peft")),
        reason=f"ready: {fresh['ready']}",
        next_step="Follow the command of each problem in `llmops doctor run`.",
    )


def training_run(work: Work, run_id: object) -> tuple[Run, dict[str, Any]]:
    """Return a succeeded training run and its result.

    Raises:
        NotYetError: If there is none.
    """
    return find_run(work, run_id, "train.run", next_step="llmops train run DATA --preset cpu-smoke")


def check_64_4(work: Work) -> None:
    """The rows were previewed, the run ended, and something was learned."""
    claim = work.read_json("training.json", next_step='Train, then write {"run": RUN, "trained_share": ...}.')
    run, result = training_run(work, claim.get("run"))
    require_same(
        work, claim, result, ("trained_share", "num_steps"), next_step="Copy them from the run's result."
    )
    request = read_json(run.path / "request.json")
    data = resolve_path(request["data"])
    train = data / "train.jsonl" if data.is_dir() else data
    preview = {"data": str(train), "model": request["model"], "num_rows": 1}
    shown = work.call(DATA_PREVIEW, preview, next_step=f"llmops data preview {train}").model_dump(mode="json")
    work.require(
        "every row that is shown has trained tokens",
        shown["num_untrained"] == 0 and result["trained_share"] > 0,
        reason=f"{shown['num_untrained']} rows without, trained share {result['trained_share']}",
        next_step="Mend the rows or the template; see llmops data preview.",
    )
    curve = open_training_run(run.id).curve
    require_learning(work, curve)


def require_learning(work: Work, curve: Curve) -> None:
    """State that the training loss fell from the first to the last tenth of the steps."""
    losses = [loss for _, loss in curve.train]
    tenth = max(1, len(losses) // 10)
    first, last = (
        sum(losses[:tenth]) / tenth if losses else 0.0,
        sum(losses[-tenth:]) / tenth if losses else 0.0,
    )
    work.require(
        "the training loss fell",
        len(losses) >= _MIN_STEPS and last < first,
        reason=f"{len(losses)} steps, loss {first:.3f} to {last:.3f}",
        next_step="llmops train diagnose RUN",
    )


def check_64_5(work: Work) -> None:
    """The verdict on the curve is what its numbers give, and a picture was drawn."""
    step = "llmops train diagnose RUN --out learning/64.5 --json > learning/64.5/verdict.json"
    report = work.read_json("verdict.json", next_step=step)
    run, _ = training_run(work, report.get("run_id"))
    fresh = work.call(TRAIN_DIAGNOSE, {"run_id": run.id, "out": str(work.own)}, next_step=step).model_dump(
        mode="json"
    )
    require_same(work, report, fresh, ("verdict", "evidence", "last_step"), next_step=step)
    curve = open_training_run(run.id).curve
    work.require(
        "training and validation loss are both there",
        curve.train and curve.evaluation,
        reason=f"{len(curve.train)} and {len(curve.evaluation)} points",
        next_step="Give the folder with validation.jsonl as data.",
    )
    work.path("curve.png", next_step=step)


def check_64_6(work: Work) -> None:
    """Three runs on the same data that differ in one value; the best by validation loss is the one chosen."""
    step = "llmops train compare RUN RUN RUN --out learning/64.6 --json > learning/64.6/sweep.json"
    sweep = work.read_json("sweep.json", next_step=step)
    listed = [row.get("run_id") for row in cast("list[dict[str, Any]]", sweep.get("runs") or [])]
    runs = [training_run(work, run_id)[0] for run_id in listed]
    work.require(
        f"{_MIN_RUNS} different runs",
        len({run.id for run in runs}) >= _MIN_RUNS,
        reason=f"{len(runs)} runs",
        next_step="llmops train tune runs/data",
    )
    if len(runs) < 2:
        return
    request = {"run_ids": [run.id for run in runs], "out": str(work.own)}
    fresh = work.call(TRAIN_COMPARE, request, next_step=step).model_dump(mode="json")
    require_same(work, sweep, fresh, ("best", "data_differs", "runs"), next_step=step)
    changed = {name for row in fresh["runs"] for name in row["changed"]}
    work.require(
        "they differ in one or two values, on the same data",
        0 < len(changed) <= 2 and not fresh["data_differs"],
        reason=f"changed: {sorted(changed)}",
        next_step="One change at a time, or you will not know which it was.",
    )
    chosen = work.read_json("optimal_config.json", next_step="Save the recipe of the best run there.")
    best = open_training_run(str(fresh["best"])).recipe
    work.require(
        "optimal_config.json is the best run's recipe",
        is_close(chosen, best.model_dump(mode="json")),
        reason=f"best is {fresh['best']}",
        next_step=f"Copy the recipe of {fresh['best']}.",
    )


def check_64_7(work: Work) -> None:
    """A run was interrupted, went on from a checkpoint and lost no step."""
    claim = work.read_json("resume.json", next_step='Write {"run": RUN} of a run you killed and resumed.')
    run, result = training_run(work, claim.get("run"))
    training: dict[str, Any] = read_json(run.artifacts / "training.json")
    resumed = training["outcome"].get("resumed_from_step")
    work.require(
        "it went on from a checkpoint",
        isinstance(resumed, int) and resumed > 0,
        reason=f"resumed_from_step {resumed!r}",
        next_step="kill -9 the worker after its first checkpoint, then llmops jobs resume RUN",
    )
    steps = {row["step"] for row in run.metrics() if "loss" in row}
    work.require(
        "every step was trained",
        steps == set(range(1, result["num_steps"] + 1)),
        reason=f"{len(steps)} of {result['num_steps']} steps in the metrics",
        next_step="Resume until the run has succeeded.",
    )


def check_64_8(work: Work) -> None:
    """An export that passed its gate and whose files are still the ones that passed."""
    claim = work.read_json("export.json", next_step='Export, then write {"run": EXPORT_RUN}.')
    _, result = find_run(
        work, claim.get("run"), "export.run", next_step="llmops export run run:RUN --name NAME"
    )
    work.require(
        "the gate passed",
        result["gate_passed"] is True and result["published"],
        reason=f"failed checks: {result['failed_checks']}",
        next_step="llmops export verify --model PATH",
    )
    folder = resolve_path(result["path"])
    changed = [name for name, size in result["files"].items() if not _has_size(folder / name, size)]
    work.require(
        "the files are those that passed",
        not changed,
        reason=f"changed: {changed[:3]}",
        next_step="Export again.",
    )
    names = " ".join(result["files"])
    work.require(
        "merged weights and a GGUF file",
        all(kind in names for kind in _EXPORTS),
        reason=names[:160],
        next_step="llmops export run run:RUN --formats merged,gguf",
    )
    digest = {name: sha256_file(folder / name) for name in result["files"] if name.endswith(".gguf")}
    require_same(
        work, claim, {"sha256": digest}, ("sha256",), next_step="Add sha256 of each GGUF file (sha256sum)."
    )


def _has_size(path: Any, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def check_64_9(work: Work) -> None:
    """The capstone: spec before run, training, export and evaluation of the same model, gates with intervals."""
    spec = require_spec(
        work, ("max_eval_loss", "min_creation_accuracy", "max_latency_ms", "max_training_seconds")
    )
    runs = work.read_json("runs.json", next_step='Write {"train": RUN, "export": RUN, "evaluate": RUN}.')
    train, trained = training_run(work, runs.get("train"))
    _, exported = find_run(work, runs.get("export"), "export.run", next_step="llmops export run run:RUN")
    measured, result = find_run(
        work, runs.get("evaluate"), "evals.run", next_step="llmops evals run --cases TEST"
    )
    require_spec_first(work, train)
    require_one_model(work, train, exported, measured)
    work.require(
        "validation loss is below the limit",
        trained["eval_loss"] is not None
        and trained["eval_loss"] < min(float(spec["max_eval_loss"]), MAX_EVAL_LOSS),
        reason=f"{trained['eval_loss']}",
        next_step="llmops train diagnose RUN",
    )
    work.require(
        "training was short enough",
        trained["train_seconds"] <= min(float(spec["max_training_seconds"]), MAX_TRAINING_SECONDS),
        reason=f"{trained['train_seconds']:.0f} s",
        next_step="Fewer rows, or a faster preset.",
    )
    require_bound(
        work, "creating tasks", lower_bound(measured, intent="create"), float(spec["min_creation_accuracy"])
    )
    latency = cast("dict[str, Any]", result.get("latency") or {})
    p95 = next((value for name, value in latency.items() if "p95" in name), None)
    work.require(
        "answers are fast enough on this machine, or the hardware that is is named",
        (isinstance(p95, (int, float)) and p95 <= float(spec["max_latency_ms"]))
        or spec.get("latency_hardware"),
        reason=f"p95 {p95} ms",
        next_step="Name in latency_hardware where the limit holds; this machine's number is in the report.",
    )


def require_spec(work: Work, gates: tuple[str, ...]) -> dict[str, Any]:
    """State that spec.json has intent, constraints and these gates as numbers; return its gates.

    Raises:
        NotYetError: If there is no spec.
    """
    step = f"Write spec.json: intent, constraints, gates {{{', '.join(gates)}}}."
    spec = work.read_json("spec.json", next_step=step)
    found = cast("dict[str, Any]", spec.get("gates") or {})
    if not all(isinstance(found.get(name), (int, float)) for name in gates):
        raise work.stop(
            "spec.json has every gate as a number", reason=f"gates: {sorted(found)}", next_step=step
        )
    work.require(
        "intent and constraints are stated",
        len(str(spec.get("intent", ""))) >= 30 and spec.get("constraints"),
        reason=f"intent of {len(str(spec.get('intent', '')))} characters",
        next_step=step,
    )
    return found


def require_spec_first(work: Work, run: Run) -> None:
    """State that the spec was written before training began."""
    written = (work.own / "spec.json").stat().st_mtime
    queued = float(run.manifest()["queued_at"])
    work.require(
        "the spec is older than the training",
        written <= queued,
        reason=f"written {written - queued:+.0f} s from the start",
        next_step="Criteria set after the result are none: train again with the spec as it is.",
    )


def require_one_model(work: Work, train: Run, exported: dict[str, Any], measured: Run) -> None:
    """State that what was exported comes from the training and what was measured is the export."""
    request = json.dumps(read_json(measured.path / "request.json"))
    work.require(
        "what was measured is what was exported",
        str(exported["path"]) in request or str(exported["path"]).rpartition("/")[2] in request,
        reason=f"exported to {exported['path']}",
        next_step=f"llmops evals run --serve {exported['path']}",
    )
    record = read_json(resolve_path(exported["path"]) / "export.json")
    work.require(
        "what was exported is what was trained, and it passed its gate",
        train.id in json.dumps(record) and exported["gate_passed"] is True,
        reason=f"gate passed: {exported['gate_passed']}",
        next_step=f"llmops export run run:{train.id}",
    )


def lower_bound(measured: Run, **wanted: str) -> tuple[int, int, float]:
    """Return right, total and the lower bound of the interval over the turns with these values."""
    from pipeline.evals.intervals import wilson

    lines = (measured.artifacts / "details.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [
        row for row in map(json.loads, lines) if all(row.get(key) == value for key, value in wanted.items())
    ]
    right = sum(bool(row["correct"]) for row in rows)
    return right, len(rows), wilson(right, len(rows))[0] or 0.0


def require_bound(work: Work, what: str, counted: tuple[int, int, float], limit: float) -> None:
    """State that the lower bound of an interval reaches a limit."""
    right, total, low = counted
    work.require(
        f"{what}: the lower bound of the interval reaches {limit}",
        low >= limit,
        reason=f"{right} of {total} right, lower bound {low:.3f}",
        next_step="More test rows narrow the interval; more wording raises the rate.",
    )
