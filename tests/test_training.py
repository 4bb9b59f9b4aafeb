import dataclasses
import errno
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
import torch

from reimpl import context as contexts
from reimpl import training, vectorised
from reimpl.augmentation import random_crop, random_flip
from reimpl.claims import Metric, Reaches, Variant
from reimpl.context import Moments, Outcome, RunContext, Stopped
from reimpl.errors import DivergenceError, PaperError, RecordError
from reimpl.paper import Batch, Data, Paper, Seeds
from reimpl.registry import Entry, find


@pytest.fixture
def entry(tiny_paper: Path) -> Entry:
    return find("tiny", [tiny_paper])


Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]


def start(paper: Paper, variant: Variant, seed: int, checkpoint: Path | None = None) -> RunContext:
    assert paper.data is not None
    seeds = Seeds(seed)
    return RunContext(
        seeds=seeds,
        sources={},
        data=paper.data(variant, {}, seeds),
        checkpoint_path=checkpoint,
    )


def changed(variant: Variant, **recipe: object) -> Variant:
    assert variant.recipe is not None
    return dataclasses.replace(variant, recipe=dataclasses.replace(variant.recipe, **recipe))


def one_by_one(
    paper: Paper, variant: Variant, metrics: Mapping[str, Metric], seeds: Sequence[int]
) -> list[Outcome]:
    return [
        training.train(paper, variant, start(paper, variant, seed), metrics=metrics)
        for seed in seeds
    ]


def together(
    paper: Paper, variant: Variant, metrics: Mapping[str, Metric], seeds: Sequence[int]
) -> list[Outcome | DivergenceError]:
    begun = [start(paper, variant, seed) for seed in seeds]
    return vectorised.train(paper, variant, begun, metrics=metrics)


def test_the_same_seed_gives_the_same_bits(entry: Entry) -> None:
    variant = entry.claims.variant("two-inputs")
    first, second = one_by_one(entry.load(), variant, entry.claims.metrics, [3, 3])
    assert first == second


def test_a_run_within_a_job_of_slurm_trains_alone(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = entry.claims.variant("two-inputs")
    (expected,) = one_by_one(entry.load(), variant, entry.claims.metrics, [3])
    tasks = {"NTASKS": "4", "JOB_NAME": "reimpl", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in tasks.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert one_by_one(entry.load(), variant, entry.claims.metrics, [3]) == [expected]


def test_another_seed_gives_other_numbers(entry: Entry) -> None:
    variant = entry.claims.variant("two-inputs")
    first, second = one_by_one(entry.load(), variant, entry.claims.metrics, [3, 4])
    assert first.measurements != second.measurements


@pytest.mark.parametrize(
    "recipe",
    [
        {"batch_size": "full", "lr": 1.0, "momentum": 0.9, "shrink": 0.001},
        {"batch_size": 64, "optimiser": "adam", "lr": 0.01},
        {"batch_size": 300, "clip": 0.05, "schedule": ({"from": 2.0, "lr": 0.05},)},
    ],
    ids=["full-batch-momentum-shrink", "minibatch-adam", "clip-schedule-ragged-batch"],
)
def test_vectorised_seeds_give_the_numbers_of_single_runs(
    entry: Entry, recipe: Mapping[str, object]
) -> None:
    paper, metrics = entry.load(), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), epochs=4, **recipe)
    single = one_by_one(paper, variant, metrics, range(3))
    batch = together(paper, variant, metrics, range(3))
    for one, other in zip(single, batch, strict=True):
        assert isinstance(other, Outcome)
        assert other.measurements == pytest.approx(one.measurements, abs=0.11)  # one test point
        assert (other.parameters, other.flops) == (one.parameters, one.flops)


@pytest.mark.parametrize("recipe", [{"batch_size": "full"}, {"batch_size": 300}])
def test_the_probe_of_a_batch_of_seeds_times_no_tracing(
    entry: Entry, recipe: Mapping[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, metrics = entry.load(), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), epochs=6, evaluate=2, **recipe)
    traced: list[object] = []
    make_fx, ready = vectorised.make_fx, list[int]()

    def seen(function: Any) -> Any:
        traced.append(function)
        return make_fx(function)

    def every_step(one_step: Any, *, steps: int, seconds: float) -> float:
        ready.append(len(traced))
        for step in range(steps):
            one_step(step)
        return seconds

    monkeypatch.setattr(vectorised, "make_fx", seen)
    monkeypatch.setattr(vectorised, "timed", every_step)
    begun = [start(paper, variant, seed) for seed in range(2)]
    vectorised.probe(paper, variant, begun, metrics=metrics, seconds=0.1)
    assert ready == [len(traced)] == [2]


