"""The commands: parse, call, print, exit status.

Whatever a command needs is imported inside it, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reimpl.cli import out, print_page, say
from reimpl.cli.parser import parse
from reimpl.errors import ReimplError, RequestError

if TYPE_CHECKING:
    from reimpl.evidence import Result
    from reimpl.planning import Request
    from reimpl.registry import Entry
    from reimpl.report import Check
    from reimpl.verdict import Verdict

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses; 0 means that the work was done, whatever the verdicts."""


def run(words: Sequence[str]) -> int:
    """Do what a command line asks for.

    Returns:
        The exit status; a mistake of the user's is one line and status 2.
    """
    try:
        asked = parse(words)
        return COMMANDS[asked.pop("command")](**asked)
    except ReimplError as error:
        say(str(error))
        return MISTAKE
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED


# Reading


def list_(*, papers: Sequence[Path], as_json: bool) -> int:
    """The papers there are."""
    from reimpl import registry, report

    found = report.listed(registry.entries(papers))
    print_page(lambda: report.list_page(found), lambda: {"papers": report.plain(found)}, as_json)
    return DONE


def show(*, paper: str, claim: str | None, papers: Sequence[Path], as_json: bool) -> int:
    """What a paper claims, and what we do otherwise."""
    from reimpl import registry, report

    entry = registry.find(paper, papers)
    if claim is not None:
        print_page(
            lambda: report.claim_page(entry.claims, claim),
            lambda: report.claim_json(entry.claims, claim),
            as_json,
        )
    else:
        print_page(lambda: report.show_page(entry), lambda: report.show_json(entry), as_json)
    return DONE


def verdict(
    *, seeds: int | Literal["auto"] | None, strict: bool, as_json: bool, **asked: Any
) -> int:
    """Judge the records there are, without running anything."""
    from reimpl import report
    from reimpl.reproduction import result_of

    auto = seeds == "auto"
    request = _request(seeds=seeds if auto else None, **asked)
    result = result_of(request, first=None if auto else seeds)
    for name in request.claims:
        result.entry.claims.claim(name)  # there is one
    print_page(lambda: report.result_page(result), lambda: report.to_json(result), as_json)
    return _status(result.verdicts, strict=strict)


def judge(*, claims: Path, measurements: Path, strict: bool, as_json: bool) -> int:
    """Judge numbers that came from somewhere else."""
    from reimpl import registry, report
    from reimpl.external import judge_external, read_measurements
    from reimpl.reading import load_claims

    file = claims.suffix == ".toml"
    read = load_claims(claims) if file else registry.find(str(claims)).claims
    verdicts = judge_external(read, read_measurements(measurements))
    print_page(
        lambda: report.judged_page(read, verdicts),
        lambda: report.judged_json(read, verdicts),
        as_json,
    )
    return _status(verdicts, strict=strict)


# Running


def plan(*, probe: bool, as_json: bool, **asked: Any) -> int:
    """What `reproduce` would run, and how long it takes."""
    from reimpl import planning, report
    from reimpl.cli.progress import Progress

    request = _request(**asked)
    with Progress(request) as progress:
        probes = planning.Probes(of="here" if probe else "never", tell=progress.probing)
        made = planning.plan(request, probes=probes)
    for why in filter(None, (made.missing, made.unanswered)):
        say(why)
    print_page(lambda: report.plan_page(made), lambda: report.plan_json(made), as_json)
    return DONE


