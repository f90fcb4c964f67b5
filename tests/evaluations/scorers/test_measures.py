"""Scorers of what was measured, and of closeness: bounds, and errors where nothing is known."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluations.scorers import Output, ScorerError, parse_scorers
from tests.evaluations.scorers.verdicts import judged, verdict


def test_latency_is_at_most_the_threshold():
    assert verdict("latency", None, Output("", latency_ms=100.0), threshold=100) is True
    assert verdict("latency", None, Output("", latency_ms=100.1), threshold=100) is False


@pytest.mark.parametrize("output", [Output("", latency_ms=5.0, cached=True), Output("")])
def test_latency_of_a_cached_or_unmeasured_answer_is_an_error(output):
    assert verdict("latency", None, output, threshold=100) is None


def test_cost_is_at_most_the_threshold_to_the_last_digit():
    assert verdict("cost", None, Output("", cost_usd=Decimal("0.1")), threshold=0.1) is True
    assert verdict("cost", None, Output("", cost_usd=Decimal("0.1000001")), threshold=0.1) is False
    assert verdict("cost", None, Output("", cost_usd=Decimal(0)), threshold=0) is True


def test_an_unknown_cost_is_an_error():
    assert verdict("cost", None, Output(""), threshold=0.1) is None


def test_finish_reason_is_compared_in_any_case():
    assert verdict("finish-reason", "STOP", Output("", finish_reason="stop")) is True
    assert verdict("finish-reason", "stop", Output("", finish_reason="length")) is False
    assert verdict("finish-reason", "stop", Output("")) is None


@pytest.mark.parametrize("type_", ["latency", "cost", "not-latency"])
def test_a_bound_must_be_given(type_):
    with pytest.raises(ScorerError) as refused:
        parse_scorers([{"type": type_}])
    assert refused.value.field == "threshold"


@pytest.mark.parametrize(
    ("output", "threshold", "passes"),
    [
        ("kitten", 3, True),
        ("kitten", 2, False),
        ("sitting", 0, True),
        ("kitten", None, True),
        ("x" * 20, None, False),
    ],
)
def test_levenshtein(output, threshold, passes):
    assert verdict("levenshtein", "sitting", output, threshold=threshold) is passes


def test_levenshtein_of_long_texts_needs_a_low_threshold():
    long, other = "a" * 25_000, "b" * 25_000
    row = judged("levenshtein", other, long, threshold=25_000)
    assert row.passed is None and "25,000 characters are too many for a threshold of 25000" in row.error
    assert verdict("levenshtein", other, long) is False
    assert verdict("levenshtein", "a" * 1_000_000, "a" * 999_998) is True


@given(st.text(max_size=8), st.text(min_size=1, max_size=8), st.integers(0, 9))
def test_levenshtein_agrees_with_its_definition(output, expected, threshold):
    previous = list(range(len(expected) + 1))
    for row, left in enumerate(output, start=1):
        current = [row]
        for column, right in enumerate(expected, start=1):
            substitution = previous[column - 1] + (left != right)
            current.append(min(previous[column] + 1, current[-1] + 1, substitution))
        previous = current
    assert judged("levenshtein", expected, output, threshold=threshold).passed is (previous[-1] <= threshold)
