"""Formats of texts in arguments: asserted where the decision says so, with nothing refused that a standard allows."""

import pytest

from pipeline.data.backends.json_schema import ArgumentSchema

RIGHT = {
    "uri": [
        "https://example.com/a?b=c#d", "mailto:a@b.c", "urn:isbn:0451450523", "http://[::1]:80/", "file:///tmp/a%20b",
        "tel:+1-202-555-0100",
    ],
    "iri": ["https://müller.example/ä", "https://example.com"],
    "hostname": ["localhost", "a-b.example.com", "3com.example", "a" * 63, "xn--mller-kva.example"],
    "duration": ["P1D", "PT1H30M", "P3Y6M4DT12H30M5S", "P2W", "PT0.5S", "PT1H5S", "P0D"],
    "json-pointer": ["", "/", "/a~1b/~0/0", "/ä b"],
}  # fmt: skip
BROKEN = {
    "uri": [
        "not a uri", "example.com", "/a", "", "http://a b", "http://[::1", "http://a:b/", "https://müller.example",
        "http://a/%zz", "http://a/\n", "http://a\\b",
    ],
    "iri": ["not an iri", "müller.example", "http://ä ö"],
    "hostname": ["", "-a.example", "a-.example", "a..b", "a.example.", "a_b", "a" * 64, "a.b" * 100, "a\n", "müller"],
    "duration": ["", "P", "PT", "P1DT", "1D", "P1D2H", "P1S", "P2D1Y", "P1W2D", "PT1.5H30M", "P1D\n", "P\u0661D", "-P1D"],
    "json-pointer": ["a", "/a~", "/a~2", "#/a"],
}  # fmt: skip


def is_right(name: str, value: object) -> bool:
    schema = ArgumentSchema({"type": "object", "properties": {"a": {"format": name}}})
    assert schema.schema_problem is None
    return schema.find_problem({"a": value}) is None


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_standard_allows_is_right(name: str) -> None:
    assert [text for text in RIGHT[name] if not is_right(name, text)] == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_standard_excludes_is_broken(name: str) -> None:
    assert [text for text in BROKEN[name] if is_right(name, text)] == []


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_no_text_has_no_format_and_long_texts_end(name: str) -> None:
    assert is_right(name, 7)
    for piece in ("1", "/", "a:", "P1", "~0", "-", "a."):
        is_right(name, piece * 100_000)


def test_a_schema_of_another_dialect_is_no_fault_of_its_address() -> None:
    assert ArgumentSchema({"$schema": "draft 7", "type": "object"}).find_problem({}) is None
