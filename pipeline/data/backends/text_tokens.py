# pyright: basic
"""Count the tokens of texts with a model's own tokenizer, without loading transformers."""

from pathlib import Path

from tokenizers import Tokenizer

from pipeline.core.errors import InvalidInputError


class TokenCounter:
    """The tokenizer of one model folder."""

    def __init__(self, folder: Path) -> None:
        file = folder / "tokenizer.json" if folder.is_dir() else folder
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise InvalidInputError(
                f"{file} is no tokenizer: {error}", hint="Name a model folder with a tokenizer.json."
            ) from error

    def count(self, texts: list[str]) -> list[int]:
        """Return the number of tokens of each text, special tokens of a chat template left out."""
        return [
            len(encoded) for encoded in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]
