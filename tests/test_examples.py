import doctest
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "minimal_paper"


@pytest.mark.parametrize(
    "module", ["claims", "errors", "inference", "records", "verdict", "report.text"]
)
def test_examples_in_docstrings_hold(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"reimpl.{module}")).failed == 0


def test_the_readmes_own_paper_runs_from_a_folder_outside_the_repository(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "minimal_paper"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    lines = sum(len(path.read_text().splitlines()) for path in folder.iterdir())
    command = [sys.executable, "-m", "reimpl", "reproduce", "minimal", "--papers", str(folder)]
    command += ["--runs", str(tmp_path / "runs"), "--wandb", "disabled"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "hidden-units-decide" in done.stdout
    assert "1 of 1 claim reproduced" in done.stdout
    assert lines < 60
