"""Speed as ratios measured in one run; `make bench` prints them."""

import dataclasses
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reimpl import training, vectorised
from reimpl.claims import Metric, Variant
from reimpl.context import RunContext
from reimpl.paper import Data, Paper, Seeds
from reimpl.registry import find

ROWS = 6000
"""Made-up digits of the comparisons in one process."""


def ratio(benchmark: Any, name: str, value: float) -> None:
    """Kept for the table that `make bench` prints last."""
    benchmark.extra_info[name] = round(value, 3)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def digits(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, 32, 32), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, 10, (rows,), generator=generator)


# Commands that only read


@pytest.mark.parametrize("command", [["list"], ["--help"]], ids=["list", "help"])
def test_reading_costs_at_most_ten_bare_starts_of_python(
    benchmark: Any, command: list[str]
) -> None:
    start = [sys.executable, "-m", "reimpl"]
    environment = {**os.environ, "COLUMNS": "100"}

    def run(*words: str) -> float:
        return seconds(
            lambda: subprocess.run(words, check=True, capture_output=True, env=environment)
        )

    pairs = [(run(*start, *command), run(sys.executable, "-c", "pass")) for _ in range(15)]
    ours = statistics.median(mine / bare for mine, bare in pairs[2:])
    ratio(benchmark, f"reimpl {command[0]} / python -c pass", ours)
    benchmark.pedantic(lambda: run(*start, *command), rounds=3)
    assert ours <= 10


# LeNet-5


def lenet5() -> tuple[Paper, Variant]:
    entry = find("lecun1998_lenet5")
    variant = entry.claims.variant("lenet5")
    assert variant.recipe is not None
    recipe = dataclasses.replace(variant.recipe, epochs=1, schedule=())
    return entry.load(), dataclasses.replace(variant, recipe=recipe)


def harness(paper: Paper, variant: Variant, rows: Data, metrics: dict[str, Metric]) -> float:
    context = RunContext(seeds=Seeds(0), sources={}, data=rows)
    return seconds(lambda: training.train(paper, variant, context, metrics=metrics))


def plain_loop(paper: Paper, variant: Variant, rows: Data) -> float:
    """What one would write by hand over the same tensors: no harness, no Lightning."""
    rows_at_once = training.EVALUATION_ROWS
    assert paper.model
    assert variant.recipe
    model = paper.model(variant)
    recipe = variant.recipe
    optimiser = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    X, y = rows.train
    size = recipe.batch_size
    assert isinstance(size, int)

    def evaluate(X: torch.Tensor, y: torch.Tensor) -> None:
        assert paper.metrics
        assert paper.prepare
        with torch.no_grad():
            for part in zip(X.split(rows_at_once), y.split(rows_at_once), strict=True):
                paper.metrics(model, paper.prepare(part))["error"].sum().item()

    def train() -> None:
        assert paper.loss
        assert paper.prepare
        for _ in range(recipe.epochs):
            evaluate(X, y)
            order = torch.randperm(len(X))
            for chosen in order.split(size):
                batch = paper.prepare((X[chosen], y[chosen]))
                optimiser.zero_grad()
                paper.loss(model, batch).backward()
                optimiser.step()
        evaluate(X, y)

    return seconds(train)


@pytest.mark.usefixtures("one_thread")
def test_lenet5_through_the_harness_costs_little_more_than_a_plain_loop(benchmark: Any) -> None:
    paper, variant = lenet5()
    rows = Data(train=digits(ROWS), test=digits(10))
    error = Metric(
        name="train/error", unit="%", better="lower", definition="of made-up digits", split="train"
    )
    metrics = {"train/error": error}
    harness(paper, variant, rows, metrics)  # Lightning loads once
    pairs = [
        (harness(paper, variant, rows, metrics), plain_loop(paper, variant, rows)) for _ in range(5)
    ]
    ours = statistics.median(mine / plain for mine, plain in pairs)
    ratio(benchmark, "LeNet-5, harness / plain loop", ours)
    benchmark.pedantic(lambda: harness(paper, variant, rows, metrics), rounds=1)
    assert ours <= 1.05


PLAIN_SCRIPT = """
import sys
import torch
from torch.utils.data import DataLoader, TensorDataset
from reimpl.registry import find

entry = find("lecun1998_lenet5")
paper, variant = entry.load(), entry.claims.variant("lenet5")
rows, seed = int(sys.argv[1]), int(sys.argv[2])
generator = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (rows, 32, 32), generator=generator, dtype=torch.uint8)
labels = torch.randint(0, 10, (rows,), generator=generator)
torch.manual_seed(seed)
model = paper.model(variant)
optimiser = torch.optim.SGD(model.parameters(), lr=variant.recipe.lr)
digits = TensorDataset(images, labels)


@torch.no_grad()
def evaluate():
    for X, y in DataLoader(digits, batch_size=1000):
        paper.metrics(model, paper.prepare((X, y)))["error"].sum().item()


evaluate()
for X, y in DataLoader(digits, batch_size=variant.recipe.batch_size, shuffle=True):
    optimiser.zero_grad()
    paper.loss(model, paper.prepare((X, y))).backward()
    optimiser.step()
evaluate()
"""

