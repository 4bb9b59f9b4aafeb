"""Weights & Biases as a mirror of the records; the only module that knows it.

The records are the truth. `Tracker` copies them to W&B from the parent process, and nothing here
can fail or hold up a run: a call puts a message into a queue and returns.

    caller ──► queue ──► thread ──► pipe ──► the mirror, a process that alone imports wandb

In our own process, wandb would replace `sys.exit` and the exception hook, wait without limit for
its service at exit, and turn a stop asked for on the web page into a Ctrl-C. The mirror can be
killed, and outlives a killed parent for as long as it takes to close its runs.
"""

import configparser
import json
import math
import netrc
import os
import re
import secrets
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Literal, TypeGuard, get_args
from urllib.parse import urlsplit

from reimpl.errors import TrackingError, near

Mode = Literal["auto", "online", "offline", "disabled"]
JobType = Literal["reproduce", "baseline", "verdict"]
Curve = Sequence[tuple[float, float]]
"""Points (step, value)."""
Measured = Mapping[str, float | bool | None]
"""Metric name → value."""

STEP = "epoch"
"""What the horizontal axis of every curve counts."""
WAITING = 10_000
"""Messages that may wait; beyond half of it points are thinned, beyond it they are left out."""
INIT_TIMEOUT = 10.0
"""Seconds until an online mirror that gets no answer turns to offline."""
LINES = 20
"""Seeds drawn in one plot of the verdict run."""
COMMAND = ("-P", "-W", "ignore", "-m", "reimpl.tracking")
_SPELLINGS = {"dryrun": "offline", "run": "online", "shared": "online"}
_KEPT = ("API_KEY", "IDENTITY_TOKEN_FILE", "CREDENTIALS_FILE", "BASE_URL", "ENTITY", "CONFIG_DIR")
"""What an online mirror takes of the user's `WANDB_…`; the rest could rename or merge our runs."""


def check_mode(mode: str) -> Mode:
    """The mode that `auto` comes to here; every other mode is checked and returned as it is.

    `auto` follows `WANDB_MODE`; without it, `auto` is online when there is a login and offline when
    there is none. Nothing is asked of the network.

    Raises:
        TrackingError: there is no such mode, or `online` is asked for without a login.
    """
    if mode == "auto":
        if asked := os.environ.get("WANDB_MODE"):
            return check_mode(_SPELLINGS.get(asked, asked))
        return "online" if _has_login() else "offline"
    if mode not in get_args(Mode):
        raise TrackingError(f"W&B: unknown mode '{mode}'. {near(mode, get_args(Mode))}")
    if mode == "online" and not _has_login():
        host = urlsplit(_base_url()).netloc
        raise TrackingError(
            f"W&B: online was asked for, but there is no login for {host}. "
            "Run `wandb login`, or use --wandb offline."
        )
    return mode  # pyright: ignore[reportReturnType]  # membership in the Literal was checked above


