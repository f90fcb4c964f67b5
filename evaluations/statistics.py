"""The statistics of a report: how sure a rate, a mean or a difference is. Nothing known is None, never NaN.

Intervals are two-sided; values are finite numbers. Everything random is a function of its seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from autoforge.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Values = Sequence[float] | npt.NDArray[np.float64]
    Vector = npt.NDArray[np.float64]
    Counts = npt.NDArray[np.int64]
else:
    np = lazy("numpy")

Interval = tuple[float, float]

CONFIDENCE = 0.95
RESAMPLES = 2_000
# Numbers drawn at once, 8 MiB of them, and the number of classes that many distinct values are put into.
_BLOCK = 1_048_576
_MAX_DISTINCT = 512


def wilson_interval(passed: int, total: int, confidence: float = CONFIDENCE) -> Interval | None:
    """Score interval of a proportion (Wilson 1927, JASA 22:209; Newcombe 1998, Stat Med 17:857, method 3)."""
    if total <= 0:
        return None
    z, rate = _z(confidence), passed / total
    centre = rate + z * z / (2 * total)
    spread = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low = 0.0 if passed == 0 else (centre - spread) / scale
    high = 1.0 if passed == total else (centre + spread) / scale
    return low, high


def paired_difference_interval(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = CONFIDENCE
) -> Interval | None:
    """Interval of (first rate − second rate) over pairs (Newcombe 1998, Stat Med 17:2635, method 10).

    Wilson intervals of the two rates, combined with the correlation of the pairs.
    """
    pairs = both + only_first + only_second + neither
    first = wilson_interval(both + only_first, pairs, confidence)
    second = wilson_interval(both + only_second, pairs, confidence)
    if first is None or second is None:
        return None
    rate_1, rate_2 = (both + only_first) / pairs, (both + only_second) / pairs
    phi = _corrected_phi(both, only_first, only_second, neither)
    below = _combined(rate_1 - first[0], second[1] - rate_2, phi)
    above = _combined(first[1] - rate_1, rate_2 - second[0], phi)
    difference = (only_first - only_second) / pairs
    return max(-1.0, difference - below), min(1.0, difference + above)


def _corrected_phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of two yes-or-no variables, drawn towards 0 by half a pair if positive (ibid.)."""
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if margins == 0:
        return 0.0
    pairs = both + only_first + only_second + neither
    cross = both * neither - only_first * only_second
    return (max(cross - pairs / 2, 0.0) if cross > 0 else cross) / math.sqrt(margins)


def _combined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value that pairs disagree evenly: exact binomial test (McNemar 1947; Fagerland 2013).

    Without disagreement there is nothing to be surprised by: 1.
    """
    total, smaller = only_first + only_second, min(only_first, only_second)
    if 2 * smaller == total:
        return 1.0
    log_choose = math.lgamma(total + 1) - math.lgamma(smaller + 1) - math.lgamma(total - smaller + 1)
    # P(X ≤ smaller): its largest term times a series of ratios, C(n, k − 1) / C(n, k) = k / (n − k + 1).
    largest = math.exp(log_choose - total * math.log(2))
    return min(1.0, 2 * largest * math.fsum(_falling_terms(smaller, total)))


def _falling_terms(k: int, total: int) -> Iterator[float]:
    term = 1.0
    while k >= 0 and term > 1e-18:
        yield term
        term *= k / (total - k + 1)
        k -= 1


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the order given (Holm 1979, Scand J Stat 6:65)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted


def percentile(values: Values, q: float) -> float | None:
    """The `q`-th percentile, 0 to 100, interpolated linearly (Hyndman and Fan 1996, definition 7)."""
    return float(np.percentile(values, q)) if len(values) else None


def parallel_efficiency(call_time_s_sum: float, concurrency: int, wall_s: float) -> float | None:
    """Σ of the calls' times / concurrency / wall time: 1 when every slot was busy all the time."""
    if concurrency <= 0 or wall_s <= 0:
        return None
    return call_time_s_sum / concurrency / wall_s


