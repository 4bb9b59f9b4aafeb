"""The statistics under the verdicts: pure functions of numbers, which know no claim and no lane.

Symbols: d offset from a figure, m margin, s standard deviation, α one-sided `level` (so that an
interval covers 1 − 2α), F and t distribution function and upper quantile of Student's law, z upper
quantile of the normal law.
Shapes: N runs or seeds of one variant, R resamples, K slopes between two settings.

Sums are `fsum`, which is exact and so does not see the order. What samples does so with a fixed
seed; the caller sorts its values, so that the order of the runs plays no role. scipy is imported
where it is called, because commands that only read do without it.
"""

import math
import operator
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MOST = 1000
"""Seeds beyond which the search for the seeds needed gives up."""
POWER = 0.8
"""What "would probably be decided" means."""
RESAMPLES = 1000
ODD = 0.2
"""Share of the runs that may be of another kind, although all at hand are equal."""
DIGITS = 12
"""Digits in which numbers must be equal to be so: the last four of sixteen are rounding's."""


# Means


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How well the mean of n seeds is known against a figure that may have a variance v itself.

    Student's interval where v is 0, Welch's (1947) where it is not.
    """

    sd: float
    """s, of one seed."""
    level: float
    """α."""
    others: float = 0.0
    """v; for a published mean, its sd² / n."""
    others_df: float = 1.0
    """Degrees of freedom of v; for a published mean, its n − 1."""
    overlap: float = 0.0
    """q, test rows for each training row, where the n are folds that share training rows."""

    def se(self, n: int) -> float:
        """√(s²·(1/n + q) + v), the standard error; q as Nadeau & Bengio (2003) correct it."""
        return math.sqrt(self.sd**2 * (1 / n + self.overlap) + self.others)

    def df(self, n: int) -> float:
        """(s²/n + v)² / ((s²/n)²/(n − 1) + v²/df_v), Welch–Satterthwaite; n − 1 where v is 0."""
        ours = self.sd**2 / n
        if not self.others:
            return n - 1.0
        return (ours + self.others) ** 2 / (ours**2 / (n - 1) + self.others**2 / self.others_df)

    def reach(self, n: int) -> float:
        """t(α, df)·se, half the interval."""
        return t_quantile(self.level, self.df(n)) * self.se(n)

    def seeds(self, offset: float, margin: float, *, least: int) -> int | None:
        """Fewest seeds, from `least`, that decide with probability `POWER` if d and s stay.

        Decided means that the interval lies inside (−m, m), or outside. With g = | |d| − m | the
        probability is F(g/se − t) where d lies outside, F(g/se − t) + F((|d| + m)/se − t) − 1 where
        it lies inside. A shifted t stands for the noncentral one, an option of R's PowerTOST too.
        """
        gap, far = abs(abs(offset) - margin), abs(offset) + margin

        def decided(n: int) -> bool:
            se = self.se(n)
            if se == 0:
                return gap > 0
            critical = t_quantile(self.level, self.df(n))
            power = t_cdf(gap / se - critical, self.df(n))
            if abs(offset) <= margin:
                power += t_cdf(far / se - critical, self.df(n)) - 1
            return power >= POWER

        return _first(decided, least)


def differences(pairs: Sequence[Sequence[float]]) -> list[float]:
    """First minus second of (N, 2) finite values: (N,), without what rounding leaves.

    Each is rounded to `DIGITS` digits of the larger of its two.

    >>> differences([(91.1, 91.0), (0.3, 0.1 + 0.2)])
    [0.1, 0.0]
    """
    first, second = np.array(pairs, dtype=float).T
    larger = np.maximum(np.abs(first), np.abs(second))
    place = np.floor(np.log10(np.where(larger > 0, larger, 1.0)))
    scale = 10.0 ** np.minimum(DIGITS - 1 - place, 300)
    return [float(gap) for gap in np.rint((first - second) * scale) / scale + 0.0]


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and √(Σ(x − mean)²/(n − 1)) of (N,); exactly 0 where values are equal to `DIGITS`."""
    n, low, high = len(values), min(values), max(values)
    if high - low <= 10.0 ** (1 - DIGITS) * max(abs(low), abs(high)):
        return low, 0.0
    mean = math.fsum(values) / n
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