MADE_UP = """
import torch
from reimpl.paper import Data

def data(variant, sources, seeds):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, ({rows}, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, ({rows},), generator=generator)
    return Data(train=(images, labels), test=(images[:10], labels[:10]))

def prepare(batch):
    X, D = batch
    return X.float().mul_(1.275 / 255).add_(-0.1), D
"""


def test_four_seeds_packed_beat_four_plain_runs_in_a_row(benchmark: Any, tmp_path: Path) -> None:
    rows = 30_000
    folder = tmp_path / "lecun1998_lenet5"
    shutil.copytree(find("lecun1998_lenet5").folder, folder)
    (folder / "data.py").write_text(MADE_UP.format(rows=rows))
    (folder / "measured.jsonl").unlink(missing_ok=True)
    claims = folder / "claims.toml"  # made-up digits need no source
    claims.write_text(re.sub(r"(?ms)^\[data\.mnist\].*?(?=^\[)", "", claims.read_text()))
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    packed = [sys.executable, "-m", "reimpl.cli", "reproduce", "lecun1998", "--papers", str(folder)]
    packed += ["--variant", "lenet5", "--claim", "lenet5-test-error", "--seeds", "4"]
    packed += ["--set", "epochs=1", "--wandb", "disabled", "--runs", str(tmp_path / "runs")]

    def ours() -> None:
        subprocess.run(packed, check=True, capture_output=True, env=environment)

    def plain() -> None:
        for seed in range(4):
            words = [sys.executable, "-c", PLAIN_SCRIPT, str(rows), str(seed)]
            subprocess.run(words, check=True, capture_output=True, env=environment)

    value = seconds(ours) / seconds(plain)
    ratio(benchmark, "four LeNet-5 seeds packed / plain script four times", value)
    benchmark.pedantic(lambda: None, rounds=1)
    assert value <= 0.5


# Vectorised seeds


@pytest.mark.usefixtures("one_thread")
def test_two_hundred_symmetry_starts_at_once_beat_one_by_one(benchmark: Any) -> None:
    entry = find("rumelhart1986_backprop")
    paper, variant = entry.load(), entry.claims.variant("symmetry")
    assert variant.recipe is not None
    short = dataclasses.replace(variant, recipe=dataclasses.replace(variant.recipe, epochs=3000))
    metrics = entry.claims.metrics

    def contexts(seeds: range) -> list[RunContext]:
        assert paper.data is not None
        return [
            RunContext(seeds=Seeds(s), sources={}, data=paper.data(short, {}, Seeds(s)))
            for s in seeds
        ]

    training.train(paper, short, contexts(range(1))[0], metrics=metrics)  # Lightning loads once
    one = statistics.median(
        seconds(
            lambda s=s: training.train(paper, short, contexts(range(s, s + 1))[0], metrics=metrics)
        )
        for s in range(3)
    )
    two_hundred = seconds(
        lambda: vectorised.train(paper, short, contexts(range(200)), metrics=metrics)
    )
    value = 200 * one / two_hundred
    ratio(benchmark, "200 symmetry starts, one by one / vectorised", value)
    benchmark.pedantic(
        lambda: vectorised.train(paper, short, contexts(range(200)), metrics=metrics), rounds=1
    )
    assert value >= 50


# Tracking


def test_wandb_slows_no_run(benchmark: Any, tiny_paper: Path, tmp_path: Path) -> None:
    from reimpl.planning import Request
    from reimpl.reproduction import reproduce

    claims = tiny_paper / "claims.toml"
    claims.write_text(claims.read_text().replace("epochs = 10", "epochs = 300"))

    def trained(mode: str, place: int) -> float:
        runs = tmp_path / f"{mode}{place}"
        request = Request(
            paper="tiny", papers=(tiny_paper,), runs=runs, wandb=mode, workers=1, seeds=3
        )
        return sum(record.wall_s for record in reproduce(request).fresh)

    pairs = [(trained("offline", place), trained("disabled", place)) for place in range(3)]
    value = statistics.median(offline / disabled for offline, disabled in pairs)
    ratio(benchmark, "training with W&B offline / disabled", value)
    benchmark.pedantic(lambda: None, rounds=1)
    assert value <= 1.10
