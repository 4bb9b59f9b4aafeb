"""The command line. Nothing outside this package prints.

Tables and JSON go to stdout; progress, remarks and mistakes go to stderr.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reimpl.report import Page

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> None:
    """The entry point of the script `reimpl`; ends with the status of the command.

    Args:
        words: of the command line, without the program's name; those of this process by default.
    """
    from reimpl.cli.app import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # of ± where a terminal knows ASCII alone
    sys.exit(run(sys.argv[1:] if words is None else words))


def print_page(page: Callable[[], Page], table: Callable[[], Any], as_json: bool) -> None:
    """Print the page, or the same as JSON."""
    from reimpl.report import json_text, render

    if as_json:
        out(f"{json_text(table())}\n")
        return
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
    if (said := os.environ.get("COLUMNS", "")).isdecimal():
        return int(said)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return 0
