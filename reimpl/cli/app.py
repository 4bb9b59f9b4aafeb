"""The commands: parse, call, print, exit status.

Whatever a command needs is imported inside it, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from reimpl.cli import list_papers, out, print_page, say
from reimpl.errors import ReimplError, RequestError

if TYPE_CHECKING:
    from reimpl.evidence import Result
    from reimpl.registry import Entry
    from reimpl.report import Check
    from reimpl.reproduction import Request
    from reimpl.verdict import Verdict

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130
"""Exit statuses beside 0, which means that the work was done, whatever the verdicts."""


class _Commands(TyperGroup):
    """Turns the user's mistakes into one line and status 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ReimplError as error:
            say(str(error))
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt:
            say("interrupted")
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


def _seeds(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"'{text}' is neither a number above 0 nor auto")
    return int(text)


Seeds = Annotated[
    int | None,
    typer.Option(
        parser=_seeds,
        metavar="N|auto",
        help="Runs of each variant [default: its own]. auto: 3, 5, 8, 12, 20, until decided.",
    ),
]


def _duration(text: str) -> float:
    """Seconds in `90s`, `30m`, `1h30m` or `2h`."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + seconds):
        raise typer.BadParameter(f"'{text}' is no time; write it as 90s, 30m or 1h30m")
    return float(total)


Budget = Annotated[
    float | None,
    typer.Option(
        parser=_duration,
        metavar="TIME",
        help="30m, 1h30m, …: only what fits, the cheapest undecided claims first.",
    ),
]
Looks = Annotated[bool, typer.Option("--looks", help="Judge as --seeds auto does, look by look.")]
MostCost = Annotated[
    Literal["instant", "minutes", "hours", "gpu"],
    typer.Option("--cost", help="Leave out claims that take more than this."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Processes [default: cores, as far as memory goes]."),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps, …")]
Devices = Annotated[
    int, typer.Option(min=1, metavar="N", help="Processes that share each training by DDP.")
]
Nodes = Annotated[
    int,
    typer.Option(min=1, metavar="M", help="Machines that share it, each with so many --devices."),
]
Numbers = Annotated[
    Literal["32", "bf16-mixed", "16-mixed", "bf16-true"] | None,
    typer.Option("--precision", help="The same as --set precision=…."),
]
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
def list_(papers: Folders = None, as_json: AsJson = False) -> None:
    """The papers there are."""
    list_papers(papers or (), as_json=as_json)


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
        print_page(
            lambda: report.claim_page(entry.claims, claim),
            lambda: report.claim_json(entry.claims, claim),
            as_json,
        )
        return
    print_page(lambda: report.show_page(entry), lambda: report.show_json(entry), as_json)


@app.command()
def verdict(
    paper: PaperName,
    papers: Folders = None,
    runs: Runs = None,
    looks: Looks = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Judge the records there are, without running anything."""
    from reimpl import report
    from reimpl.reproduction import Request, result_of

    seeds = "auto" if looks else None
    result = result_of(Request(paper=paper, papers=tuple(papers or ()), runs=runs, seeds=seeds))
    print_page(lambda: report.result_page(result), lambda: report.to_json(result), as_json)
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
    from reimpl.external import judge_external, read_measurements
    from reimpl.reading import load_claims

    read = load_claims(claims)
    verdicts = judge_external(read, read_measurements(measurements))
    print_page(
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
    budget: Budget = None,
    workers: Workers = None,
    device: Device = "cpu",
    devices: Devices = 1,
    num_nodes: Nodes = 1,
    precision: Numbers = None,
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

    request = _request(
        paper,
        papers=papers,
        variant=variant,
        claim=claim,
        seeds=seeds,
        cost=cost,
        budget_s=budget,
        workers=workers,
        device=device,
        devices=devices,
        num_nodes=num_nodes,
        precision=precision,
        settings=settings,
        model=model,
        force=force,
        baselines=baselines,
        runs=runs,
    )
    made = reproduction.plan(request, probe=probe)
    if made.missing:
        say(made.missing)
    print_page(lambda: report.plan_page(made), lambda: report.plan_json(made), as_json)


@app.command()
def reproduce(
    paper: PaperName,
    variant: Variants = None,
    claim: ClaimIds = None,
    seeds: Seeds = None,
    cost: MostCost = "minutes",
    budget: Budget = None,
    workers: Workers = None,
    device: Device = "cpu",
    devices: Devices = 1,
    num_nodes: Nodes = 1,
    precision: Numbers = None,
    wandb: Annotated[
        str, typer.Option(metavar="MODE", help="auto, online, offline or disabled.")
    ] = "auto",
    settings: Settings = None,
    model: Model = None,
    force: Force = False,
    baselines: Baselines = False,
    engine: Annotated[
        Literal["processes", "inprocess", "ray"],
        typer.Option(
            help="ray: on a Ray cluster; inprocess: one after another here, for debugging."
        ),
    ] = "processes",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Of the Ray cluster, or auto [default: $RAY_ADDRESS, or one started here].",
        ),
    ] = None,
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
    reimpl reproduce lenet5 --engine ray --address 10.0.0.1:6379
    """  # noqa: D301  (the character itself keeps the lines apart)
    from reimpl import report
    from reimpl.tracking import check_mode

    if address and engine != "ray":
        raise RequestError(f"--address {address}: goes with --engine ray")
    request = _request(
        paper,
        papers=papers,
        variant=variant,
        claim=claim,
        seeds=seeds,
        cost=cost,
        budget_s=budget,
        workers=workers,
        device=device,
        devices=devices,
        num_nodes=num_nodes,
        precision=precision,
        wandb=check_mode(wandb),
        settings=settings,
        model=model,
        force=force,
        baselines=baselines,
        engine=engine,
        address=address,
        runs=runs,
    )
    if num_nodes > 1 and _follows():
        from reimpl.following import follow

        follow(request)
        return
    result = _run(request)
    how = " ".join(
        [
            *(f"--set {s}" for s in settings or ()),
            *([f"--precision {precision}"] if precision else []),
            *([f"--model {model}"] if model else []),
        ]
    )
    print_page(
        lambda: report.result_page(result, request=how), lambda: report.to_json(result), as_json
    )
    _hints(request, result)
    _end(result.verdicts, strict=strict, failed=bool(result.errors))


def _follows() -> bool:
    """Whether another node plans and records."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch shows its frames otherwise
    from reimpl.sharing import meeting_place

    return meeting_place()[2] > 0


