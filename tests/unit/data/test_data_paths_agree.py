"""Properties: both paths give the same verdict, fingerprints included; so do one and several processes."""

import copy
import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.answers import spell
from pipeline.data.backends.json_schema import load_schema
from pipeline.data.check import Outcome, RowChecker
from pipeline.data.fast_path import FastPath
from pipeline.data.quick_schema import compile_type
from pipeline.data.reader import Block
from pipeline.data.strict_json import RowError, is_array, is_object, parse_json, parse_json_text
from pipeline.data.validate import DataValidateRequest, validate_file

PARAMETERS = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1},
        "day": {"type": "string", "format": "date"},
        "size": {"type": "string", "enum": ["small", "large"]},
        "count": {"type": "integer", "minimum": 1},
    },
    "required": ["title"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "add", "description": 'Say "add".', "parameters": PARAMETERS}}
]
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"title": "a", "count": 2}'},
}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'Add "a", twice.'},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "name": "add", "content": '{"ok": true}'},
    {"role": "assistant", "content": "Done: \\ \u00fc \U0001f600"},
]
SEEDS: list[dict[str, Any]] = [
    {"messages": MESSAGES, "tools": TOOLS, "id": "r1"},
    {"messages": MESSAGES[:3], "tool_set": "task_api", "tags": {"a": "b"}, "conversations": None},
    {"messages": MESSAGES[1:2] + MESSAGES[-1:], "tools": None},
    {"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hi!"}], "system": "s"},
    {
        "conversations": [{"from": "user", "value": "Hi."}, {"from": "gpt", "value": "Hi!"}] * 2,
        "tools": TOOLS,
    },
    {"instruction": "Add.", "input": "1 2", "output": "3", "system": None, "history": None},
]
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([
        None, True, 0, 2**64, -1.5, "", " ", "\u200b", "a", '"', "\\", "c1", "add", "user", "assistant", "tool", "human",
        "gpt", "task_api", [], {}, '{"title": "a"}', '{"title": "a", "title": "b"}', '{"title": 1e999}', [1], {"a": {}},
    ]),
    st.text(max_size=4),
)  # fmt: skip
KEYS = st.sampled_from(
    ["role", "content", "from", "value", "name", "id", "tools", "messages", "output", "x", 'a"b']
)


