import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
import torch

from reimpl import context as contexts
from reimpl.claims import Variant
from reimpl.context import Stopped
from reimpl.engines import room
from reimpl.errors import RequestError
from reimpl.evidence import Result
from reimpl.jobs import Job, attempt, check_shared
from reimpl.planning import Request, plan
from reimpl.records import Record, Store
from reimpl.reproduction import reproduce
from reimpl.sharing import Share
from reimpl.training import check_batchnorm, reduction

ROUNDING = 1e-5
"""Float32 keeps 7 digits; a hundred steps on a convex loss, which forgets errors, lose two."""
BCE = "nn.functional.binary_cross_entropy_with_logits(model(X), y"
IN_A_RANK = '"reimpl.engines.rank" in sys.orig_argv'


@pytest.fixture(autouse=True)
def _none_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    until = time.monotonic() + 20
    while (left := ranks(tmp_path)) and time.monotonic() < until:
        time.sleep(0.2)
    assert left == []


def ranks(tmp_path: Path) -> list[psutil.Process]:
    """The processes of shared trainings that this test has begun."""
    ours = str(tmp_path / "cache")
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mine = process.environ().get("REIMPL_CACHE") == ours
            if mine and "reimpl.engines.rank" in process.cmdline():
                found.append(process)
    return found


@pytest.fixture
def paper(tiny_paper: Path) -> Path:
    """The tiny paper with its loss as a metric, and a last batch of one row for two processes."""
    change(tiny_paper, "return {", 'return {"loss": ' + BCE + ', reduction="none"), ')
    claims = tiny_paper / "claims.toml"
    text = claims.read_text().replace("batch_size = 50", "batch_size = 111\nmomentum = 0.9")
    loss = '[metric."train/loss"]\nunit = "1"\nbetter = "lower"\ndefinition = "cross-entropy"\n'
    claims.write_text(text.replace("[setting.inputs]", loss + "\n[setting.inputs]"))
    return tiny_paper


def change(paper: Path, old: str, new: str) -> None:
    code = paper / "__init__.py"
    assert old in code.read_text()
    code.write_text(code.read_text().replace(old, new, 1))


def job(paper: Path, **more: Any) -> Job:
    request = Request(paper="tiny", papers=(paper,), variants=("two-inputs",), seeds=1, **more)
    (made,) = [job for job in plan(request, estimate=False).jobs if job.part == "train"]
    return made


def trained(job: Job, emit: Callable[..., None] = lambda _kind, _contents: None) -> Record:
    (record,) = attempt(job, emit)
    return record


def reproduced_by_two(paper: Path) -> Result:
    """One run of the paper as the command makes it, by two processes."""
    request = Request(
        paper="tiny",
        papers=(paper,),
        variants=("two-inputs",),
        seeds=1,
        devices=2,
        wandb="disabled",
    )
    return reproduce(request)


