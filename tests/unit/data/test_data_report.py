"""The data report: numbers counted by hand on small files, and a page that survives hostile names."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InvalidInputError
from pipeline.data.report import DATA_REPORT, DataReportResult
from pipeline.data.report_text import find_percentile

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"type": "string", "enum": ["C", "F"]}}}}}  # fmt: skip


def tool_row(question: str, arguments: dict[str, Any], **fields: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": json.dumps(arguments)}
    return {
        **fields,
        "messages": [
            {"role": "user", "content": question},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "type": "function", "function": function}],
            },
            {"role": "tool", "content": "sunny", "tool_call_id": "a"},
            {"role": "assistant", "content": "It is sunny."},
        ],
        "tools": [WEATHER],
    }


def talk_row(question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Of course."}]
    return {**fields, "messages": messages}


LONG = "please tell me in all detail how the weather in Oslo will be over the next 3 days"
TRAIN = [
    tool_row(LONG, {"city": "Oslo", "days": 3, "unit": "C"}, group="g1"),
    tool_row(f"{LONG} now", {"city": "Oslo", "days": 3, "unit": "C"}, group="g1"),
    tool_row("weather in Bergen for 25 days", {"city": "Bergen", "days": 2}, group="g2"),
    talk_row("thanks, mail it to bob@contoso.com", group="g3"),
]
TEST = [TRAIN[0], talk_row("what else can you do for me today")]


def write(workspace: Path, **splits: list[dict[str, Any]]) -> None:
    for name, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (workspace / f"{name}.jsonl").write_text(text, encoding="utf-8")


def report(**fields: Any) -> DataReportResult:
    return DATA_REPORT.call({"data": ".", "out": "report", **fields})


def test_a_folder_of_splits_is_described_with_numbers_counted_by_hand(workspace: Path) -> None:
    write(workspace, train=TRAIN, test=TEST)
    result = report()
    train, test = result.splits
    assert (train.num_rows, train.num_valid, test.num_rows) == (4, 4, 2)
    assert train.num_turns == {"user": 4, "assistant": 7, "tool": 3}
    assert (train.num_calls, train.num_arguments, train.num_grounded) == (
        3,
        6,
        5,
    )  # nobody said 2: 25 days is not 2
    assert (train.num_groups, train.largest_group_share) == (3, 0.5)
    assert train.cluster_sizes == {2: 1}
    assert train.pii == {"email": 1}
    assert result.leakage["test"].exact.num_test_rows == 1
    assert result.is_negative()
    assert (result.coverage.rows, result.coverage.columns) == ("tool", "turns")
    assert dict(zip(result.coverage.row_names, result.coverage.counts, strict=True)) == {
        "no call": [2],
        "weather": [4],
    }


def test_diversity_follows_its_definitions(workspace: Path) -> None:
    write(workspace, train=[talk_row("a b a b"), talk_row("a b c d")])
    diversity = report(data="train.jsonl").splits[0].diversity
    assert diversity.distinct_1 == 4 / 8  # a b c d among eight words
    assert diversity.distinct_2 == 4 / 6  # ab ba bc cd among six pairs
    assert diversity.opening_entropy_bits == pytest.approx(1.0)  # two openings, equally often
    # <user> a b | a b a | b a b and <user> a b | a b c | b c d: one of five
    assert diversity.mean_max_similarity == pytest.approx(1 / 5)


def test_two_tags_make_the_map_and_empty_cells_are_counted(workspace: Path) -> None:
    tags = [("create", "ok"), ("create", "failed"), ("delete", "ok")]
    rows = [
        talk_row(f"number {i}", tags={"kind": k, "outcome": o, "id": str(i)}) for i, (k, o) in enumerate(tags)
    ]
    write(workspace, train=rows)
    coverage = report(data="train.jsonl").coverage
    assert (coverage.rows, coverage.columns) == ("kind", "outcome")
    assert (coverage.row_names, coverage.column_names) == (["create", "delete"], ["failed", "ok"])
    assert (coverage.counts, coverage.num_empty) == ([[1, 1], [0, 1]], 1)


def test_broken_rows_are_counted_and_do_not_hide_leakage(workspace: Path) -> None:
    write(workspace, train=TRAIN, val=TEST)
    with (workspace / "train.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"messages": [{"role": "human", "content": "x"}]}\n{\n')
    result = report()
    assert (result.splits[0].num_rows, result.splits[0].num_valid) == (6, 4)
    assert result.splits[0].errors_by_code == {"unknown_role": 1, "invalid_json": 1}
    assert result.leakage["validation"].exact.num_test_rows == 1
    assert "train: 2 rows are broken" in result.warnings[0]


def test_cost_needs_a_price_with_its_source_and_a_model(workspace: Path, byte_tokenizer: Any) -> None:
    template = (Path(__file__).parents[3] / "pipeline/models/tool_chat.jinja").read_text(encoding="utf-8")
    byte_tokenizer(template).save_pretrained(workspace / "models" / "bytes")
    write(workspace, train=TRAIN)
    price = {"usd_per_million_tokens": 2.0, "source": "a price list", "date": "2026-11-01"}
    result = report(data="train.jsonl", model="bytes", max_length=4096, num_epochs=3, price=price)
    tokens = result.splits[0].tokens
    assert tokens is not None
    assert result.estimated_cost_usd == pytest.approx(tokens.num_tokens * 3 * 2.0 / 1e6)
    text = (workspace / result.report_markdown).read_text(encoding="utf-8")
    assert "a price list, 2026-11-01" in text
    assert report(data="train.jsonl", price=price).estimated_cost_usd is None
    assert "not estimated" in (workspace / result.report_markdown).read_text(encoding="utf-8")
    for name in ("source", "date"):
        with pytest.raises(InvalidInputError, match=name):
            report(data="train.jsonl", price={key: value for key, value in price.items() if key != name})


def test_names_of_the_user_cannot_break_the_page(workspace: Path) -> None:
    hostile = "a|b\n# $x$ <img src=x onerror=alert(1)> `c`"
    write(
        workspace, train=[talk_row(f"n {i}", tags={hostile: hostile + str(i), "b": str(i)}) for i in range(3)]
    )
    result = report(data="train.jsonl")
    page = (workspace / result.report_html).read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert page.count("<img ") == 3
    assert all(
        (workspace / "report" / name).stat().st_size > 2000
        for name in ("lengths.png", "coverage.png", "duplicates.png")
    )
    facts = json.loads((workspace / result.report_json).read_text(encoding="utf-8"))
    assert hostile in (facts["coverage"]["rows"], facts["coverage"]["columns"])
    assert not math.isnan(facts["splits"][0]["diversity"]["distinct_1"])


def test_a_folder_without_splits_is_refused(workspace: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no train.jsonl"):
        report()


def test_percentiles_are_nearest_rank() -> None:
    assert [find_percentile([1, 2, 3, 4], p) for p in (50, 95, 100)] == ["2", "4", "4"]
    assert find_percentile([], 50) == "-"
