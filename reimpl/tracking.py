"""Weights & Biases as a mirror of the records.

The records are the truth. `Tracker` copies them to W&B from the parent process, and nothing here
can fail or hold up a run: a call puts a message into a queue and returns.

    caller ──► queue ──► thread ──► pipe ──► `reimpl.mirror`, a process that alone imports wandb

In our own process, wandb would replace `sys.exit` and the exception hook, wait without limit for
its service at exit, and turn a stop asked for on the web page into a Ctrl-C. The mirror can be
killed, and outlives a killed parent for as long as it takes to close its runs.
"""

import configparser
import json
import netrc
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from reimpl.errors import TrackingError, near
from reimpl.mirror import Curve, one_line, write

Mode = Literal["auto", "online", "offline", "disabled"]
JobType = Literal["reproduce", "baseline", "verdict"]
Measured = Mapping[str, float | bool | None]
"""Metric name → value."""

WAITING = 10_000
"""Messages that may wait; beyond half of it points are thinned, beyond it they are left out."""
COMMAND = ("-P", "-W", "ignore", "-m", "reimpl.mirror")
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
                    write(pipe, [kind, message])
                write(pipe, ["close", {}])  # a forked worker may hold the pipe open
        except BrokenPipeError:
            self._off = True
        except Exception as error:
            self._off = self._broken = True
            self._problem(f"nothing is written to it, because {one_line(error)}")

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
