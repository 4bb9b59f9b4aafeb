"""How far the runs are, on stderr: live on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from reimpl.cli import say
from reimpl.report import duration, last_line, left_out, plan_line, some

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from reimpl.engines import Event
    from reimpl.planning import Plan, Request

SAY_EVERY = 15.0
"""Seconds between two lines of progress where there is no terminal, at first."""
SAYING_SHARE = 0.02
"""Of the time so far lies between them later, so that the log of a long night stays short."""
JUDGE_EVERY = 10.0
"""Seconds between two verdicts on what there is so far."""
JUDGING_SHARE = 0.02
"""Of the time may go into them."""


class Progress:
    """Shows on stderr how far the runs are: live on a terminal, else a line now and then."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.weights: dict[str, float] = {}
        self.total = 0
        self.running: dict[str, Event] = {}
        self.elsewhere = set[str]()
        """Jobs that another process is making."""
        self.finished = 0
        self.kept = 0
        """Records made."""
        self.failed = set[tuple[str, str]]()
        """Variants and errors that were said."""
        self.worked = self.before = 0.0
        """Estimated seconds of the finished jobs, and of what was done of them before."""
        self.began = self.said = self.judge_next = time.monotonic()
        self.so_far = self.probed = ""
        self.live: Live | None = None

    def probing(self, made: int, of: int) -> None:
        """Show how many of a plan's short probes are made."""
        self.total, self.probed = 0, f"timing by short probes: {made} of {of} made"
        self._show()
        self._now_and_then()

    def begin(self, made: Plan) -> Plan:
        """Say what a plan takes; its runs are about to start."""
        if self.request.seeds == "auto":
            self.say(f"{made.request.seeds} seeds: {some(made.request.claims)}")
        self.say(plan_line(made))
        for line in left_out(made):
            self.say(line)
        self.weights = _weights(made)
        self.total, self.finished = len(made.jobs), 0
        self.elsewhere.clear()
        self.worked = self.before = 0.0
        self.began = time.monotonic()
        if self.total:
            self._show()
        return made

    def __enter__(self) -> Progress:
        return self

    def _show(self) -> None:
        """Live from now on, if this is a terminal."""
        if self.live is not None or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        self.live = Live(
            get_renderable=self.drawn, console=console, refresh_per_second=4, transient=True
        )
        self.live.start()

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def see(self, event: Event) -> None:
        """Take what happened to a job."""
        key = event.job.keys[0]
        if event.kind == "taken":
            self.elsewhere.add(key)
        else:
            self.elsewhere.discard(key)
        if event.kind in ("started", "progress"):
            self.running[key] = event
        elif event.kind in ("done", "lost"):
            last = self.running.pop(key, event)
            self.finished += 1
            self.worked += self.weights[key]
            self.before += self.weights[key] * _share(last, "before")
            self._take(event.contents["result"])
            if self.live is not None and not self.request.altered:
                self._judge()
        self._now_and_then()

    def _now_and_then(self) -> None:
        """A line of a log, where there is no terminal."""
        now = time.monotonic()
        if self.live is None and now - self.said > max(
            SAY_EVERY, SAYING_SHARE * (now - self.began)
        ):
            self.said = now
            self.say(self._line())

    def say(self, line: str) -> None:
        """A line that stays."""
        if self.live is not None:
            self.live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            say(line, prefix="")

    def _take(self, records: Sequence[Any]) -> None:
        self.kept += sum(record.status == "ok" for record in records)
        for record in records:
            if record.status == "error":
                said = record.variant, last_line(record)
                if said not in self.failed:
                    self.say(f"failed: {record.variant}, seed {record.seed}: {said[1]}")
                self.failed.add(said)

    def _judge(self) -> None:
        """The verdicts so far, as often as they are worth their time."""
        from reimpl.report import counting
        from reimpl.reproduction import result_of

        began = time.monotonic()
        if began >= self.judge_next:
            self.so_far = counting(result_of(self.request, committed=False).verdicts)
            now = time.monotonic()
            self.judge_next = now + max(JUDGE_EVERY, (now - began) / JUDGING_SHARE)

    def _shares(self) -> tuple[float, float]:
        """What of the whole is done, and what of it was before: a run that goes on has a start."""
        done, before = (
            sum(self.weights[key] * _share(event, what) for key, event in self.running.items())
            for what in ("done", "before")
        )
        whole = sum(self.weights.values()) or 1.0
        return (self.worked + done) / whole, (self.before + before) / whole

    def _line(self) -> str:
        if not self.total:
            return self.probed
        share, before = self._shares()
        text = f"{self.finished} of {self.total} jobs done"
        if self.elsewhere:
            text += f", {len(self.elsewhere)} being made by another process"
        if share - before <= 0.02 or share >= 1:
            return text
        left = (time.monotonic() - self.began) * (1 - share) / (share - before)
        return f"{text}, {100 * share:.0f} %, {duration(left)} left or so"

    def drawn(self) -> RenderableType:
        """What a terminal shows: how far the whole is, and each running job."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for event in list(self.running.values()):  # drawn by a thread of its own
            shown = event.contents.get("shown", {})
            figures = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            bar = ProgressBar(total=1.0, completed=_share(event, "done"), width=20)
            grid.add_row(Text(f"  {event.job.name}"), bar, Text(figures))
        verdicts = [Text(f"so far: {self.so_far}")] if self.so_far else []
        return Group(Text(self._line()), grid, *verdicts)


def _weights(made: Plan) -> dict[str, float]:
    """Job → the seconds it is thought to take, or what the others take in the mean."""
    known = [p.seconds / len(p.jobs) for p in made.planned if p.jobs and p.seconds]
    usual = sum(known) / len(known) if known else 1.0
    return {
        job.keys[0]: p.seconds / len(p.jobs) if p.seconds else usual
        for p in made.planned
        for job in p.jobs
    }


def _share(event: Event, what: Literal["done", "before"]) -> float:
    """Of its job; nothing before it first says how far it is."""
    total = event.contents.get("total")
    return min(1.0, event.contents.get(what, 0.0) / total) if total else 0.0
