"""Plain methods on a paper's own data: tuned on training rows only, within a budget of seconds.

The budget is computing time of one thread: a busy machine does not change what comes out.

Settings are tried on few rows first; the better half goes on with four times as many, as long as
the tuning's share of the budget lasts. The best is then fitted to as many rows as the times
measured on the way say that the rest of the budget allows.

Shapes: N rows, D numbers of an input, K columns of the targets (1 for classes).
"""

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from reimpl.claims import Score
from reimpl.errors import RequestError, RunError, near
from reimpl.paper import Batch, Data

if TYPE_CHECKING:
    from baselines import Baseline

TUNING_SHARE = 0.4
"""Of the budget; the rest is for the last fit and for predicting."""
FIRST_ROWS = 500
"""Rows of the first trials."""
GROWTH = 4
"""Each round of trials has this many times the rows of the one before."""
FOLDED = 1000
"""Up to this many rows, settings are judged by three folds; beyond, by a held-out fifth."""
HELD_OUT_MOST = 5000
LEAST_TO_TUNE = 20
"""With fewer rows the usual setting is taken."""
GUESSED = 4
"""The last fit may have this many times the rows of the largest fit whose time is known."""
PROBED = 2
"""Fits that are made to know their time double the rows: together they cost less than the last."""
LEAST_TO_FIT = 100
"""Rows of the last fit, even when the budget is spent."""
CAUTION = 0.8
"""Share of the rest of the budget that the last fit may be expected to take."""
PREPARED_AT_ONCE = 4096

