import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["torch", "wandb", "datasets", "pytorch_lightning", "sklearn", "scipy", "pandas"]
LIGHT = ["numpy", "rich", "pydantic", "psutil"]
SCRIPT = """
import contextlib, io, sys
from reimpl.cli import main
sys.argv = ["reimpl", *sys.argv[1:]]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(*sys.modules)
"""


def imported(*words: str) -> set[str]:
    command = [sys.executable, "-c", SCRIPT, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["list", "--json"],
        ["--help"],
        ["reproduce", "--help"],
        ["show", "rumelhart1986_backprop"],
        ["why-rerun", "rumelhart1986_backprop"],
        ["verdict", "no-such-paper"],
    ],
    ids=" ".join,
)
def test_a_command_that_only_reads_imports_nothing_heavy(words: list[str]) -> None:
    assert [name for name in HEAVY if name in imported(*words)] == []


@pytest.mark.parametrize("words", [["list"], ["--help"]], ids=" ".join)
def test_the_list_and_the_help_import_no_package_that_takes_time(words: list[str]) -> None:
    assert [name for name in (*HEAVY, *LIGHT) if name in imported(*words)] == []


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = "import sys, reimpl; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [name for name in (*HEAVY, *LIGHT) if name in done.stdout.split()] == []


def test_asking_for_the_same_verdicts_again_imports_nothing_heavy(
    tiny_paper: Path, tmp_path: Path
) -> None:
    words = ["tiny", "--papers", str(tiny_paper), "--runs", str(tmp_path / "runs")]
    assert "scipy" in imported("reproduce", *words, "--wandb", "disabled")
    for command in ("reproduce", "verdict"):
        assert [
            name for name in (*HEAVY, "numpy", "rich") if name in imported(command, *words)
        ] == []
