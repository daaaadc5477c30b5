"""What has to hold of the files that an operation reads: regular files that stay as they are, and no output among them."""

from pathlib import Path

from pipeline.core.errors import InvalidInputError
from pipeline.core.paths import shown_path
from pipeline.data.reader import describe_file, refuse_change


def no_rows_error(path: Path) -> InvalidInputError:
    """Return the error for a file in which nothing but blank lines stands."""
    return InvalidInputError(f"{shown_path(path)} has no rows", hint="Name a file with conversations.")


class Sources:
    """The files that one operation reads, perhaps several times."""

    def __init__(self, *paths: Path) -> None:
        """Look at the files.

        Raises:
            InvalidInputError: If one is not a regular file.
        """
        self._found = {path: describe_file(path) for path in paths}

    def check_outputs(self, *outputs: Path) -> None:
        """Look at the files to be written.

        Raises:
            InvalidInputError: If one cannot be written where it is asked for, or would replace a source.
        """
        for output in outputs:
            if output.is_dir():
                raise InvalidInputError(f"{shown_path(output)} is a folder", hint="Name the file to write.")
            folder = next(parent for parent in output.parents if parent.exists())
            if not folder.is_dir():
                raise InvalidInputError(
                    f"{shown_path(folder)} is a file, so nothing can be written below it",
                    hint="Name another place.",
                )
            if output.exists() and any(output.samefile(source) for source in self._found):
                raise InvalidInputError(
                    "the result would replace the input, which is never changed",
                    hint="Name another place with --out.",
                )

    def check_unchanged(self) -> None:
        """Look at the files again.

        Raises:
            InvalidInputError: If one is another file or has other content than before.
        """
        for path, found in self._found.items():
            refuse_change(path, found)
