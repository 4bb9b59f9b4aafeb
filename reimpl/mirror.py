"""The process that writes to Weights & Biases; the only module that imports it.

It reads messages, one JSON line each, and answers with "done" for each run that it has closed, or
with what went wrong.
"""

import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeGuard

Curve = Sequence[tuple[float, float]]
"""Points (step, value)."""
STEP = "epoch"
"""What the horizontal axis of every curve counts."""
INIT_TIMEOUT = 10.0
"""Seconds until an online mirror that gets no answer turns to offline."""
LINES = 20
"""Seeds drawn in one plot of the verdict run."""


class Mirror:
    """Turns messages into W&B runs."""

    def __init__(self, *, mode: str, project: str, report: Callable[[str], None]) -> None:
        from concurrent.futures import ThreadPoolExecutor  # late: others import this module, too

        self.mode, self.project, self.report = mode, project, report
        self.runs: dict[str, Any] = {}
        self._curves: set[tuple[str, str]] = set()
        self._finishing = ThreadPoolExecutor(4)  # online, closing a run waits for its upload

    def take(self, lines: Iterable[bytes]) -> None:
        """Follow the messages until the last one, then close everything."""
        for line in lines:
            try:
                kind, message = json.loads(line)
                if kind == "close":
                    break
                getattr(self, kind)(**message)
            except Exception as error:
                self.report(one_line(error))
        for run in self.runs.values():  # cut off: neither finished nor failed by itself
            self._finishing.submit(run.finish, exit_code=1)
        self._finishing.shutdown()

    def start(
        self, *, run_id: str, group: str, job_type: str, config: Any, tags: list[str], name: str
    ) -> None:
        """Open a run under an id of its own; turn to offline when W&B cannot be reached.

        One that was started before has been cut off, and is begun again.
        """
        if run_id in self.runs:
            self._finishing.submit(self._close, self.runs.pop(run_id), exit_code=1)
        handle = re.sub(r"[^A-Za-z0-9_-]", "-", run_id)[:48]
        settings = {
            "group": short(group, 128),
            "job_type": job_type,
            "config": _without_dots(config),
            "tags": list(dict.fromkeys(short(tag) for tag in tags)),
            "name": short(name, 128),
        }
        try:
            run = self._init(handle, settings)
        except Exception as error:
            if self.mode != "online":
                raise
            self.mode = "offline"
            self.report(
                f"not reachable ({one_line(error)}). Runs are kept offline; "
                "`wandb sync` sends them later."
            )
            run = self._init(handle, settings)
        run.define_metric(STEP, hidden=True, summary="none")
        self.runs[run_id] = run

    def _init(self, handle: str, settings: Mapping[str, Any]) -> Any:
        import wandb

        return wandb.init(
            id=f"{handle}-{os.urandom(4).hex()}",
            project=self.project,
            reinit="create_new",
            settings=wandb.Settings(
                mode=self.mode,  # pyright: ignore[reportArgumentType]  # came through argv
                console="off",
                disable_code=True,
                disable_git=True,
                init_timeout=INIT_TIMEOUT,
                quiet=True,
                silent=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
            **settings,
        )

    def point(self, *, run_id: str, step: float, values: Mapping[str, float | None]) -> None:
        """Add a point; what is not finite cannot be drawn and is left out."""
        finite = {name: value for name, value in values.items() if _is_finite(value)}
        if finite and run_id in self.runs:
            self._log(self.runs[run_id], step, finite)

    def _log(self, run: Any, step: float, values: Mapping[str, float]) -> None:
        """Add a point to the history only: the summary is for measurements."""
        for name in values:
            if (run.id, name) not in self._curves:
                self._curves.add((run.id, name))
                run.define_metric(name, step_metric=STEP, summary="none")
        run.log({STEP: step, **values})

    def finish(
        self,
        *,
        run_id: str,
        summary: Mapping[str, Any],
        curves: Mapping[str, Curve] | None = None,
        tables: Mapping[str, list[Mapping[str, Any]]] | None = None,
        plots: Mapping[str, Mapping[str, Curve]] | None = None,
        records: tuple[str, list[str]] | None = None,
        failed: bool = False,
    ) -> None:
        """Write what is known at the end of a run and close it, even if a part is refused."""
        if run_id not in self.runs:
            return
        run = self.runs.pop(run_id)
        try:
            for step, values in _by_step(curves or {}):
                self._log(run, step, values)
            for name, rows in (tables or {}).items():
                run.log({name: _table(rows)})
            for name, lines in (plots or {}).items():
                run.log({f"curves/{name}": _plot(name, lines)})
            run.summary.update(_readable(summary))
            if records is not None:
                run.log_artifact(_artifact(*records))
        except Exception as error:
            self.report(one_line(error))
        self._finishing.submit(self._close, run, exit_code=int(failed))

    def _close(self, run: Any, *, exit_code: int) -> None:
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:
            self.report(one_line(error))
        else:
            self.report("done")


def short(text: str, limit: int = 64) -> str:
    """The text, or its beginning and eight digits that tell it from others that begin alike.

    >>> short("paper:lecun1998_lenet5"), len(short("variant:" + "x" * 100))
    ('paper:lecun1998_lenet5', 64)
    """
    if len(text) <= limit:
        return text
    return f"{text[: limit - 9]}-{sha256(text.encode()).hexdigest()[:8]}"


def _by_step(curves: Mapping[str, Curve]) -> list[tuple[float, dict[str, float]]]:
    """The curves' finite points, those of one step together, in order."""
    points: dict[float, dict[str, float]] = {}
    for name, curve in curves.items():
        for step, value in curve:
            if _is_finite(value):
                points.setdefault(step, {})[name] = value
    return sorted(points.items())


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import wandb

    columns: list[Any] = list(dict.fromkeys(name for row in rows for name in row))
    return wandb.Table(
        columns=columns,
        data=[[_cell(row.get(name)) for name in columns] for row in rows],
        allow_mixed_types=True,
    )


def _plot(name: str, lines: Mapping[str, Curve]) -> Any:
    import wandb

    drawn = {
        f"seed {seed}": [(step, value) for step, value in curve if _is_finite(value)]
        for seed, curve in list(lines.items())[:LINES]
    }
    note = "" if len(lines) <= LINES else f" (first {LINES} of {len(lines)} seeds)"
    return wandb.plot.line_series(
        xs=[[step for step, _ in curve] for curve in drawn.values()],
        ys=[[value for _, value in curve] for curve in drawn.values()],
        keys=list(drawn),
        title=name + note,
        xname=STEP,
    )


def _is_finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _artifact(name: str, paths: Sequence[str]) -> Any:
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:128], type="records")
    common = Path(os.path.commonpath([Path(path).parent for path in paths])) if paths else Path()
    for path in paths:
        artifact.add_file(path, name=Path(path).relative_to(common).as_posix(), skip_cache=True)
    return artifact


