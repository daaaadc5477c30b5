"""The guides and the README's tour tell the truth: blocks run in a fresh workspace and print what the page shows.

A fence says `run` or `run slow`; any other bash or python block stands under a paragraph that says why it is not run. All
blocks of a page share one workspace, in order. An `output` fence shows lines that the block above it must print, each
as it stands there apart from spacing; `...` leaves lines out.
"""

import errno
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.operations import OPERATIONS, find_operation

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
GUIDES = sorted((REPOSITORY / "docs" / "guides").glob("*.md"))
NOT_RUN = "Not run as a test: "
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block."""

    language: str
    marks: tuple[str, ...]
    text: str
    paragraph_above: str
    """What stands before the fence, from the last empty line on."""


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for fence in _FENCE.finditer(text):
        language, *marks = fence[1].split() or [""]
        above = text[: fence.start()].rstrip().split("\n\n")[-1]
        found.append(Block(language, tuple(marks), fence[2], above))
    return found


def is_code(block: Block) -> bool:
    return block.language in {"bash", "python"}


def is_slow(page: Path) -> bool:
    return any("slow" in block.marks for block in blocks_of(page))


def run_on_terminal(block: Block, workspace: Path) -> str:
    """Run a block as a reader would, on a terminal of 80 columns, and return what it shows."""
    command = {
        "bash": ["bash", "-euo", "pipefail", "-c", block.text],
        "python": [sys.executable, "-c", block.text],
    }
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "LLMOPS_WORKSPACE": str(workspace), "PATH": tools, "TERM": "dumb", "COLUMNS": "80"}
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        command[block.language],
        cwd=workspace,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.STDOUT,
    )
    os.close(theirs)
    shown = _read_to_end(ours)
    assert process.wait() == 0, f"{block.text}\n{shown}"
    return shown


def _read_to_end(terminal: int) -> str:
    chunks: list[bytes] = []
    try:
        while chunk := os.read(terminal, 65536):
            chunks.append(chunk)
    except OSError as error:
        if error.errno != errno.EIO:  # how Linux says that the other side has closed
            raise
    finally:
        os.close(terminal)
    return b"".join(chunks).decode("utf-8")


def run_page(page: Path, workspace: Path) -> int:
    """Run the blocks of a page and hold its output fences against what was shown; return how many ran."""
    # A copy: the server refuses a link that leads out of the workspace.
    shutil.copytree(REPOSITORY / "datasets", workspace / "datasets")
    shown, num_run = "", 0
    for block in blocks_of(page):
        if is_code(block):
            shown = ""
            if "run" in block.marks:
                shown = run_on_terminal(block, workspace)
                num_run += 1
        elif block.language == "output":
            lines = {" ".join(line.split()) for line in shown.splitlines()}
            expected = [" ".join(line.split()) for line in block.text.splitlines()]
            missing = [line for line in expected if line not in {"", "...", *lines}]
            assert not missing, f"{page.name}: not shown: {missing}\n{shown}"
    return num_run


@pytest.mark.parametrize(
    "page", [page for page in (README, *GUIDES) if not is_slow(page)], ids=lambda page: page.stem
)
def test_the_blocks_of_a_guide_run_and_print_what_it_shows(page: Path, workspace: Path) -> None:
    assert run_page(page, workspace) > 0


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in GUIDES if is_slow(page)], ids=lambda page: page.stem)
def test_the_blocks_of_a_guide_with_a_model_run_and_print_what_it_shows(
    page: Path, workspace: Path, starter_model: Path
) -> None:
    (workspace / "models").mkdir()
    (workspace / "models" / starter_model.name).symlink_to(starter_model)
    assert run_page(page, workspace) > 0


def test_a_block_that_does_not_run_says_so_on_the_page() -> None:
    silent = [
        (page.name, block.text)
        for page in GUIDES
        for block in blocks_of(page)
        if is_code(block) and "run" not in block.marks and NOT_RUN not in block.paragraph_above
    ]
    assert len(GUIDES) >= 9
    assert silent == []


def test_an_output_fence_belongs_to_a_block_that_runs() -> None:
    for page in (README, *GUIDES):
        for before, after in pairwise(blocks_of(page)):
            assert after.language != "output" or "run" in before.marks, f"{page.name}: {after.text}"


def test_every_flag_in_a_guide_exists_also_in_blocks_that_do_not_run() -> None:
    names = {entry.name for entry in OPERATIONS}
    checked = 0
    for page in GUIDES:
        text = "\n".join(block.text for block in blocks_of(page) if block.language == "bash")
        for group, verb, rest in re.findall(
            r"^llmops (\w+) ([\w-]+)(.*)$", text.replace("\\\n", " "), re.MULTILINE
        ):
            assert f"{group}.{verb}" in names
            fields = {*find_operation(f"{group}.{verb}").request.model_fields, "request", "json", "detach"}
            used = {flag.replace("-", "_") for flag in re.findall(r" --([a-z-]+)", rest.split(" # ")[0])}
            unknown = {flag for flag in used - fields if flag.removeprefix("no_") not in fields}
            assert not unknown, f"{page.name}: {group} {verb} has no {unknown}"
            checked += 1
    assert checked > 30


def test_the_guides_show_how_to_serve_in_every_way() -> None:
    text = "\n".join(block.text for page in GUIDES for block in blocks_of(page) if block.language == "bash")
    shown = set(re.findall(r"^llmops deploy ([\w-]+)", text, re.MULTILINE))
    assert {"serve", "cluster-config", "list", "stop"} <= shown
    assert re.search(r"^llmops deploy serve .*--adapter \w+=", text, re.MULTILINE)
