"""Does the number in this paper come out when we write the method ourselves?

from reimpl import load, reproduce, judge

result = reproduce("rumelhart1986")          # run what is not recorded yet, then judge
for verdict in result.verdicts:
    print(verdict.id, verdict.lane, verdict.note)

load("rumelhart1986").claims                 # a paper's claims, without running anything
judge("claims.toml", "numbers.csv")          # verdicts on numbers that came from somewhere else
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from reimpl.evidence import Result
    from reimpl.registry import Entry
    from reimpl.verdict import Verdict

__all__ = ["judge", "load", "reproduce"]
__version__ = "0.1.0"


def load(paper: str, *, papers: Sequence[Path] = ()) -> Entry:
    """Find a paper by its slug or any unambiguous part of it.

    Args:
        paper: the name.
        papers: folders of papers that are not installed.

    Returns:
        The entry: `.claims` reads its `claims.toml`, `.load()` imports its Python.

    Raises:
        PaperError: unknown or ambiguous; lists the near ones.
    """
    from reimpl.registry import find

    return find(paper, papers)


def reproduce(paper: str, **options: Any) -> Result:
    """Run what is not recorded yet of a paper, and judge its claims.

    Args:
        paper: slug, or any unambiguous part of it.
        options: fields of `reimpl.planning.Request`: variants, claims, seeds, cost, workers, …

    Returns:
        Verdicts, the records they rest on, and the runs that failed.

    Raises:
        ReimplError: the user's mistake. Runs that fail are in the result's `errors`.
    """
    from reimpl.planning import Request
    from reimpl.reproduction import reproduce as run

    return run(Request(paper=paper, **options))


def judge(claims: Path | str, measurements: Path | str) -> list[Verdict]:
    """Judge numbers that came from somewhere else by a `claims.toml`, without any plugin code.

    Args:
        claims: the TOML file.
        measurements: `.csv` or `.json` with columns variant, seed, metric, value.

    Raises:
        ReimplError: a file says something it must not; names file and line.
    """
    from pathlib import Path

    from reimpl.external import judge_external, read_measurements
    from reimpl.reading import load_claims

    return judge_external(load_claims(Path(claims)), read_measurements(Path(measurements)))
