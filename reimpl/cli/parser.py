"""What the commands are called, and what they take."""

from __future__ import annotations

import os
import re
import sys
from argparse import (
    SUPPRESS,
    ArgumentParser,
    ArgumentTypeError,
    BooleanOptionalAction,
    RawDescriptionHelpFormatter,
)
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn

from reimpl.errors import RequestError, near
from reimpl.installed import version

WIDTH, OPTIONS_WIDTH = 100, 28
ABOUT = """\
Does the number in the paper come out when the method is written anew?

  reimpl list                                  the papers there are
  reimpl reproduce rumelhart1986               run what is not recorded yet, and judge
  reimpl verdict rumelhart1986 --json          judge the records again
  reimpl judge claims.toml --measurements numbers.csv

Exit status: 0 the work was done, whatever the verdicts; 1 a run errored, or with --strict a
claim is below, off or in error or a count differs; 2 a mistake in the request; 130 interrupted."""
EXAMPLES = {
    "show": """
  reimpl show lenet5
  reimpl show lenet5 --claim lenet5-test-error""",
    "judge": """
  reimpl judge claims.toml --measurements numbers.csv --json""",
    "reproduce": """
  reimpl reproduce rumelhart1986
  reimpl reproduce lenet5 --variant lenet5 --seeds 10
  reimpl reproduce lenet5 --cost hours --baselines
  reimpl reproduce lenet5 --set lr=0.01 --seeds 3
  reimpl reproduce lenet5 --model mine.py:Net
  reimpl reproduce mine --papers ~/papers
  reimpl reproduce lenet5 --engine ray --address 10.0.0.1:6379""",
}


def parse(words: Sequence[str]) -> dict[str, Any]:
    """What a command line asks for: `command`, and what the command of that name takes.

    Raises:
        RequestError: an unknown command or option, or a value that an option does not take.
    """
    named = words[:1] if words and words[0] in COMMANDS else list(COMMANDS)
    parser = _parser(named)
    asked, left = parser.parse_known_args(words)
    found = vars(asked)
    known = found.pop("known")
    if left:
        _refuse(left[0], f"reimpl {found['command'] or ''}".strip(), known)
    if found["command"] is None:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    return found


class _Parser(ArgumentParser):
    """Says what is wrong in one line."""

    def __init__(self, **more: Any) -> None:
        super().__init__(formatter_class=_layout, allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message}. See `{self.prog} --help`.")

    def _check_value(self, action: Any, value: Any) -> None:
        """A word that is not among the choices gets the near ones."""
        if action.choices is not None and value not in action.choices:
            option = action.option_strings
            what = f"{option[0]} takes no" if option else "there is no command"
            raise RequestError(f"{what} '{value}'. {near(value, action.choices)}")


def _layout(prog: str) -> RawDescriptionHelpFormatter:
    return RawDescriptionHelpFormatter(prog, max_help_position=OPTIONS_WIDTH, width=_width())


@cache
def _width() -> int:
    """As `shutil.get_terminal_size` has it, which takes long to import; argparse asks each time."""
    with suppress(ValueError):
        return min(int(os.environ.get("COLUMNS", "")), WIDTH)
    with suppress(OSError, ValueError, AttributeError):
        return min(os.get_terminal_size(sys.stdout.fileno()).columns or WIDTH, WIDTH)
    return WIDTH


def _refuse(word: str, command: str, known: Sequence[str]) -> NoReturn:
    name = word.partition("=")[0]
    if not name.startswith("-"):
        raise RequestError(f"'{word}' is one word too many. See `{command} --help`.")
    raise RequestError(f"`{command}` has no option '{name}'. {near(name, known)}")


# Values


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


MOST_SEEDS = 1_000_000
"""Of a variant; a plan lists them one by one."""


def _seeds(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"'{text}' is neither a number above 0 nor auto")
    if int(text) > MOST_SEEDS:
        raise ArgumentTypeError(f"'{text}' is more than {MOST_SEEDS:,}, which are enough")
    return int(text)


