# pyright: basic
"""Read what a GGUF says about itself, after checking that it is whole."""

from pathlib import Path
from typing import Any

import libgguf

from pipeline.core.errors import IntegrityError

_EXACT_TYPES = {0, 1, 32}  # LlamaFileType ALL_F32, MOSTLY_F16, MOSTLY_BF16


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF; arrays are left out.

    Raises:
        IntegrityError: If the file is truncated or malformed.
    """
    outcome = libgguf.validate_gguf(path, max_array_values=0)
    if not outcome.ok or outcome.file is None:
        raise IntegrityError(
            f"{path.name} is damaged: {outcome.errors[0].message}",
            hint="Export the model again.",
            problems=[issue.message for issue in outcome.errors[:5]],
        )
    return {key: item.value for key, item in outcome.file.metadata.items() if item.value_type != "ARRAY"}


def holds_full_weights(metadata: dict[str, Any]) -> bool:
    """True for 16- and 32-bit files, which must answer like the merged model."""
    return metadata.get("general.file_type") in _EXACT_TYPES
