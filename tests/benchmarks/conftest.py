"""The table of ratios that `make bench` ends with, and what all benchmarks share."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands keep their bytecode, as a user's do: without it each start compiles all modules."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    session = getattr(config, "_benchmarksession", None)
    benches = session.benchmarks if session else []
    found = [item for bench in benches for item in bench.extra_info.items()]
    if found:
        width = max(len(name) for name, _ in found)
        terminalreporter.write_sep("=", "ratios")
        for name, value in found:
            terminalreporter.write_line(f"{name:<{width}}  {value:>8.3g}")
