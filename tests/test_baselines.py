import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines import BASELINES, Baseline
from reimpl import baselining
from reimpl.baselining import BaselineResult, fit_baseline
from reimpl.errors import RequestError, RunError
from reimpl.paper import Batch, Data

BY_NAME = {baseline.name: baseline for baseline in BASELINES}
FAST = BY_NAME["logistic-regression"]
every_baseline = pytest.mark.parametrize("baseline", BASELINES, ids=lambda b: b.name)


def blobs(*, rows: int, classes: int = 3, seed: int = 0, spread: float = 0.5) -> Batch:
    """Classes around points that lie 4 apart."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(rows) % classes
    centres = 4 * torch.eye(classes, 4)
    return centres[targets] + spread * torch.randn(rows, 4, generator=generator), targets


def blob_data(**changes: Any) -> Data:
    return Data(train=blobs(rows=150, **changes), test=blobs(rows=90, seed=1, **changes))


def digits() -> Data:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images, targets = torch.tensor(bunch.images), torch.tensor(bunch.target)
    return Data(train=(images[:1200], targets[:1200]), test=(images[1200:], targets[1200:]))


def fit(
    baseline: Baseline,
    data: Data,
    *,
    prepare: Callable[[Batch], Batch] | None = None,
    score: Any = "error",
    split: str = "test",
    budget_s: float = 20.0,
    progress: Any = None,
) -> BaselineResult:
    return fit_baseline(
        baseline,
        data,
        prepare=prepare,
        score=score,
        split=split,
        seed=0,
        budget_s=budget_s,
        progress=progress,
    )


def family() -> tuple[Data, Tensor]:
    """Five answers per row, each the sign of an input, and one that is always 0."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(120, 5, generator=generator).sign() * 2
    targets = torch.cat([(inputs > 0).float(), torch.zeros(120, 1)], dim=1)
    return Data(train=(inputs[:90], targets[:90]), test=(inputs[90:], targets[90:])), targets[90:]


@every_baseline
def test_each_baseline_but_the_majority_separates_separable_classes(baseline):
    error = fit(baseline, blob_data()).measurement
    if baseline.name == "majority":
        assert error == pytest.approx(100 * 2 / 3)
    else:
        assert error < 5


@pytest.mark.parametrize("name", ["logistic-regression", "linear-svm", "knn", "rbf-svm"])
def test_digits_are_read_with_fewer_than_twelve_errors_in_a_hundred(name):
    assert fit(BY_NAME[name], digits(), budget_s=5).measurement < 12


@every_baseline
def test_several_answers_per_row_are_learnt(baseline):
    data, targets = family()
    result = fit(replace(baseline, grid={}), data, score="accuracy")
    if baseline.name == "majority":
        assert result.measurement < 20
    else:
        assert result.measurement > 80
    assert 0 < targets[:, :5].mean() < 1


def test_a_row_is_right_only_when_all_its_answers_are():
    data, targets = family()
    half = torch.cat([targets[:, :3], 1 - targets[:, 3:]], dim=1)
    assert data.test is not None
    poisoned = replace(data, test=(data.test[0], half))
    assert fit(FAST, poisoned, score="accuracy").measurement == 0


def test_one_hot_targets_give_the_same_as_class_numbers():
    data = blob_data(spread=2.0)
    assert data.test is not None
    hot = replace(
        data,
        train=(data.train[0], torch.eye(3)[data.train[1]]),
        test=(data.test[0], torch.eye(3)[data.test[1]]),
    )
    assert fit(FAST, hot).measurement == fit(FAST, data).measurement > 0


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_float_targets_of_one_column_are_classes(shape):
    data = blob_data(classes=2)
    assert data.test is not None
    as_floats = Data(
        train=(data.train[0], data.train[1].float().reshape(shape)),
        test=(data.test[0], data.test[1].float().reshape(shape)),
    )
    assert fit(FAST, as_floats).measurement == 0


def test_error_and_accuracy_add_up_to_a_hundred():
    data = blob_data(spread=2.0)
    error = fit(FAST, data).measurement
    assert error + fit(FAST, data, score="accuracy").measurement == pytest.approx(100)
    assert 0 < error < 50


def test_a_class_that_training_never_shows_counts_as_wrong():
    data = blob_data()
    seen = data.train[1] < 2
    assert data.test is not None
    without = replace(data, train=(data.train[0][seen], data.train[1][seen]))
    assert fit(FAST, without).measurement == pytest.approx(100 / 3, abs=1)


