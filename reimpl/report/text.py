"""Pages of lines and tables, and figures as people read them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from reimpl.claims import Claims, Printed

COLOURS: Mapping[str, str] = {
    "reproduced": "32",
    "consistent": "32",
    "ok": "32",
    "below": "31",
    "off": "31",
    "error": "31",
    "fails": "31",
    "above": "35",
    "inconclusive": "33",
    "warn": "33",
    "not run": "2",
}
LEAST_LAST = 28
"""Characters that the last column needs to stand beside the others."""
SHOWN = 3
"""Names of a list that are written out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text under headings; a column that is empty in every row is left out."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: frozenset[str] = frozenset()
    """Headings of the columns that are set to the right: numbers."""
    spare: tuple[str, ...] = ()
    """Headings of the columns that go first, one after another, where a line is too short."""


Page = list[str | Table]


def render(page: Page, *, width: int = 0, colour: bool = False) -> str:
    """The page as text.

    Args:
        page: lines and tables.
        width: characters in a line; 0 for no limit.
        colour: paint the lanes, for a terminal.
    """
    lines: list[str] = []
    for part in page:
        lines += [part] if isinstance(part, str) else _lines(part, width=width, colour=colour)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _lines(table: Table, *, width: int, colour: bool) -> list[str]:
    columns = [
        (head, [row[i] for row in table.rows])
        for i, head in enumerate(table.heads)
        if any(row[i] for row in table.rows)
    ]
    if not columns:
        return []
    for head in table.spare:
        if width and _taken(columns) > width + 2:
            columns = [column for column in columns if column[0] != head]
    *others, last = [
        _padded(head, cells, right=head in table.right, colour=colour) for head, cells in columns
    ]
    taken = _taken(columns)
    above = others.pop(0) if len(others) > 1 and width and taken > width + 2 else None
    if above:
        taken -= len(above[0])
    room = width - taken if width else max(map(len, last))
    lines = []
    for i, text in enumerate(last):
        lines += [f"  {above[i]}"] if above else []
        start = ("    " if above else "  ") + "".join(cells[i] + "  " for cells in others)
        lines += _beside(start, text, room=room, taken=taken, width=width)
    return lines


def _taken(columns: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Characters of a line before its last column."""
    return 2 + sum(max(map(len, (head, *cells))) + 2 for head, cells in columns[:-1])


def _padded(head: str, cells: Sequence[str], *, right: bool, colour: bool) -> list[str]:
    """The heading and the cells at one width."""
    size = max(map(len, (head, *cells)))
    aligned = [cell.rjust(size) if right else cell.ljust(size) for cell in (head, *cells)]
    if not colour:
        return aligned
    return [_painted(text) if i else text for i, text in enumerate(aligned)]


def _painted(text: str) -> str:
    code = COLOURS.get(text.strip())
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def _beside(start: str, text: str, *, room: int, taken: int, width: int) -> list[str]:
    """The last column beside the others, wrapped; below them where there is too little room."""
    text = text.rstrip()
    if len(text) <= room:
        return [start + text]
    if room >= LEAST_LAST:
        first, *rest = textwrap.wrap(text, room)
        return [start + first, *(" " * taken + line for line in rest)]
    indent = " " * 6
    return [
        start,
        *textwrap.wrap(
            text, max(LEAST_LAST, width), initial_indent=indent, subsequent_indent=indent
        ),
    ]


# Figures


def figure(value: float | None, decimals: int | None = None) -> str:
    """A number for people, with thousands separators.

    >>> figure(0.9612, 3), figure(1459.0, 1), figure(60000.0), figure(0.0123456), figure(None)
    ('0.961', '1,459.0', '60,000', '0.01235', '-')
    >>> figure(float("inf"))
    'never'
    """
    if value is None:
        return "-"
    if math.isinf(value):
        return "never" if value > 0 else "-never"
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def decimals(published: str | None) -> int | None:
    """Decimals of our figure beside a published one: one more than it prints.

    >>> decimals("0.95"), decimals("1,425"), decimals(None)
    (3, 1, None)
    """
    if published is None:
        return None
    half = Printed(published).half_digit
    return max(0, -math.floor(math.log10(half))) if half < 1 else 1


def spread_decimals(sd: float | None) -> int | None:
    """Decimals that give a standard deviation two significant digits; None when it gives no hint.

    >>> spread_decimals(0.7189), spread_decimals(0.0123), spread_decimals(250.0)
    (2, 3, 0)
    """
    if sd is None or not 0 < sd < math.inf:
        return None
    return max(0, 1 - math.floor(math.log10(sd)))


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(0.4), duration(40), duration(250), duration(9000)
    ('under a second', '40 s', '4 minutes', '2.5 hours')
    """
    if seconds < 1:
        return "under a second"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


def gigabytes(megabytes: float) -> str:
    """Memory for people.

    >>> gigabytes(1500)
    '1.5 GB'
    """
    return f"{megabytes / 1000:.1f} GB"


def number(count: int, noun: str) -> str:
    """A count with its noun.

    >>> number(1, "run"), number(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as JSON knows them; infinities are words."""
    if isinstance(value, Printed | Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def json_text(value: Any, margin: str = "\n") -> str:
    """Strict JSON to be read line by line, where a list of plain values is one line.

    >>> print(json_text({"seeds": [0, 1, 2], "rows": [{"n": 3}]}))
    {
      "seeds": [0, 1, 2],
      "rows": [
        {
          "n": 3
        }
      ]
    }
    """
    import json  # late: tables need none

    inner = f"{margin}  "
    if isinstance(value, dict) and value:
        items = (f"{json_text(str(key))}: {json_text(item, inner)}" for key, item in value.items())
        return "{" + ",".join(f"{inner}{item}" for item in items) + margin + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[" + ",".join(f"{inner}{json_text(item, inner)}" for item in value) + margin + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def title(claims: Claims) -> str:
    """The first line above a paper's table."""
    return f"{slug(claims)}  {claims.paper.title}"


def slug(claims: Claims) -> str:
    """The paper's folder; of a file that is not called `claims.toml`, its name."""
    path = claims.path.resolve()
    return path.parent.name if path.name == "claims.toml" else path.stem


def some(names: Sequence[str]) -> str:
    """A list of names, cut where it is long.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = len(names) - SHOWN
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:SHOWN])} and {more} more"
