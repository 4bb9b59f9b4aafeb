"""The command line. Nothing outside this package prints.

Tables and JSON go to stdout; progress, remarks and mistakes go to stderr.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reimpl.report import Page

__all__ = ["main"]


def main() -> None:
    """The entry point of the script `reimpl`."""
    if sys.argv[1:] == ["list"]:
        list_papers()  # nothing to parse, and Typer would take more time than all the rest
        return
    from reimpl.cli.app import app

    app(prog_name="reimpl")


def list_papers(papers: Sequence[Path] = (), *, as_json: bool = False) -> None:
    """Print the papers there are."""
    from reimpl import registry, report

    found = report.listed(registry.entries(papers))
    print_page(lambda: report.list_page(found), lambda: {"papers": report.plain(found)}, as_json)


def print_page(page: Callable[[], Page], table: Callable[[], Any], as_json: bool) -> None:
    """Print the page, or the same as JSON."""
    if as_json:
        import json

        out(json.dumps(table(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    from reimpl.report import render

    terminal = sys.stdout.isatty()
    width = _width() if terminal else 0
    out(render(page(), width=width, colour=terminal and "NO_COLOR" not in os.environ))


def out(text: str) -> None:
    """Write to stdout; end quietly when nobody reads on."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def say(line: str, *, prefix: str = "reimpl: ") -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{prefix}{line}\n")
    sys.stderr.flush()


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return 0