def test_vectorised_weights_follow_single_weights_closely(entry: Entry) -> None:
    seen: list[list[float]] = []

    def inspect(model: torch.nn.Module, _data: object) -> dict[str, float]:
        seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]).tolist())
        return {}

    paper = dataclasses.replace(entry.load(), inspect=inspect)
    variant = changed(entry.claims.variant("two-inputs"), epochs=5)
    one_by_one(paper, variant, entry.claims.metrics, range(2))
    together(paper, variant, entry.claims.metrics, range(2))
    assert seen[2:] == [pytest.approx(weights, rel=1e-4) for weights in seen[:2]]


def stop_at_200(
    paper: Paper,
    variant: Variant,
    metrics: Mapping[str, Metric],
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    after: float = 0.0,
) -> None:
    """Train seed 1 until it is told to stop, at its first report after 200 steps.

    `after` so many seconds more, as its clock has it.
    """
    stop = threading.Event()
    monkeypatch.setattr(contexts, "STOP", stop)
    monkeypatch.setattr(contexts, "PROGRESS_EVERY", 0.0)
    cut = start(paper, variant, 1, checkpoint)
    cut.clock.goes_on(after, after)
    cut.emit = lambda kind, contents: stop.set() if contents.get("done", 0) >= 200 else None
    with pytest.raises(Stopped):
        training.train(paper, variant, cut, metrics=metrics)
    stop.clear()


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: float
) -> None:
    paper, metrics = with_noise(entry.load(), noise), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), epochs=30, momentum=0.9)
    whole = start(paper, variant, 1)
    expected = training.train(paper, variant, whole, metrics=metrics)

    stop_at_200(paper, variant, metrics, tmp_path / "run.ckpt", monkeypatch, after=1000.0)
    again = start(paper, variant, 1, tmp_path / "run.ckpt")
    reports: list[Mapping[str, float]] = []
    again.emit = lambda kind, said: reports.append(said) if kind == "progress" else None
    assert training.train(paper, variant, again, metrics=metrics) == expected
    assert again.curves == whole.curves
    assert min(report["done"] for report in reports) > 200
    assert {report["before"] for report in reports} == {reports[0]["done"]}
    assert min(again.clock.took()) > 1000 > max(whole.clock.took())


def stopped_in_step(step: int, paper: Paper, monkeypatch: pytest.MonkeyPatch) -> Paper:
    """The paper, told to stop while its loss of that step is computed, once."""
    right, stop, calls = paper.loss, threading.Event(), 0
    assert right is not None
    monkeypatch.setattr(contexts, "STOP", stop)

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        (stop.set if calls == step + 1 else stop.clear)()  # the first call counts FLOPs
        return right(model, batch)

    return dataclasses.replace(paper, loss=loss)


def test_a_run_of_long_steps_is_stopped_after_one_and_goes_on_to_the_same_bits(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, metrics = with_noise(entry.load(), 0.2), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), momentum=0.9)
    whole = start(paper, variant, 1)
    expected = training.train(paper, variant, whole, metrics=metrics)

    paper = stopped_in_step(37, paper, monkeypatch)
    with pytest.raises(Stopped):
        training.train(
            paper, variant, start(paper, variant, 1, tmp_path / "run.ckpt"), metrics=metrics
        )
    assert torch.load(tmp_path / "run.ckpt")["state"]["step"] == 37
    again = start(paper, variant, 1, tmp_path / "run.ckpt")
    assert training.train(paper, variant, again, metrics=metrics) == expected
    assert again.curves == whole.curves


def test_a_batch_of_long_steps_is_stopped_after_one_and_goes_on_to_the_same_bits(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, metrics = entry.load(), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), epochs=20, batch_size=300, momentum=0.9)
    expected = together(paper, variant, metrics, range(3))
    stop = threading.Event()
    monkeypatch.setattr(contexts, "STOP", stop)
    monkeypatch.setattr(contexts, "PROGRESS_EVERY", 0.0)
    monkeypatch.setattr(contexts, "LOOK_EVERY", 0.0)
    cut = [start(paper, variant, s, tmp_path / "b.ckpt" if s == 0 else None) for s in range(3)]
    # the next step, of 100 examples, is the last of its epoch
    cut[0].emit = lambda _kind, contents: stop.set() if contents.get("done") == 7 else None
    with pytest.raises(Stopped):
        vectorised.train(paper, variant, cut, metrics=metrics)
    stop.clear()
    again = [start(paper, variant, s, tmp_path / "b.ckpt" if s == 0 else None) for s in range(3)]
    done: list[float] = []
    again[0].emit = lambda kind, said: done.append(said["done"]) if kind == "progress" else None
    assert vectorised.train(paper, variant, again, metrics=metrics) == expected
    assert done[0] == 8