def reproduce(
    *,
    wandb: str,
    strict: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Run what is not recorded yet, then judge the claims."""
    from reimpl import report
    from reimpl.tracking import check_mode

    request = _request(wandb=check_mode(wandb), **asked)
    if request.num_nodes > 1 and _follows():
        from reimpl.following import follow

        follow(request)
        return DONE
    try:
        result = _run(request)
    except KeyboardInterrupt:
        return INTERRUPTED
    how = _altered_by(**asked)
    print_page(
        lambda: report.result_page(result, altered=how),
        lambda: report.to_json(result, altered=how),
        as_json,
    )
    _hints(request, result)
    return _status(result.verdicts, strict=strict, failed=bool(result.errors))


def _altered_by(
    *, settings: Sequence[str], precision: str | None, model: str | None, **_more: Any
) -> str:
    """The options that make the runs other than the paper's."""
    words = [f"--set {setting}" for setting in settings]
    words += [f"--precision {precision}"] if precision else []
    words += [f"--model {model}"] if model else []
    return " ".join(words)


def _follows() -> bool:
    """Whether another node plans and records."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch shows its frames otherwise
    from reimpl.sharing import meeting_place

    return meeting_place()[2] > 0


def _run(request: Request) -> Result:
    """Run plan after plan with progress on stderr.

    Raises:
        KeyboardInterrupt: after it was said what is kept.
    """
    from reimpl import report, reproduction
    from reimpl.cli.progress import Progress
    from reimpl.planning import Probes, engine

    progress = Progress(request)
    signal.signal(signal.SIGTERM, _interrupt)  # how a cluster says that time is up
    try:
        with progress, engine(request) as run:
            probes = Probes(of="new", run=run, tell=progress.probing)
            plans = reproduction.plans(request, probes=probes, say=progress.say)
            return reproduction.reproduce(
                request,
                planned=map(progress.begin, plans),
                run=run,
                watch=progress.see,
                say=progress.say,
            )
    except KeyboardInterrupt:
        kept = report.number(progress.kept, "finished run")
        say(f"interrupted; {kept} kept, and {reproduction.goes_on(request)} from there")
        raise


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _hints(request: Request, result: Result) -> None:
    """How to look further; only where runs were made."""
    from reimpl.records import Store

    if not result.fresh:
        return
    if result.errors:
        say(f"the first traceback: {Store(request.root).place(result.errors[0])}", prefix="")
    if request.wandb == "offline":
        place = request.root / "wandb"
        wandb = Path(sys.executable).with_name("wandb")
        say(f"`{wandb} leet {place}` shows the runs", prefix="")
        say(f"`{wandb} sync {place}/offline-*` sends them later", prefix="")
    readme = result.entry.folder / "README.md"
    if readme.exists():
        say(f"what to make of it: {readme}", prefix="")


def record(*, paper: str, papers: Sequence[Path], runs: Path | None) -> int:
    """Promote records to `measured.jsonl` and the README's table."""
    from reimpl import registry, report
    from reimpl.evidence import promote
    from reimpl.planning import Request
    from reimpl.records import RUN, read_measured

    entry = registry.find(paper, papers)
    report.rebuild_readme(entry)  # a README without a place for it shows before we write
    measured, readme = entry.folder / "measured.jsonl", entry.folder / "README.md"
    before = set(map(RUN, read_measured(measured)))
    promote(entry, Request(paper=paper, runs=runs).root)
    after = set(map(RUN, read_measured(measured)))
    text = report.rebuild_readme(entry)
    changed = text != readme.read_text(encoding="utf-8")
    if changed:
        readme.write_text(text, encoding="utf-8")
    counted = report.number(len(after), "record")
    new, gone = len(after - before), len(before - after)
    out(f"{measured}: {counted}, {new:,} of them new; {gone:,} are gone\n")
    out(f"{readme}: the table {'was rebuilt' if changed else 'is as it was'}\n")
    return DONE


def restore(*, paper: str, papers: Sequence[Path], runs: Path | None) -> int:
    """Keep the paper's committed records here, so that a reproduction goes on from them."""
    from reimpl import evidence, registry, report
    from reimpl.planning import Request

    entry, root = registry.find(paper, papers), Request(paper=paper, runs=runs).root
    new, stale = evidence.restore(entry, root)
    left = f"; {report.number(stale, 'record')} of other code or versions left" if stale else ""
    out(f"{root / entry.slug}: {report.number(new, 'record')} restored{left}\n")
    return DONE


def why_rerun(*, as_json: bool, **asked: Any) -> int:
    """Why `reproduce` would make recorded runs again."""
    from reimpl import report, reproduction

    reasons = reproduction.why_rerun(_request(**asked))
    print_page(lambda: report.why_page(reasons), lambda: {"runs": reasons}, as_json)
    return DONE


def data(*, paper: str, papers: Sequence[Path], as_json: bool) -> int:
    """Fetch a paper's data and verify every checksum."""
    from reimpl import data as datasets
    from reimpl import registry, report

    facts = datasets.verify(registry.find(paper, papers).claims.sources)
    print_page(lambda: report.data_page(facts), lambda: {"splits": report.plain(facts)}, as_json)
    return DONE


# Checking


def check(*, paper: str | None, papers: Sequence[Path], as_json: bool) -> int:
    """Whether a paper does what every paper owes."""
    from reimpl import report

    checks = [line for entry in _to_check(paper, papers) for line in _conformance(entry)]
    print_page(
        lambda: report.checks_page(checks), lambda: {"checks": report.plain(checks)}, as_json
    )
    return FAILED if any(line.state == "fails" for line in checks) else DONE


def _to_check(paper: str | None, papers: Sequence[Path]) -> list[Entry]:
    from reimpl import registry

    if paper is None:
        return registry.entries(papers)
    return [registry.find(paper, papers)]


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


def doctor(*, papers: Sequence[Path], runs: Path | None, as_json: bool) -> int:
    """Versions, devices, folders, data, W&B and papers here."""
    from reimpl import report
    from reimpl.cli.doctor import examine
    from reimpl.planning import Request

    checks = examine(Request(paper="", runs=runs).root, papers)
    print_page(
        lambda: report.checks_page(checks), lambda: {"checks": report.plain(checks)}, as_json
    )
    return DONE


COMMANDS: dict[str, Callable[..., int]] = {
    "list": list_,
    "show": show,
    "verdict": verdict,
    "judge": judge,
    "plan": plan,
    "reproduce": reproduce,
    "record": record,
    "restore": restore,
    "why-rerun": why_rerun,
    "data": data,
    "check": check,
    "doctor": doctor,
}


# Shared


def _request(
    *, settings: Sequence[str] = (), precision: str | None = None, **asked: Any
) -> Request:
    from reimpl.planning import Request

    if asked.get("address") and asked["engine"] != "ray":
        raise RequestError(f"--address {asked['address']}: goes with --engine ray")
    changes = overrides(settings) | ({"precision": precision} if precision else {})
    fixed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in asked.items()}
    return Request(overrides=changes, **fixed)


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
    import rtoml

    try:
        value = rtoml.loads(f"value = {text}")["value"]
    except rtoml.TomlParsingError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _status(verdicts: Sequence[Verdict], *, strict: bool, failed: bool = False) -> int:
    """1 when a run errored, or with --strict when a claim did not come out."""
    from reimpl.report import unfavourable

    if failed or (strict and any(map(unfavourable, verdicts))):
        return FAILED
    return DONE