Params = Mapping[str, Any]
Progress = Callable[[float, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineResult:
    """What a plain method reaches."""

    measurement: float
    """Error or accuracy on the metric's split, in per cent."""
    chosen: Params
    """The settings that tuning chose."""
    train_rows: int
    """Rows of the last fit."""
    tuning_rows: int
    """Rows that each setting was fitted to in the last round of tuning; 0: not tuned."""
    seconds: float
    """Computing time of tuning, fitting and predicting."""
    note: str
    """How it was tuned, and whether the budget cut it short."""


def fit_baseline(
    baseline: "Baseline",
    data: Data,
    *,
    prepare: Callable[[Batch], Batch] | None,
    score: Score,
    split: str,
    seed: int,
    budget_s: float,
    progress: Progress | None = None,
) -> BaselineResult:
    """Tune, fit and judge a plain method.

    The inputs are flattened into one row of numbers. Targets (N,) or (N, 1) are classes; (N, K) are
    K answers, all of which must be right.

    Raises:
        RequestError: the data have no such split.
        RunError: the data have no targets, or targets that are not classes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    splits = data.splits()
    if split not in splits:
        raise RequestError(f"baseline '{baseline.name}': no split '{split}'. {near(split, splits)}")
    baseline.make(seed)  # imports of a second or two, which are no part of the budget
    inputs, targets = _rows(data.train, prepare)
    coding = _Coding.of(targets)
    search = _Search(
        baseline=baseline,
        inputs=inputs,
        targets=coding.encode(targets),
        order=np.random.default_rng(seed).permutation(len(inputs))[: baseline.limit],
        judged=len(splits[split][-1]),
        seed=seed,
        clock=_Clock(budget=budget_s, progress=progress, started=time.thread_time()),
    )
    with warnings.catch_warnings(), threadpool_limits(1):  # runs are packed one thread each
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is part of a budget
        model = search.run()
        if split != "train":
            inputs, targets = _rows(splits[split], prepare)
        right = (model.predict(inputs) == coding.encode(targets)).all(axis=1).mean()
    return BaselineResult(
        measurement=100 * float(right if score == "accuracy" else 1 - right),
        chosen=search.chosen,
        train_rows=search.train_rows,
        tuning_rows=search.tuning_rows,
        seconds=search.clock.spent(),
        note="; ".join(search.notes(judged_on_training=split == "train")),
    )


# Rows


def _rows(batch: Batch, prepare: Callable[[Batch], Batch] | None) -> tuple[np.ndarray, np.ndarray]:
    """A split as inputs (N, D) and targets (N, K)."""
    if len(batch) < 2 or len(batch[-1]) == 0:
        raise RunError("a baseline needs rows with inputs and a target, and the data have none")
    parts = [batch_part if prepare is None else prepare(batch_part) for batch_part in _cut(batch)]
    inputs = np.concatenate([_flat(part[0]).astype(np.float32) for part in parts])
    return inputs, np.concatenate([_flat(part[1]) for part in parts])


def _cut(batch: Batch) -> Iterator[Batch]:
    for start in range(0, len(batch[-1]), PREPARED_AT_ONCE):
        yield tuple(tensor[start : start + PREPARED_AT_ONCE] for tensor in batch)


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu").reshape(len(tensor), -1).numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coding:
    """Targets as class numbers, by what the training rows show."""

    values: tuple[np.ndarray, ...]
    """Each column's distinct values; their places are the class numbers."""
    one_hot: bool
    """Every training row has one high value: the column is the class."""

    @classmethod
    def of(cls, targets: np.ndarray) -> "_Coding":
        values = tuple(np.unique(column) for column in targets.T)
        if targets.dtype.kind == "f" and max(map(len, values)) > max(20, len(targets) // 2):
            raise RunError("a baseline needs classes, and the targets look like measurements")
        both = np.unique(targets)
        one_hot = targets.shape[1] > 1 and len(both) == 2
        return cls(values=values, one_hot=one_hot and ((targets == both[1]).sum(1) == 1).all())

    def encode(self, targets: np.ndarray) -> np.ndarray:
        """Class numbers (N, K); −1, which no method answers, for what training never shows."""
        if self.one_hot:
            high = targets == max(values[-1] for values in self.values)
            return np.where(high.sum(1) == 1, high.argmax(1), -1)[:, None]
        return np.stack([_places(v, t) for v, t in zip(self.values, targets.T, strict=True)], 1)


def _places(values: np.ndarray, column: np.ndarray) -> np.ndarray:
    places = np.searchsorted(values, column).clip(max=len(values) - 1)
    return np.where(values[places] == column, places, -1)


# Fitting


@dataclass(frozen=True, slots=True)
class _Constant:
    """The answer of a target that never varies, which most estimators refuse."""

    value: int

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """(N,)."""
        return np.full(len(inputs), self.value)


@dataclass(frozen=True, slots=True)
class _Model:
    """One estimator for all columns of the targets where it can, else one for each."""

    parts: Sequence[Any]

    @classmethod
    def fitted(cls, estimator: Any, inputs: np.ndarray, targets: np.ndarray) -> "_Model":
        from sklearn.base import clone
        from sklearn.utils import get_tags

        if targets.shape[1] > 1 and get_tags(estimator).target_tags.multi_output:
            return cls([estimator.fit(inputs, targets)])
        parts: list[Any] = []
        for column in targets.T:
            part: Any = clone(estimator)
            varies = (column != column[0]).any()
            parts.append(part.fit(inputs, column) if varies else _Constant(column[0]))
        return cls(parts)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Class numbers (N, K)."""
        answers = [part.predict(inputs).reshape(len(inputs), -1) for part in self.parts]
        return np.concatenate(answers, axis=1)


@dataclass(slots=True, kw_only=True)
class _Clock:
    budget: float
    progress: Progress | None
    started: float

    def spent(self) -> float:
        return time.thread_time() - self.started

    def left(self) -> float:
        return self.budget - self.spent()

    def tell(self) -> None:
        if self.progress is not None:
            self.progress(min(self.spent(), self.budget), self.budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """Seconds measured in one trial."""

    rows: int
    fit: float
    predict: float
    """For each row that is predicted."""


def _expected(costs: Sequence[_Cost], rows: int, predicted: int) -> float:
    """Seconds to fit `rows` and to predict `predicted` rows, by the last trials' trend."""
    last = costs[-1]
    growth = rows / last.rows
    fit = last.fit * growth ** _exponent(costs, "fit", usual=1.5, least=1.0, most=3.0)
    predict = last.predict * growth ** _exponent(costs, "predict", usual=1.0, least=0.0, most=1.2)
    return fit + predict * predicted


def _exponent(
    costs: Sequence[_Cost], what: str, *, usual: float, least: float, most: float
) -> float:
    """The power of the rows with which a time grows."""
    if len(costs) < 2:
        return usual
    before, last = (max(getattr(cost, what), 1e-9) for cost in costs[-2:])
    power = math.log(last / before) / math.log(costs[-1].rows / costs[-2].rows)
    return min(max(power, least), most)


@dataclass(slots=True, kw_only=True)
class _Search:
    """The trials of one method and its last fit; sees training rows only."""

    baseline: "Baseline"
    inputs: np.ndarray
    targets: np.ndarray
    order: np.ndarray
    """The training rows, shuffled; rows are taken from its front, as far as the method's limit."""
    judged: int
    """Rows of the split that it will be judged on: predicting them takes time as well."""
    seed: int
    clock: _Clock
    chosen: Params = field(default_factory=dict)
    train_rows: int = 0
    tuning_rows: int = 0
    tried: int = 0
    """Settings that were tried at least once."""
    costs: dict[int, list[_Cost]] = field(default_factory=dict)
    """By the place of the setting in the grid."""

    def run(self) -> _Model:
        """Choose a setting and fit it."""
        best = self.tune() if len(self.order) >= LEAST_TO_TUNE else 0
        self.chosen = self.settings()[best]
        self.train_rows = self.affordable(best) if best in self.costs else len(self.order)
        rows = self.order[: self.train_rows]
        model = self.fitted(best, rows)
        self.clock.tell()
        return model

    def settings(self) -> list[Params]:
        combined = itertools.product(*self.baseline.grid.values())
        return [dict(zip(self.baseline.grid, values, strict=True)) for values in combined]

    def fitted(self, setting: int, rows: np.ndarray) -> _Model:
        estimator: Any = self.baseline.make(self.seed)
        estimator.set_params(**self.settings()[setting])
        return _Model.fitted(estimator, self.inputs[rows], self.targets[rows])

    # Tuning

    def tune(self) -> int:
        """The best setting's place in the grid; of equals, the more usual one."""
        alive = list(range(len(self.settings())))
        rows = self.most() if self.folded() else min(FIRST_ROWS, self.most())
        while True:
            alive = self.better_half(alive, rows)
            more = min(rows * GROWTH, self.most())
            if len(alive) == 1 or more == rows or not self.affords(alive, more):
                break
            rows = more
        self.tuning_rows = rows if self.tried > 1 else 0
        self.probe(alive[0])
        return alive[0]

    def better_half(self, alive: Sequence[int], rows: int) -> list[int]:
        shares: dict[int, float] = {}
        for setting in alive:
            if shares and self.clock.spent() > TUNING_SHARE * self.clock.budget:
                break
            shares[setting] = self.trial(setting, rows)
        self.tried = max(self.tried, len(shares))
        ranked = sorted(shares, key=lambda setting: -shares[setting])
        return ranked[: 1 if rows == self.most() else math.ceil(len(ranked) / 2)]

    def affords(self, alive: Sequence[int], rows: int) -> bool:
        held_out = len(self.order) - self.most()
        expected = sum(_expected(self.costs[setting], rows, held_out) for setting in alive)
        return self.clock.spent() + expected <= TUNING_SHARE * self.clock.budget

    def most(self) -> int:
        """Rows that trials can have: all but those that are held out."""
        total = len(self.order)
        return total - (total // 3 if self.folded() else min(total // 5, HELD_OUT_MOST))

    def folded(self) -> bool:
        return len(self.order) <= FOLDED

    def trial(self, setting: int, rows: int) -> float:
        """The share of right answers on training rows that were held out."""
        if self.folded():
            folds = np.array_split(self.order, 3)
            parts = [(np.concatenate(folds[:i] + folds[i + 1 :]), folds[i]) for i in range(3)]
        else:
            parts = [(self.order[-self.most() :][:rows], self.order[: -self.most()])]
        right = [self.share(setting, fit, held_out) for fit, held_out in parts]
        self.clock.tell()
        return float(np.mean(right))

    def share(self, setting: int, rows: np.ndarray, held_out: np.ndarray) -> float:
        started = time.thread_time()
        model = self.fitted(setting, rows)
        fitted = time.thread_time()
        answers = model.predict(self.inputs[held_out])
        predicted = time.thread_time()
        cost = _Cost(
            rows=len(rows),
            fit=fitted - started,
            predict=(predicted - fitted) / len(held_out),
        )
        # a trend needs sizes that differ: the folds of one trial do not
        smaller = [c for c in self.costs.get(setting, []) if 1.5 * c.rows <= cost.rows]
        self.costs[setting] = [*smaller, cost]
        return float((answers == self.targets[held_out]).all(axis=1).mean())

    # The last fit

    def probe(self, setting: int) -> None:
        """Measure times on more rows, until the last fit's need not be guessed from too few."""
        while self.affordable(setting) > GUESSED * self.costs[setting][-1].rows:
            self.trial(setting, PROBED * self.costs[setting][-1].rows)

    def affordable(self, setting: int) -> int:
        """The most rows whose fit and answers the rest of the budget is expected to allow."""
        costs, rest = self.costs[setting], CAUTION * self.clock.left()
        rows, least = len(self.order), min(LEAST_TO_FIT, len(self.order))
        while rows > least and _expected(costs, rows, self.judged) > rest:
            rows = max(least, int(0.95 * rows))
        return rows

    # What is said of it

    def notes(self, *, judged_on_training: bool) -> list[str]:
        told = [self.note_on_tuning()] if len(self.settings()) > 1 else []
        if self.train_rows < len(self.inputs):
            why = "limit" if self.train_rows == self.baseline.limit else "budget"
            most = f"{self.train_rows} of {len(self.inputs)} rows"
            told.append(f"fitted to {most}, as many as its {why} allows")
        return [*told, *(["judged on the rows it was fitted to"] if judged_on_training else [])]

    def note_on_tuning(self) -> str:
        rows, settings = len(self.order), len(self.settings())
        if not self.tuning_rows:
            return f"not tuned: too {'few rows' if rows < LEAST_TO_TUNE else 'little time'}"
        cut = f" ({self.tried} of {settings} settings in the time)" if self.tried < settings else ""
        if self.folded():
            return f"tuned by three folds of {rows} training rows{cut}"
        return f"tuned on {self.tuning_rows} training rows, {rows - self.most()} held out{cut}"