def unpaired(
    first: Sequence[float], second: Sequence[float], level: float
) -> tuple[float, Precision]:
    """Difference of the means of (N₁,) and (N₂,), and how well it is known with n = min(N₁, N₂).

    The variance is s₁²/N₁ + s₂²/N₂. The degrees of freedom are n − 1, because Welch's (1947) are
    never fewer.
    """
    (mean, sd), (other_mean, other_sd) = mean_sd(first), mean_sd(second)
    n = min(len(first), len(second))
    variance = sd**2 / len(first) + other_sd**2 / len(second)
    return mean - other_mean, Precision(sd=math.sqrt(n * variance), level=level)


def equal_p(n: int) -> float:
    """(1 − ODD)ⁿ: how likely n runs are equal where one in five is not as the others."""
    return (1 - ODD) ** n


def equal_seeds(level: float) -> int:
    """Fewest seeds whose equality is less likely than α where one in five is not as the others."""
    return math.floor(math.log(level) / math.log(1 - ODD)) + 1


@lru_cache(maxsize=4096)
def t_quantile(level: float, df: float) -> float:
    """t: the upper α quantile of Student's law."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - level))


def t_cdf(x: float, df: float) -> float:
    """F: the distribution function of Student's law."""
    from scipy.special import stdtr

    return float(stdtr(df, x))


def above_p(gap: float, *, se: float, df: float) -> float:
    """F(−gap/se), the p-value of "the mean lies above a bound" when ours does so by `gap`."""
    if se == 0:
        return 0.0 if gap >= 0 else 1.0
    return t_cdf(-gap / se, df)


def tost_p(offset: float, margin: float, *, se: float, df: float) -> float:
    """The larger p-value of "d > −m" and "d < m": two one-sided tests (Schuirmann 1987)."""
    return max(above_p(offset + margin, se=se, df=df), above_p(margin - offset, se=se, df=df))


# Signs


def sign_flip_p(gains: Sequence[float]) -> tuple[float, float]:
    """One-sided p-values of the sum of (N,) sorted gains, for "positive" and for "negative".

    The share of the 2^N choices of signs whose sum is at least (at most) ours: Fisher's
    randomisation test (1935, §21). Exact up to 24 pairs, by meeting in the middle: the sums of
    either half are enumerated and matched. Beyond, (hits + 1)/(samples + 1) over sampled signs
    (Phipson & Smyth 2010).
    """
    sums = math.fsum(gains)
    slack = 1e-9 * math.fsum(map(abs, gains))  # equal sums differ by rounding
    if len(gains) > 24:
        sampled = _signs(len(gains)) @ np.array(sorted(gains))
        as_high, as_low = (sampled >= sums - slack).sum(), (sampled <= sums + slack).sum()
        return float(as_high + 1) / (len(sampled) + 1), float(as_low + 1) / (len(sampled) + 1)
    middle = len(gains) // 2
    left, right = _all_sums(gains[:middle]), np.sort(_all_sums(gains[middle:]))
    total = 2 ** len(gains)
    under = np.searchsorted(right, sums - slack - left, "left").sum()
    up_to = np.searchsorted(right, sums + slack - left, "right").sum()
    return float(total - under) / total, float(up_to) / total