def _run(request: Request) -> Result:
    """Run plan after plan with progress on stderr."""
    from reimpl import report, reproduction
    from reimpl.cli.progress import Progress

    progress = Progress(request)
    signal.signal(signal.SIGTERM, _interrupt)  # how a cluster says that time is up
    try:
        with progress, reproduction.engine(request) as run:
            plans = reproduction.plans(request, probe=False, run=run)
            return reproduction.reproduce(
                request,
                planned=map(progress.begin, plans),
                run=run,
                watch=progress.see,
                say=progress.say,
            )
    except KeyboardInterrupt:
        kept = report.number(progress.kept, "finished run")
        say(f"interrupted; {kept} kept, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _hints(request: Request, result: Result) -> None:
    """How to look further; only where runs were made."""
    if not result.fresh:
        return
    if request.wandb == "offline":
        place = request.root / "wandb"
        say(f"`wandb leet {place}` shows the runs; `wandb sync` sends them later", prefix="")
    readme = result.entry.folder / "README.md"
    if readme.exists():
        say(f"what to make of it: {readme}", prefix="")


@app.command()
def record(paper: PaperName, papers: Folders = None, runs: Runs = None) -> None:
    """Promote records to `measured.jsonl` and the README's table."""
    from reimpl import report
    from reimpl.evidence import promote
    from reimpl.records import read_measured
    from reimpl.reproduction import Request

    entry = _find(paper, papers)
    report.rebuild_readme(entry)  # a README without a place for it shows before we write
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
    out(f"{measured}: {counted}, {new:,} of them new; {gone:,} are gone\n")
    out(f"{readme}: the table {'was rebuilt' if changed else 'is as it was'}\n")


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

    request = _request(
        paper,
        papers=papers,
        variant=variant,
        claim=claim,
        seeds=seeds,
        cost=cost,
        runs=runs,
    )
    reasons = reproduction.why_rerun(request)
    print_page(lambda: report.why_page(reasons), lambda: {"runs": reasons}, as_json)


@app.command()
def data(paper: PaperName, papers: Folders = None, as_json: AsJson = False) -> None:
    """Fetch a paper's data and verify every checksum."""
    from reimpl import data as datasets
    from reimpl import report

    facts = datasets.verify(_find(paper, papers).claims.sources)
    print_page(lambda: report.data_page(facts), lambda: {"splits": report.plain(facts)}, as_json)


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
    print_page(
        lambda: report.checks_page(checks), lambda: {"checks": report.plain(checks)}, as_json
    )
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
    from reimpl import conformance
    from reimpl.report import Check

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
    from reimpl.cli.doctor import examine
    from reimpl.reproduction import Request

    checks = examine(Request(paper="", runs=runs).root, papers or ())
    print_page(
        lambda: report.checks_page(checks), lambda: {"checks": report.plain(checks)}, as_json
    )


# Shared


def _find(paper: str, papers: Sequence[Path] | None) -> Entry:
    from reimpl.registry import find

    return find(paper, papers or ())


def _request(
    paper: str,
    *,
    papers: Sequence[Path] | None,
    variant: Sequence[str] | None,
    claim: Sequence[str] | None,
    settings: Sequence[str] | None = None,
    precision: str | None = None,
    **more: Any,
) -> Request:
    from reimpl.reproduction import Request

    return Request(
        paper=paper,
        papers=tuple(papers or ()),
        variants=tuple(variant or ()),
        claims=tuple(claim or ()),
        overrides=overrides(settings or ()) | ({"precision": precision} if precision else {}),
        **more,
    )


def overrides(settings: Sequence[str]) -> dict[str, bool | int | float | str]:
    """`key=value` pairs; a value is what TOML reads in it, or else text."""
    pairs = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise RequestError(f"--set {setting}: write KEY=VALUE, such as --set lr=0.01")
        pairs[key.strip()] = _scalar(text.strip())
    return pairs


def _scalar(text: str) -> bool | int | float | str:
    import tomli

    try:
        value = tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _end(verdicts: Sequence[Verdict], *, strict: bool, failed: bool = False) -> None:
    """End with status 1 when a run errored, or with --strict when a claim did not come out."""
    from reimpl.report import UNFAVOURABLE

    if failed or (strict and any(verdict.lane in UNFAVOURABLE for verdict in verdicts)):
        raise typer.Exit(FAILED)
