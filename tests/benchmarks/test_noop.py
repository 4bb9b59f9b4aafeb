"""Ten thousand runs that do nothing, through each engine; `tests/test_noop.py` makes fewer."""

from pathlib import Path
from typing import Any, Literal

import pytest

from tests.test_noop import check


@pytest.mark.parametrize("engine", ["processes", "inprocess"])
def test_ten_thousand_runs_that_do_nothing_are_all_there_once_and_take_no_longer_at_the_end(
    benchmark: Any, tmp_path: Path, engine: Literal["processes", "inprocess"]
) -> None:
    first, last = check(tmp_path, engine, 10_000)
    benchmark.extra_info[f"{engine}: ms of a run that does nothing, first thousand"] = 1000 * first
    benchmark.extra_info[f"{engine}: the same, last thousand / first thousand"] = last / first
    benchmark.pedantic(lambda: None, rounds=1)
    assert last <= 2 * first