@pytest.mark.parametrize("wait", [0.0, 3600.0])
def test_looking_after_every_step_or_after_none_changes_no_number(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: float
) -> None:
    paper, metrics = with_noise(entry.load(), 0.2), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), momentum=0.9, epochs=6)
    usual = start(paper, variant, 0)
    expected = training.train(paper, variant, usual, metrics=metrics)
    for name, value in {"LOOK_EVERY": wait, "PROGRESS_EVERY": 0.0, "CHECKPOINT_EVERY": 0.0}.items():
        monkeypatch.setattr(contexts, name, value)
    looking = start(paper, variant, 0, tmp_path / "run.ckpt")
    done: list[float] = []
    looking.emit = lambda kind, said: done.append(said["done"]) if kind == "progress" else None
    assert training.train(paper, variant, looking, metrics=metrics) == expected
    assert looking.curves == usual.curves
    assert done == (list(range(1, 121)) if wait == 0.0 else [100, 120])


def with_noise(paper: Paper, share: float) -> Paper:
    """Coordinates are left out by chance, from torch's global generator."""
    right = paper.loss
    assert right is not None

    def noisy(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        X, y = batch
        return right(model, (torch.nn.functional.dropout(X, share), y))

    return dataclasses.replace(paper, loss=noisy)


def test_a_stopped_batch_of_seeds_goes_on_to_the_same_bits(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, metrics = entry.load(), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), epochs=20)
    expected = together(paper, variant, metrics, range(3))

    stop = threading.Event()
    monkeypatch.setattr(contexts, "STOP", stop)
    monkeypatch.setattr(contexts, "PROGRESS_EVERY", 0.0)
    cut = [start(paper, variant, s, tmp_path / "b.ckpt" if s == 0 else None) for s in range(3)]
    cut[0].emit = lambda kind, contents: stop.set()
    with pytest.raises(Stopped):
        vectorised.train(paper, variant, cut, metrics=metrics)
    stop.clear()
    again = [start(paper, variant, s, tmp_path / "b.ckpt" if s == 0 else None) for s in range(3)]
    assert vectorised.train(paper, variant, again, metrics=metrics) == expected


def test_a_loss_that_becomes_nan_names_the_step(entry: Entry) -> None:
    paper = entry.load()
    assert paper.loss is not None
    right = paper.loss
    calls = 0

    def wrong(model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return right(model, batch) * (
            math.nan if calls > 38 else 1.0
        )  # the first call counts FLOPs

    variant = entry.claims.variant("two-inputs")
    with pytest.raises(DivergenceError, match="the loss became nan at step 38 of 200"):
        training.train(
            dataclasses.replace(paper, loss=wrong),
            variant,
            start(paper, variant, 0),
            metrics=entry.claims.metrics,
        )


def test_a_seed_that_diverges_takes_no_other_with_it(entry: Entry) -> None:
    paper, metrics = entry.load(), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), batch_size="full", epochs=60)
    begun = [start(paper, variant, seed) for seed in range(3)]
    X, y = begun[1].data.train
    poisoned = X.clone()
    poisoned[0, 0] = math.nan
    begun[1].data = dataclasses.replace(begun[1].data, train=(poisoned, y))
    first, second, third = vectorised.train(paper, variant, begun, metrics=metrics)
    assert isinstance(second, DivergenceError)
    alone = together(paper, variant, metrics, [0, 2])
    assert [first, third] == [
        dataclasses.replace(o, measurements=pytest.approx(o.measurements, abs=0.11))
        for o in alone
        if isinstance(o, Outcome)
    ]


@pytest.mark.parametrize(("took", "ahead"), [(0.25, 40), (4.0, 2), (99.0, 1)])
def test_processes_that_share_a_training_look_up_about_once_a_second(
    monkeypatch: pytest.MonkeyPatch, took: float, ahead: int
) -> None:
    clock = [50.0]
    monkeypatch.setattr(contexts.time, "monotonic", lambda: clock[0])
    context = RunContext(seeds=Seeds(0), sources={}, data=Data(train=()))
    context.checkpoint({})  # where it looks
    clock[0] += took
    assert context.ahead(10) == ahead


