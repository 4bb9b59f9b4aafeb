"""A hundred thousand records; `tests/test_size.py` holds a fifth of them to the same bounds."""

import sys
from pathlib import Path

import pytest

from tests.test_size import check, stored


def test_a_hundred_thousand_records_are_judged_planned_and_listed_in_two_seconds(
    tiny_paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stored(tiny_paper, tmp_path / "many", 5000) as there, capsys.disabled():
        check(there, sys.stdout.write)
