"""What a persona is: a YAML file, read into a closed model, and the system prompt that goes with it.

Cues are regular expressions, matched without regard to case and at word borders. The specification says how to speak,
never what is true: it holds no task facts and reaches no tool arguments.
"""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require
from pipeline.core.messages import Record

PERSONAS = ("taskmaster", "analyst", "planner")
"""Names of the specifications in ``datasets/personas``."""
_FOLDER = Path(__file__).parents[2] / "datasets" / "personas"


def compile_cue(cue: str) -> re.Pattern[str]:
    """Return the pattern of a cue; an end that is a letter or digit must be a word's end."""
    before = r"(?<!\w)" if cue[:1].isalnum() else ""
    after = r"(?!\w)" if cue[-1:].isalnum() else ""
    return re.compile(f"{before}(?:{cue}){after}", re.IGNORECASE)


def _check_cue(cue: str) -> str:
    try:
        compile_cue(cue)
    except re.error as error:
        raise ValueError(f"{cue!r} is no regular expression: {error}") from error
    return cue


Cues = list[Annotated[str, Field(min_length=1), AfterValidator(_check_cue)]]


class Trait(Record):
    """One side of a character, judged in every reply."""

    name: str = Field(pattern=r"^[a-z_]+$")
    """Name of the item."""
    description: str
    """What it means, for people and judges."""
    cues: Cues = Field(min_length=1)
    """One of them must occur."""
    counter_cues: Cues = []
    """None of them may occur."""


class PatternPart(Record):
    """One part of the reply pattern."""

    description: str
    """What belongs there."""
    cues: Cues = Field(min_length=1)
    """One of them must occur there."""


class Pattern(Record):
    """How a reply is built."""

    opening: PatternPart
    """The first sentence."""
    confirmation: PatternPart
    """Anywhere; asked only of replies that speak of a particular task."""
    closing: PatternPart
    """The last sentence."""


class Vocabulary(Record):
    """Signature phrases, used now and then."""

    phrases: list[str] = Field(min_length=1)
    """Phrases as they are said."""
    min_rate: float = Field(ge=0, le=1)
    """Lowest share of replies with such a phrase."""
    max_rate: float = Field(ge=0, le=1)
    """Highest share; above it the persona parrots."""
    max_per_reply: int = Field(default=1, ge=1)
    """More in one reply is parroting."""

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        if self.min_rate > self.max_rate:
            raise ValueError("min_rate is above max_rate")
        return self


class Length(Record):
    """How long replies are; lines of lists do not count."""

    max_sentence_words: int = Field(gt=0)
    """Words of the longest sentence."""
    max_sentences: int = Field(gt=0)
    """Sentences of a reply."""


class Forbidden(Record):
    """Something the persona never says; one occurrence fails the reply."""

    name: str = Field(pattern=r"^[a-z_]+$")
    """Name of the rule."""
    description: str
    """What is forbidden."""
    cues: Cues = Field(min_length=1)
    """Any of them breaks the rule."""


class Persona(Record):
    """A persona's specification."""

    name: str = Field(pattern=r"^[a-z]+$")
    """Short name, as in file names and tags."""
    title: str
    """Name that the persona gives itself."""
    prompt: str = Field(min_length=1)
    """System prompt without the day."""
    traits: list[Trait] = Field(min_length=1)
    """Judged in every reply."""
    pattern: Pattern
    """How a reply is built."""
    vocabulary: Vocabulary
    """Signature phrases."""
    max_emoji: int = Field(ge=0)
    """Emoji in a reply."""
    length: Length
    """How long replies are."""
    forbidden: list[Forbidden] = Field(min_length=1)
    """What is never said."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [part.name for part in (*self.traits, *self.forbidden)]
        if len(set(names)) < len(names):
            raise ValueError("two traits or forbidden rules have the same name")
        return self

    def system_prompt(self, today: str) -> str:
        """Return the system message of a conversation on an ISO day."""
        return f"{self.prompt} Today is {today}."

    @property
    def prompt_sha256(self) -> str:
        """Digest of the prompt without the day: training, evaluation and serving must agree on it."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()


@cache
def load_persona(name: str) -> Persona:
    """Return one of :data:`PERSONAS`.

    Raises:
        InvalidInputError: If there is no such persona, or its file breaks the schema.
    """
    if name not in PERSONAS:
        raise InvalidInputError(
            f"there is no persona {name!r}", hint=f"Choose one of {', '.join(PERSONAS)}, or read a file."
        )
    return read_persona(_FOLDER / f"{name}.yaml")


def read_persona(path: Path) -> Persona:
    """Read a specification.

    Raises:
        InvalidInputError: If the file cannot be read or breaks the schema.
        MissingDependencyError: If PyYAML is not installed.
    """
    require("PyYAML", extra="data")
    import yaml

    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Persona.model_validate(raw)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error}",
            hint="Name a persona's YAML file, such as datasets/personas/planner.yaml.",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InvalidInputError(
            f"{path} is no persona: {place}: {first['msg']} ({error.error_count()} problems)",
            hint="Compare it with datasets/personas/taskmaster.yaml.",
        ) from error
