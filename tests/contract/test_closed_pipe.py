"""`llmops ... | head` ends without a traceback when the reader has gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "status"),
    # 128 + SIGPIPE (13), what a shell reports for `yes | head`; argparse, which prints a verb's help, shrugs it off.
    [
        (["--help"], 141),
        (["data", "--help"], 141),
        (["data", "validate", "--help"], 0),
        (["lesson", "list", "--json"], 141),
    ],
    ids=str,
)
def test_a_reader_that_has_gone_ends_the_command_quietly(
    arguments: list[str], status: int, workspace: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LLMOPS_WORKSPACE": str(workspace)},
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (status, "")