@lru_cache(maxsize=4)
def _signs(n: int) -> np.ndarray:
    """Sampled choices of signs: (samples, n), 16 MB at most."""
    samples = min(9999, 2_000_000 // n)
    return 2.0 * np.random.default_rng(n).integers(0, 2, (samples, n)) - 1.0


def _all_sums(gains: Sequence[float]) -> np.ndarray:
    """The sum under each choice of signs: (2^N,)."""
    sums = np.zeros(1)
    for gain in gains:
        sums = np.concatenate([sums + gain, sums - gain])
    return sums


def signed_ranks(gains: Sequence[float]) -> list[float]:
    """Ranks of |gains| with the signs of the gains, (N,); ties share the mean rank (Wilcoxon 1945).

    An infinite gain is then only the largest.
    """
    sizes = np.sort(np.abs(gains))
    below = np.searchsorted(sizes, np.abs(gains), "left")
    ranks = below + np.searchsorted(sizes, np.abs(gains), "right")
    return [float(r) for r in np.sign(gains) * (ranks + 1) / 2]


def sign_seeds(values: Sequence[float], level: float, *, least: int) -> int | None:
    """Fewest seeds, from `least`, whose t-interval would leave 0 out: `Precision.seeds` of (N,)."""
    mean, sd = mean_sd(values)
    return Precision(sd=sd, level=level).seeds(mean, 0.0, least=least)


# Medians


def median(values: Sequence[float]) -> float:
    """Of (N,) sorted values; infinite when the upper one of the middle is."""
    n = len(values)
    low, high = values[(n - 1) // 2], values[n // 2]
    return high if math.isinf(high) else (low + high) / 2


def median_interval(values: Sequence[float], level: float) -> tuple[float, float]:
    """The k-th of (N,) sorted values from either end, k = max{k: P(Binomial(N, ½) < k) ≤ α}.

    Exact whatever the law (Thompson 1936); a value may be infinite, and so may an end.
    """
    rank = _median_rank(len(values), level)
    return (values[rank - 1], values[-rank]) if rank else (-math.inf, math.inf)


@lru_cache(maxsize=4096)
def _median_rank(n: int, level: float) -> int:
    """The order statistic that bounds the median from below; 0 where there is none."""
    from scipy.special import bdtr

    return int((bdtr(np.arange(n // 2), n, 0.5) <= level).sum())


def median_seeds(
    values: Sequence[float],
    level: float,
    *,
    decided: Callable[[float, float], bool],
    least: int,
) -> int | None:
    """Fewest seeds, from `least`, whose `median_interval` is decided if the quantiles stay.

    The k-th of N′ values is read off at the quantile (k − ½)/N′ of the (N,) sorted ones.
    """
    n = len(values)

    def settles(seeds: int) -> bool:
        rank = _median_rank(seeds, level)
        i = int((rank - 0.5) / seeds * n)
        return rank > 0 and decided(values[i], values[-1 - i])

    return _first(settles, least)


def majority_p(count: int, n: int) -> float:
    """P(Binomial(n, ½) ≥ count), the sign test of "the median lies on this side"."""
    from scipy.special import bdtrc

    return float(bdtrc(count - 1, n, 0.5)) if count > 0 else 1.0


# Shares


def wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """(p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n), for a share p of n (Wilson 1927)."""
    z = _z(level)
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    whole = 1 + z * z / n
    # Exactly 0 and 1 at the ends, so that rounding decides nothing.
    low = (centre - reach) / whole if share > 0 else 0.0
    return low, (centre + reach) / whole if share < 1 else 1.0


def share_p(count: int, n: int, asked: float) -> tuple[float, float]:
    """P(X ≥ k) and P(X ≤ k) for X ~ Binomial(n, q): p-values of "more than q" and "less than q".

    Exact, where Wilson's interval with few runs errs twice as often as it says: of five runs all
    pass in 8 % of cases when six in ten do.
    """
    from scipy.special import bdtr, bdtrc

    more = float(bdtrc(count - 1, n, asked)) if count > 0 else 1.0
    return more, float(bdtr(count, n, asked))


def share_seeds(share: float, asked: float, level: float, *, least: int) -> int | None:
    """Fewest seeds, from `least`, whose exact test puts p on one side of `asked` if p stays."""

    def decided(n: int) -> bool:
        more, _ = share_p(math.floor(share * n + 1e-9), n, asked)
        _, less = share_p(math.ceil(share * n - 1e-9), n, asked)
        return min(more, less) < level

    return _first(decided, least)


def _z(level: float) -> float:
    """z: the upper α quantile of the normal law."""
    from scipy.special import ndtri

    return -float(ndtri(level))


# Resampling


def resampled_medians(rows: np.ndarray) -> np.ndarray:
    """The median of all entries of each resample of the N rows of (N, K), from one sorting: (R,).

    The bootstrap (Efron 1979) over seeds: a row goes as a whole.
    """
    n, width = rows.shape
    order = np.argsort(rows, axis=None, kind="stable")
    upto = _times_taken(n)[:, order // width].cumsum(axis=1)  # (R, N·K)
    entries = rows.ravel()[order]
    low = entries[(upto < (n * width + 1) // 2).sum(axis=1)]
    high = entries[(upto < n * width // 2 + 1).sum(axis=1)]
    with np.errstate(invalid="ignore"):  # between -inf and inf
        return (low + high) / 2


def median_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Difference of the medians of (N₁,) and (N₂,); NaN where both are infinite."""
    return float(_median_gaps(first[None], second[None])[0])


def resampled_median_gaps(first: np.ndarray, second: np.ndarray, *, paired: bool) -> np.ndarray:
    """`median_gap` of each bootstrap resample of (N₁,) and (N₂,): (R,).

    Paired samples take the same rows; the others are drawn independently of each other.
    """
    picks, other = _resamples(len(first), 0), _resamples(len(second), 0 if paired else 1)
    return _median_gaps(first[picks], second[other])


def _median_gaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Difference of the medians of each row: (rows, N₁), (rows, N₂) → (rows,)."""
    with np.errstate(invalid="ignore"):
        return np.median(first, axis=1) - np.median(second, axis=1)


def widened(draws: np.ndarray, n: int, level: float) -> tuple[float, float]:
    """Percentile interval of (R,) draws with tails of Φ(−√(n/(n − 1))·t(α, n − 1)), not α.

    Wider for n runs as t is wider than normal: Hesterberg's expanded percentile interval (2015).
    """
    from scipy.special import ndtr

    tail = float(ndtr(-math.sqrt(n / (n - 1)) * t_quantile(level, n - 1)))
    return _tails(draws, tail)


def widened_p(inside: np.ndarray, n: int) -> float:
    """The p-value that goes with `widened`: F(−z(q)·√((n − 1)/n)), q the share of draws outside.

    `inside` (R,) says which draws lie where the claim has them.
    """
    outside = (len(inside) - int(inside.sum()) + 0.5) / (len(inside) + 1)
    return t_cdf(-_z(outside) * math.sqrt((n - 1) / n), n - 1)


@lru_cache(maxsize=16)
def _resamples(n: int, stream: int) -> np.ndarray:
    """Which runs each resample takes: (R, n)."""
    return np.random.default_rng((n, stream)).integers(0, n, (RESAMPLES, n))


@lru_cache(maxsize=16)
def _times_taken(n: int) -> np.ndarray:
    """How often each resample takes each run: (R, n)."""
    picks = _resamples(n, 0) + n * np.arange(RESAMPLES)[:, None]
    return np.bincount(picks.ravel(), minlength=n * RESAMPLES).reshape(RESAMPLES, n)


def _tails(draws: np.ndarray, tail: float) -> tuple[float, float]:
    """The draws that leave `tail` outside on either side, rounded outwards; NaN is anything."""
    last = len(draws) - 1
    low = np.sort(np.where(np.isnan(draws), -np.inf, draws))[math.floor(tail * last)]
    high = np.sort(np.where(np.isnan(draws), np.inf, draws))[math.ceil((1 - tail) * last)]
    return float(low), float(high)


# Slopes


def pairwise_slopes(rows: Sequence[Sequence[float]], settings: Sequence[float]) -> np.ndarray:
    """(yⱼ − yᵢ)/(xⱼ − xᵢ) between every two of the settings x that differ, in each row: (N, K).

    `rows` holds the values y at the settings, seed by seed. The median of all is the Theil–Sen
    slope (Theil 1950, Sen 1968), from differences within a seed. (0, 0) where no settings differ.
    """
    values, x = np.array(rows), np.array(settings)
    i, j = np.triu_indices(len(x), 1)
    i, j = i[x[i] != x[j]], j[x[i] != x[j]]
    if not len(i):
        return np.empty((0, 0))
    with np.errstate(invalid="ignore"):  # a missed target less another one is a tie
        return np.nan_to_num(
            (values[:, j] - values[:, i]) / (x[j] - x[i]), posinf=np.inf, neginf=-np.inf
        )


def slope_seeds(slopes: np.ndarray, level: float, *, least: int) -> int | None:
    """`sign_seeds` of each seed's median slope, from (N, K); None where one is infinite."""
    each = [float(slope) for slope in np.median(slopes, axis=1)]
    return sign_seeds(each, level, least=least) if all(map(math.isfinite, each)) else None


# Best of k


def best_of(values: Sequence[float], k: int) -> float:
    """Σ C(i − 1, k − 1)·xᵢ / C(N, k) of (N,) sorted values: the mean of the largest of k.

    Over all subsets of size k, so without bias for the expected best of k runs (Tang et al. 2020).
    """
    return math.fsum(map(operator.mul, _best_weights(len(values), k), values))


@lru_cache(maxsize=64)
def best_pivot(n: int, k: int) -> np.ndarray:
    """(estimate − truth)/s of `best_of` for n standard normal runs, simulated; (draws,), sorted.

    As exact as the t-interval of a mean, and under the same assumption.
    """
    draws = max(2000, min(20_000, 1_000_000 // n))
    runs = np.sort(np.random.default_rng((n, k)).standard_normal((draws, n)), axis=1)
    best = runs @ np.array(_best_weights(n, k))
    return np.sort((best - best.mean()) / runs.std(axis=1, ddof=1))


def pivot_interval(
    pivot: np.ndarray, offset: float, *, sd: float, level: float
) -> tuple[float, float]:
    """(d − s·q(1 − α), d − s·q(α)), q the quantiles of the pivot (draws,)."""
    lowest, highest = _tails(pivot, level)
    return offset - sd * highest, offset - sd * lowest


def pivot_p(pivot: np.ndarray, offset: float, margin: float, *, sd: float) -> float:
    """`tost_p` with the pivot (draws,) in place of t; (hits + 1)/(draws + 1)."""
    if sd == 0:
        return tost_p(offset, margin, se=0.0, df=1.0)
    too_low = (pivot >= (offset + margin) / sd).sum()
    too_high = (pivot <= (offset - margin) / sd).sum()
    return float(max(too_low, too_high) + 1) / (len(pivot) + 1)


@lru_cache(maxsize=256)
def _best_weights(n: int, k: int) -> tuple[float, ...]:
    """C(i − 1, k − 1)/C(n, k), i = 1 … n."""
    return tuple(math.comb(i, k - 1) / math.comb(n, k) for i in range(n))


# Degree


def cv_star(values: Sequence[float]) -> float:
    """Small-sample coefficient of variation of (N,), in per cent (Belz, Popović & Mille 2022).

    (1 + 1/4N)·100·(s/c₄)/mean, with c₄ = √(2/(N − 1))·Γ(N/2)/Γ((N − 1)/2). A degree of
    reproducibility and not a verdict. It needs a scale that starts at 0.

    Raises:
        ValueError: fewer than two values, or one that is not positive and finite.

    >>> round(cv_star([84.51, 84.50, 87.46, 85.60, 84.20, 86.61, 86.20]), 3)
    1.562
    """
    n = len(values)
    if n < 2 or not all(0 < value < math.inf for value in values):
        raise ValueError(f"CV* needs at least two positive finite values, got {list(values)}")
    mean, sd = mean_sd(values)
    c4 = math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))
    return (1 + 1 / (4 * n)) * 100 * sd / c4 / mean


# The search for the seeds needed


def _first(decided: Callable[[int], bool], least: int) -> int | None:
    """The smallest number of seeds, from `least` to `MOST`, that decides; it stays decided."""
    if least > MOST or not decided(MOST):
        return None
    return least + bisect_left(range(least, MOST), True, key=decided)
