"""The command line: parse, call, print, exit status. The only module that prints.

Tables and JSON go to stdout; progress, remarks and mistakes go to stderr. Whatever a command needs
is imported inside it, so that `list` and `--help` answer at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from reimpl.errors import ReimplError, RequestError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from reimpl.engines import Event
    from reimpl.registry import Entry
    from reimpl.report import Check, Page
    from reimpl.reproduction import Plan, Request, Result
    from reimpl.verdict import Verdict

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130
"""Exit statuses beside 0, which means that the work was done, whatever the verdicts."""
SAY_EVERY = 15.0
"""Seconds between two lines of progress where there is no terminal."""


class _Commands(TyperGroup):
    """Turns the user's mistakes into one line and status 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ReimplError as error:
            _say(str(error))
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt:
            _say("interrupted")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would double the time of --help
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

PaperName = Annotated[
    str, typer.Argument(metavar="PAPER", help="The paper's slug, or any unambiguous part of it.")
]
Folders = Annotated[
    list[Path] | None,
    typer.Option("--papers", metavar="DIR", help="A paper's folder, or a folder of papers."),
]
Runs = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the records [default: $REIMPL_RUNS, or runs]."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="End with status 1 when a claim is below or off.")
]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", metavar="ID", help="Only this variant; give it again for more."),
]
ClaimIds = Annotated[
    list[str] | None,
    typer.Option("--claim", metavar="ID", help="Only this claim; give it again for more."),
]
Seeds = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Runs of each variant [default: its own].")
]
MostCost = Annotated[
    Literal["instant", "minutes", "hours", "gpu"],
    typer.Option("--cost", help="Leave out claims that take more than this."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Processes [default: cores, as far as memory goes]."),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps, …")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change the recipe or a setting; recorded as such, never judged as the paper's.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:Class",
        help="Your own model on the same data and claims; never judged as the paper's.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Run again what is recorded already.")]
Baselines = Annotated[
    bool, typer.Option("--baselines", help="Fit plain methods to the same data, too.")
]


@app.callback()
def about() -> None:
    """Does the number in the paper come out when the method is written anew?

    \b
    reimpl list                                  the papers there are
    reimpl reproduce rumelhart1986               run what is not recorded yet, and judge
    reimpl verdict rumelhart1986 --json          judge the records again
    reimpl judge claims.toml --measurements numbers.csv

    \b
    Exit status: 0 the work was done, whatever the verdicts; 1 a run errored, or with --strict a
    claim is below or off; 2 a mistake in the request; 130 interrupted.
    """  # noqa: D301  (the character itself keeps the lines apart)


# Reading


@app.command("list")
def list_papers(papers: Folders = None, as_json: AsJson = False) -> None:
    """The papers there are."""
    from reimpl import registry, report

    found = report.listed(registry.entries(papers or ()))
    _print(lambda: report.list_page(found), lambda: {"papers": report.plain(found)}, as_json)


@app.command()
def show(
    paper: PaperName,
    claim: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this claim, with its margin and why.")
    ] = None,
    papers: Folders = None,
    as_json: AsJson = False,
) -> None:
    """What a paper claims, and what we do otherwise.

    \b
    reimpl show lenet5
    reimpl show lenet5 --claim lenet5-test-error
    """  # noqa: D301  (the character itself keeps the lines apart)
    from reimpl import report

    entry = _find(paper, papers)
    if claim is not None:
        _print(
            lambda: report.claim_page(entry.claims, claim),
            lambda: report.claim_json(entry.claims, claim),
            as_json,
        )
        return
    _print(lambda: report.show_page(entry), lambda: report.show_json(entry), as_json)


