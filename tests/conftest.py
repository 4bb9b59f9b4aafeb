"""What every test gets: folders of its own, no network, no W&B, one thread; and a tiny paper."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.disturbing import first_thing

os.environ["OMP_NUM_THREADS"] = "1"  # before torch loads: the suite has a process per core as it is


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of real data say that there are none."""
    if "REIMPL_DATA_MIRROR" not in os.environ:
        skip = pytest.mark.skip(reason="REIMPL_DATA_MIRROR is not set: no data to read")
        for item in items:
            if item.get_closest_marker("data"):
                item.add_marker(skip)


TINY_CODE = '''"""Two classes of points, told apart by logistic regression: a whole paper, tiny."""

import torch
from torch import nn

from reimpl.paper import Data, Paper

TRAIN, TEST = 1000, 4000


class Logistic(nn.Module):
    """Looks at the first coordinates only, as many as the variant says."""

    def __init__(self, inputs):
        super().__init__()
        self.linear = nn.Linear(inputs, 1)

    def forward(self, X):
        return self.linear(X[:, : self.linear.in_features]).flatten()  # (N,)


def model(variant):
    return Logistic(variant["inputs"])


def points(count, generator):
    """Unit Gaussians, 1 to either side of the origin: the best rule errs in Phi(-1) = 15.9 %."""
    y = (torch.arange(count) % 2).float()
    X = torch.randn(count, 2, generator=generator) + (2 * y[:, None] - 1) / 2**0.5
    return X, y


def data(variant, sources, seeds):
    generator = seeds.torch("split")
    return Data(train=points(TRAIN, generator), test=points(TEST, generator))


def loss(model, batch):
    X, y = batch
    return nn.functional.binary_cross_entropy_with_logits(model(X), y)


def metrics(model, batch):
    X, y = batch
    return {"error": 100.0 * ((model(X) > 0) != (y > 0.5)).float()}


def example(variant):
    return points(4, torch.Generator().manual_seed(0))


def counts(variant):
    return {"parameters": sum(p.numel() for p in model(variant).parameters())}


PAPER = Paper(
    slug="tiny2026_logistic",
    model=model,
    data=data,
    loss=loss,
    metrics=metrics,
    example=example,
    counts=counts,
)
'''

TINY_CLAIMS = """[paper]
title = "Two classes of points"
authors = ["A. Tiny"]
year = 2026
url = "https://example.org/tiny"
memory_mb = 300

[metric.parameters]
unit = "count"
better = "neither"
definition = "weights and biases"

[metric."train/error"]
unit = "%"
better = "lower"
definition = "training points on the wrong side"
items = 1000

[metric."test/error"]
unit = "%"
better = "lower"
definition = "test points on the wrong side, of 4,000, after the last epoch"
items = 4000
task = "tiny/test-error"
score = "error"

[setting.inputs]
says = "coordinates that the model sees"
source = "sec. 1"

[[variant]]
id = "two-inputs"
says = "logistic regression on both coordinates"
source = "sec. 1"
seeds = 5
epochs = 10
batch_size = 50
lr = 0.2
inputs = 2

[[variant]]
id = "one-input"
extends = "two-inputs"
says = "logistic regression on the first coordinate"
inputs = 1

[[claim]]
id = "parameters"
kind = "exact"
says = "two weights and a bias"
source = "sec. 1"
metric = "parameters"
variant = "two-inputs"
published = 3
cost = "instant"

[[claim]]
id = "test-error"
kind = "value"
says = "logistic regression comes near the best rule"
source = "table 1"
metric = "test/error"
variant = "two-inputs"
published = "15.9"
margin = 1.5
margin_reason = "a tenth of the error"
cost = "minutes"

[[claim]]
id = "two-beat-one"
kind = "order"
says = "both coordinates beat one"
source = "table 1"
metric = "test/error"
variants = ["two-inputs", "one-input"]
cost = "minutes"

[[gap]]
id = "start"
we_do = "torch's own initial weights"
because = "the paper does not say"
alternatives = ["zeros"]
"""


@pytest.fixture
def tiny_paper(tmp_path: Path) -> Path:
    """The folder of a complete paper whose three claims hold; a run takes a fraction of a second.

    Its parent holds nothing else, so that either can be given to `--papers`.
    """
    folder = tmp_path / "papers" / "tiny2026_logistic"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(TINY_CODE, encoding="utf-8")
    (folder / "claims.toml").write_text(TINY_CLAIMS, encoding="utf-8")
    (folder / "README.md").write_text("# Two classes of points\n", encoding="utf-8")
    return folder


@pytest.fixture
def slow_paper(tiny_paper: Path) -> Path:
    """The tiny paper, trained long enough to be disturbed: a second or two a run."""
    claims = tiny_paper / "claims.toml"
    longer = claims.read_text().replace("epochs = 10", "epochs = 400\nevaluate = 100")
    claims.write_text(longer)
    return tiny_paper


@pytest.fixture
def dawdle(slow_paper: Path, tmp_path: Path) -> Path:
    """A file: while it exists, runs of the slow paper's seed 1 dawdle and touch `trains` beside it.

    So a test can stop a run in the middle of its training, however fast the machine is.
    """
    hold = tmp_path / "dawdle"
    first_thing(slow_paper, "global SEED", "SEED = seeds.seed")
    first_thing(
        slow_paper,
        "import pathlib, time",
        f"if SEED == 1 and (hold := pathlib.Path({str(hold)!r})).exists():",
        "    hold.with_name('trains').touch()",
        "    time.sleep(0.05)",
        of="def loss(model, batch):",
    )
    return hold


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The networks that are compiled from now on, which needs no compiler."""
    import torch

    compile_model, networks = torch.compile, list[Any]()

    def eagerly(model: Any) -> Any:
        networks.append(model)
        return compile_model(model, backend="eager")

    monkeypatch.setattr(torch, "compile", eagerly)
    return networks


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's records, caches, login or network; subprocesses inherit this."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for name in ("WANDB_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # where W&B looks for a login
    monkeypatch.setenv("REIMPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REIMPL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