def mean_bootstrap_interval(
    values: Values, *, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Interval | None:
    """Interval of a mean by the BCa bootstrap (Efron 1987, JASA 82:171). None for fewer than two values.

    One value says nothing about how values vary. Memory stays within some 30 MiB for any number.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return None
    low, high = float(sample.min()), float(sample.max())
    if low == high:
        return low, high
    # Rounding alone may carry a mean beyond the values it is made of.
    means = np.clip(_resampled_means(sample, np.random.default_rng(seed), resamples), low, high)
    levels = _bca_levels(sample, means, confidence)
    bounds = np.quantile(means, levels)
    return float(bounds[0]), float(bounds[1])


def paired_bootstrap(
    differences: Values, *, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Interval | None:
    """Interval of the mean of paired differences: whole pairs are resampled (Efron and Tibshirani 1993)."""
    return mean_bootstrap_interval(differences, seed=seed, resamples=resamples, confidence=confidence)


def paired_sign_test(differences: Values, *, seed: int, resamples: int = RESAMPLES) -> float | None:
    """Two-sided p-value that paired differences are as often this way as that: Fisher's randomization test.

    Signs are flipped at random (Fisher 1935; Pitman 1937); with the sample itself counted as one
    of the outcomes the p-value is never 0 and the test stays valid (Phipson and Smyth 2010).
    """
    sample = np.asarray(differences, dtype=np.float64)
    if not len(sample):
        return None
    sizes = np.abs(sample[sample != 0])
    reached = abs(math.fsum(sample.tolist())) * (1 - 1e-12)
    totals = _flipped_totals(sizes, np.random.default_rng(seed), resamples)
    return float((1 + np.count_nonzero(np.abs(totals) >= reached)) / (1 + resamples))


def _resampled_means(sample: Vector, random: np.random.Generator, resamples: int) -> Vector:
    """Means of samples drawn with replacement: how often each value is drawn is multinomial."""
    levels, counts = _grouped(sample)
    shares = counts / len(sample)
    return _by_blocks(
        resamples,
        len(levels),
        lambda rows: _weighted(random.multinomial(len(sample), shares, size=rows), levels) / len(sample),
    )


def _flipped_totals(sizes: Vector, random: np.random.Generator, resamples: int) -> Vector:
    """Sums of `sizes` with random signs: how many of equal ones turn positive is binomial."""
    levels, counts = _grouped(sizes)
    return _by_blocks(
        resamples,
        len(levels),
        lambda rows: _weighted(2 * random.binomial(counts, 0.5, size=(rows, len(counts))) - counts, levels),
    )


def _weighted(counts: Counts, levels: Vector) -> Vector:
    # Only a product of floats is handed to BLAS.
    return counts.astype(np.float64) @ levels


def _grouped(sample: Vector) -> tuple[Vector, Counts]:
    """The distinct values and how often each occurs: a draw then costs the same for any size of sample.

    More than _MAX_DISTINCT are put into as many classes of equal width, each represented by its
    mean: that moves a value by less than a five-hundredth of the range, and the sample's mean not at all.
    """
    levels, counts = np.unique(sample, return_counts=True)
    if len(levels) <= _MAX_DISTINCT:
        return levels, counts
    edges = np.linspace(levels[0], levels[-1], _MAX_DISTINCT + 1)
    classes = np.clip(np.searchsorted(edges, sample, side="right") - 1, 0, _MAX_DISTINCT - 1)
    counts = np.bincount(classes, minlength=_MAX_DISTINCT)
    sums = np.bincount(classes, weights=sample, minlength=_MAX_DISTINCT)
    return sums[counts > 0] / counts[counts > 0], counts[counts > 0]


def _by_blocks(rows: int, width: int, draw: Callable[[int], Vector]) -> Vector:
    """`rows` numbers, each made of `width` draws, so many at once as fit into a block."""
    step = max(1, _BLOCK // max(1, width))
    return np.concatenate([draw(min(step, rows - start)) for start in range(0, rows, step)])


def _bca_levels(sample: Vector, means: Vector, confidence: float) -> Vector:
    """The quantiles of `means` that bound the mean, corrected for bias and skewness (Efron 1987, 2.3)."""
    centre = sample.mean()
    # Ties count half, so that a coarse sample is not taken for a biased one.
    ties = np.isclose(means, centre, rtol=1e-12, atol=0)
    below = np.count_nonzero((means < centre) & ~ties) + 0.5 * np.count_nonzero(ties)
    share = min(max(below / len(means), 0.5 / len(means)), 1 - 0.5 / len(means))
    bias = NormalDist().inv_cdf(share)
    z = _z(confidence)
    acceleration = _acceleration(sample - centre)
    shifted = (bias + (bias + side * z) / (1 - acceleration * (bias + side * z)) for side in (-1, 1))
    return np.array([NormalDist().cdf(level) for level in shifted])


def _acceleration(deviations: Vector) -> float:
    """Skewness of the jackknifed mean, in closed form (Efron and Tibshirani 1993, 14.15)."""
    scaled = deviations / np.abs(deviations).max()
    return float((scaled**3).sum() / (6 * (scaled**2).sum() ** 1.5))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
