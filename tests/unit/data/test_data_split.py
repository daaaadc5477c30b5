"""``data split``: groups and near-duplicates stay whole, counts and strata hold, files and manifest agree."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.data.split import DATA_SPLIT, DataSplitResult


def row(number: int, text: str = "", **fields: Any) -> dict[str, Any]:
    text = text or " ".join(f"w{number}x{position}" for position in range(15))
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": f"answer {text}"}]
    return {"id": f"r{number}", "messages": turns, **fields}


def write(workspace: Path, rows: list[dict[str, Any]]) -> Path:
    path = workspace / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def split(**fields: Any) -> DataSplitResult:
    return DATA_SPLIT.call({"file": "rows.jsonl", "out": "out", **fields})


def read(workspace: Path, result: DataSplitResult) -> dict[str, list[dict[str, Any]]]:
    files = {name: workspace / side.path for name, side in result.sides.items() if side.path}
    return {
        name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for name, path in files.items()
    }


def test_the_ratios_are_met_and_every_row_is_in_one_file(workspace: Path) -> None:
    write(workspace, [row(number) for number in range(50)])
    result = split()
    rows = read(workspace, result)
    assert {name: len(found) for name, found in rows.items()} == {"train": 40, "validation": 5, "test": 5}
    ids = [one["id"] for found in rows.values() for one in found]
    assert sorted(ids) == sorted(f"r{number}" for number in range(50))


def test_exact_counts_under_the_names_asked_for(workspace: Path) -> None:
    write(workspace, [row(number) for number in range(60)])
    names = ["task_api_train", "task_api_val", "task_api_test"]
    result = split(counts=[40, 5, 5], names=names)
    assert sorted(path.name for path in (workspace / "out").iterdir()) == [
        "split.json", "task_api_test.jsonl", "task_api_train.jsonl", "task_api_val.jsonl",
    ]  # fmt: skip
    assert [result.sides[name].num_rows for name in names] == [40, 5, 5]
    assert result.num_unused == 10


def test_rows_of_a_group_stay_on_one_side(workspace: Path) -> None:
    rows = [row(number, group=f"g{number % 12}", template=None) for number in range(60)]
    rows += [row(number, tags={"template": f"t{number % 3}"}) for number in range(60, 75)]
    write(workspace, rows)
    sides_of: dict[str, set[str]] = {}
    for name, found in read(workspace, split()).items():
        for one in found:
            group = one.get("group") or one["tags"]["template"]
            sides_of.setdefault(group, set()).add(name)
    assert len(sides_of) == 15
    assert {len(sides) for sides in sides_of.values()} == {1}


@pytest.mark.parametrize(
    ("one", "again", "other"),
    [
        pytest.param(0.5, 0.5, 1.5, id="floats"),
        pytest.param({"file": "a", "page": 1}, {"page": 1, "file": "a"}, {"file": "b"}, id="objects"),
        pytest.param([{"file": "a"}, 0.5], [0.5, {"file": "a"}], [{"file": "b"}], id="lists"),
    ],
)
def test_any_value_but_null_makes_a_group(workspace: Path, one: Any, again: Any, other: Any) -> None:
    rows = [row(n, source=one if n % 2 else again) for n in range(10)]
    rows += [row(n, source=other) for n in range(10, 20)]
    write(workspace, [*rows, *(row(n, source=None) for n in range(20, 25)), row(25, source={})])
    result = split()
    assert (result.num_units, result.largest_unit) == (8, 10)


def test_a_number_and_its_text_are_one_group(workspace: Path) -> None:
    values = [1, "1", True, "True", ["b", 1], ["1", "b"], "1 b"]
    write(workspace, [row(number, group=value) for number, value in enumerate(values)] + [row(9, group="")])
    assert split().num_units == 4


def test_near_duplicates_stay_on_one_side_also_by_way_of_others(workspace: Path) -> None:
    words = [f"w{position}" for position in range(40)]
    chain: list[str] = []
    for step in range(8):  # each text changes one more word: neighbours are alike, the ends are not
        words[step * 5] = f"changed{step}"
        chain.append(" ".join(words))
    rows = [row(number) for number in range(32)] + [row(100 + step, text) for step, text in enumerate(chain)]
    write(workspace, rows)
    result = split()
    homes = [
        name for name, found in read(workspace, result).items() if any(one["id"] == "r100" for one in found)
    ]
    ids = {one["id"] for one in read(workspace, result)[homes[0]]}
    assert {f"r{100 + step}" for step in range(8)} <= ids
    assert (result.num_units, result.largest_unit) == (33, 8)
    assert split(near_duplicates=False, out="free").num_units == 40


def test_a_copy_with_a_system_turn_stays_with_its_original(workspace: Path) -> None:
    rows = [row(number) for number in range(30)]
    system = {"role": "system", "content": "You are helpful."}
    copies = [{**one, "messages": [system, *one["messages"]]} for one in rows]
    write(workspace, rows + copies)
    result = split()
    assert (result.num_units, result.largest_unit) == (30, 2)
    for found in read(workspace, result).values():
        assert set(Counter(one["id"] for one in found).values()) == {2}


def test_strata_are_kept_alike(workspace: Path) -> None:
    write(
        workspace,
        [row(number, tags={"intent": "create" if number % 4 else "delete"}) for number in range(80)],
    )
    result = split(ratios=[0.5, 0.25, 0.25])
    assert {name: side.strata for name, side in result.sides.items()} == {
        "train": {"delete": 10, "create": 30},
        "validation": {"delete": 5, "create": 15},
        "test": {"delete": 5, "create": 15},
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(workspace: Path) -> None:
    write(workspace, [row(number) for number in range(40)])
    first, second, other = split(), split(out="again"), split(out="other", seed=1)
    assert [side.sha256 for side in first.sides.values()] == [side.sha256 for side in second.sides.values()]
    assert first.sides["test"].sha256 != other.sides["test"].sha256


def test_the_manifest_holds_the_digests_of_input_and_files(workspace: Path) -> None:
    path = write(workspace, [row(number) for number in range(20)])
    result = split(seed=7)
    manifest = json.loads((workspace / result.manifest).read_text(encoding="utf-8"))
    assert manifest["input_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["seed"] == 7
    for side in manifest["sides"].values():
        assert side["sha256"] == hashlib.sha256((workspace / side["path"]).read_bytes()).hexdigest()


def test_a_side_without_rows_has_no_file(workspace: Path) -> None:
    write(workspace, [row(number) for number in range(10)])
    split(out="out")
    result = split(ratios=[0.9, 0, 0.1])
    assert not (workspace / "out" / "validation.jsonl").exists()
    assert result.sides["validation"].path == ""


@pytest.mark.parametrize(
    ("num_rows", "num_groups", "empty"),
    [
        (1, 1, ["validation", "test"]),
        (3, 3, ["validation", "test"]),
        (5, 5, ["test"]),
        (10, 2, ["validation", "test"]),
    ],
)
def test_a_side_that_stays_empty_is_a_warning_and_no_next_step(
    workspace: Path, num_rows: int, num_groups: int, empty: list[str]
) -> None:
    write(workspace, [row(number, group=f"g{number % num_groups}") for number in range(num_rows)])
    result = split()
    assert [text.split(" ")[0] for text in result.warnings if "no rows and no file" in text] == empty
    assert [name for name, side in result.sides.items() if not side.path] == empty
    assert result.next_step == ""


def test_a_side_without_rows_that_was_not_asked_for_is_no_warning(workspace: Path) -> None:
    write(workspace, [row(number) for number in range(10)])
    result = split(ratios=[0.9, 0, 0.1])
    assert result.warnings == []
    assert result.next_step == "Check it: llmops data decontaminate out/train.jsonl out/test.jsonl"


def test_a_field_that_all_rows_share_is_not_used_for_grouping(workspace: Path) -> None:
    write(workspace, [row(number, source="synthetic") for number in range(20)])
    result = split()
    assert result.num_units == 20
    assert result.warnings == ["all rows have the same 'source', so it was not used for grouping"]


def test_counts_that_whole_groups_cannot_make_leave_no_file(workspace: Path) -> None:
    write(workspace, [row(number, group=f"g{number // 4}") for number in range(20)])
    with pytest.raises(InvalidInputError, match="do not add up"):
        split(counts=[14, 3, 3])
    assert not (workspace / "out").exists()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"counts": [40, 5, 6]}, "51 rows are asked for"),
        ({"counts": [1, 2]}, "three numbers"),
        ({"names": ["a", "a", "b"]}, "must differ"),
        ({"names": ["../a", "b", "c"]}, "names"),
        ({"ratios": [0, 0, 0]}, "not all may be 0"),
        ({"ratios": [float("inf"), 0.1, 0.1]}, "finite"),
        ({"ratios": [0.8, float("nan"), 0.1]}, "finite"),
        ({"file": "none.jsonl"}, "No such file"),
        ({"out": ".", "names": ["rows", "b", "c"]}, "replace the input"),
    ],
)
def test_bad_requests_say_what_is_wrong(workspace: Path, fields: dict[str, Any], problem: str) -> None:
    write(workspace, [row(number) for number in range(50)])
    with pytest.raises(InvalidInputError, match=problem):
        split(**fields)


def test_a_broken_row_is_named_and_nothing_is_written(workspace: Path) -> None:
    path = write(workspace, [row(1), row(2)])
    path.write_text(path.read_text(encoding="utf-8") + '{"messages": 3}\n', encoding="utf-8")
    with pytest.raises(InvalidInputError, match="line 3"):
        split()
    assert not (workspace / "out").exists()


def test_tags_as_a_list_are_a_stratum(workspace: Path) -> None:
    write(workspace, [row(number, tags=["b", "a"] if number % 2 else ["a", "b"]) for number in range(10)])
    counted = Counter[str]()
    for side in split().sides.values():
        counted.update(side.strata)
    assert counted == {"a b": 10}
