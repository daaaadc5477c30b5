"""Read JSON Lines files of any size as bytes: plain, gzip or zstd, one line at a time, never the whole file.

Lines end at LF only (U+2028, U+0085 and a lone CR are text); one CR before the LF and a BOM at the start of the file are
taken away. A line over the limit is skipped without being held in memory and reported. Does not look into the lines.
"""

import gzip
import io
import stat
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from pipeline.core.errors import InvalidInputError
from pipeline.core.extras import require

MAX_LINE_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"
BLANKS = b" \t\r"
_SNIFF_BYTES = 4096
_ZSTD_CHUNK_BYTES = 1024  # a kibibyte can stand for 32 MiB of repeated bytes, and it all comes at once
_MAGIC_NUMBERS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive",
    b"\x89PNG": "a PNG picture",
    b"%PDF": "a PDF document",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"SQLite format 3": "an SQLite database",
    b"\x7fELF": "a program",
    b"GGUF": "a GGUF model",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"{\0": "UTF-16 text",
    b"\0{": "UTF-16 text",
}


class Line(NamedTuple):
    """One physical line that is not blank."""

    number: int
    """Position in the file, from 1, blank lines counted."""
    raw: bytes
    """Content without the line end; the first bytes only when there is a problem."""
    problem: str = ""
    """Error code when the line could not be read (``line_too_long``)."""


class Block(NamedTuple):
    """Some consecutive lines, blank ones included."""

    lines: list[bytes]
    """Contents without their LF."""
    problem: str = ""
    """As in :class:`Line`; the block then holds the first bytes of one line."""


def read_lines(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> Generator[Line]:
    """Yield the lines of a file that are not blank.

    Raises:
        InvalidInputError: If it is no readable text file, its compression is damaged, or it changes meanwhile.
    """
    with open_source(path) as source:
        yield from split_lines(source.stream, max_line_bytes)


def split_lines(stream: BinaryIO, max_line_bytes: int = MAX_LINE_BYTES) -> Generator[Line]:
    """Yield the lines of an open stream that are not blank."""
    number = 0
    for block in read_blocks(stream, max_line_bytes):
        for raw in block.lines:
            number += 1
            if block.problem:
                yield Line(number, raw, block.problem)
            elif raw.strip(BLANKS):
                yield Line(number, raw.removesuffix(b"\r"))


class Source(NamedTuple):
    """An open file."""

    stream: BinaryIO
    """What to read: the content, uncompressed."""
    file: BinaryIO
    """The file itself; its position tells how far reading is."""
    is_compressed: bool
    """By gzip or zstd."""


def read_blocks(stream: "BinaryIO | Window", max_line_bytes: int = MAX_LINE_BYTES) -> Generator[Block]:
    """Yield the lines of a stream, a BOM at the start of the file taken away."""
    held: list[bytes] = []  # the pieces so far of a line whose end has not come
    held_bytes = 0
    for chunk in _read_chunks(stream):
        lines = chunk.split(b"\n")
        held_bytes += len(lines[0])
        if held_bytes <= max_line_bytes:
            held.append(lines[0])
        if len(lines) == 1:
            continue
        lines[0] = b"".join(held)
        if held_bytes > max_line_bytes:
            yield Block([lines.pop(0)[:_SNIFF_BYTES]], "line_too_long")
        held = [lines.pop()]
        held_bytes = len(held[0])
        yield Block(lines)
    if held_bytes > max_line_bytes:
        yield Block([b"".join(held)[:_SNIFF_BYTES]], "line_too_long")
    elif held_bytes:
        yield Block([b"".join(held)])


def _read_chunks(stream: "BinaryIO | Window") -> Generator[bytes]:
    if stream.tell() == 0:
        start = b""
        while len(start) < len(BOM) and (more := stream.read(BLOCK_BYTES)):
            start += more
        yield start.removeprefix(BOM)
    while chunk := stream.read(BLOCK_BYTES):
        yield chunk


@contextmanager
def open_source(path: Path) -> Generator[Source]:
    """Open a regular file for reading, through gzip or zstd when its first bytes say so.

    Raises:
        InvalidInputError: If it cannot be used, is damaged, or is another file or content at the end of the block.
    """
    before = describe_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(_SNIFF_BYTES)
            _refuse_binary(path, head)
            file.seek(0)
            stream = _decompress(file, head)
            yield Source(stream, file, is_compressed=stream is not file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror or error}", hint="Check its permissions and its disk."
        ) from error
    refuse_change(path, before)


