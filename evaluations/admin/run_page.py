"""What the page of a run shows: its report, what goes wrong, and a square for every cell."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.contrib.staticfiles import finders
from django.db.models import Count, QuerySet
from django.templatetags.static import static
from django.utils import timezone

from evaluations.admin.pages import preview
from evaluations.models import Result, ResultState, Run
from evaluations.reports import RunReport, report_of
from evaluations.schemas import ColumnOut, columns_of

MAX_SQUARES = 3_000
_SHOWN_PROBLEMS = 8
_SHOWN_CODES = 10
_CLIENT = "realtime/client.js"


@dataclass(frozen=True, slots=True)
class Square:
    """A cell of the grid; `result` and `state` are None while it is to come."""

    key: str
    case: int
    repeat: int
    result: int | None
    state: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """The squares of one column, in the order of the cases."""

    name: ColumnOut
    squares: list[Square]


@dataclass(frozen=True)
class RunPage:
    """A run as its page shows it. Reads lazily: what a template leaves out costs nothing."""

    run: Run

    @cached_property
    def report(self) -> RunReport:
        return report_of(self.run)

    @property
    def remaining_s(self) -> float | None:
        """What the rest will take at the speed so far; None when nothing is left or known."""
        run = self.run
        left = run.total - run.done
        if not run.is_live or not run.done or not left or not run.wall_s:
            return None
        return run.wall_s / run.done * left

    @property
    def ends_at(self) -> Any:
        left = self.remaining_s
        return None if left is None else timezone.now() + timedelta(seconds=left)

    @property
    def client_url(self) -> str:
        """The script that speaks to our WebSockets; empty when the installation has none."""
        return static(_CLIENT) if finders.find(_CLIENT) else ""

    @property
    def has_grid(self) -> bool:
        return self.run.total <= MAX_SQUARES

    def grid(self) -> Iterator[Line]:
        """One line a column. Two queries, of numbers only."""
        cases = list(self.run.frozen_cases().values_list("pk", flat=True))
        cells = Result.objects.filter(run=self.run).values_list("case_id", "column", "repeat", "pk", "state")
        known = {tuple(key): (pk, state) for *key, pk, state in cells}
        for index, name in enumerate(columns_of(self.run)):
            yield Line(name, list(self._squares(index, cases, known)))

    def _squares(self, column: int, cases: list[int], known: dict[Any, Any]) -> Iterator[Square]:
        for case in cases:
            for repeat in range(self.run.repeats):
                result, state = known.get((case, column, repeat), (None, None))
                yield Square(f"{case}:{column}:{repeat}", case, repeat, result, state)

    def problems(self) -> list[Any]:
        """The newest results that did not pass, without their long texts."""
        return list(named(brief(self._not_passed().order_by("-pk")[:_SHOWN_PROBLEMS]), self.run))

    def error_codes(self) -> QuerySet[Any, Any]:
        """How often each error code occurred."""
        errors = Result.objects.filter(run=self.run, state=ResultState.ERROR)
        counted = errors.order_by().values("error_code").annotate(count=Count("pk"))
        return counted.order_by("-count")[:_SHOWN_CODES]

    def _not_passed(self) -> QuerySet[Result]:
        unwelcome = [ResultState.FAILED, ResultState.ERROR]
        return Result.objects.filter(run=self.run, state__in=unwelcome)


def brief(results: QuerySet[Result]) -> QuerySet[Result]:
    """With `output_begin` and `error_begin` instead of the whole texts, and without verdicts."""
    return results.defer("output", "error", "scores").annotate(
        output_begin=preview("output"), error_begin=preview("error")
    )


def named(results: Any, run: Run) -> Iterator[Any]:
    """The results, each with the name of its column as `column_name`."""
    names = columns_of(run)
    for result in results:
        result.column_name = names[result.column]
        yield result