def test_a_damaged_checkpoint_is_as_good_as_none(entry: Entry, tmp_path: Path) -> None:
    paper, metrics = entry.load(), entry.claims.metrics
    variant = entry.claims.variant("two-inputs")
    expected = training.train(paper, variant, start(paper, variant, 0), metrics=metrics)
    (tmp_path / "run.ckpt").write_bytes(b"half a check")
    run = start(paper, variant, 0, tmp_path / "run.ckpt")
    assert training.train(paper, variant, run, metrics=metrics) == expected


def test_a_checkpoint_that_cannot_be_written_is_named_and_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(kept: object, file: BinaryIO) -> None:
        file.write(b"half a check")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")  # as torch covers it

    place = tmp_path / "run.ckpt"
    place.write_bytes(b"the one before")
    monkeypatch.setattr(contexts, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(torch, "save", save)
    context = RunContext(seeds=Seeds(0), sources={}, data=Data(train=()), checkpoint_path=place)
    with pytest.raises(RecordError, match=r"run\.ckpt: No space left on device\. Make room"):
        context.checkpoint({})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the one before"]


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    moments = Moments(6000, 1)
    kept = [epoch for epoch in range(6001) if moments.due(epoch) and moments.keep(epoch)]
    assert (kept[0], kept[-1]) == (0, 6000)
    assert 100 < len(kept) <= contexts.CURVE_POINTS + 2


def test_a_short_curve_keeps_every_evaluation() -> None:
    moments = Moments(20, 3)
    assert [e for e in range(21) if moments.due(e) and moments.keep(e)] == [
        0,
        3,
        6,
        9,
        12,
        15,
        18,
        20,
    ]


def test_axes_of_a_seed_are_independent_streams() -> None:
    drawn = {axis: Seeds(7).integer(axis) for axis in ("init", "order", "split", "noise")}
    assert len(set(drawn.values())) == 4
    assert Seeds(7).integer("order", 1) != Seeds(7).integer("order", 2)


def test_what_a_paper_watches_joins_the_curves_and_the_measurements(entry: Entry) -> None:
    def norm(model: torch.nn.Module, _data: Data) -> dict[str, float]:
        torch.rand(3)  # draws of its own
        return {"weight/norm": float(next(model.parameters()).detach().norm())}

    variant = entry.claims.variant("two-inputs")
    watched = Metric(
        name="weight/norm", unit="1", better="neither", definition="norm of w", split="none"
    )
    reached = dataclasses.replace(
        watched, name="to-1", reaches=Reaches(curve="weight/norm", target=1.0), better="higher"
    )
    metrics = {**entry.claims.metrics, "weight/norm": watched, "to-1": reached}
    paper = dataclasses.replace(entry.load(), watch=norm)
    seen = start(paper, variant, 0)
    outcome = training.train(paper, variant, seen, metrics=metrics)
    plain = one_by_one(entry.load(), variant, entry.claims.metrics, [0])[0]
    curve = dict(seen.curves["weight/norm"])
    assert len(curve) == 11
    assert outcome.measurements["weight/norm"] == curve[10]
    assert outcome.measurements["test/error"] == plain.measurements["test/error"]
    assert "to-1" in outcome.measurements


def test_a_target_on_a_curve_that_a_variant_lacks_is_left_out(entry: Entry) -> None:
    lacking = Metric(
        name="to-1",
        unit="epochs",
        better="lower",
        definition="epochs to a curve of other variants",
        split="none",
        reaches=Reaches(curve="other/loss", target=1.0),
    )
    curve = dataclasses.replace(entry.claims.metrics["test/error"], name="other/loss")
    metrics = {**entry.claims.metrics, "to-1": lacking, "other/loss": curve}
    outcome = one_by_one(entry.load(), entry.claims.variant("two-inputs"), metrics, [0])[0]
    assert "to-1" not in outcome.measurements
    assert "test/error" in outcome.measurements


def test_watching_something_undeclared_is_the_papers_mistake(entry: Entry) -> None:
    paper = dataclasses.replace(entry.load(), watch=lambda _model, _data: {"test/eror": 1.0})
    with pytest.raises(PaperError, match=r"'test/eror', no metric .* Did you mean 'test/error'"):
        one_by_one(paper, entry.claims.variant("two-inputs"), entry.claims.metrics, [0])


def test_a_batch_of_seeds_cannot_be_watched(entry: Entry) -> None:
    paper = dataclasses.replace(entry.load(), watch=lambda _model, _data: {})
    with pytest.raises(PaperError, match="`watch` and `vectorised`"):
        together(paper, entry.claims.variant("two-inputs"), entry.claims.metrics, [0, 1])


def test_training_examples_are_varied_by_the_runs_own_draws_and_test_examples_are_not(
    entry: Entry,
) -> None:
    seen: list[int] = []

    def noisy(batch: Batch, generator: torch.Generator) -> Batch:
        X, y = batch
        seen.append(len(X))
        return X + torch.randn(X.shape, generator=generator), y

    variant, metrics = entry.claims.variant("two-inputs"), entry.claims.metrics
    paper = dataclasses.replace(entry.load(), augment=noisy)
    plain = one_by_one(entry.load(), variant, metrics, [0])[0]
    varied = [one_by_one(paper, variant, metrics, [0])[0] for _ in range(2)]
    assert varied[0].measurements == varied[1].measurements
    assert varied[0].measurements != plain.measurements
    batch_size = variant.recipe.batch_size if variant.recipe else None
    assert set(seen) == {batch_size}


def test_a_batch_of_seeds_cannot_be_varied(entry: Entry) -> None:
    paper = dataclasses.replace(entry.load(), augment=lambda batch, _generator: batch)
    with pytest.raises(PaperError, match="`augment` and `vectorised`"):
        together(paper, entry.claims.variant("two-inputs"), entry.claims.metrics, [0, 1])


def test_each_image_of_a_batch_is_cropped_at_its_own_place() -> None:
    images = torch.rand(500, 3, 8, 6)
    cropped = random_crop(images, 2, torch.Generator().manual_seed(1))
    again = random_crop(images, 2, torch.Generator().manual_seed(1))
    assert torch.equal(cropped, again)
    places = set()
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    for image, found in zip(padded, cropped, strict=True):
        at = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(image[:, i : i + 8, j : j + 6], found)
        ]
        assert len(at) == 1
        places.add(at[0])
    assert len(places) == 25


