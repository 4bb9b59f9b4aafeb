"""What the record files of a paper said when they were last read, so that they need not be again.

A log beside them, to which anybody may append. It is never the truth: a row counts while its file
has the time and size that the row names, and a block of rows that is torn, lost or written by two
at once fails its checksum and is passed over. The log can be deleted at any time. So it takes no
lock, and a file system where locks do not work is as good as any.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

FORMAT = 1
"""Raised when the form of a block changes; blocks of another format fail their checksum."""
BLOCK = 1000
"""Rows of a block, at most."""
MOST, SPARE = 2, 1000
"""Rows that a log may have for each that counts, and beyond."""
TICK_NS, COARSE_TICK_NS = 20_000_000, 2_000_000_000
"""A file this young may change again without a change of its time: the clock of a file system
ticks every few milliseconds, and every second or two where times have no finer digits."""
MARK = b"\x1e"
"""Begins a block; JSON has no such byte."""

Stamp = tuple[int, int]
"""Time of the last change in ns, and size: by them a file is known to be as it was."""
Row = Sequence[Any]
"""A file's name, its stamp, and what it said as JSON takes it, infinity included."""


class Index:
    """The log of one paper's files. A block is of one folder, and is decoded when that is read."""

    def __init__(self, path: Path, *, paper: str, fields: Sequence[str]) -> None:
        self.path = path
        about = f"{FORMAT} {paper} {' '.join(fields)}"  # blocks about anything else do not count
        self._start = crc32(about.encode(errors="surrogatepass"))
        self._blocks: dict[str, list[bytes]] | None = None
        self._rows = 0

    def read(self, folder: str) -> dict[str, Row]:
        """What the log says of a folder's files, by name; they may have gone or changed."""
        if self._blocks is None:
            self._blocks = self._whole_blocks()
        blocks = self._blocks.get(folder, ())
        rows = [row for block in blocks for row in json.loads(block[block.index(b"\n") :])]
        self._rows += len(rows)
        return {row[0]: row for row in rows}

    def _whole_blocks(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        try:
            parts = list(_parts(self.path.read_bytes()))
        except OSError:
            return found
        whole = [part for part in parts if self._is_whole(part)]
        if 2 * sum(map(len, whole)) < sum(map(len, parts)):
            self._begin_anew()
        for part in whole:
            found.setdefault(json.loads(part[8 : part.index(b"\n")]), []).append(part)
        return found

    def _is_whole(self, part: bytes) -> bool:
        return part[:8] == b"%08x" % crc32(memoryview(part)[8:], self._start)

    def _begin_anew(self) -> None:
        with suppress(OSError):
            self.path.unlink()

    def add(self, folder: str, rows: Iterable[Row], *, seen: int) -> None:
        """Append what files of a folder said; what cannot be kept is read again next time.

        Args:
            folder: its name.
            rows: none of them was read before its stamp was looked up.
            seen: when, in ns, the first stamp was looked up.
        """
        with suppress(OSError):
            for block in self._encoded(folder, [row for row in rows if _is_past(row[1], seen)]):
                handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                try:
                    os.write(handle, block)  # in one call, so that no two blocks mix
                finally:
                    os.close(handle)

    def _encoded(self, folder: str, rows: Sequence[Row]) -> Iterator[bytes]:
        for first in range(0, len(rows), BLOCK):
            table = json.dumps(rows[first : first + BLOCK], separators=(",", ":"))
            text = f"{json.dumps(folder)}\n{table}\n".encode()
            yield b"%s%08x%s" % (MARK, crc32(text, self._start), text)

    def tidy(self, live: int) -> None:
        """Begin anew when fewer than half of the rows that were read are live."""
        if self._rows > SPARE + MOST * live:
            self._begin_anew()


def _parts(log: bytes) -> Iterator[bytes]:
    """As `split` at each mark, which looks at byte after byte: many times slower than `find`."""
    first = 0
    while (end := log.find(MARK, first)) >= 0:
        yield log[first:end]
        first = end + 1
    yield log[first:]


def _is_past(time_ns: int, seen: int) -> bool:
    """Whether a change after `seen` would have shown in the time of the file."""
    return seen - time_ns > (COARSE_TICK_NS if time_ns % 1_000_000 == 0 else TICK_NS)
