"""The table of a README, made from the committed records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reimpl.errors import PaperError
from reimpl.report.results import baseline_cell, cells, counting_all, more_seeds
from reimpl.report.text import number

if TYPE_CHECKING:
    from reimpl.evidence import Result
    from reimpl.registry import Entry

OPEN, CLOSE = "<!-- table -->", "<!-- /table -->"
"""Between these lines of a README stands the table."""


def _committed(entry: Entry) -> Result:
    """Verdicts from the committed records only."""
    from tempfile import TemporaryDirectory

    from reimpl.evidence import judged

    with TemporaryDirectory() as nothing:
        return judged(entry, Path(nothing))


def markdown_table(result: Result) -> str:
    """The table of a README: what was published, what we measured, the verdict."""
    claims, measured = result.entry.claims, result.evidence.measured
    heads = ["claim", "published", "ours", "unit", "runs", "margin"]
    heads += ["best baseline"] if result.baselines else []
    rows = []
    for verdict in result.verdicts:
        shown = cells(claims.claims[verdict.id], verdict, measured)
        best = [baseline_cell(verdict, result.baselines.get(verdict.id)) or "-"]
        proxy = " (proxy)" if verdict.proxy else ""
        what = f"`{verdict.id}`{proxy}: {verdict.says} ({verdict.source})"
        rows.append([what, *shown, *(best if result.baselines else []), f"**{verdict.lane}**"])
    align = ["---", "---:", "---:", "---", "---:", "---:", *(["---:"] * bool(result.baselines))]
    lines = [[*heads, "verdict"], [*align, "---"], *rows]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())


def rebuild_readme(entry: Entry, result: Result | None = None) -> str:
    """The README's text with its table made anew from the committed records.

    Raises:
        PaperError: there is no README, or it has no place for the table.
    """
    before, after = _around_table(entry)
    found = result or _committed(entry)
    count = sum(record.part == "train" for record in found.evidence.records)
    made = f"{counting_all(found)}. {number(count, 'committed run')}"
    if failed := len(found.evidence.errors):
        made += f" and {failed:,} that failed"
    if more := more_seeds(found):
        made += f", with more seeds of {number(len(more), 'variant')} than `claims.toml` asks for"
    return f"{before}{OPEN}\n{markdown_table(found)}\n\n{made}.\n{CLOSE}{after}"


def _around_table(entry: Entry) -> tuple[str, str]:
    path = entry.folder / "README.md"
    where = f"{entry.slug}/README.md"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        hint = f"it begins with the citation and has the lines {OPEN} and {CLOSE} for the table"
        raise PaperError(f"{where}: cannot be read: {error.strerror}; {hint}") from None
    before, first, rest = text.partition(OPEN)
    _, second, after = rest.partition(CLOSE)
    if not first or not second:
        raise PaperError(f"{where}: no place for the table; write the lines {OPEN} and {CLOSE}")
    return before, after
