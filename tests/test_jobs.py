import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reimpl import sharing, training
from reimpl.context import Outcome, RunContext
from reimpl.engines import room
from reimpl.engines.processes import Team
from reimpl.errors import RequestError
from reimpl.jobs import Job, execute
from reimpl.planning import Request, plan
from reimpl.records import Record
from reimpl.reproduction import reproduce

NORM = """
[metric.norm]
unit = "1"
better = "neither"
definition = "norm of the weights, after the last epoch"
"""


def inspected(paper: Path, values: str, *, vectorised: bool = False) -> None:
    """Give the tiny paper an `inspect` that says one value after another."""
    code, claims = paper / "__init__.py", paper / "claims.toml"
    hook = (
        f"VALUES = iter([{values}])\n\n\n"
        "def inspect(model, data):\n    return {'norm': next(VALUES)}\n\n\nPAPER = Paper("
    )
    text = code.read_text().replace("PAPER = Paper(", hook)
    code.write_text(text.replace("counts=counts,\n)", "counts=counts,\n    inspect=inspect,\n)"))
    batch = "seeds = 5\nvectorised = true" if vectorised else "seeds = 5"
    claims.write_text(claims.read_text().replace("seeds = 5", batch) + NORM)


def jobs(paper: Path, runs: Path, **more: Any) -> list[Job]:
    asked = {"variants": ("two-inputs",), "seeds": 2, "wandb": "disabled", **more}
    request = Request(paper="tiny", papers=(paper,), runs=runs, **asked)
    return plan(request, estimate=False).jobs


def made(job: Job) -> list[Record]:
    records = execute(job, lambda _kind, _contents: None)
    assert isinstance(records, list)
    return records


@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("float('nan')", "DivergenceError: 'norm' is NaN"),
        ("1e200", "DivergenceError: 'norm' is beyond 1e+150, too large for any statistic"),
        ("-1e200", "DivergenceError: 'norm' is beyond 1e+150, too large for any statistic"),
    ],
)
def test_a_number_that_cannot_be_judged_fails_its_own_run_only(
    tiny_paper: Path, tmp_path: Path, value: str, says: str, vectorised: bool
) -> None:
    inspected(tiny_paper, f"1.0, {value}", vectorised=vectorised)
    trained = [job for job in jobs(tiny_paper, tmp_path / "runs") if job.part == "train"]
    first, second = (record for job in trained for record in made(job))
    assert (first.status, first.measurements["norm"]) == ("ok", 1.0)
    assert (second.error, second.measurements, second.curves) == (says, {}, {})


def test_a_count_that_is_nan_ends_no_other_work(tiny_paper: Path, tmp_path: Path) -> None:
    code = tiny_paper / "__init__.py"
    code.write_text(
        code.read_text().replace('{"parameters": sum', '{"parameters": float("nan") + sum')
    )
    asked = Request(
        paper="tiny",
        papers=(tiny_paper,),
        runs=tmp_path / "runs",
        seeds=1,
        engine="inprocess",
        wandb="disabled",
    )
    result = reproduce(asked)
    assert [(r.part, r.error) for r in result.errors] == [
        ("counts", "DivergenceError: 'parameters' is NaN")
    ]
    assert [r.variant for r in result.fresh if r.part == "train"] == ["two-inputs", "one-input"]


def edited(paper: Path) -> None:
    """Have the network tested on other points."""
    code = paper / "__init__.py"
    code.write_text(code.read_text().replace("TEST = 1000, 4000", "TEST = 1000, 3000"))


def test_a_paper_edited_after_its_import_is_not_run_under_its_new_key(
    tiny_paper: Path, tmp_path: Path
) -> None:
    before = jobs(tiny_paper, tmp_path / "runs", seeds=1)[-1]
    assert made(before)[0].status == "ok"
    edited(tiny_paper)
    after = jobs(tiny_paper, tmp_path / "runs", seeds=1)[-1]
    assert after.keys != before.keys
    with pytest.raises(RequestError, match="code changed while it ran; run the command again"):
        execute(after, lambda _kind, _contents: None)


def test_a_paper_edited_before_its_import_is_not_run_under_its_old_key(
    tiny_paper: Path, tmp_path: Path
) -> None:
    before = jobs(tiny_paper, tmp_path / "runs", seeds=1)[-1]
    edited(tiny_paper)
    with pytest.raises(RequestError, match="code changed while it ran"):
        execute(before, lambda _kind, _contents: None)


def test_an_own_model_edited_after_the_plan_is_not_run(tiny_paper: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    network = "from torch import nn\n\n\nclass Mine(nn.Sequential):\n    def __init__(self):\n"
    file.write_text(f"{network}        super().__init__(nn.Linear(2, 1), nn.Flatten(0))\n")
    job = jobs(tiny_paper, tmp_path / "runs", seeds=1, model=f"{file}:Mine")[-1]
    assert made(job)[0].status == "ok"
    file.write_text(file.read_text().replace("nn.Linear", "nn.Tanh(), nn.Linear"))
    with pytest.raises(RequestError, match="code changed while it ran"):
        execute(replace(job, force=True), lambda _kind, _contents: None)


def test_a_paper_edited_between_two_plans_gets_workers_that_import_it_anew(
    tiny_paper: Path, tmp_path: Path
) -> None:
    found: list[Record] = []
    with Team() as team:
        for runs in ("a", "b"):
            made_by_team = team.run(jobs(tiny_paper, tmp_path / runs, seeds=1), room(1))
            results = [e.contents["result"] for e in made_by_team if e.kind == "done"]
            found += [record for records in results for record in records if record.part == "train"]
            edited(tiny_paper)
    first, second = found
    assert first.key_parts["paper_code"] != second.key_parts["paper_code"]
    assert first.measurements["test/error"] != second.measurements["test/error"]


def test_seconds_up_to_the_checkpoint_of_a_shared_training_count_once(
    tiny_paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[RunContext] = []

    def train(*given: Any, metrics: object) -> Outcome:
        context = given[2]
        tries.append(context)
        context.clock.goes_on(1000.0, 1000.0)  # that the first takes, and the second reads
        if len(tries) == 1:
            raise sharing.LostRankError("rank 1 of 2 ended with SIGKILL")
        return Outcome(measurements={})

    monkeypatch.setattr(sharing, "shared", lambda *_, **__: nullcontext(sharing.ALONE))
    monkeypatch.setattr(training, "train", train)
    (record,) = made(jobs(tiny_paper, tmp_path / "runs", seeds=1, devices=2)[-1])
    assert len(tries) == 2
    assert 1000 <= record.wall_s < 1900
    assert 1000 <= record.cpu_s < 1900


def test_a_target_never_reached_is_a_measurement(tiny_paper: Path, tmp_path: Path) -> None:
    inspected(tiny_paper, "float('inf')", vectorised=False)
    (record,) = made(jobs(tiny_paper, tmp_path / "runs", seeds=1)[-1])
    assert (record.status, record.measurements["norm"]) == ("ok", math.inf)
