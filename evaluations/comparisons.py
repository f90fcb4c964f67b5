"""Two columns against each other, paired by cell: is the difference real, and which cells changed?"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import msgspec

from autoforge.errors import InvalidInput
from evaluations.models import Result, ResultState, Run
from evaluations.schemas import ColumnOut, columns_of
from evaluations.statistics import (
    holm,
    mcnemar_exact,
    paired_bootstrap,
    paired_difference_interval,
    paired_sign_test,
)

MAX_LISTED = 200
_CHUNK_ROWS = 2_000
_SEED = 0


class Side(msgspec.Struct):
    """One of the two columns."""

    run: str
    column: int
    prompt: str
    version: int | None
    model: str
    passed: int
    pass_rate: float | None


class Change(msgspec.Struct):
    """A cell that passes on one side only, with its result on each."""

    case: int
    repeat: int
    result_a: int
    result_b: int
    score_a: float | None
    score_b: float | None


class MetricTest(msgspec.Struct):
    """McNemar's test on one metric; `p_adjusted` is Holm's correction over all metrics."""

    metric: str
    pairs: int
    only_a: int
    only_b: int
    p_value: float
    p_adjusted: float | None


class Comparison(msgspec.Struct, kw_only=True):
    """B against A: a positive difference means that B is better.

    Cells that one side lacks or has an error for are left out. `p_value` is McNemar's exact test of
    pass and fail, `score_p_value` a randomization test of the scores.
    """

    a: Side
    b: Side
    pairs: int
    left_out: int
    both_passed: int
    only_a: int
    only_b: int
    both_failed: int
    difference: float | None
    difference_ci95: tuple[float, float] | None
    p_value: float | None
    score_difference: float | None
    score_difference_ci95: tuple[float, float] | None
    score_p_value: float | None
    metrics: list[MetricTest]
    regressions: list[Change]
    improvements: list[Change]


@dataclass
class _Tally:
    """What the pass over the pairs collects; memory: 8 bytes a pair, and at most `limit` changes each way."""

    limit: int
    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0
    left_out: int = 0
    differences: "array[float]" = field(default_factory=lambda: array("d"))
    regressions: list[Change] = field(default_factory=list)
    improvements: list[Change] = field(default_factory=list)
    metrics: dict[str, list[int]] = field(default_factory=dict)

    @property
    def pairs(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    def add(self, a: "_Row", b: "_Row") -> None:
        if ResultState.ERROR in (a.state, b.state):
            self.left_out += 1
            return
        match a.state == ResultState.PASSED, b.state == ResultState.PASSED:
            case True, True:
                self.both += 1
            case True, False:
                self.only_a += 1
                self._list(self.regressions, a, b)
            case False, True:
                self.only_b += 1
                self._list(self.improvements, a, b)
            case _:
                self.neither += 1
        if a.score is not None and b.score is not None:
            self.differences.append(b.score - a.score)
        self._add_metrics(a.verdicts(), b.verdicts())

    def _list(self, changes: list[Change], a: "_Row", b: "_Row") -> None:
        if len(changes) < self.limit:
            changes.append(Change(a.key[0], a.key[1], a.id, b.id, a.score, b.score))

    def _add_metrics(self, a: dict[str, bool], b: dict[str, bool]) -> None:
        for name in a.keys() & b.keys():
            counts = self.metrics.setdefault(name, [0, 0, 0])
            counts[0] += 1
            counts[1] += a[name] and not b[name]
            counts[2] += b[name] and not a[name]


@dataclass(frozen=True, slots=True)
class _Row:
    key: tuple[int, int]
    id: int
    state: str
    score: float | None
    scores: list[dict[str, Any]]

    def verdicts(self) -> dict[str, bool]:
        """Whether each metric passed: all of its scorers did."""
        found: dict[str, bool] = {}
        for row in self.scores:
            if row["passed"] is not None:
                name = row["metric"] or row["scorer"]
                found[name] = found.get(name, True) and row["passed"]
        return found


def compare(
    run_a: Run, run_b: Run, *, column_a: int | None = None, column_b: int | None = None, limit: int = 50
) -> Comparison:
    """Column `column_b` of `run_b` against `column_a` of `run_a`, over the cells that both have.

    By default the first columns, or of one run the first two. Raises InvalidInput.
    """
    if not 1 <= limit <= MAX_LISTED:
        raise InvalidInput(f"limit must be between 1 and {MAX_LISTED}, not {limit}.")
    if run_a.dataset_id != run_b.dataset_id:
        raise InvalidInput("The runs have different data sets: their cells cannot be paired.")
    is_same = run_a.pk == run_b.pk
    if is_same and run_a.columns == 1:
        raise InvalidInput(
            "The run has one column, a prompt on a model: name another run to compare it with."
        )
    first = _checked("column_a", column_a or 0, run_a)
    default_b = 1 if is_same and first == 0 else 0
    second = _checked("column_b", default_b if column_b is None else column_b, run_b)
    if is_same and first == second:
        raise InvalidInput("column_a and column_b are the same: choose two columns, or another run.")
    tally = _Tally(limit)
    for a, b in _pairs(_rows(run_a, first), _rows(run_b, second), tally):
        tally.add(a, b)
    return _comparison(tally, _Names(run_a, first), _Names(run_b, second))


def _checked(name: str, column: int, run: Run) -> int:
    if not 0 <= column < run.columns:
        raise InvalidInput(f"{name} must be between 0 and {run.columns - 1}, not {column}.")
    return column


def _rows(run: Run, column: int) -> Iterator[_Row]:
    results = Result.objects.filter(run=run, column=column).order_by("case_id", "repeat")
    fields = results.values_list("case_id", "repeat", "pk", "state", "score", "scores")
    for case_id, repeat, pk, state, score, scores in fields.iterator(chunk_size=_CHUNK_ROWS):
        yield _Row((case_id, repeat), pk, state, score, scores)


def _pairs(left: Iterator[_Row], right: Iterator[_Row], tally: _Tally) -> Iterator[tuple[_Row, _Row]]:
    """A merge of two sorted streams; cells that only one side has are counted as left out."""
    a, b = next(left, None), next(right, None)
    while a and b:
        if a.key == b.key:
            yield a, b
            a, b = next(left, None), next(right, None)
        elif a.key < b.key:
            tally.left_out += 1
            a = next(left, None)
        else:
            tally.left_out += 1
            b = next(right, None)
    tally.left_out += (a is not None) + (b is not None) + sum(1 for _ in left) + sum(1 for _ in right)


@dataclass(frozen=True)
class _Names:
    run: Run
    column: int

    def side(self, passed: int, pairs: int) -> Side:
        name: ColumnOut = columns_of(self.run)[self.column]
        rate = passed / pairs if pairs else None
        return Side(str(self.run.pk), self.column, name.prompt, name.version, name.model, passed, rate)


def _comparison(tally: _Tally, a: _Names, b: _Names) -> Comparison:
    pairs, differences = tally.pairs, tally.differences
    return Comparison(
        a=a.side(tally.both + tally.only_a, pairs),
        b=b.side(tally.both + tally.only_b, pairs),
        pairs=pairs,
        left_out=tally.left_out,
        both_passed=tally.both,
        only_a=tally.only_a,
        only_b=tally.only_b,
        both_failed=tally.neither,
        difference=(tally.only_b - tally.only_a) / pairs if pairs else None,
        difference_ci95=paired_difference_interval(tally.both, tally.only_b, tally.only_a, tally.neither),
        p_value=mcnemar_exact(tally.only_a, tally.only_b) if pairs else None,
        score_difference=fmean(differences) if differences else None,
        score_difference_ci95=paired_bootstrap(differences, seed=_SEED),
        score_p_value=paired_sign_test(differences, seed=_SEED),
        metrics=_metric_tests(tally.metrics),
        regressions=tally.regressions,
        improvements=tally.improvements,
    )


def _metric_tests(metrics: dict[str, list[int]]) -> list[MetricTest]:
    tests = []
    for name in sorted(metrics):
        pairs, only_a, only_b = metrics[name]
        tests.append(MetricTest(name, pairs, only_a, only_b, mcnemar_exact(only_a, only_b), None))
    for test, adjusted in zip(tests, holm([test.p_value for test in tests]), strict=True):
        test.p_adjusted = adjusted
    return tests
