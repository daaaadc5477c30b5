# pyright: basic
"""Count tokens with a model's own tokenizer (the `tokenizers` library reads its tokenizer.json)."""

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from pipeline.core.errors import InvalidInputError


def load_counter(folder_or_file: Path) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text, without special tokens.

    Raises:
        InvalidInputError: If there is no usable tokenizer.json.
    """
    path = folder_or_file / "tokenizer.json" if folder_or_file.is_dir() else folder_or_file
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception for a broken file
        raise InvalidInputError(
            f"{path} is no tokenizer: {str(error)[:200]}",
            hint="Name a model folder with a tokenizer.json, such as models/smollm2-135m.",
        ) from error
    tokenizer.no_truncation()

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count
