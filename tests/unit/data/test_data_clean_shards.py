"""``data clean_shards``: datatrove's processes decide what one process decides."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.data.clean import DATA_CLEAN
from pipeline.data.clean_shards import DATA_CLEAN_SHARDS

pytestmark = pytest.mark.slow


def make_rows(num_rows: int) -> list[dict[str, Any]]:
    source = random.Random(11)
    vocabulary = [f"word{number}" for number in range(400)]
    texts: list[list[str]] = []
    for _ in range(num_rows):
        words = (
            list(source.choice(texts))
            if texts and source.random() < 0.5
            else source.choices(vocabulary, k=40)
        )
        for _ in range(source.choice((0, 0, 1, 2, 3))):
            words[source.randrange(40)] = source.choice(vocabulary)
        texts.append(words)
    return [
        {
            "messages": [
                {"role": "user", "content": " ".join(words[:20])},
                {"role": "assistant", "content": " ".join(words[20:])},
            ]
        }
        for words in texts
    ]


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_several_files_in_several_processes_give_what_one_file_in_one_process_gives(
    workspace: Path, num_workers: int
) -> None:
    lines = [json.dumps(row) for row in make_rows(240)]
    lines[17] = '{"messages": 5}'
    lines[201] = json.dumps({"instruction": "hi", "output": "ho"})
    (workspace / "all.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (workspace / "shards").mkdir()
    for name, part in (("a", lines[:100]), ("b", lines[100:150])):
        (workspace / "shards" / f"{name}.jsonl").write_text("\n".join(part), encoding="utf-8")
    compressed = gzip.compress(("\n".join(lines[150:]) + "\n").encode("utf-8"))
    (workspace / "shards" / "c.jsonl.gz").write_bytes(compressed)
    one = DATA_CLEAN.call({"file": "all.jsonl"})
    many = DATA_CLEAN_SHARDS.call({"folder": "shards", "out": "clean", "num_workers": num_workers})
    assert one.num_dropped["near_duplicate"] > 20
    assert one.num_dropped["exact_duplicate"] > 5
    assert (many.num_kept, many.num_dropped) == (one.num_kept, one.num_dropped)
    kept = [line for name in "abc" for line in lines_of(workspace / "clean" / f"{name}.jsonl")]
    assert kept == lines_of(workspace / "all.clean.jsonl")
    first_line = {"a.jsonl": 0, "b.jsonl": 100, "c.jsonl.gz": 150}
    drops: list[dict[str, Any]] = []
    for name, before in first_line.items():
        for drop in map(json.loads, lines_of(workspace / "clean" / f"{name[0]}.drops.jsonl")):
            drop["line"] += before
            if "partner_line" in drop:
                drop["partner_line"] += first_line[drop.pop("partner_file", name)]
            drops.append(drop)
    assert drops == [json.loads(line) for line in lines_of(workspace / "all.clean.drops.jsonl")]


def test_a_broken_row_stops_it_with_file_and_line_when_the_schema_step_is_left_out(workspace: Path) -> None:
    (workspace / "shards").mkdir()
    text = json.dumps(make_rows(1)[0]) + '\n{"messages": 5}\n'
    (workspace / "shards" / "a.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"a\.jsonl: line 2"):
        DATA_CLEAN_SHARDS.call({"folder": "shards", "out": "clean", "steps": ["exact"], "num_workers": 2})
    assert not (workspace / "clean").exists()


def test_the_input_folder_cannot_be_the_output(workspace: Path) -> None:
    (workspace / "shards").mkdir()
    with pytest.raises(InvalidInputError, match="has no"):
        DATA_CLEAN_SHARDS.call({"folder": "shards", "out": "clean"})
    (workspace / "shards" / "a.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="replace the input"):
        DATA_CLEAN_SHARDS.call({"folder": "shards", "out": "shards"})
