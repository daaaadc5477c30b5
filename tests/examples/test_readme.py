"""The README tells the truth: its Python runs, its commands and its files exist."""

import re
from pathlib import Path

import pytest

from pipeline.operations import OPERATIONS, find_operation

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    fences = re.findall(r"^```([^\n`]*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [text for found, text in fences if found.split(" ")[0] == language]


def test_every_python_block_runs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = _blocks("python")
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    # Wilson interval of 48 of 50 by the formula of Wilson (1927): 0.865 to 0.989.
    low, high = re.findall(r"0\.\d+", capsys.readouterr().out)[-2:]
    assert (round(float(low), 3), round(float(high), 3)) == (0.865, 0.989)


def test_every_llmops_command_and_flag_exists() -> None:
    commands = re.findall(r"^(?:llmops) (\w+) (\w+)(.*)$", "\n".join(_blocks("bash")), flags=re.MULTILINE)
    assert len(commands) >= 8
    names = {entry.name for entry in OPERATIONS}
    for group, verb, rest in commands:
        assert f"{group}.{verb}" in names
        fields = find_operation(f"{group}.{verb}").request.model_fields
        for flag in re.findall(r"--([a-z-]+)", rest.split("#")[0]):
            assert flag.replace("-", "_") in fields, f"{group} {verb} has no --{flag}"


def test_every_file_of_the_tree_exists() -> None:
    tree = next(block for block in _blocks("") if "pipeline/core/" in block)
    named = [line.split()[0].rstrip(",") for line in tree.splitlines()]
    assert len(named) > 15
    for path in named:
        assert (REPOSITORY / path).exists(), path
