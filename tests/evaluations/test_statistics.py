"""Statistics against scipy, statsmodels and published examples, and at the edges where formulas break."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from evaluations.statistics import (
    holm,
    mcnemar_exact,
    mean_bootstrap_interval,
    paired_bootstrap,
    paired_difference_interval,
    paired_sign_test,
    parallel_efficiency,
    percentile,
    wilson_interval,
)

counts = st.integers(0, 2_000)
scores = st.floats(0, 1)
few_counts = st.integers(0, 60)


@given(counts, counts, st.floats(0.5, 0.999))
def test_wilson_agrees_with_statsmodels(passed, failed, confidence):
    total = passed + failed
    interval = wilson_interval(passed, total, confidence)
    if total == 0:
        assert interval is None
        return
    expected = proportion_confint(passed, total, alpha=1 - confidence, method="wilson")
    assert interval == pytest.approx(expected, abs=1e-12)
    assert 0 <= interval[0] <= passed / total <= interval[1] <= 1


@pytest.mark.parametrize(
    ("passed", "total", "expected"),
    [
        (0, 1, (0.0, 0.793450)),
        (1, 1, (0.206549, 1.0)),
        (0, 20, (0.0, 0.161125)),
        (20, 20, (0.838875, 1.0)),
        # Newcombe 1998, Stat Med 17:857, table I, method 3.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_at_the_edges_and_as_published(passed, total, expected):
    assert wilson_interval(passed, total) == pytest.approx(expected, abs=6e-5)


def test_paired_difference_as_published():
    # Airway reactivity before and after a transplantation: Fagerland, Lydersen, Laake 2014, Stat Med 33:2850.
    assert paired_difference_interval(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_paired_difference_of_uncorrelated_columns_is_that_of_independent_ones(a, b, k):
    # both · neither = only_first · only_second: the columns do not depend on each other.
    both, only_first, only_second, neither = a * b, a * k, k * b, k * k
    pairs = both + only_first + only_second + neither
    expected = confint_proportions_2indep(
        both + only_first, pairs, both + only_second, pairs, method="newcomb", compare="diff"
    )
    assert paired_difference_interval(both, only_first, only_second, neither) == pytest.approx(
        expected, abs=1e-9
    )


@given(few_counts, few_counts, few_counts, few_counts)
def test_paired_difference_turns_around_with_its_columns(both, only_first, only_second, neither):
    interval = paired_difference_interval(both, only_first, only_second, neither)
    if (pairs := both + only_first + only_second + neither) == 0:
        assert interval is None
        return
    turned = paired_difference_interval(both, only_second, only_first, neither)
    assert interval == pytest.approx((-turned[1], -turned[0]), abs=1e-12)
    assert -1 <= interval[0] <= (only_first - only_second) / pairs <= interval[1] <= 1


@given(counts, counts)
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    p_value = mcnemar_exact(only_first, only_second)
    if only_first + only_second == 0:
        assert p_value == 1.0
        return
    expected = stats.binomtest(only_first, only_first + only_second).pvalue
    # Below that scipy's sum underflows to 0.
    assert p_value == pytest.approx(expected, rel=1e-8, abs=1e-250)


@pytest.mark.parametrize(("b", "c"), [(1, 0), (50_000, 50_000), (50_000, 51_000), (0, 100_000)])
def test_mcnemar_of_very_few_and_very_many(b, c):
    assert mcnemar_exact(b, c) == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=1e-6, abs=1e-280)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)


@settings(deadline=None, max_examples=8)  # the reference collects garbage at each call
@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_agrees_with_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1].tolist() if p_values else []
    assert holm(p_values) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_percentile_agrees_with_scipy(values, q):
    assert percentile(values, q) == pytest.approx(
        float(stats.scoreatpercentile(values, q)), rel=1e-9, abs=1e-6
    )


def test_nothing_known_is_none():
    assert wilson_interval(0, 0) is None
    assert paired_difference_interval(0, 0, 0, 0) is None
    assert percentile([], 50) is None
    assert mean_bootstrap_interval([], seed=1) is None
    assert paired_bootstrap([], seed=1) is None
    assert paired_sign_test([], seed=1) is None
    assert holm([]) == []
    assert parallel_efficiency(1.0, 0, 1.0) is None
    assert parallel_efficiency(1.0, 1, 0.0) is None


def test_one_value_tells_nothing_about_how_values_vary():
    assert mean_bootstrap_interval([0.7], seed=1) is None
    assert percentile([0.7], 95) == 0.7
    assert paired_sign_test([0.7], seed=1) == 1.0


def test_parallel_efficiency_is_the_share_of_busy_slots():
    assert parallel_efficiency(100.0, 10, 12.5) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.random.default_rng(1).random(60) ** 3, id="skewed"),
        pytest.param(np.random.default_rng(2).random(400) < 0.9, id="passes"),
        pytest.param(np.random.default_rng(3).exponential(size=800), id="more than can be told apart"),
    ],
)
def test_bootstrap_agrees_with_scipy(values):
    sample = np.asarray(values, dtype=float)
    reference = stats.bootstrap(
        (sample,), np.mean, n_resamples=4_000, method="BCa", batch=500, rng=np.random.default_rng(7)
    ).confidence_interval
    low, high = mean_bootstrap_interval(sample, seed=7, resamples=20_000)
    assert (low, high) == pytest.approx(tuple(reference), abs=0.08 * (reference.high - reference.low))


@settings(deadline=None, max_examples=30)
@given(st.lists(scores, min_size=2, max_size=50), st.integers(0, 2**32))
def test_a_bootstrap_interval_is_finite_ordered_and_repeatable(values, seed):
    low, high = mean_bootstrap_interval(values, seed=seed, resamples=300)
    assert min(values) <= low <= high <= max(values)
    assert (low, high) == mean_bootstrap_interval(values, seed=seed, resamples=300)
    assert (low, high) == paired_bootstrap(values, seed=seed, resamples=300)


def test_bootstrap_intervals_contain_the_mean_as_often_as_promised():
    random = np.random.default_rng(5)
    intervals = [mean_bootstrap_interval(random.random(40) ** 2, seed=1, resamples=400) for _ in range(300)]
    covered = sum(low <= 1 / 3 <= high for low, high in intervals) / 300
    assert 0.90 < covered < 0.985


def test_equal_values_leave_no_doubt():
    assert mean_bootstrap_interval([0.25] * 7, seed=1) == (0.25, 0.25)
    assert mean_bootstrap_interval([0.0, 0.0], seed=1) == (0.0, 0.0)


@pytest.mark.parametrize("values", [np.random.default_rng(1).random(100_000), np.arange(100_000) % 2])
def test_a_hundred_thousand_values_take_little_memory(values):
    tracemalloc.start()
    low, high = mean_bootstrap_interval(values, seed=1, resamples=500)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    normal = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - normal, values.mean() + normal), abs=0.3 * normal)
    assert peak_bytes < 40 * 2**20


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=9))
def test_the_sign_test_agrees_with_counting_all_signs(differences):
    sizes = np.abs(differences)
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(sizes))).reshape(len(sizes), -1)
    exact = np.mean(np.abs(signs.T @ sizes) >= abs(sum(differences)) - 1e-9)
    assert paired_sign_test(differences, seed=3, resamples=4_000) == pytest.approx(exact, abs=0.04)


def test_the_sign_test_tells_a_shift_from_noise():
    noise = np.random.default_rng(4).normal(size=200)
    assert paired_sign_test(noise - noise.mean() + 0.5, seed=1) < 0.01
    assert paired_sign_test(noise - noise.mean(), seed=1) == 1.0
    assert paired_sign_test([0.0, 0.0, 0.0], seed=1) == 1.0