@every_baseline
def test_a_single_class_is_answered_without_a_crash(baseline):
    inputs = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    ones = (inputs, torch.ones(30, dtype=torch.int64))
    assert fit(baseline, Data(train=ones, test=ones)).measurement == 0


@every_baseline
def test_four_rows_are_enough(baseline):
    inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    result = fit(baseline, Data(train=(inputs, torch.tensor([0, 1, 1, 0]))), split="train")
    assert 0 <= result.measurement <= 100
    assert result.train_rows == 4


def test_what_else_the_loss_needs_is_no_input():
    inputs, targets = blobs(rows=150)
    data = Data(train=(torch.zeros_like(inputs), targets, inputs))
    assert fit(FAST, data, split="train").measurement == pytest.approx(100 * 2 / 3)


def test_inputs_are_prepared_as_for_the_model():
    def without_inputs(batch: Batch) -> Batch:
        return torch.zeros(len(batch[0]), 1), batch[1]

    assert fit(FAST, blob_data()).measurement == 0
    blind = fit(FAST, blob_data(), prepare=without_inputs)
    assert blind.measurement == pytest.approx(100 * 2 / 3)


def test_a_metric_on_the_training_rows_is_judged_there_and_says_so():
    result = fit(FAST, Data(train=blobs(rows=150)), split="train")
    assert "judged on the rows it was fitted to" in result.note


def test_a_further_split_is_found_by_its_name():
    data = Data(train=blobs(rows=150), more={"validation": blobs(rows=30, seed=2)})
    assert fit(FAST, data, split="validation").measurement == 0


def test_an_unknown_split_is_named():
    with pytest.raises(RequestError, match=r"no split 'tset'\. Did you mean 'test'"):
        fit(FAST, blob_data(), split="tset")


def test_data_without_rows_are_refused():
    with pytest.raises(RunError, match="the data have none"):
        fit(FAST, Data(train=()), split="train")


def test_measurements_as_targets_are_refused():
    inputs, _ = blobs(rows=100)
    with pytest.raises(RunError, match="look like measurements"):
        fit(FAST, Data(train=(inputs, inputs[:, 0])), split="train")


def test_tuning_never_looks_at_the_test_rows():
    data = blob_data(spread=2.0)
    assert data.test is not None
    poisoned = replace(data, test=(torch.flip(data.test[0], [0]), (data.test[1] + 1) % 3))
    honest, fooled = fit(BY_NAME["knn"], data), fit(BY_NAME["knn"], poisoned)
    assert fooled.chosen == honest.chosen
    assert fooled.measurement > honest.measurement


def test_tuning_chooses_the_setting_that_is_better_on_rows_held_out():
    data = blob_data(spread=3.0)
    knn = replace(BY_NAME["knn"], grid={"kneighborsclassifier__n_neighbors": (1, 25)})
    assert fit(knn, data).chosen == {"kneighborsclassifier__n_neighbors": 25}


def test_of_equal_settings_the_usual_one_is_chosen():
    result = fit(FAST, blob_data())
    assert result.chosen == {"logisticregression__C": 1.0}
    assert result.tuning_rows == 100
    assert result.note == "tuned by three folds of 150 training rows"


def test_one_seed_gives_one_result():
    forest = replace(BY_NAME["random-forest"], grid={})
    results = [fit(forest, blob_data(spread=3.0)) for _ in range(2)]
    assert results[0].measurement == results[1].measurement > 0


def test_a_limit_on_the_rows_is_kept_and_told():
    result = fit(replace(FAST, limit=40), blob_data())
    assert result.train_rows == 40
    assert "fitted to 40 of 150 rows, as many as its limit allows" in result.note


def compute(seconds: float) -> None:
    done = time.thread_time() + seconds
    while time.thread_time() < done:
        pass


@pytest.fixture
def simulated(monkeypatch):
    """The clock stands still but in `Slow`: what others do on the machine changes nothing."""
    now = [0.0]

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "thread_time", lambda: now[0])
    monkeypatch.setattr(sys.modules[__name__], "compute", pass_by)


class Slow:
    """A classifier that computes for nothing; scikit-learn asks for no more than this."""

    def __init__(self, setting: int = 0, per_row: float = 0.0, warning: str = "") -> None:
        self.setting = setting
        self.per_row = per_row
        self.warning = warning

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"setting": self.setting, "per_row": self.per_row, "warning": self.warning}

    def set_params(self, **changes: Any) -> "Slow":
        vars(self).update(changes)
        return self

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> "Slow":
        compute(self.per_row * len(inputs))
        if self.warning:
            warnings.warn(self.warning, UserWarning, stacklevel=1)
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.zeros(len(inputs), dtype=np.int64)


