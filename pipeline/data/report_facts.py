"""What the data report says of one split, and the single pass over its rows that finds it out."""

import math
import random
import re
import statistics
from array import array
from collections import Counter
from collections.abc import Generator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.operation import Part
from pipeline.core.pii_patterns import find_pii
from pipeline.data.conversation import Conversation, RowError, parse_conversation, parse_row
from pipeline.data.deduplicate import Turns, jaccard
from pipeline.data.pii import PiiTally, RowScan
from pipeline.data.preview_rows import Tally, render_line
from pipeline.data.reader import Line, read_lines
from pipeline.data.strict_json import is_array, is_object

if TYPE_CHECKING:
    from pipeline.rendering.backends.chat_text import ChatEncoder

SAMPLE_ROWS = 500
"""Rows that diversity is measured on, drawn at random: the measures depend on how many rows there are."""
_OPENING_WORDS = 3
_USUAL_TAGS = ("kind", "topic", "category", "outcome", "intent")
_MANY_TURNS = 5


class Tokens(Part):
    """Tokens of a split as training would see them."""

    tokenizer: str
    """Model whose tokenizer and chat template were used."""
    num_tokens: int
    """In rows that would be trained on."""
    num_trained_tokens: int
    """Those with a label."""
    num_refused: int
    """Rows that training refuses."""
    num_too_long: int
    """Rows longer than max_length, which training leaves out."""


class Diversity(Part):
    """How different the user's words are, on a random sample of rows."""

    num_sampled: int
    """Rows in the sample."""
    distinct_1: float | None
    """Different words / words (Li et al., arXiv:1510.03055)."""
    distinct_2: float | None
    """Different pairs of neighbouring words / such pairs."""
    mean_max_similarity: float | None
    """Mean over the rows of the Jaccard similarity (word 3-grams) to the most similar other row."""
    opening_entropy_bits: float | None
    """Shannon entropy of the first three words of the first turn."""
    num_openings: int
    """Different first three words."""


class SplitFacts(Part):
    """What one file holds."""

    name: str
    """Split."""
    file: str
    """File, as given."""
    sha256: str
    """Its digest."""
    num_rows: int
    """Lines that are not blank."""
    num_valid: int
    """Rows without an error (`data validate`)."""
    errors_by_code: dict[str, int]
    """Broken rows by kind of problem."""
    num_contradictions: int
    """Answers that differ from an earlier one to the same conversation."""
    num_turns: dict[str, int]
    """Turns by role."""
    num_calls: int
    """Tool calls."""
    num_arguments: int
    """Argument values that must come from somewhere: no enum, no boolean."""
    num_grounded: int
    """Of those: values that an earlier turn of the row says."""
    num_system_texts: int
    """Different system texts, digits left out."""
    num_groups: int | None
    """Different values of the field `group`; null without it."""
    largest_group_share: float | None
    """Share of the rows in the largest group."""
    diversity: Diversity
    """Variety of wording."""
    cluster_sizes: dict[int, int]
    """Near-duplicate clusters with equal calls: how many there are of each size from 2."""
    pii: dict[str, int]
    """Personal data by kind."""
    tokens: Tokens | None
    """Null when no model was named."""


class Axes(NamedTuple):
    """The two things that the coverage map counts."""

    rows: str
    columns: str


class ReadRow(NamedTuple):
    """A row that is a conversation."""

    line: int
    raw: bytes
    row: dict[str, Any]
    conversation: Conversation


def read_readable(path: Path) -> Generator[ReadRow]:
    """Yield the rows that are conversations; those that are not are the matter of `data validate`."""
    for line in read_lines(path):
        try:
            row = parse_row(line.raw)
            yield ReadRow(line.number, line.raw, row, parse_conversation(row))
        except RowError:
            continue