def _readable(value: Any) -> Any:
    """The value with infinite and undefined numbers as words, for which JSON has no form."""
    if isinstance(value, Mapping):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    value = _readable(value)
    return json.dumps(value) if isinstance(value, list | dict) else value


def _without_dots(config: Any) -> Any:
    """The config with keys as W&B wants them: a dot would open a level of its own."""
    if isinstance(config, Mapping):
        return {str(key).replace(".", "_"): _without_dots(value) for key, value in config.items()}
    return _readable(config)


def one_line(error: Exception) -> str:
    """Its kind and the beginning of what it says."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"


def write(pipe: Any, message: Any) -> None:
    """Write one JSON line, in as many pieces as the pipe takes."""
    rest = memoryview(json.dumps(message, default=_as_plain).encode() + b"\n")
    while rest:
        rest = rest[pipe.write(rest) :]


def _as_plain(value: Any) -> Any:
    """Mappings, sequences and scalars of numpy and torch as JSON knows them; the rest as text."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    return value.item() if hasattr(value, "item") else str(value)


def _serve(mode: str, project: str) -> None:
    """The mirror's life: its input and output are the pipe, which W&B's service does not get."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)  # the runs come first
    messages, reports, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    with os.fdopen(messages, "rb") as lines, os.fdopen(reports, "wb", buffering=0) as answers:

        def report(text: str) -> None:
            with suppress(OSError):  # the parent is gone, and its runs are still to be closed
                write(answers, text)

        Mirror(mode=mode, project=project, report=report).take(lines)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
