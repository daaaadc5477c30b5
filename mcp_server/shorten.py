"""Cut an answer to what a client's context bears: lists lose their tail, texts their middle, and the answer says so."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, cast

from pipeline.core.files import write_json
from pipeline.core.paths import shown_path
from pipeline.core.settings import Settings

MAX_CHARACTERS = 10_000
_ROOM = 600  # for the warning that says what was cut
_MIN_TEXT = 200  # shorter texts are never cut
_MAX_NOTES = 5

Place = tuple[str | int, ...]


def fit(values: dict[str, Any], limit: int = MAX_CHARACTERS) -> dict[str, Any]:
    """Return the values as they are when short enough, else shortened, with the path of the whole answer.

    The largest list loses half of its items, or the largest text its middle, until the rest fits.
    """
    if _size(values) <= limit:
        return values
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
    whole = Settings.load().runs_dir / "mcp_answers" / f"{digest}.json"
    write_json(whole, values)
    guidance = {name: values[name] for name in ("warnings", "next_step") if name in values}
    cut: dict[str, Any] = json.loads(json.dumps({k: v for k, v in values.items() if k not in guidance}))
    original: dict[Place, int] = {}
    while _size(cut) + _size(guidance) > limit - _ROOM:
        longest = max(_long_parts(cut), key=lambda part: _size(part[1]), default=None)
        if longest is None:  # thousands of small fields: nothing that could be cut in half
            cut = {}
            break
        place, value = longest
        original.setdefault(place, len(value))
        _replace(cut, place, _halve(value))
    notes = [f"{'.'.join(map(str, place))} of {length}" for place, length in original.items()][:_MAX_NOTES]
    note = f"Shortened to fit: {', '.join(notes)}. All of it: {shown_path(whole)}"
    return {**guidance, **cut, "warnings": [*guidance.get("warnings", []), note]}


def _size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False))


def _long_parts(value: object, place: Place = ()) -> Iterator[tuple[Place, list[Any] | str]]:
    """Yield every list of two or more items and every long text, with its place."""
    if isinstance(value, str) and len(value) > _MIN_TEXT:
        yield place, value
    elif isinstance(value, list):
        items = cast("list[Any]", value)
        if len(items) > 1:
            yield place, items
        for index, item in enumerate(items):
            yield from _long_parts(item, (*place, index))
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield from _long_parts(item, (*place, key))


def _halve(value: list[Any] | str) -> list[Any] | str:
    if isinstance(value, list):
        return value[: len(value) // 2]
    kept = len(value) // 4
    return f"{value[:kept]} [...] {value[-kept:]}" if len(value) > 2 * _MIN_TEXT else value[:_MIN_TEXT]


def _replace(root: dict[str, Any], place: Place, value: object) -> None:
    holder: Any = root
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