class SplitCounter:
    """Counts rows as they pass; memory does not grow with them beyond lengths and names of groups."""

    def __init__(self, axes: Axes, encoder: "ChatEncoder | None", max_length: int, region: str) -> None:
        self.axes, self.encoder, self.region = axes, encoder, region
        self.tally = Tally(max_length)
        self.pii = PiiTally()
        self.lengths = array("I")
        self.cells: Counter[tuple[str, str]] = Counter()
        self.turns: Counter[str] = Counter()
        self.groups: Counter[str] = Counter()
        self.system_texts: set[str] = set()
        self.num_calls = self.num_arguments = self.num_grounded = 0
        self._sample: list[Turns] = []
        self._num_seen = 0
        self._rng = random.Random(0)

    def add(self, read: ReadRow) -> None:
        """Count a row."""
        conversation = read.conversation
        self._count_turns(conversation)
        self.cells[read_axis(self.axes.rows, conversation), read_axis(self.axes.columns, conversation)] += 1
        if (group := conversation.extra.get("group")) is not None:
            self.groups[str(group)] += 1
        scan = RowScan(lambda text: find_pii(text, self.region))
        try:
            scan.scan_row(read.row)
            self.pii.add(read.line, scan)
        except RowError:
            self.pii.add_unreadable(read.line)
        self._draw(Turns.of([m for m in conversation.messages if m.role == "user"]))
        if self.encoder is None:
            self.lengths.append(sum(len(m.content or "") for m in conversation.messages))
        else:
            rendered = render_line(Line(read.line, read.raw), self.encoder)
            self.tally.add(rendered)
            self.lengths.append(len(rendered.row.token_ids) if rendered.row else 0)

    def tokens(self, model: str | None) -> Tokens | None:
        """Return the token counts."""
        if model is None:
            return None
        return Tokens(
            tokenizer=model,
            num_tokens=self.tally.num_tokens,
            num_trained_tokens=self.tally.num_trained_tokens,
            num_refused=self.tally.num_refused,
            num_too_long=self.tally.num_too_long,
        )

    def diversity(self) -> Diversity:
        """Measure variety on the sample."""
        words = [word for turns in self._sample for words in turns.words for word in words]
        pairs = [pair for turns in self._sample for w in turns.words for pair in pairwise(w)]
        openings = Counter(turns.words[0][:_OPENING_WORDS] for turns in self._sample if turns.words)
        return Diversity(
            num_sampled=len(self._sample),
            distinct_1=len(set(words)) / len(words) if words else None,
            distinct_2=len(set(pairs)) / len(pairs) if pairs else None,
            mean_max_similarity=_mean_max_similarity([turns.shingles() for turns in self._sample]),
            opening_entropy_bits=_entropy_bits(openings),
            num_openings=len(openings),
        )

    def _count_turns(self, conversation: Conversation) -> None:
        enums = _find_enums(conversation)
        said = ""
        for message in conversation.messages:
            self.turns[message.role] += 1
            if message.role == "system":
                self.system_texts.add("".join(c for c in message.content or "" if not c.isdigit()))
            for call in message.tool_calls:
                self.num_calls += 1
                for name, value in call.arguments.items():
                    if (call.name, name) not in enums:
                        leaves = list(_leaves(value))
                        self.num_arguments += len(leaves)
                        self.num_grounded += sum(_is_said(leaf.casefold(), said) for leaf in leaves)
            said += f"\n{message.content or ''}".casefold()

    def _draw(self, turns: Turns) -> None:
        # Reservoir sampling: every row has the same chance, whatever their number (Vitter, TOMS 11 (1985) 37).
        self._num_seen += 1
        if len(self._sample) < SAMPLE_ROWS:
            self._sample.append(turns)
        elif (place := self._rng.randrange(self._num_seen)) < SAMPLE_ROWS:
            self._sample[place] = turns


def read_axis(axis: str, conversation: Conversation) -> str:
    """Return what a row is on one axis: ``tool``, ``turns``, or a field of the row or of its tags."""
    if axis == "tool":
        names = [call.name for message in conversation.messages for call in message.tool_calls]
        return names[0] if names else "no call"
    if axis == "turns":
        num_turns = sum(message.role == "user" for message in conversation.messages)
        return f"{_MANY_TURNS}+" if num_turns >= _MANY_TURNS else str(num_turns)
    tags: Any = conversation.extra.get("tags")
    value = tags.get(axis) if is_object(tags) else None
    return str(value if value is not None else conversation.extra.get(axis, "-"))


def choose_axes(conversations: Sequence[Conversation]) -> Axes:
    """Choose from some rows what to map: two tags with a few values each, usual names first, else tools and turns."""
    names: set[str] = set()
    for conversation in conversations:
        tags: Any = conversation.extra.get("tags")
        names |= set(tags) if is_object(tags) else set()
    values = {name: {read_axis(name, conversation) for conversation in conversations} for name in names}
    fitting = sorted(
        (name for name in names if 2 <= len(values[name]) <= 20),
        key=lambda name: (_USUAL_TAGS.index(name) if name in _USUAL_TAGS else len(_USUAL_TAGS), name),
    )
    return Axes(fitting[0], fitting[1]) if len(fitting) > 1 else Axes("tool", "turns")


def _find_enums(conversation: Conversation) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for tool in conversation.tools:
        function: dict[str, Any] = tool["function"]
        parameters: Any = function.get("parameters")
        properties: Any = parameters.get("properties") if is_object(parameters) else None
        if is_object(properties):
            found |= {
                (function["name"], name) for name, schema in properties.items() if "enum" in str(schema)
            }
    return found


def _is_said(leaf: str, said: str) -> bool:
    # As a whole: the 5 of 2025 is not the number 5.
    return re.search(rf"(?<!\w){re.escape(leaf)}(?!\w)", said) is not None


def _leaves(value: Any) -> Generator[str]:
    if is_object(value) or is_array(value):
        for inner in value.values() if is_object(value) else value:
            yield from _leaves(inner)
    elif isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield str(value)


def _mean_max_similarity(shingles: Sequence[set[str]]) -> float | None:
    filled = [found for found in shingles if found]
    if len(filled) < 2:
        return None
    nearest = [0.0] * len(filled)
    for one in range(len(filled)):
        for other in range(one):
            similarity = jaccard(filled[one], filled[other])
            nearest[one], nearest[other] = max(nearest[one], similarity), max(nearest[other], similarity)
    return statistics.fmean(nearest)


def _entropy_bits(counts: Counter[tuple[str, ...]]) -> float | None:
    total = counts.total()
    if not total:
        return None
    return -sum(count / total * math.log2(count / total) for count in counts.values())