def test_half_of_the_images_are_flipped() -> None:
    images = torch.rand(1000, 1, 2, 3)
    flipped = random_flip(images, torch.Generator().manual_seed(1))
    turned = (flipped == images.flip(-1)).all(dim=(1, 2, 3))
    kept = (flipped == images).all(dim=(1, 2, 3))
    assert bool((turned ^ kept).all())
    assert 440 < int(turned.sum()) < 560


@pytest.mark.parametrize(
    ("precision", "weights", "outputs"),
    [
        ("bf16-mixed", torch.float32, torch.bfloat16),
        ("16-mixed", torch.float32, torch.float16),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
    ],
)
def test_fewer_bits_give_nearly_the_same_curve(
    entry: Entry, precision: str, weights: torch.dtype, outputs: torch.dtype
) -> None:
    paper, metrics = entry.load(), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), clip=0.2)
    full = start(paper, variant, 0)
    outcome = training.train(paper, variant, full, metrics=metrics)
    context = start(paper, variant, 0)
    seen: list[torch.dtype] = []
    paper = dataclasses.replace(paper, loss=noting(paper, seen))
    few = training.train(paper, changed(variant, precision=precision), context, metrics=metrics)
    assert few.measurements == pytest.approx(outcome.measurements, abs=1.0)
    assert context.curves["test/error"][0] == pytest.approx(full.curves["test/error"][0], abs=0.5)
    assert seen[2:] == [weights, outputs] * 200  # the first pair counts FLOPs


def noting(paper: Paper, seen: list[torch.dtype]) -> Loss:
    """The paper's loss, which notes the types of weights and outputs."""
    right = paper.loss
    assert right is not None

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        seen.extend([next(model.parameters()).dtype, model(batch[0]).dtype])
        return right(model, batch)

    return loss


def test_a_scaled_run_that_is_stopped_goes_on_to_the_same_bits(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, metrics = entry.load(), entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), epochs=20, precision="16-mixed")
    expected = training.train(paper, variant, start(paper, variant, 1), metrics=metrics)
    stop_at_200(paper, variant, metrics, tmp_path / "run.ckpt", monkeypatch)
    again = start(paper, variant, 1, tmp_path / "run.ckpt")
    assert training.train(paper, variant, again, metrics=metrics) == expected


