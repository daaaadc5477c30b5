"""How rows are cleaned: the fields that ``data.clean`` and ``data.clean_shards`` share, and the row filter they mean."""

from pydantic import Field

from pipeline.core import refs
from pipeline.core.extras import require
from pipeline.core.operation import Request
from pipeline.core.paths import WorkspaceRef
from pipeline.data.clean_rows import STEPS, RowFilter, Step
from pipeline.data.deduplicate import DEFAULT_THRESHOLD


class CleanSettings(Request):
    """Which rows go."""

    steps: list[Step] = list(STEPS)
    """Which steps to take; they run in this order."""
    threshold: float = Field(default=DEFAULT_THRESHOLD, ge=0.5, le=1)
    """Jaccard similarity of word 3-grams from which two rows are near-duplicates."""
    min_tokens: int = Field(default=10, ge=0)
    """The length step drops shorter rows."""
    max_tokens: int = Field(default=2048, ge=1)
    """The length step drops longer rows."""
    tokenizer: WorkspaceRef | None = None
    """Model folder or tokenizer.json to count tokens with; without it they are estimated from the bytes."""
    allow_final_calls: bool = False
    """The schema step accepts rows that end with calls without results; rows of a named tool set always may."""

    def make_filter(self) -> RowFilter:
        """Return the row-wise steps, ready to judge.

        Raises:
            InvalidInputError: If the tokenizer cannot be read.
        """
        fields = self.model_dump(include={"steps", "min_tokens", "max_tokens", "allow_final_calls"})
        if self.tokenizer is None or "length" not in self.steps:
            return RowFilter(**fields)
        require("tokenizers", extra="data")
        from pipeline.data.backends.token_counts import load_counter

        return RowFilter(**fields, count_tokens=load_counter(refs.resolve_path(self.tokenizer)))

    def list_doubts(self) -> list[str]:
        """Return what a reader of the result should know about these settings."""
        if self.tokenizer is None and "length" in self.steps:
            return ["lengths are estimated at 4 bytes a token; name a tokenizer for exact ones"]
        return []
