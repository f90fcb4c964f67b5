"""A report against an earlier one: what is a regression, and what is noise."""

import msgspec
import pytest

from monitoring.perf.comparing import compare
from monitoring.perf.report import Figure, Report


def p95(value: float, noise: float | None) -> Report:
    return Report(command="http", figures=[Figure(name="P95", value=value, better="lower", noise=noise)])


def rate(value: float, noise: float | None) -> Report:
    return Report(command="http", figures=[Figure(name="rate", value=value, better="higher", noise=noise)])


@pytest.mark.parametrize(
    ("before", "now", "is_regression"),
    [
        (p95(10, 1), p95(12, 1), False),  # within twice the deviation of the difference, 2.8
        (p95(10, 1), p95(13, 1), True),
        (p95(10, 1), p95(5, 1), False),  # better
        (p95(10, 4), p95(13, 1), False),  # the baseline wavered
        (p95(10, 0), p95(10.4, 0), False),  # no two runs are alike to 5 %
        (p95(10, 0), p95(10.6, 0), True),
        (p95(10, None), p95(11.4, 1), False),  # measured once
        (p95(10, None), p95(11.6, 1), True),
        (rate(1000, 20), rate(950, 20), False),
        (rate(1000, 20), rate(900, 20), True),
        (rate(1000, 20), rate(1900, 20), False),
    ],
)
def test_what_is_worse_beyond_the_noise_is_a_regression(before, now, is_regression):
    assert [change.is_regression for change in compare(now, before)] == [is_regression]


def test_a_new_error_is_a_regression():
    def errors(count: int) -> Report:
        figure = Figure(name="errors", value=count, better="lower", must=0)
        return Report(command="http", figures=[figure])

    assert compare(errors(1), errors(0))[0].is_regression
    assert not compare(errors(0), errors(0))[0].is_regression


def test_figures_of_parts_are_compared_under_the_name_of_their_part():
    before, now = Report(command="all", parts=[p95(10, 0)]), Report(command="all", parts=[p95(20, 0)])
    changes = compare(now, before)
    assert [(change.name, change.is_regression) for change in changes] == [("http: P95", True)]


def test_what_only_one_report_knows_is_left_out():
    assert compare(p95(10, 0), rate(10, 0)) == []


def test_a_report_survives_its_file():
    report = Report(command="all", parts=[p95(10, 1.5)])
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


@pytest.mark.parametrize(
    ("value", "verdict"), [(10, "aim reached"), (40, "aim reached"), (41, "holds"), (201, "MISSED")]
)
def test_a_figure_knows_whether_it_suffices(value, verdict):
    figure = Figure(name="P95", value=value, better="lower", must=200, aim=40)
    assert figure.verdict == verdict
    missed = Report(command="http", figures=[figure]).missed()
    assert missed == ({"P95": figure} if verdict == "MISSED" else {})


def test_an_aim_alone_is_no_requirement():
    figure = Figure(name="cached cells", value=2_000, better="higher", aim=3_000)
    assert (figure.suffices, figure.verdict) == (True, "below the aim")