@pytest.mark.parametrize("older", [False, True])
def test_a_run_on_a_gpu_goes_on_with_the_gpus_draws(
    entry: Entry, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    gpu, then, later = torch.device("cuda", 1), torch.tensor([1]), torch.tensor([2])
    states = {gpu: then}  # of a GPU that is not there
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: states.update({device: state})
    )
    variant, metrics = entry.claims.variant("two-inputs"), entry.claims.metrics
    first, again = (
        training._Loop(entry.load(), variant, start(entry.load(), variant, 0), metrics)
        for _ in range(2)
    )
    first.context.device = again.context.device = gpu
    kept = first.state()
    if older:
        del kept["cuda_rng"]
    drawn = torch.rand(3)
    states[gpu] = later
    monkeypatch.setattr(RunContext, "resume", lambda _: kept)
    again.begin()
    again.seed(0)
    assert torch.equal(torch.rand(3), drawn)
    assert states[gpu] is (later if older else then)


@pytest.mark.parametrize("batch", [False, True])
def test_targets_of_a_run_on_a_gpu_go_on_on_the_cpu(
    entry: Entry, monkeypatch: pytest.MonkeyPatch, batch: bool
) -> None:
    paper, variant = entry.load(), entry.claims.variant("two-inputs")
    error = entry.claims.metrics["test/error"]
    reached = dataclasses.replace(
        error, name="to-30", reaches=Reaches(curve="test/error", target=30.0)
    )
    metrics = {**entry.claims.metrics, "to-30": reached}
    begun = [start(paper, variant, seed) for seed in range(2)]
    if batch:
        trained = vectorised._Batch(paper, variant, begun, metrics)
        kept, restore = trained._state(), trained._restore
    else:
        trained = training._Loop(paper, variant, begun[0], metrics)
        kept, restore = trained.state(), trained.begin
    on_the_cpu = trained.targets.first["to-30"].clone()
    kept["targets"] = {"to-30": SimpleNamespace(cpu=lambda: on_the_cpu)}  # of a GPU not there
    monkeypatch.setattr(RunContext, "resume", lambda _: kept)
    restore()
    assert trained.targets.first["to-30"] is on_the_cpu


def test_what_a_paper_watches_and_inspects_has_all_bits(entry: Entry) -> None:
    seen: list[torch.dtype] = []

    def inspect(model: torch.nn.Module, _data: Data) -> dict[str, float]:
        seen.append(next(model.parameters()).dtype)
        return {}

    paper = dataclasses.replace(entry.load(), inspect=inspect, watch=inspect)
    variant = changed(entry.claims.variant("two-inputs"), precision="bf16-true")
    one_by_one(paper, variant, entry.claims.metrics, [0])
    assert set(seen) == {torch.float32}


class Pixels(torch.nn.Sequential):
    """A convolution over the two coordinates as an image of one row."""

    def __init__(self) -> None:
        super().__init__(
            torch.nn.Unflatten(1, (1, 1, 2)),
            torch.nn.Conv2d(1, 3, 1),
            torch.nn.Flatten(),
            torch.nn.Linear(6, 1),
            torch.nn.Flatten(0),
        )


@pytest.mark.parametrize("choice", ["channels_last", "compiled"])
def test_layout_and_compiling_change_no_more_than_the_last_digits(
    entry: Entry, choice: str, compiled: list[torch.nn.Module]
) -> None:
    paper = dataclasses.replace(entry.load(), model=lambda _: Pixels())
    metrics = entry.claims.metrics
    variant = changed(entry.claims.variant("two-inputs"), epochs=3)
    usual = one_by_one(paper, variant, metrics, [0])[0]
    other = one_by_one(paper, changed(variant, **{choice: True}), metrics, [0])[0]
    assert other.measurements == pytest.approx(usual.measurements, abs=0.11)  # one point
    assert len(compiled) == (choice == "compiled")


def test_images_lie_with_their_channels_innermost_and_labels_as_they_are() -> None:
    images, labels = torch.rand(2, 3, 4, 5), torch.arange(2)
    seen, same = training.Arithmetic(channels_last=True).of(lambda batch: batch, (images, labels))
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(seen, images)
    assert same is labels


@pytest.mark.parametrize(("first", "warm"), [(1.0, 3), (40.0, 1)])
def test_a_probe_warms_up_no_longer_than_it_looks(
    first: float, warm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock[-1])
    took = iter([first, *[2.0] * 20])
    step = training.timed(lambda _: clock.append(clock[-1] + next(took)), steps=10, seconds=9.0)
    assert step == 2.0
    assert len(clock) == 1 + warm + 5  # the fifth is over after ten seconds
