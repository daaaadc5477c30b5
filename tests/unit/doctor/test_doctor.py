"""doctor.run: facts about this machine, version judgement, known-bad pairs, verdict."""

import contextlib
import os
import socket
from importlib.metadata import version
from typing import Any

import psutil
import pytest

from pipeline.core.machine import GpuFacts, multiplies_in_16_bits, parse_gpus, read_tools
from pipeline.doctor.known_bad import Installed, Problem, find_known_bad
from pipeline.doctor.libraries import LibraryFacts, State, judge_library, judge_version, release
from pipeline.doctor.run import (
    DoctorRunRequest,
    find_library_problems,
    find_machine_problems,
    find_slow_processor,
    run_doctor,
)

GIB = 1 << 30
T4 = GpuFacts(
    name="Tesla T4",
    memory_bytes=15360 << 20,
    free_memory_bytes=15100 << 20,
    compute_capability="7.5",
    driver="550.54.15",
)
L4 = GpuFacts(
    name="NVIDIA L4",
    memory_bytes=23034 << 20,
    free_memory_bytes=22500 << 20,
    compute_capability="8.9",
    driver="550.54.15",
)
GOOD = {
    "torch": "2.13.0+cpu",
    "transformers": "5.23.0",
    "trl": "1.16.0",
    "datasets": "5.2.0",
    "certifi": "2026.10.18",
}


def problems_with(changes: dict[str, str], gpus: list[GpuFacts] | None = None) -> list[Problem]:
    return find_known_bad(Installed({**GOOD, **changes}, gpus or []))


def test_the_report_agrees_with_the_system() -> None:
    result = run_doctor(DoctorRunRequest())
    assert result.cpu.num_cpus == len(os.sched_getaffinity(0))
    assert result.memory_bytes <= psutil.virtual_memory().total
    assert result.free_disk_bytes > 0
    rows = {row.name: row for row in result.libraries}
    assert rows["pydantic"].installed == version("pydantic")
    assert {"torch", "trl", "mcp", "xllamacpp", "openai-agents", "pytest"} <= rows.keys()
    assert {row.extra for row in result.libraries} == {
        "base", "data", "scale", "cluster", "pii", "train", "serve", "agent", "mcp", "dev",
    }  # fmt: skip
    assert result.is_negative() is not result.ready


def test_a_machine_that_make_setup_prepared_is_ready() -> None:
    result = run_doctor(DoctorRunRequest())
    assert [problem for problem in result.problems if problem.severity == "blocks"] == []
    assert result.ready


@pytest.mark.parametrize(
    ("installed", "wanted", "state"),
    [
        ("2.13.0+cpu", ">=2.13,<2.14", "ok"),
        ("2.12.9", ">=2.13,<2.14", "too old"),
        ("2.14.0", ">=2.13,<2.14", "too new"),
        ("2026.10.11549", ">=2026.10.11549,<2027", "ok"),
        ("1.9", ">=1.10", "too old"),  # numbers, not text
        ("5.0.0rc1", "<5,>=4", "too new"),
        ("0.8.0", "", "ok"),
    ],
)
def test_versions_are_compared_as_numbers(installed: str, wanted: str, state: State) -> None:
    assert judge_version(installed, wanted) == state


def test_a_release_is_the_leading_numbers() -> None:
    assert release("2.13.0+cpu") == (2, 13, 0)
    assert release("2026.10.9.post1") == (2026, 10, 9)


def test_a_missing_library_names_the_command_that_installs_it() -> None:
    row = judge_library("no-such-library", ">=1", "serve")
    assert (row.state, row.installed) == ("missing", "")
    assert row.mend == ".venv/bin/pip install -c constraints.txt -e '.[serve]'"


def test_the_pinned_set_has_no_known_bad_pair() -> None:
    assert problems_with({}) == []


@pytest.mark.parametrize(
    ("changes", "what", "severity"),
    [
        ({"trl": "1.15.0", "transformers": "4.57.0"}, "fused loss head needs Triton", "blocks"),
        ({"trl": "1.14.0"}, "transformers 5 with a trl below 1.16", "blocks"),
        ({"unsloth": "2026.10.7"}, "unsloth asks for trl <= 1.15 and datasets < 5", "warns"),
        ({"unsloth": "2026.10.9", "trl": "1.15.0", "datasets": "4.8.5"}, "certifi", "warns"),
        ({"torchvision": "0.28.0"}, "torchvision 0.28.0 beside torch 2.13.0+cpu", "blocks"),
    ],
)
def test_each_known_bad_pair_is_found_with_a_command(
    changes: dict[str, str], what: str, severity: str
) -> None:
    (problem,) = problems_with(changes)
    assert what in problem.what
    assert problem.severity == severity
    assert problem.mend.startswith(".venv/bin/pip ")