def losses(record: Record) -> list[float]:
    assert record.error is None
    return [value for _, value in record.curves["train/loss"]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mean", "sum", "varied"])
def test_two_processes_follow_the_loss_curve_of_one(paper: Path, kind: str) -> None:
    if kind == "sum":
        change(paper, BCE, BCE + ', reduction="sum"')
        claims = paper / "claims.toml"
        claims.write_text(claims.read_text().replace("lr = 0.2", "lr = 0.002\nclip = 20.0"))
    if kind == "varied":
        noise = "batch[0] + torch.randn(batch[0].shape, generator=g)"
        change(
            paper, "    loss=loss,", f"    loss=loss, augment=lambda batch, g: ({noise}, batch[1]),"
        )
    one, two = trained(job(paper)), trained(job(paper, devices=2))
    assert losses(two) == pytest.approx(losses(one), rel=ROUNDING)
    assert losses(one)[-1] < 0.6 * losses(one)[0]
    assert (one.key, one.parameters, one.flops) == (two.key, two.parameters, two.flops)
    assert (one.note, two.note) == (None, "shared among 2 processes")


@pytest.mark.slow
def test_a_shared_run_that_is_stopped_goes_on_to_the_same_bits(
    paper: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change(paper, "return self.linear(", "return self.linear(nn.functional.dropout(")
    change(
        paper,
        "X[:, : self.linear.in_features])",
        "X[:, : self.linear.in_features], 0.1, self.training))",
    )
    claims = paper / "claims.toml"
    claims.write_text(claims.read_text().replace("epochs = 10", "epochs = 40"))
    whole = trained(job(paper, devices=2))
    stop = Event()
    monkeypatch.setattr(contexts, "STOP", stop)
    monkeypatch.setattr(contexts, "PROGRESS_EVERY", 0.0)
    with pytest.raises(Stopped):
        trained(
            job(paper, devices=2),
            lambda _kind, contents: stop.set() if contents.get("done", 0) >= 200 else None,
        )
    stop.clear()
    done: list[float] = []
    again = trained(
        job(paper, devices=2), lambda _, contents: done.append(contents.get("done", 999))
    )
    assert losses(again) == losses(whole)
    assert min(done) > 200


@pytest.mark.slow
def test_a_shared_run_of_which_a_process_is_killed_is_tried_once_more(paper: Path) -> None:
    kill = "not mark.exists(): mark.touch(); os.kill(os.getpid(), 9)"
    in_ranks(paper, f"mark = pathlib.Path({str(paper / 'killed')!r})\n        if {kill}")
    assert losses(trained(job(paper, devices=2)))
    assert (paper / "killed").exists()


@pytest.mark.slow
def test_a_process_that_is_killed_each_time_is_an_error_in_one_line(paper: Path) -> None:
    in_ranks(paper, f"open({str(paper / 'tries')!r}, 'a').write('.'); os.kill(os.getpid(), 9)")
    (error,) = reproduced_by_two(paper).errors
    assert error.error == "LostRankError: rank 1 of 2 ended with SIGKILL"
    assert (paper / "tries").read_text() == ".."


@pytest.mark.slow
def test_the_others_end_with_rank_0_and_its_job_is_begun_again(paper: Path) -> None:
    change(paper, "import torch\n", "import os, pathlib, sys\nimport torch\n")
    mark = f"pathlib.Path({str(paper / 'killed')!r})"
    in_the_worker = IN_A_RANK.replace("rank", "worker")
    kill = f"{mark}.touch(); os.kill(os.getpid(), 9)"
    head = "def loss(model, batch):\n"
    change(paper, head, f"{head}    if {in_the_worker} and not {mark}.exists():\n        {kill}\n")
    result = reproduced_by_two(paper)
    assert (paper / "killed").exists()
    assert result.errors == []
    assert [r.note for r in result.fresh if r.part == "train"] == ["shared among 2 processes"]


def test_an_error_of_another_process_is_the_runs_with_its_traceback(paper: Path) -> None:
    in_ranks(paper, "raise ValueError('only here')")
    error = trained(job(paper, devices=2)).error or ""
    assert error.startswith("RunError: rank 1 of 2 failed:\nTraceback")
    assert "in data" in error
    assert error.strip().endswith("ValueError: only here")


def in_ranks(paper: Path, code: str) -> None:
    """What only the processes do that rank 0 has started."""
    generator = 'generator = seeds.torch("split")\n'
    change(paper, generator, f"{generator}    if {IN_A_RANK}:\n        {code}\n")
    change(paper, "import torch\n", "import os, pathlib, sys\nimport torch\n")


# What cannot be shared


class OwnNorm(torch.nn.Linear):
    """Batch normalisation that only the batch itself gives away."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        y = super().forward(input)
        return (y - y.mean(0)) / (y.std(0) + 1) if self.training else y


def squares(model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square()


ROWS = (torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.ones(50, 1))


def paper_of(loss: Any) -> Any:
    from reimpl.paper import Paper

    return Paper(slug="tiny", loss=loss)


@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_a_loss_is_seen_to_be_a_mean_or_a_sum(kind: str) -> None:
    noisy = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.BatchNorm1d(1), torch.nn.Dropout())
    before = {name: t.clone() for name, t in noisy.state_dict().items()}
    paper = paper_of(lambda model, batch: getattr(squares(model, batch), kind)())
    assert reduction(paper, noisy, ROWS) == kind
    assert all(torch.equal(t, before[name]) for name, t in noisy.state_dict().items())


def test_a_loss_that_is_neither_is_refused() -> None:
    paper = paper_of(lambda model, batch: squares(model, batch).sum() + 3)
    with pytest.raises(RequestError, match="neither the mean nor the sum"):
        reduction(paper, torch.nn.Linear(3, 1), ROWS)


def test_a_network_whose_rows_see_each_other_is_refused() -> None:
    paper = paper_of(lambda model, batch: squares(model, batch).mean())
    with pytest.raises(RequestError, match="neither the mean nor the sum"):
        reduction(paper, OwnNorm(3, 1), ROWS)


def test_batch_normalisation_is_shared_on_gpus_only() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.BatchNorm1d(1))
    with pytest.raises(RequestError, match="batch normalisation sees the rows of one process"):
        check_batchnorm(paper_of(squares), model, torch.device("cpu"))
    check_batchnorm(paper_of(squares), model, torch.device("cuda"))


def test_only_a_recipe_can_be_shared(paper: Path) -> None:
    variant = job(paper).entry.claims.variant("two-inputs")
    with pytest.raises(RequestError, match=r"'x' cannot be shared among 2 .* way of its own"):
        check_shared(Variant(id="x", says="", source=""), 2)
    with pytest.raises(RequestError, match="its seeds train as one batch"):
        check_shared(replace(variant, vectorised=True), 2)
    check_shared(variant, 2)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"engine": "ray"}, "--devices and --num-nodes do not go with --engine ray"),
        ({"device": "cuda:1"}, "--device cuda:1: with --devices .* write --device cuda or cpu"),
    ],
)
def test_devices_go_with_what_has_them(paper: Path, more: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        job(paper, devices=2, **more)


def test_processes_share_every_row_once() -> None:
    rows = (torch.arange(11),)
    parts = [Share(rank=rank, devices=3).of(rows)[0] for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == list(range(11))
    counts = [Share(rank=rank, devices=3).counts(11) for rank in range(3)]
    mean = sum(c * part.double().mean() for c, part in zip(counts, parts, strict=True)) / 3
    assert float(mean) == pytest.approx(5.0)


def test_a_gpu_has_one_job_at_a_time_unless_told_otherwise(
    paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reimpl.engines.cores", lambda: 8)
    wide, single = job(paper, devices=4), job(paper)
    assert not room(device="cuda").holds(single, [single])
    assert room(2, device="cuda").holds(single, [single])
    assert not room(device="cuda", devices=4).holds(wide, [wide])
    assert room(8).holds(wide, [wide])
    assert not room(7).holds(wide, [wide])


# Several nodes


ROOT = Path(__file__).parents[1]


def nodes(papers: Sequence[Path], runs: Path, *more: str) -> list[tuple[int, str]]:
    """Exit status and stderr of the same command on as many nodes as there are folders."""
    words = ["--variant", "two-inputs", "--seeds", "1", "--wandb", "disabled"]
    words += ["--num-nodes", str(len(papers)), *more]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    begun = [
        subprocess.Popen(
            [sys.executable, "-m", "reimpl", "reproduce", "tiny", *words, "--papers", str(paper)],
            env={**os.environ, **meeting, "NODE_RANK": str(node), "REIMPL_RUNS": f"{runs}/{node}"},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node, paper in enumerate(papers)
    ]
    try:
        said = [process.communicate(timeout=200)[1] for process in begun]
    finally:
        for process in begun:
            process.kill()
    return [(process.returncode, text) for process, text in zip(begun, said, strict=True)]


@pytest.mark.slow
def test_two_nodes_follow_the_loss_curve_of_one_process(paper: Path, tmp_path: Path) -> None:
    ended = nodes([paper, paper], tmp_path / "nodes", "--devices", "2")
    assert [status for status, _ in ended] == [0, 0], ended
    found = Store(tmp_path / "nodes" / "0").read("tiny2026_logistic")
    (four,) = [record for record in found.ok if record.part == "train"]
    assert losses(four) == pytest.approx(losses(trained(job(paper))), rel=ROUNDING)
    assert four.note == "shared among 4 processes"
    assert not (tmp_path / "nodes" / "1").exists()


@pytest.mark.slow
def test_a_node_with_other_code_is_refused_in_one_line(paper: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / paper.name
    shutil.copytree(paper, other)
    change(other, "/ 2**0.5", "/ 3**0.5")
    (status, said), (followed, _) = nodes([paper, other], tmp_path / "nodes")
    assert status == 2
    assert said.splitlines()[-1] == "reimpl: node 1 differs from node 0: the paper's code changed"
    assert followed == 0


@pytest.mark.slow
def test_a_process_killed_on_another_node_is_an_error_in_one_line(
    paper: Path, tmp_path: Path
) -> None:
    in_ranks(paper, "os.kill(os.getpid(), 9)")
    (status, said), (followed, _) = nodes([paper, paper], tmp_path / "nodes")
    assert (status, followed) == (1, 0)
    assert "seed 0: LostRankError: rank 1 of 2 ended with SIGKILL" in said


def test_nodes_that_do_not_know_where_to_meet_are_told_so(
    paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_RANK", raising=False)
    request = Request(paper="tiny", papers=(paper,), num_nodes=2, wandb="disabled")
    with pytest.raises(RequestError, match="set MASTER_ADDR, MASTER_PORT and NODE_RANK"):
        reproduce(request)
