"""What the statistics of a report cost for a column of ten thousand results."""

import numpy as np
import pytest

from evaluations.statistics import (
    mcnemar_exact,
    mean_bootstrap_interval,
    paired_sign_test,
    percentile,
    wilson_interval,
)

RANDOM = np.random.default_rng(1)
SAMPLES = {"passes": (RANDOM.random(10_000) < 0.8).astype(float), "graded": RANDOM.random(10_000)}


def test_wilson(benchmark):
    assert benchmark(wilson_interval, 8_000, 10_000)


def test_mcnemar(benchmark):
    assert benchmark(mcnemar_exact, 450, 550) < 0.01


def test_percentile(benchmark):
    assert benchmark(percentile, SAMPLES["graded"], 95) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("kind", SAMPLES)
def test_bootstrap_of_a_mean(benchmark, kind):
    low, high = benchmark.pedantic(mean_bootstrap_interval, (SAMPLES[kind],), {"seed": 1}, rounds=3)
    assert low < SAMPLES[kind].mean() < high


def test_sign_test(benchmark):
    differences = SAMPLES["passes"] - np.roll(SAMPLES["passes"], 1)
    assert benchmark.pedantic(paired_sign_test, (differences,), {"seed": 1}, rounds=3) > 0.5