class Tracker:
    """Mirrors runs to W&B; use it as a context manager, from one thread.

    `say` gets at most three lines, the first from a thread of the tracker's own: the first problem;
    at the end, how many points were left out and how many runs were lost.
    """

    def __init__(
        self, root: Path, mode: Mode, *, project: str = "reimpl", say: Callable[[str], None]
    ) -> None:
        self.root, self.project, self.say = root.absolute(), project, say
        self.mode: Mode = check_mode(mode)
        self._queue: SimpleQueue[tuple[str, dict[str, Any]] | None] = SimpleQueue()
        self._points: Counter[str] = Counter()
        self._thinned = self._started = self._done = 0
        self._off = self.mode == "disabled"
        self._said = self._broken = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: Thread | None = None
        self._listener: Thread | None = None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close(timeout=20.0 if kind is None else 5.0)

    def start(
        self,
        run_id: str,
        *,
        paper: str,
        variant: str,
        seed: int | None,
        job_type: JobType = "reproduce",
        config: Mapping[str, Any],
        tags: Iterable[str] = (),
        name: str | None = None,
    ) -> None:
        """Open one W&B run for an attempt at a run; `run_id` is the handle until `finish`."""
        self._begin(
            run_id=run_id,
            group=f"{paper}/{variant}",
            job_type=job_type,
            config={"paper": paper, "variant": variant, "seed": seed, "run": run_id, **config},
            tags=[f"paper:{paper}", f"variant:{variant}", *tags],
            name=name or ("run" if seed is None else f"seed-{seed}"),
        )

    def batch(
        self,
        run_id: str,
        *,
        paper: str,
        variant: str,
        seeds: Sequence[int],
        job_type: JobType = "reproduce",
        config: Mapping[str, Any],
        tags: Iterable[str] = (),
    ) -> None:
        """Open one W&B run for many seeds that train as one; closed by `finish_batch`."""
        self.start(
            run_id,
            paper=paper,
            variant=variant,
            seed=None,
            job_type=job_type,
            config={"seeds": len(seeds), **config},
            tags=tags,
            name=f"seeds-{min(seeds)}-{max(seeds)}",
        )

    def point(self, run_id: str, step: float, values: Mapping[str, float]) -> None:
        """Add a point to the curves of an open run; left out when W&B lags far behind."""
        if self._off:
            return
        self._points[run_id] += 1
        waiting = self._queue.qsize()
        if waiting >= WAITING or (waiting >= WAITING // 2 and self._points[run_id] % 10):
            self._thinned += 1
            return
        self._queue.put(("point", {"run_id": run_id, "step": step, "values": dict(values)}))

    def finish(
        self,
        run_id: str,
        *,
        measurements: Measured,
        status: Literal["ok", "error"] = "ok",
        error: str | None = None,
        curves: Mapping[str, Curve] | None = None,
    ) -> None:
        """Close a run; `curves` are those that `point` has not sent."""
        self._send(
            "finish",
            run_id=run_id,
            summary={**measurements, **({} if error is None else {"error": error})},
            curves=dict(curves or {}),
            failed=status == "error",
        )

    def finish_batch(
        self,
        run_id: str,
        *,
        measured: Mapping[int, Measured],
        errors: Mapping[int, str] | None = None,
        curves: Mapping[str, Curve] | None = None,
    ) -> None:
        """Close a batch: a table with a row per seed, summaries over the seeds, the mean curves.

        A batch in which any seed failed is marked as failed.
        """
        failed = dict(errors or {})
        rows = [{"seed": seed, **values} for seed, values in measured.items()]
        rows += [{"seed": seed, "error": text} for seed, text in failed.items()]
        self._send(
            "finish",
            run_id=run_id,
            summary={
                "seeds": len(rows),
                "failed seeds": len(failed),
                **summarise(measured.values()),
            },
            curves=dict(curves or {}),
            tables={"seeds": sorted(rows, key=lambda row: row["seed"])},
            failed=bool(failed),
        )

    def verdict(
        self,
        *,
        paper: str,
        rows: Sequence[Mapping[str, Any]],
        curves: Mapping[str, Mapping[int, Curve]],
        records: Sequence[Path],
        summary: Mapping[str, Any],
    ) -> None:
        """One run: the table of claims, a plot of each curve by seed, the records as artifact."""
        run_id = f"{paper}-verdict"
        self._begin(
            run_id=run_id,
            group=paper,
            job_type="verdict",
            config={"paper": paper, "claims": len(rows), "records": len(records)},
            tags=[f"paper:{paper}"],
            name="verdict",
        )
        self._send(
            "finish",
            run_id=run_id,
            summary=dict(summary),
            tables={"claims": [dict(row) for row in rows]},
            plots={name: dict(lines) for name, lines in curves.items()},
            records=(f"{paper}-records", [str(path.absolute()) for path in records]),
        )

    def close(self, timeout: float = 20.0) -> None:
        """Wait for W&B, at most `timeout` seconds, and say what was lost if anything was."""
        if self._thread is None:
            return
        until = time.monotonic() + timeout
        self._off = True
        self._queue.put(None)
        try:
            self._thread.join(timeout)
            if self._process is not None:
                self._process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._end()

    def _begin(self, **message: Any) -> None:
        if self._off:
            return
        if self._thread is None:
            self._thread = Thread(target=self._pump, name="reimpl-tracking", daemon=True)
            self._thread.start()
        self._started += 1
        self._send("start", **message)

    def _send(self, kind: str, **message: Any) -> None:
        if not self._off:
            self._queue.put((kind, message))

    def _pump(self) -> None:
        """The thread: queue → pipe. Whatever goes wrong here ends the tracking, not the work."""
        try:
            process = self._process = self._spawn()
            self._listener = Thread(target=self._listen, args=(process,), daemon=True)
            self._listener.start()
            assert process.stdin is not None
            with process.stdin as pipe:
                for kind, message in iter(self._queue.get, None):
                    _write(pipe, [kind, message])
                _write(pipe, ["close", {}])  # a forked worker may hold the pipe open
        except BrokenPipeError:
            self._off = True
        except Exception as error:
            self._off = self._broken = True
            self._problem(f"nothing is written to it, because {_one_line(error)}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        folder = self.root / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # W&B would turn to a temporary folder
            raise PermissionError(f"{folder} cannot be written")
        return subprocess.Popen(
            [sys.executable, *COMMAND, self.mode, self.project],
            env=mirror_environment(self.root, self.mode),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is ours to answer
        )

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """The other thread: pipe → `say`."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                report = json.loads(line)
                if report == "done":
                    self._done += 1
                else:
                    self._problem(report)

    def _problem(self, text: str) -> None:
        if not self._said:
            self._said = True
            self.say(f"W&B: {text}")

    def _end(self) -> None:
        """Kill what is left and take stock."""
        self._thread = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._listener is not None:
            self._listener.join(1.0)
        if self._thinned:
            self.say(
                f"W&B: it was too slow, so {self._thinned} points of curves are missing there."
            )
        lost = self._started - self._done
        if lost and not self._broken:  # what broke the tracking has been said
            self.say(
                f"W&B: {lost} of {self._started} runs are missing or incomplete there; the records "
                f"are not. `wandb sync` sends what lies in {self.root / 'wandb'}."
            )


def mirror_environment(root: Path, mode: Mode) -> dict[str, str]:
    """The mirror's environment: W&B's folders under `root`, and no key unless it is online."""
    kept = [f"WANDB_{name}" for name in _KEPT] if mode == "online" else []
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") or k in kept}
    folders = ["DATA", "CACHE"]
    if mode == "offline":
        folders.append("CONFIG")  # online, the user's own names the server and the entity
    return {
        **inherited,
        **{f"WANDB_{name}_DIR": str(root / "wandb" / name.lower()) for name in folders},
        "WANDB_DIR": str(root),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
        ),
    }


def summarise(measured: Iterable[Measured]) -> dict[str, dict[str, float]]:
    """For each metric, figures over the n seeds in which it is defined.

    >>> summarise([{"test/error": 1.0}, {"test/error": 3.0}, {"test/error": None}])
    {'test/error': {'mean': 2.0, 'median': 2.0, 'min': 1.0, 'max': 3.0, 'n': 2}}
    """
    columns: dict[str, list[float]] = {}
    for values in measured:
        for metric, value in values.items():
            if value is not None:
                columns.setdefault(metric, []).append(float(value))
    return {
        metric: {
            "mean": sum(v) / len(v),
            "median": statistics.median(v),
            "min": min(v),
            "max": max(v),
            "n": len(v),
        }
        for metric, v in columns.items()
    }


def short(text: str, limit: int = 64) -> str:
    """The text, or its beginning and eight digits that tell it from others that begin alike.

    >>> short("paper:lecun1998_lenet5"), len(short("variant:" + "x" * 100))
    ('paper:lecun1998_lenet5', 64)
    """
    if len(text) <= limit:
        return text
    return f"{text[: limit - 9]}-{sha256(text.encode()).hexdigest()[:8]}"


# Is there a login? Read from where W&B itself looks, without importing it.


def _has_login() -> bool:
    if any(os.environ.get(f"WANDB_{name}") for name in ("API_KEY", "IDENTITY_TOKEN_FILE")):
        return True
    if _user_settings().get("api_key"):
        return True
    try:
        login = netrc.netrc(_netrc_path()).authenticators(urlsplit(_base_url()).netloc)
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(login and login[2])


def _netrc_path() -> Path:
    if named := os.environ.get("NETRC"):
        return Path(named).expanduser()
    usual, other = Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()
    return other if other.exists() and not usual.exists() else usual


def _base_url() -> str:
    named = os.environ.get("WANDB_BASE_URL") or _user_settings().get("base_url")
    return named or "https://api.wandb.ai"


def _user_settings() -> Mapping[str, str]:
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "settings")
        return parser["default"]
    except (configparser.Error, OSError, KeyError, UnicodeDecodeError):
        return {}


# The mirror. It reads messages, one JSON line each, and answers with "done" for each run that it
# has closed, or with what went wrong.


class Mirror:
    """Turns messages into W&B runs."""

    def __init__(self, *, mode: str, project: str, report: Callable[[str], None]) -> None:
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
                self.report(_one_line(error))
        for run in self.runs.values():  # cut off: neither finished nor failed by itself
            self._finishing.submit(run.finish, exit_code=1)
        self._finishing.shutdown()

    def start(
        self, *, run_id: str, group: str, job_type: str, config: Any, tags: list[str], name: str
    ) -> None:
        """Open a run under an id of its own; turn to offline when W&B cannot be reached."""
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
                f"not reachable ({_one_line(error)}). Runs are kept offline; "
                "`wandb sync` sends them later."
            )
            run = self._init(handle, settings)
        run.define_metric(STEP, hidden=True, summary="none")
        self.runs[run_id] = run

    def _init(self, handle: str, settings: Mapping[str, Any]) -> Any:
        import wandb

        return wandb.init(
            id=f"{handle}-{secrets.token_hex(4)}",
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
            self.report(_one_line(error))
        self._finishing.submit(self._close, run, exit_code=int(failed))

    def _close(self, run: Any, *, exit_code: int) -> None:
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:
            self.report(_one_line(error))
        else:
            self.report("done")


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


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"


def _write(pipe: Any, message: Any) -> None:
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
                _write(answers, text)

        Mirror(mode=mode, project=project, report=report).take(lines)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
