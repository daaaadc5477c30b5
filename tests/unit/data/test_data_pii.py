"""Personal data: found when real, left alone when reserved or merely numeric, replaced alike everywhere in a row."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stdnum import iban, luhn

from pipeline.core.errors import InvalidInputError, MissingDependencyError
from pipeline.core.extras import installed_version
from pipeline.core.pii_patterns import find_pii
from pipeline.data.pii import DATA_PII, RowScan

# Published examples of the numbering schemes, and made-up values with right checksums.
REAL = {
    "email": "priya.k@contoso.co.uk",
    "phone": "+44 20 7946 0958",
    "card": "4539 1488 0343 6467",
    "iban": "DE89 3704 0044 0532 0130 00",
    "national_id": "536-90-4399",
    "ip": "8.8.8.8",
    "api_key": "ghp_" + "a1B2" * 9,
}
NOT_PERSONAL = [
    "user@example.com", "a@b", "202-555-0143", "2026-03-11", "task 12345678", "1700000000000", "10.0.0.1", "127.0.0.1",
    "v1.2.3.4", "version:1.2.3.4", "4539 1488 0343 6468", "DE89 3704 0044 0532 0130 01", "900-90-4399", "192.0.2.7", "10:30:00",
    "sk-short", "risk-assessment-of-the-whole-company", "0.30000000000000004", "2001:db8::1", "ISBN 978-3-16-148410-0",
]  # fmt: skip


@pytest.mark.parametrize("kind", REAL)
def test_each_kind_is_found_inside_a_sentence(kind: str) -> None:
    text = f"Please note {REAL[kind]}, thanks."
    (finding,) = find_pii(text)
    assert (finding.kind, text[finding.start : finding.end]) == (kind, REAL[kind])


@pytest.mark.parametrize("text", NOT_PERSONAL)
def test_reserved_broken_and_merely_numeric_values_are_not_findings(text: str) -> None:
    assert find_pii(f"see {text} please") == []


@pytest.mark.parametrize(
    "number",
    [
        "12345678Z",
        "X1234567L",
        "RSSMRA85T10A562S",
        "529.982.247-25",
        "131052-308T",
        "811228-9874",
        "211062-5629",
    ],
)
def test_national_ids_of_several_countries_are_found(number: str) -> None:
    assert [finding.kind for finding in find_pii(f"id {number} ok")] == ["national_id"]


def test_neighbours_do_not_hide_one_another() -> None:
    text = "536-90-4399 8.8.8.8 4539 1488 0343 6467 8.8.4.4"
    assert [finding.kind for finding in find_pii(text)] == ["national_id", "ip", "card", "ip"]


@pytest.mark.parametrize(
    "text",
    [
        "4242 4242 4242 4242 12/27",
        "4242-4242-4242-4242 123",
        "4242424242424242 123",
        "order 12 4242424242424242",
        "12 34 4242 4242 4242 4242 12 27 123",
        "3782 822463 10005 1234",
    ],
)
def test_other_digits_beside_a_card_do_not_hide_it(text: str) -> None:
    (finding,) = find_pii(text)
    assert finding.kind == "card"
    assert text[finding.start : finding.end].replace("-", " ") in {
        "4242 4242 4242 4242", "4242424242424242", "3782 822463 10005"
    }  # fmt: skip


def test_a_card_by_chance_among_other_groups_is_none() -> None:
    assert [f for f in find_pii("12 42 42 42 42 42 42 42 42 12") if f.kind == "card"] == []


@pytest.mark.parametrize("after", ["-now", "_", "__", "_x", "-", " - "])
@pytest.mark.parametrize("address", ["foo@bar.com", "foo@corp.xn--p1ai", "foo@a.co-op.de"])
def test_an_address_ends_before_a_hyphen_or_an_underscore(address: str, after: str) -> None:
    text = f"_ {address}{after}"
    # a hyphen may go on in a domain of this spelling
    expected = address + ("-now" if after == "-now" and "xn--" in address else "")
    assert [text[found.start : found.end] for found in find_pii(text)] == [expected]
    assert find_pii(replaced(text)) == []


@pytest.mark.parametrize("around", ["%s:53", "IP:%s", "http://%s:8080/x", "host=%s:443,", "::ffff:%s", "%s."])
def test_an_address_is_found_beside_a_colon_and_its_surrogate_is_not(around: str) -> None:
    text = around % "93.184.216.34"
    (finding,) = find_pii(text)
    assert (finding.kind, text[finding.start : finding.end]) == ("ip", "93.184.216.34")
    assert find_pii(replaced(text)) == []


def test_a_bare_number_is_an_id_only_beside_its_name() -> None:
    assert find_pii("order 111222333") == []
    assert [finding.kind for finding in find_pii("my BSN is 111222333")] == ["national_id"]


def replaced(row: Any) -> Any:
    return RowScan(find_pii).scan(row)


def test_a_call_still_says_what_the_user_said() -> None:
    arguments = {"phone": "+14155552671", "cc": ["Bob@Contoso.com"], "account": 4539148803436467}
    row = {
        "messages": [
            {
                "role": "user",
                "content": "Call (415) 555-2671 or mail bob@contoso.com, card 4539-1488-0343-6467",
            },
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "f", "arguments": json.dumps(arguments)}}],
            },
        ]
    }
    made = replaced(row)
    assert made["messages"][0]["content"] == (
        "Call (202) 555-0100 or mail user1@example.com, card 4000-0000-0000-0010"
    )
    call = json.loads(made["messages"][1]["tool_calls"][0]["function"]["arguments"])
    assert call == {"phone": "+12025550100", "cc": ["user1@example.com"], "account": 4000000000000010}


def test_different_things_get_different_surrogates_and_each_row_begins_anew() -> None:
    assert replaced("a@x.io b@x.io a@x.io") == "user1@example.com user2@example.com user1@example.com"
    assert replaced("b@x.io") == "user1@example.com"


def test_surrogates_keep_their_type() -> None:
    assert luhn.is_valid(replaced(REAL["card"]).replace(" ", ""))
    assert iban.is_valid(replaced(REAL["iban"]))
    assert re.fullmatch(r"\d{3}-\d{2}-\d{4}", replaced(REAL["national_id"]))
    assert replaced(REAL["api_key"]).startswith("ghp_")


def test_an_escape_inside_json_text_is_not_taken_for_a_part_of_an_address() -> None:
    text = json.dumps({"note": "to:\nbob@contoso.com"})  # the text holds \nbob@...
    assert json.loads(replaced(text)) == {"note": "to:\nuser1@example.com"}


@pytest.mark.parametrize("around", ["\n%s", " %s", "```json\n%s\n```", "<tool_call>%s</tool_call>", "%s\n{}"])
@pytest.mark.parametrize("inner", ["Hi\nfoo@bar.com", "\tfoo@bar.com", "\u00e9 foo@bar.com", '"foo@bar.com"'])
def test_json_with_something_around_it_stays_json(around: str, inner: str) -> None:
    text = json.dumps({"text": inner, "nested": json.dumps({"text": inner})})
    made = replaced({"content": around % text})["content"].strip().removesuffix("\n{}")
    start, end = around.strip().removesuffix("\n{}").split("%s")
    found = json.loads(made.removeprefix(start).removesuffix(end))
    wanted = inner.replace("foo@bar.com", "user1@example.com")
    assert (found["text"], json.loads(found["nested"])["text"]) == (wanted, wanted)


def test_keys_are_searched_too_and_two_spellings_do_not_become_one_key() -> None:
    row = {"A@x.io": 1, "a@x.io": 2}
    scan = RowScan(find_pii)
    assert scan.scan(row) == {"user1@example.com": 1, "user1@example.com_": 2}
    assert [path for path, _, _ in scan.found] == ["", ""]


pieces = st.one_of(
    st.sampled_from([*REAL.values(), *NOT_PERSONAL, '"', "\\", "\n", "é"]), st.text(max_size=8)
)
strings = st.lists(pieces, max_size=5).map(" ".join)
leaves = strings | st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.none()
rows = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3)
)


@settings(max_examples=40)
@given(rows)
@example("12345678 8.8.8.8")
@example("task 12345678 8.8.8.8 +44 20 7946 0958 12345678")
@example("12345678 4155552671 1700000000000 8.8.8.8 4539 1488 0343 6467")
@example("1 DE89 3704 0044 0532 0130 00 12345678 priya.k@contoso.co.uk 12345678+14155552671")
def test_nothing_is_found_after_replacing_and_the_shape_stays(row: Any) -> None:
    made = replaced(row)
    again = RowScan(find_pii)
    assert again.scan(made) == made
    assert again.found == []
    assert shape(made) == shape(row)


@settings(max_examples=30)
@given(st.dictionaries(strings, rows, max_size=3))
def test_json_text_stays_json_text(inner: Any) -> None:
    made = replaced(json.dumps(inner))
    assert shape(json.loads(made)) == shape(inner)


def shape(value: Any) -> Any:
    """Types in order: what a reader of the row relies on."""
    if isinstance(value, dict | list):
        inner: list[Any] = list(value.values()) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - any JSON
        return [type(value).__name__, [shape(item) for item in inner]]  # pyright: ignore[reportUnknownArgumentType] - any JSON
    return type(value).__name__


def write(workspace: Path, *rows: Any) -> Path:
    path = workspace / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_report_counts_masks_and_says_no(workspace: Path) -> None:
    write(
        workspace, {"a": "hello"}, {"messages": [{"content": f"key {REAL['api_key']}"}], "n": [REAL["email"]]}
    )
    result = DATA_PII.call({"data": "rows.jsonl"})
    assert result.findings == {"api_key": 1, "email": 1}
    assert (result.num_rows, result.num_rows_with_findings) == (2, 1)
    assert [(s.line, s.path, s.kind) for s in result.samples] == [
        (2, "messages[0].content", "api_key"),
        (2, "n[0]", "email"),
    ]
    assert result.is_negative()
    assert not any(value in result.model_dump_json() for value in REAL.values())


def test_replacing_writes_a_new_file_and_leaves_clean_rows_as_they_were(workspace: Path) -> None:
    path = workspace / "rows.jsonl"
    path.write_bytes(b'{"a":   "odd  spacing"}\n\n{"a": "bob@contoso.com"}\n')
    result = DATA_PII.call({"data": "rows.jsonl", "out": "clean.jsonl"})
    assert not result.is_negative()
    assert (workspace / "clean.jsonl").read_bytes() == (
        b'{"a":   "odd  spacing"}\n{"a": "user1@example.com"}\n'
    )
    assert not DATA_PII.call({"data": "clean.jsonl"}).is_negative()


def test_a_broken_line_is_counted_in_a_report_and_stops_a_rewrite(workspace: Path) -> None:
    (workspace / "rows.jsonl").write_text('{"a": 1}\n{"a": \n', encoding="utf-8")
    result = DATA_PII.call({"data": "rows.jsonl"})
    assert (result.num_unreadable, result.is_negative()) == (1, True)
    with pytest.raises(InvalidInputError, match=r"rows.jsonl:2"):
        DATA_PII.call({"data": "rows.jsonl", "out": "clean.jsonl"})
    assert not (workspace / "clean.jsonl").exists()
    with pytest.raises(InvalidInputError, match="never changed"):
        DATA_PII.call({"data": "rows.jsonl", "out": "rows.jsonl"})


def test_presidio_is_asked_for_by_name_when_it_is_not_there(workspace: Path) -> None:
    assert installed_version("presidio-analyzer") is None, (
        "the optional extra must not be in the test environment"
    )
    write(workspace, {"a": "x"})
    with pytest.raises(MissingDependencyError, match="presidio-analyzer"):
        DATA_PII.call({"data": "rows.jsonl", "detector": "presidio"})