@pytest.mark.parametrize(
    "changes",
    [
        {"trl": "1.15.0", "transformers": "4.57.0", "triton": "3.8.0"},
        {"unsloth": "2026.10.7", "trl": "1.15.0", "datasets": "4.8.5", "transformers": "5.17.0"},
        {"torchvision": "0.28.0+cpu"},
        {"torch": "2.13.0", "torchvision": "0.28.0"},
        {"unsloth": "2026.10.9", "trl": "1.15.0", "datasets": "4.8.5", "certifi": "2026.10.19"},
    ],
)
def test_pairs_that_work_are_not_reported(changes: dict[str, str]) -> None:
    assert problems_with(changes) == []


def test_a_gpu_without_bfloat16_is_reported_with_the_preset_for_it() -> None:
    (problem,) = problems_with({}, [L4, T4])
    assert "Tesla T4 has compute capability 7.5" in problem.what
    assert problem.mend == "llmops train run --preset t4-qlora"
    assert problems_with({}, [L4]) == []


@pytest.mark.parametrize(
    ("features", "gpus", "num_problems"),
    [
        (["avx2", "fma"], [], 1),
        (["avx2", "fma"], [T4], 0),
        (["avx2", "avx512f", "avx512_bf16"], [], 0),
        (["bf16"], [], 0),  # ARM
        ([], [], 0),  # the system does not say
    ],
)
def test_a_processor_that_trains_for_hours_is_told_before(
    features: list[str], gpus: list[GpuFacts], num_problems: int
) -> None:
    problems = find_slow_processor(features, gpus)
    assert len(problems) == num_problems
    assert all(problem.severity == "warns" and "--num-rows" in problem.mend for problem in problems)


def test_the_warning_about_this_processor_agrees_with_what_torch_will_do() -> None:
    torch: Any = pytest.importorskip("torch")
    features = run_doctor(DoctorRunRequest()).cpu.features
    assert multiplies_in_16_bits(features) is torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_gpus_are_read_from_what_nvidia_smi_prints() -> None:
    text = "Tesla T4, 15360, 15100, 7.5, 550.54.15\nNVIDIA L4, 23034, 22500, 8.9, 550.54.15\n"
    assert parse_gpus(text) == [T4, L4]
    assert parse_gpus("NVIDIA-SMI has failed because it couldn't communicate with the driver\n") == []
    assert parse_gpus("Graphics Device, [N/A], [N/A], 9.0, 600.1\n") == []


def test_a_small_machine_cannot_run_the_quickstart() -> None:
    assert find_machine_problems(8 * GIB, 20 * GIB, (3, 11)) == []
    found = find_machine_problems(2 * GIB, 1 * GIB, (3, 10))
    assert [problem.severity for problem in found] == ["blocks"] * 3
    assert "Python 3.10 is too old" in found[0].what
    assert "2.0 GiB of memory" in found[1].what
    assert "1.0 GiB of disk free" in found[2].what


def library(name: str, extra: str, state: State) -> LibraryFacts:
    return LibraryFacts(
        name=name, extra=extra, wanted=">=1", installed="", state=state, mend=f"install {extra}"
    )


def test_missing_libraries_block_only_when_the_quickstart_needs_them() -> None:
    rows = [
        library("torch", "train", "missing"),
        library("trl", "train", "too old"),
        library("peft", "train", "ok"),
        library("ruff", "dev", "missing"),
    ]
    train, dev = find_library_problems(rows)
    assert (train.what, train.severity, train.mend) == (
        "train: torch missing, trl too old",
        "blocks",
        "install train",
    )
    assert (dev.what, dev.severity) == ("dev: ruff missing", "warns")


def test_a_checkout_that_is_not_installed_is_told_to_set_up() -> None:
    (problem,) = find_library_problems([])
    assert (problem.severity, problem.mend) == ("blocks", "make setup")


def test_ollama_is_found_when_its_port_answers() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # a real Ollama may have the port
            server.bind(("127.0.0.1", 11434))
            server.listen()
        assert {tool.name: tool.found for tool in read_tools()}["ollama"] is True