VALUE_TEXTS = VALUES.map(json.dumps)
SEED_TEXTS = [json.dumps(seed) for seed in SEEDS]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container and key of a value."""
    found: list[tuple[Any, Any]] = []
    items: Any = value.items() if is_object(value) else enumerate(value) if is_array(value) else ()
    for key, item in items:
        found += [(value, key), *places(item)]
    return found


@st.composite
def changed_rows(draw: st.DrawFn) -> bytes:
    """A right row with a few changes, structural first, then in its text."""
    row = json.loads(draw(st.sampled_from(SEED_TEXTS)))  # fresh: changes must not be shared
    for _ in range(draw(st.integers(0, 2))):
        container, key = draw(st.sampled_from(places(row) or [(row, "messages")]))
        change = draw(st.integers(0, 3))
        if change == 0 or not container:
            container[key] = json.loads(draw(VALUE_TEXTS))
        elif change == 1:
            del container[key]
        elif is_array(container):
            container.insert(int(key), copy.deepcopy(draw(st.sampled_from(container))))
        else:
            container[draw(KEYS)] = json.loads(draw(VALUE_TEXTS))
    separators = draw(st.sampled_from([(", ", ": "), (",", ":"), (" ,\t", " : ")]))
    raw = json.dumps(row, ensure_ascii=draw(st.booleans()), separators=separators).encode()
    for _ in range(draw(st.integers(0, 2))):
        raw = change_text(draw, raw)
    return raw.replace(b"\n", b" ")


def change_text(draw: st.DrawFn, raw: bytes) -> bytes:
    pieces = [
        b'"',
        b"\\",
        b"{",
        b"}",
        b",",
        b"\xff",
        b"\0",
        b"\\ud800",
        b"\\u0022",
        b'"x": 1, ',
        b"1e999",
        b"NaN",
    ]
    start = draw(st.integers(0, len(raw)))
    stop = min(len(raw), start + draw(st.integers(0, 12)))
    change = draw(st.integers(0, 3))
    if change == 0:
        return raw[:start] + raw[stop:]
    if change == 1:
        return raw[:stop] + raw[start:]
    if change == 2:  # a field, repeated or new, at the start of an object
        objects = [i for i, byte in enumerate(raw) if byte == ord("{")] or [0]
        at = draw(st.sampled_from(objects)) + 1
        fields = [
            b'"role": "user", ',
            b'"content": "a", ',
            b'"x": 1, ',
            b'"x": "a:\\"", ',
            b'"from": "gpt", ',
        ]
        return raw[:at] + draw(st.sampled_from(fields)) + raw[at:]
    return raw[:start] + draw(st.sampled_from(pieces)) + raw[start:]


def judge(raw: bytes, *, use_fast_path: bool) -> tuple[list[str], "array[int]", int, dict[str, int]]:
    outcome = Outcome()
    RowChecker(allow_final_calls=False, use_fast_path=use_fast_path).check_block(
        Block(raw.split(b"\n")), outcome
    )
    return (
        [error.code for error in outcome.errors],
        outcome.answers,
        outcome.num_rows,
        outcome.ignored_fields,
    )


@settings(max_examples=400)
@given(changed_rows())
def test_both_paths_give_the_same_verdict_and_fingerprints(raw: bytes) -> None:
    assert judge(raw, use_fast_path=True) == judge(raw, use_fast_path=False)


@pytest.mark.slow
@settings(max_examples=20_000)
@given(changed_rows())
def test_both_paths_give_the_same_verdict_and_fingerprints_for_very_many_rows(raw: bytes) -> None:
    assert judge(raw, use_fast_path=True) == judge(raw, use_fast_path=False)


@settings(max_examples=300)
@given(st.lists(changed_rows() | st.sampled_from(SEED_TEXTS).map(str.encode), min_size=1, max_size=8))
def test_rows_counted_together_get_the_verdicts_of_rows_counted_apart(rows: list[bytes]) -> None:
    raw = b"\n".join(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.data.fast_path.COUNTED_TOGETHER_BYTES", 0)
        together = judge(raw, use_fast_path=True)
    assert together == judge(raw, use_fast_path=False)


HIDING_LINES = {
    "a repeated key": b'{"conversations": [{"from": "human", "from": "human", "value": "A"}, {"from": "gpt", "value": "B"}]}',
    "a repeated key beside escaped quotation marks": (
        b'{"messages": [{"role": "user", "role": "user", "content": "A \\u0022\\u0022\\u0022\\u0022"},'
        b' {"role": "assistant", "content": "B"}]}'
    ),
    "a repeated key beside texts that end with a backslash": (
        b'{"conversations": [{"from": "human", "from": "human", "value": "A\\\\"}, {"from": "gpt", "value": "B\\\\"}]}'
    ),
    "a repeated field of no format": b'{"instruction": "A", "output": "B", "x": {"y": 1, "y": 1}}',
    "bytes that are not UTF-8 in a field of no format": b'{"instruction": "A", "output": "B", "x": "\xff"}',
    "a number out of range in a field of no format": b'{"instruction": "A", "output": "B", "x": 1e999}',
}


@pytest.mark.parametrize("hidden", HIDING_LINES.values(), ids=HIDING_LINES)
def test_a_row_that_hides_something_is_found_among_many(
    hidden: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.fast_path.COUNTED_TOGETHER_BYTES", 0)
    right = b'{"conversations": [{"from": "human", "value": "Say \\"A\\"."}, {"from": "gpt", "value": "A"}]}'
    outcome = Outcome()
    RowChecker(allow_final_calls=False).check_block(Block([right, hidden, right] * 20), outcome)
    assert [error.line for error in outcome.errors] == list(range(2, 61, 3))


def test_right_rows_counted_together_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.fast_path.COUNTED_TOGETHER_BYTES", 0)
    monkeypatch.setattr(FastPath, "_is_explained", None)
    rows = copy.deepcopy([SEEDS[0], SEEDS[3], SEEDS[4]])
    del rows[0]["id"], rows[0]["messages"][3]["name"]
    lines = [json.dumps(row).encode() for row in rows]
    assert FastPath(allow_final_calls=False).find_uncertain(lines, 1, array("Q")) == []


def read_or_code(read: Callable[[], Any]) -> str:
    try:
        return repr(read())
    except RowError as error:
        return error.code


@settings(max_examples=400)
@given(changed_rows())
def test_the_quick_json_reader_reads_what_the_strict_one_reads(raw: bytes) -> None:
    def read_strictly() -> Any:
        try:
            return parse_json_text(raw.decode())
        except UnicodeDecodeError as error:
            raise RowError("invalid_utf8", "", "", fix="") from error

    assert read_or_code(lambda: parse_json(raw)) == read_or_code(read_strictly)


@pytest.mark.parametrize("row", SEEDS, ids=lambda row: ",".join(row))
def test_usual_rows_take_the_fast_path(row: dict[str, Any]) -> None:
    """Otherwise the property above would compare the slow path with itself."""
    raw = json.dumps(row).encode()
    assert FastPath(allow_final_calls=False).find_uncertain([raw], 1, array("Q")) == (
        [(1, raw)] if "task_api" in row.values() else []
    )


SCHEMA_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-3, 3)
    | st.sampled_from(["", "a", "2026-02-28", "2026-2-8"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=4,
)
PLAIN_KEYWORDS: dict[str, Any] = {
    "description": st.just("d"),
    "minimum": st.integers(-1, 1),
    "maximum": st.integers(-1, 1),
    "minLength": st.integers(0, 2),
    "maxLength": st.integers(0, 2),
    "format": st.sampled_from(["date", "email"]),
    "enum": st.lists(st.sampled_from(["a", "b", 1, True, None]), min_size=1, unique_by=repr),
}
PLAIN_TYPES: dict[str, Any] = {"type": st.sampled_from(["string", "integer", "number", "boolean"])}


def wrap_schema(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    array: dict[str, Any] = {"type": st.just("array")}
    items: dict[str, Any] = {"items": inner}
    thing: dict[str, Any] = {"type": st.just("object")}
    parts: dict[str, Any] = {
        "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
        "required": st.just(["a"]),
        "additionalProperties": st.booleans(),
    }
    return st.fixed_dictionaries(array, optional=items) | st.fixed_dictionaries(thing, optional=parts)


SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.fixed_dictionaries(PLAIN_TYPES, optional=PLAIN_KEYWORDS), wrap_schema, max_leaves=4
)


@settings(max_examples=300)
@given(SCHEMAS, SCHEMA_VALUES)
def test_the_quick_schema_check_accepts_nothing_that_jsonschema_refuses(schema: Any, value: Any) -> None:
    kind = compile_type(schema)
    if kind is None:
        return
    try:
        read = msgspec.json.decode(json.dumps(value), type=kind)
    except msgspec.ValidationError:
        return
    spelling = spell(read)
    if spelling.count('"') == json.dumps(value).count('"'):  # no key was lost
        assert spelling == spell(value)
        assert load_schema(schema).find_problem(value) is None


@settings(max_examples=5)
@given(
    st.lists(changed_rows() | st.just(b"") | st.just(b" \r"), min_size=1, max_size=60), st.integers(1, 2000)
)
def test_one_and_several_processes_give_the_same_result(
    tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], range_bytes: int
) -> None:
    folder: Path = tmp_path_factory.mktemp("processes")
    path = folder / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{}\n" + b"\n".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPS_WORKSPACE", str(folder))
        patch.setattr("pipeline.data.check.RANGE_BYTES", range_bytes)
        one, three = (validate_file(DataValidateRequest(file=str(path), processes=n)) for n in (1, 3))
    assert one == three
