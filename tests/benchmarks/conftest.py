"""The table of ratios that `make bench` ends with."""

from typing import Any


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    session = getattr(config, "_benchmarksession", None)
    benches = session.benchmarks if session else []
    found = [item for bench in benches for item in bench.extra_info.items()]
    if found:
        width = max(len(name) for name, _ in found)
        terminalreporter.write_sep("=", "ratios")
        for name, value in found:
            terminalreporter.write_line(f"{name:<{width}}  {value:>8.3g}")