@app.command()
def verdict(
    paper: PaperName,
    papers: Folders = None,
    runs: Runs = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Judge the records there are, without running anything."""
    from reimpl import report
    from reimpl.reproduction import Request, judged

    entry = _find(paper, papers)
    result = judged(entry, Request(paper=paper, runs=runs).root)
    _print(lambda: report.result_page(result), lambda: report.to_json(result), as_json)
    _end(result.verdicts, strict=strict)


@app.command()
def judge(
    claims: Annotated[Path, typer.Argument(metavar="CLAIMS.toml", help="The claims.")],
    measurements: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help=".csv or .json with columns variant, seed, metric, value."
        ),
    ],
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Judge numbers that came from somewhere else.

    \b
    reimpl judge claims.toml --measurements numbers.csv --json
    """  # noqa: D301  (the character itself keeps the lines apart)
    from reimpl import report
    from reimpl.claims import load_claims
    from reimpl.external import judge_external, read_measurements

    read = load_claims(claims)
    verdicts = judge_external(read, read_measurements(measurements))
    _print(
        lambda: report.judged_page(read, verdicts),
        lambda: report.judged_json(read, verdicts),
        as_json,
    )
    _end(verdicts, strict=strict)


# Running


@app.command()
def plan(
    paper: PaperName,
    variant: Variants = None,
    claim: ClaimIds = None,
    seeds: Seeds = None,
    cost: MostCost = "minutes",
    workers: Workers = None,
    device: Device = "cpu",
    settings: Settings = None,
    model: Model = None,
    force: Force = False,
    baselines: Baselines = False,
    probe: Annotated[
        bool, typer.Option(help="Train for a moment what was never run here, to time it.")
    ] = True,
    papers: Folders = None,
    runs: Runs = None,
    as_json: AsJson = False,
) -> None:
    """What `reproduce` would run, and how long it takes."""
    from reimpl import report, reproduction

    request = reproduction.Request(
        paper=paper,
        papers=tuple(papers or ()),
        variants=tuple(variant or ()),
        claims=tuple(claim or ()),
        seeds=seeds,
        cost=cost,
        workers=workers,
        device=device,
        overrides=_overrides(settings or ()),
        model=model,
        force=force,
        baselines=baselines,
        runs=runs,
    )
    made = reproduction.plan(request, probe=probe)
    count = _workers(made, request)
    _print(lambda: report.plan_page(made, count), lambda: report.plan_json(made, count), as_json)


@app.command()
def reproduce(
    paper: PaperName,
    variant: Variants = None,
    claim: ClaimIds = None,
    seeds: Seeds = None,
    cost: MostCost = "minutes",
    workers: Workers = None,
    device: Device = "cpu",
    wandb: Annotated[
        str, typer.Option(metavar="MODE", help="auto, online, offline or disabled.")
    ] = "auto",
    settings: Settings = None,
    model: Model = None,
    force: Force = False,
    baselines: Baselines = False,
    engine: Annotated[
        Literal["processes", "inprocess"],
        typer.Option(help="inprocess: one after another in this process, for debugging."),
    ] = "processes",
    strict: Strict = False,
    papers: Folders = None,
    runs: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Run what is not recorded yet, then judge the claims.

    \b
    reimpl reproduce rumelhart1986
    reimpl reproduce lenet5 --variant lenet5 --seeds 10
    reimpl reproduce lenet5 --cost hours --baselines
    reimpl reproduce lenet5 --set lr=0.01 --seeds 3
    reimpl reproduce lenet5 --model mine.py:Net
    reimpl reproduce mine --papers ~/papers
    """  # noqa: D301  (the character itself keeps the lines apart)
    from reimpl import report, reproduction
    from reimpl.tracking import check_mode

    request = reproduction.Request(
        paper=paper,
        papers=tuple(papers or ()),
        variants=tuple(variant or ()),
        claims=tuple(claim or ()),
        seeds=seeds,
        cost=cost,
        workers=workers,
        device=device,
        wandb=check_mode(wandb),
        overrides=_overrides(settings or ()),
        model=model,
        force=force,
        baselines=baselines,
        engine=engine,
        runs=runs,
    )
    made = reproduction.plan(request, probe=False)
    result = _run(request, made)
    how = " ".join(
        [*(f"--set {s}" for s in settings or ()), *([f"--model {model}"] if model else [])]
    )
    _print(lambda: report.result_page(result, request=how), lambda: report.to_json(result), as_json)
    _hints(request, result)
    _end(result.verdicts, strict=strict, failed=bool(result.errors))


def _run(request: Request, made: Plan) -> Result:
    """Run a plan with progress on stderr."""
    from reimpl import report, reproduction

    workers = _workers(made, request)
    _say(report.plan_line(made, workers), prefix="")
    for name, why in made.left_out.items():
        _say(f"left out: {name}, {why}", prefix="")
    progress = _Progress(made)
    try:
        with progress:
            return reproduction.reproduce(
                request, planned=made, watch=progress.see, say=progress.say
            )
    except KeyboardInterrupt:
        kept = report.number(progress.kept, "finished run")
        _say(f"interrupted; {kept} kept, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None


def _hints(request: Request, result: Result) -> None:
    """How to look further; only where runs were made."""
    if not result.fresh:
        return
    if request.wandb == "offline":
        place = request.root / "wandb"
        _say(f"`wandb leet {place}` shows the runs; `wandb sync` sends them later", prefix="")
    readme = result.entry.folder / "README.md"
    if readme.exists():
        _say(f"what to make of it: {readme}", prefix="")


@app.command()
def record(paper: PaperName, papers: Folders = None, runs: Runs = None) -> None:
    """Promote records to `measured.jsonl` and the README's table."""
    from reimpl import report
    from reimpl.records import read_measured
    from reimpl.reproduction import Request, promote

    entry = _find(paper, papers)
    report.rebuild_readme(
        entry
    )  # a README without a place for the table shows before anything is written
    measured, readme = entry.folder / "measured.jsonl", entry.folder / "README.md"
    before = {(r.part, r.variant, r.seed, r.key) for r in read_measured(measured)}
    promote(entry, Request(paper=paper, runs=runs).root)
    after = {(r.part, r.variant, r.seed, r.key) for r in read_measured(measured)}
    text = report.rebuild_readme(entry)
    changed = text != readme.read_text(encoding="utf-8")
    if changed:
        readme.write_text(text, encoding="utf-8")
    counted = report.number(len(after), "record")
    new, gone = len(after - before), len(before - after)
    _out(f"{measured}: {counted}, {new:,} of them new; {gone:,} are gone\n")
    _out(f"{readme}: the table {'was rebuilt' if changed else 'is as it was'}\n")


@app.command("why-rerun")
def why_rerun(
    paper: PaperName,
    variant: Variants = None,
    claim: ClaimIds = None,
    seeds: Seeds = None,
    cost: MostCost = "minutes",
    papers: Folders = None,
    runs: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Why `reproduce` would make recorded runs again."""
    from reimpl import report, reproduction

    request = reproduction.Request(
        paper=paper,
        papers=tuple(papers or ()),
        variants=tuple(variant or ()),
        claims=tuple(claim or ()),
        seeds=seeds,
        cost=cost,
        runs=runs,
    )
    reasons = reproduction.why_rerun(request)
    _print(lambda: report.why_page(reasons), lambda: {"runs": reasons}, as_json)


@app.command()
def data(paper: PaperName, papers: Folders = None, as_json: AsJson = False) -> None:
    """Fetch a paper's data and verify every checksum."""
    from reimpl import data as datasets
    from reimpl import report

    facts = datasets.verify(_find(paper, papers).claims.sources)
    _print(lambda: report.data_page(facts), lambda: {"splits": report.plain(facts)}, as_json)


# Checking


@app.command()
def check(
    paper: Annotated[
        str | None,
        typer.Argument(metavar="[PAPER|DIR]", help="A paper's name or folder [default: all]."),
    ] = None,
    papers: Folders = None,
    as_json: AsJson = False,
) -> None:
    """Whether a paper does what every paper owes."""
    from reimpl import report

    checks = [line for entry in _to_check(paper, papers) for line in _conformance(entry)]
    _print(lambda: report.checks_page(checks), lambda: {"checks": report.plain(checks)}, as_json)
    if any(line.state == "fails" for line in checks):
        raise typer.Exit(FAILED)


def _to_check(paper: str | None, papers: Sequence[Path] | None) -> list[Entry]:
    from reimpl import registry

    if paper is None:
        return registry.entries(papers or ())
    folder = Path(paper)
    if (folder / "claims.toml").is_file():
        return [registry.find(folder.resolve().name, [folder])]
    return [registry.find(paper, papers or ())]


def _conformance(entry: Entry) -> list[Check]:
    from reimpl.report import Check

    if entry.broken is not None:
        return [Check(what=entry.slug, state="fails", detail=entry.broken)]
    from reimpl import conformance

    return [
        Check(
            what=f"{entry.slug}: {finding.what}",
            state="ok" if finding.ok else "fails",
            detail=finding.detail,
        )
        for finding in conformance.check(entry)
    ]


@app.command()
def doctor(papers: Folders = None, runs: Runs = None, as_json: AsJson = False) -> None:
    """Versions, devices, folders, data, W&B and papers here."""
    from reimpl import report
    from reimpl.reproduction import Request

    root = Request(paper="", runs=runs).root
    checks = [look for looks in _LOOKS for look in looks(root, papers or ())]
    _print(lambda: report.checks_page(checks), lambda: {"checks": report.plain(checks)}, as_json)


def _look(what: str, detail: str, *, well: bool = True) -> Check:
    from reimpl.report import Check

    return Check(what=what, state="ok" if well else "warn", detail=detail)


def _look_at_versions(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {"python": sys.version.split()[0]}
    for package in ("reimpl", "torch", "numpy", "pytorch-lightning", "datasets", "wandb"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    detail = ", ".join(f"{name} {number}" for name, number in found.items())
    return [_look("versions", detail, well="missing" not in found.values())]


def _look_at_machine(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    import psutil
    import torch

    from reimpl.engines import cores

    memory = psutil.virtual_memory()
    free = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [
        _look("cores", str(cores())),
        _look("memory", free, well=memory.available > 1e9),
        _look("devices", ", ".join(devices)),
    ]


def _look_at_runs(root: Path, _papers: Sequence[Path]) -> list[Check]:
    nearest = next(place for place in (root, *root.parents) if place.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    detail = str(root) if writable else f"{root} cannot be written; --runs DIR names another"
    checks = [_look("runs", detail, well=writable)]
    unreadable = list(root.glob("*/*/*.unreadable"))
    if unreadable:
        text = f"{len(unreadable)} set aside as unreadable, such as {unreadable[0]}"
        checks.append(_look("records", text, well=False))
    cut = len(list(root.glob("*/*/*.ckpt")))
    checks.append(_look("cut-off runs", f"{cut} with a checkpoint to go on from"))
    return [*checks, _look_at_locks(root)]


def _look_at_locks(root: Path) -> Check:
    """A lock ends with its process, so that one that is held means work going on."""
    from reimpl.records import Store

    held = 0
    for path in root.glob(".locks/*.lock"):
        try:
            with Store(root).claim(path.stem) as mine:
                held += not mine
        except ReimplError as error:
            return _look("locks", str(error), well=False)
    return _look("locks", f"{held} held by runs going on" if held else "none held")


def _look_at_data(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    from reimpl.data import cache_root, cache_size

    bound = os.environ.get("REIMPL_CACHE_GB", "20")
    checks = [_look("cache", f"{cache_root()}: {cache_size() / 1e9:.2f} of {bound} GB")]
    mirror = os.environ.get("REIMPL_DATA_MIRROR")
    if mirror:
        there = Path(mirror).expanduser().is_dir()
        checks.append(_look("mirror", mirror if there else f"{mirror} is no folder", well=there))
    else:
        checks.append(_look("mirror", "none; REIMPL_DATA_MIRROR names one"))
    return checks


def _look_at_wandb(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    from reimpl.tracking import check_mode

    try:
        return [_look("W&B", f"mode {check_mode('auto')}")]
    except ReimplError as error:
        return [_look("W&B", str(error), well=False)]


def _look_at_papers(_root: Path, papers: Sequence[Path]) -> list[Check]:
    from reimpl import registry

    found = registry.entries(papers)
    good = [entry.slug for entry in found if entry.broken is None]
    broken = [_look(e.slug, f"broken: {e.broken}", well=False) for e in found if e.broken]
    return [_look("papers", ", ".join(good) or "none", well=bool(good)), *broken]


def _look_at_git(_root: Path, _papers: Sequence[Path]) -> list[Check]:
    from shutil import which

    there = which("git") is not None
    return [
        _look("git", "found" if there else "not found: records will name no commit", well=there)
    ]


_LOOKS: tuple[Callable[[Path, Sequence[Path]], list[Check]], ...] = (
    _look_at_versions,
    _look_at_machine,
    _look_at_runs,
    _look_at_data,
    _look_at_wandb,
    _look_at_git,
    _look_at_papers,
)


# Parsing and printing


def _find(paper: str, papers: Sequence[Path] | None) -> Entry:
    from reimpl.registry import find

    return find(paper, papers or ())


def _workers(made: Plan, request: Request) -> int:
    from reimpl.engines import choose_workers

    if request.engine == "inprocess":
        return 1
    memory = made.entry.claims.paper.memory_mb
    return choose_workers(made.jobs, memory_mb=memory, asked=request.workers)


def _overrides(settings: Sequence[str]) -> dict[str, bool | int | float | str]:
    """`key=value` pairs; a value is what TOML reads in it, or else text."""
    pairs = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise RequestError(f"--set {setting}: write KEY=VALUE, such as --set lr=0.01")
        pairs[key.strip()] = _scalar(text.strip())
    return pairs


def _scalar(text: str) -> bool | int | float | str:
    import tomllib

    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _print(page: Callable[[], Page], table: Callable[[], Any], as_json: bool) -> None:
    """The page, or the same as JSON, on stdout."""
    if as_json:
        _out(json.dumps(table(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    from reimpl.report import render

    terminal = sys.stdout.isatty()
    width = _width() if terminal else 0
    _out(render(page(), width=width, colour=terminal and "NO_COLOR" not in os.environ))


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return 0


def _out(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()  # a closed pipe shows here, where Typer ends quietly


def _say(line: str, *, prefix: str = "reimpl: ") -> None:
    sys.stderr.write(f"{prefix}{line}\n")
    sys.stderr.flush()


def _end(verdicts: Sequence[Verdict], *, strict: bool, failed: bool = False) -> None:
    """End with status 1 when a run errored, or with --strict when a claim did not come out."""
    from reimpl.report import UNFAVOURABLE

    if failed or (strict and any(verdict.lane in UNFAVOURABLE for verdict in verdicts)):
        raise typer.Exit(FAILED)


class _Progress:
    """Shows on stderr how far the runs are: live on a terminal, else a line now and then."""

    def __init__(self, made: Plan) -> None:
        self.weights = _weights(made)
        self.total = len(made.jobs)
        self.running: dict[str, Event] = {}
        self.finished = 0
        self.kept = 0
        """Records made."""
        self.worked = 0.0
        self.began = self.said = time.monotonic()
        self.live: Live | None = None

    def __enter__(self) -> _Progress:
        if self.total and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self.live = Live(
                get_renderable=self._drawn, console=console, refresh_per_second=4, transient=True
            )
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def see(self, event: Event) -> None:
        """Take what happened to a job."""
        key = event.job.keys[0]
        if event.kind in ("started", "progress"):
            self.running[key] = event
        elif event.kind in ("done", "lost"):
            self.running.pop(key, None)
            self.finished += 1
            self.worked += self.weights[key]
            self._take(event.contents["result"])
        if self.live is None and time.monotonic() - self.said > SAY_EVERY:
            self.said = time.monotonic()
            self.say(self._line())

    def say(self, line: str) -> None:
        """A line that stays."""
        if self.live is not None:
            self.live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            _say(line, prefix="")

    def _take(self, records: Sequence[Any]) -> None:
        from reimpl.report import last_line

        self.kept += sum(record.status == "ok" for record in records)
        for record in records:
            if record.status == "error":
                self.say(f"failed: {record.variant}, seed {record.seed}: {last_line(record)}")

    def _share(self) -> float:
        under_way = sum(
            self.weights[key] * _done(event.contents) for key, event in self.running.items()
        )
        return (self.worked + under_way) / (sum(self.weights.values()) or 1.0)

    def _line(self) -> str:
        from reimpl.report import duration

        share = self._share()
        text = f"{self.finished} of {self.total} jobs done"
        if share <= 0.02:
            return text
        left = (time.monotonic() - self.began) * (1 - share) / share
        return f"{text}, {100 * share:.0f} %, about {duration(left)} left"

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for event in self.running.values():
            shown = event.contents.get("shown", {})
            figures = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            bar = ProgressBar(total=1.0, completed=_done(event.contents), width=20)
            grid.add_row(Text(f"  {event.job.name}"), bar, Text(figures))
        return Group(Text(self._line()), grid)


def _weights(made: Plan) -> dict[str, float]:
    """Job → the seconds it is thought to take, or what the others take in the mean."""
    known = [p.seconds / len(p.jobs) for p in made.planned if p.jobs and p.seconds]
    usual = sum(known) / len(known) if known else 1.0
    return {
        job.keys[0]: p.seconds / len(p.jobs) if p.seconds else usual
        for p in made.planned
        for job in p.jobs
    }


def _done(contents: Mapping[str, Any]) -> float:
    total = contents.get("total")
    return min(1.0, contents["done"] / total) if total else 0.0


def main() -> None:
    """The entry point of the script `reimpl`."""
    app(prog_name="reimpl")


if __name__ == "__main__":
    main()