def _duration(text: str) -> float:
    """Seconds in `90s`, `30m`, `1h30m` or `2h`."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + seconds):
        raise ArgumentTypeError(f"'{text}' is no time; write it as 90s, 30m or 1h30m")
    return float(total)


# Options

Option = tuple[tuple[str, ...], dict[str, Any]]
"""Its names, and what `add_argument` takes beside them."""


def _option(*names: str, **more: Any) -> Option:
    return names, more


def _flag(name: str, text: str, **more: Any) -> Option:
    return _option(name, action="store_true", help=text, **more)


def _several(name: str, what: str, text: str, **more: Any) -> Option:
    return _option(name, action="append", default=[], metavar=what, help=text, **more)


PAPER = _option("paper", metavar="PAPER", help="the paper's slug, or any unambiguous part of it")
PAPERS = _several("--papers", "DIR", "a paper's folder, or a folder of papers", type=Path)
RUNS = _option(
    "--runs", metavar="DIR", type=Path, help="folder of the records [$REIMPL_RUNS, or runs]"
)
JSON = _flag("--json", "print JSON instead of the table", dest="as_json")
STRICT = _flag(
    "--strict", "end with status 1 when a claim is below, off or in error or a count differs"
)
CLAIMS = _several("--claim", "ID", "only this claim; give it again for more", dest="claims")
WHICH = (
    _several("--variant", "ID", "only this variant; give it again for more", dest="variants"),
    CLAIMS,
    _option(
        "--seeds",
        metavar="N|auto",
        type=_seeds,
        help="runs of each variant [its own number]; auto: 3, 5, 8, 12, 20, until decided",
    ),
    _option(
        "--cost",
        default="minutes",
        choices=("instant", "minutes", "hours", "gpu"),
        help="leave out claims that take more than this, unless --claim names them [minutes]",
    ),
)
HOW = (
    _option(
        "--budget",
        dest="budget_s",
        metavar="TIME",
        type=_duration,
        help="30m, 1h30m, …: only what fits, the cheapest undecided claims first",
    ),
    _option(
        "--workers",
        metavar="N",
        type=_count,
        help="processes [cores, as far as memory goes]",
    ),
    _option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps, … [cpu]"),
    _option(
        "--devices",
        default=1,
        metavar="N",
        type=_count,
        help="processes that share each training by DDP [1]",
    ),
    _option(
        "--num-nodes",
        default=1,
        metavar="M",
        type=_count,
        help="machines that share it, each with so many --devices [1]",
    ),
    _option(
        "--precision",
        choices=("32", "bf16-mixed", "16-mixed", "bf16-true"),
        help="the same as --set precision=…",
    ),
    _several(
        "--set",
        "KEY=VALUE",
        "change the recipe or a setting; recorded as such, never judged as the paper's",
        dest="settings",
    ),
    _option(
        "--model",
        metavar="FILE.py:Class",
        help="your own model, called with the variant or with nothing, on the same data; never "
        "judged as the paper's",
    ),
    _flag("--force", "run again what is recorded already"),
    _flag("--baselines", "fit plain methods to the same data, too"),
)
ENGINE = (
    _option(
        "--engine",
        default="processes",
        choices=("processes", "inprocess", "ray"),
        help="ray: on a Ray cluster; inprocess: one after another here, for debugging",
    ),
    _option(
        "--address",
        metavar="HOST:PORT",
        help="of the Ray cluster, or auto [$RAY_ADDRESS, or one started here]",
    ),
)
COMMANDS: dict[str, tuple[str, *tuple[Option, ...]]] = {
    "list": ("the papers there are", PAPERS, JSON),
    "show": (
        "what a paper claims, and what we do otherwise",
        PAPER,
        _option("--claim", metavar="ID", help="only this claim, with its margin and why"),
        PAPERS,
        JSON,
    ),
    "verdict": (
        "judge the records there are, without running anything",
        PAPER,
        CLAIMS,
        PAPERS,
        RUNS,
        _option(
            "--seeds",
            metavar="N|auto",
            type=_seeds,
            help="only so many seeds of each variant count [all]; auto: look by look, as "
            "`reproduce --seeds auto` judges",
        ),
        STRICT,
        JSON,
    ),
    "judge": (
        "judge numbers that came from somewhere else",
        _option(
            "claims", metavar="CLAIMS.toml", type=Path, help="the claims, or the paper they are of"
        ),
        _option(
            "--measurements",
            required=True,
            metavar="FILE",
            type=Path,
            help=".csv or .json with columns variant, seed, metric, value",
        ),
        STRICT,
        JSON,
    ),
    "plan": (
        "what `reproduce` would run, and how long it takes",
        PAPER,
        *WHICH,
        *HOW,
        *ENGINE,
        _option(
            "--probe",
            action=BooleanOptionalAction,
            default=True,
            help="train for a moment what was never run here, to time it, rather than go by other "
            "machines' records [yes]",
        ),
        PAPERS,
        RUNS,
        JSON,
    ),
    "reproduce": (
        "run what is not recorded yet, then judge the claims",
        PAPER,
        *WHICH,
        *HOW,
        _option(
            "--wandb",
            default="auto",
            metavar="MODE",
            help="auto, online, offline or disabled [auto]",
        ),
        *ENGINE,
        STRICT,
        PAPERS,
        RUNS,
        JSON,
    ),
    "record": (
        "promote records to `measured.jsonl` and the README's table",
        PAPER,
        PAPERS,
        RUNS,
    ),
    "restore": (
        "keep the committed records here, so that `reproduce` goes on from them",
        PAPER,
        PAPERS,
        RUNS,
    ),
    "why-rerun": (
        "why `reproduce` would make recorded runs again",
        PAPER,
        *WHICH,
        PAPERS,
        RUNS,
        JSON,
    ),
    "data": ("fetch a paper's data and verify every checksum", PAPER, PAPERS, JSON),
    "check": (
        "whether a paper does what every paper owes",
        _option("paper", nargs="?", metavar="[PAPER|DIR]", help="a paper's name or folder [all]"),
        PAPERS,
        JSON,
    ),
    "doctor": ("versions, devices, folders, data, W&B and papers here", PAPERS, RUNS, JSON),
}
"""Command → what it does, and what it takes."""


def _parser(commands: Sequence[str]) -> _Parser:
    """Takes these commands; to build all of them takes as long as a bare start of Python."""
    lines = [f"  {name:<11}{does}" for name, (does, *_) in COMMANDS.items()]
    parser = _Parser(
        prog="reimpl",
        usage="reimpl COMMAND [options]",
        description="\n".join([ABOUT, "", "commands:", *lines]),
    )
    number = version("reimpl") or "of unknown version"
    parser.add_argument("--version", action="version", version=f"reimpl {number}")
    parser.set_defaults(known=["--help", "--version"])
    each = parser.add_subparsers(dest="command", metavar="COMMAND", help=SUPPRESS)
    for name in commands:
        does, *options = COMMANDS[name]
        command = each.add_parser(
            name,
            prog=f"reimpl {name}",
            usage=f"reimpl {name} {_needed(options)}[options]",
            description=f"{does[0].upper()}{does[1:]}.\n{EXAMPLES.get(name, '')}",
        )
        for names, more in options:
            command.add_argument(*names, **more)
        command.set_defaults(known=[o for names, _ in options for o in names if o[0] == "-"])
    return parser


def _needed(options: Sequence[Option]) -> str:
    """What stands before the options in the usage of a command."""
    words = [more["metavar"] for names, more in options if names[0][0] != "-"]
    words += [f"{names[0]} {more['metavar']}" for names, more in options if "required" in more]
    return "".join(f"{word} " for word in words)