def slow(**params: Any) -> Baseline:
    def make(seed: int) -> Any:
        return Slow(**params)

    return Baseline(name="slow", says="takes its time", make=make, grid={"setting": (0, 1, 2, 3)})


def test_the_budget_is_kept_on_data_that_are_too_large_for_it():
    data = Data(train=blobs(rows=50_000), test=blobs(rows=100, seed=1))
    result = fit(slow(per_row=1e-4), data, budget_s=2.0)
    assert 1.0 < result.seconds < 3.0
    assert 2_000 < result.train_rows < 20_000
    assert f"fitted to {result.train_rows} of 50000 rows, as many as its budget" in result.note


@pytest.mark.usefixtures("simulated")
def test_larger_budgets_tune_on_more_rows():
    data = Data(train=blobs(rows=5_000), test=blobs(rows=100, seed=1))
    results = [fit(slow(per_row=2e-5), data, budget_s=budget) for budget in (0.05, 1.0)]
    assert [result.tuning_rows for result in results] == [500, 2000]


@pytest.mark.usefixtures("simulated")
def test_settings_that_the_time_did_not_allow_are_told():
    data = Data(train=blobs(rows=150), test=blobs(rows=100, seed=1))
    result = fit(slow(per_row=1e-4), data, budget_s=0.1)
    assert "(2 of 4 settings in the time)" in result.note


@pytest.mark.parametrize("name", ["rbf-svm", "gradient-boosting"])
def test_a_real_method_keeps_its_budget_within_a_factor_of_two(name):
    data = Data(train=blobs(rows=20_000, spread=3.0), test=blobs(rows=1_000, seed=1, spread=3.0))
    result = fit(BY_NAME[name], data, budget_s=3.0)
    assert result.seconds < 6.0
    assert result.measurement < 50


@pytest.mark.usefixtures("simulated")
def test_the_last_fit_is_at_most_four_times_as_large_as_one_whose_time_is_known(monkeypatch):
    fitted: list[int] = []
    plain = Slow.fit

    def noted(estimator: Slow, inputs: np.ndarray, targets: np.ndarray) -> Slow:
        fitted.append(len(inputs))
        return plain(estimator, inputs, targets)

    monkeypatch.setattr(Slow, "fit", noted)
    data = Data(train=blobs(rows=50_000), test=blobs(rows=100, seed=1))
    result = fit(replace(slow(per_row=1e-5), grid={}), data, budget_s=1.5)
    *known, last = fitted
    assert last == result.train_rows == 50_000
    assert max(known) < last <= 4 * max(known)
    assert sum(known) < last


def test_progress_goes_from_little_to_the_whole_budget():
    told: list[tuple[float, float]] = []
    fit(FAST, blob_data(), budget_s=5.0, progress=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {5.0}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) == 4  # three settings and the last fit


def test_stopping_before_convergence_is_silent():
    stopped = replace(FAST, grid={"logisticregression__max_iter": (1,)})
    assert fit(stopped, blob_data()).chosen == {"logisticregression__max_iter": 1}


def test_other_warnings_are_not_silenced():
    with pytest.warns(UserWarning, match="of another kind"):
        fit(slow(warning="of another kind"), blob_data())


def test_times_that_grow_with_the_square_are_extrapolated_with_the_square():
    costs = [baselining._Cost(rows=n, fit=1e-6 * n * n, predict=1e-3) for n in (500, 2000)]
    assert baselining._expected(costs, 8000, 100) == pytest.approx(64 + 0.1)


def test_importing_the_baselines_imports_neither_scikit_learn_nor_the_harness():
    look = (
        "import sys, baselines\n"
        "print(sorted({'sklearn', 'numpy', 'torch', 'reimpl'} & set(sys.modules)))"
    )
    repository = Path(__file__).parent.parent
    out = subprocess.run(
        [sys.executable, "-c", look], cwd=repository, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_every_grid_names_parameters_of_its_estimator():
    unknown = [
        (baseline.name, parameter)
        for baseline in BASELINES
        for parameter in set(baseline.grid) - set(baseline.make(0).get_params())
    ]
    assert unknown == []