class Window:
    """Part of an open file, from its present position to ``stop``, readable like a file."""

    def __init__(self, file: BinaryIO, stop: int) -> None:
        self._file, self._stop = file, stop

    def tell(self) -> int:
        """Return the position in the whole file."""
        return self._file.tell()

    def read(self, num_bytes: int) -> bytes:
        """Read up to a number of bytes, none beyond the end of the window."""
        return self._file.read(max(0, min(num_bytes, self._stop - self._file.tell())))


def find_line_ranges(file: BinaryIO, range_bytes: int) -> Generator[tuple[int, int]]:
    """Yield start and stop of pieces of about a size that together are the file; each stops after an LF."""
    size = file.seek(0, io.SEEK_END)
    start = 0
    while start < size:
        stop = file.seek(min(start + range_bytes, size) - 1)
        while chunk := file.read(BLOCK_BYTES):
            if (end := chunk.find(b"\n") + 1) > 0:
                stop += end
                break
            stop += len(chunk)
        yield start, stop
        start = stop


def refuse_change(path: Path, before: tuple[int, int, int]) -> None:
    """Compare a file with what it was.

    Raises:
        InvalidInputError: If it is another file or has other content.
    """
    if describe_file(path) != before:
        raise InvalidInputError(
            f"{path} changed while it was read", hint="Wait until nothing writes to it, then run again."
        )


def describe_file(path: Path) -> tuple[int, int, int]:
    """Return what tells a file and its content from others.

    Raises:
        InvalidInputError: If it is not a regular file.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be opened: {error.strerror or error}", hint="Check the name."
        ) from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise InvalidInputError(f"{path} is {kind}", hint="Name one JSON Lines file.")
    return found.st_ino, found.st_size, found.st_mtime_ns


def _refuse_binary(path: Path, head: bytes) -> None:
    for magic, kind in _MAGIC_NUMBERS.items():
        if head.startswith(magic):
            raise InvalidInputError(
                f"{path} is {kind}, not JSON Lines", hint="Export it as UTF-8 JSON Lines, one object a line."
            )
    is_compressed = head[:2] == b"\x1f\x8b" or head[:4] == b"\x28\xb5\x2f\xfd"
    if b"\0" in head and not is_compressed and not head.removeprefix(BOM).lstrip().startswith(b"{"):
        raise InvalidInputError(f"{path} is a binary file", hint="Name a JSON Lines file.")


def _decompress(file: BinaryIO, head: bytes) -> BinaryIO:
    if head[:2] == b"\x1f\x8b":
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return cast("BinaryIO", _ZstdReader(file))
    return file


class _ZstdReader:
    """Reads zstd frames one after the other. Unlike the library's own reader it notices when the last one is cut."""

    def __init__(self, file: BinaryIO) -> None:
        require("zstandard", extra="data")
        import zstandard

        self._file = file
        self._start_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._frame: Any = None
        self._waiting = b""
        self._position = 0

    def tell(self) -> int:
        """Return how many bytes have come out."""
        return self._position

    def read(self, _: int) -> bytes:
        """Return the next piece, of any size, or nothing at the end.

        Raises:
            EOFError: If the file is damaged or ends inside a frame.
        """
        while raw := self._waiting or self._file.read(_ZSTD_CHUNK_BYTES):
            self._frame = self._frame or self._start_frame()
            try:
                content: bytes = self._frame.decompress(raw)
            except self._error as error:
                raise EOFError(str(error)) from error
            self._waiting = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
            if content:
                self._position += len(content)
                return content
        if self._frame is not None:
            raise EOFError("the file ends inside a zstd frame")
        return b""


def _damaged(path: Path, reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path} is damaged: {reason}", hint="Copy or compress it again; what follows is lost."
    )
