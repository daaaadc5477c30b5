"""A decision note that code or a document refers to must exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"(?:docs/decisions/|\bdecisions? )(0\d{3})")


def test_every_decision_note_that_is_referred_to_exists() -> None:
    notes = {path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")}
    texts = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    named = {
        (str(path.relative_to(ROOT)), number)
        for path in texts
        for number in NUMBER.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) >= 10
    assert sorted(pair for pair in named if pair[1] not in notes) == []
