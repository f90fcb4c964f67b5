"""The page that holds two columns against each other: is the difference real, and which cells changed?"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from autoforge.errors import AppError, NotFound
from evaluations.admin.cases import brief as brief_cases
from evaluations.admin.run_page import brief
from evaluations.comparisons import Change, Comparison, Side, compare
from evaluations.models import Case, Result, Run
from evaluations.schemas import columns_of, versioned

_OTHER_RUNS = 20
_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Choice:
    """A column that can be compared; `value` is `<run>:<column>`."""

    value: str
    label: str


class ComparisonPage:
    """Two columns, each written `<run>:<column>`: of `run`, or of runs in `visible` over its data set."""

    def __init__(self, run: Run, visible: QuerySet[Run], a: str | None, b: str | None) -> None:
        self.run = run
        self._visible = visible
        self.a = a or f"{run.pk}:0"
        self.b = b or self._default_b()
        self.refusal: str | None = None
        self.found: Comparison | None = None
        try:
            self.found = self._compare()
        except AppError as error:
            self.refusal = error.detail

    def _default_b(self) -> str:
        if self.run.columns > 1:
            return f"{self.run.pk}:1"
        others = self._others
        return f"{others[0].pk}:0" if others else self.a

    def _compare(self) -> Comparison:
        """Raises NotFound, InvalidInput."""
        (run_a, column_a), (run_b, column_b) = self._parse(self.a), self._parse(self.b)
        return compare(run_a, run_b, column_a=column_a, column_b=column_b)

    def _parse(self, text: str) -> tuple[Run, int]:
        name, _, column = text.rpartition(":")
        try:
            run_id, number = UUID(name), int(column)
        except ValueError:
            raise NotFound(f"There is no column {text!r}.") from None
        known = [self.run, *self._others]
        run = (
            next((run for run in known if run.pk == run_id), None) or self._visible.filter(pk=run_id).first()
        )
        if run is None:
            raise NotFound(f"There is no run {run_id}.")
        return run, number

    @cached_property
    def _others(self) -> list[Run]:
        """The newest other runs over the same data set: their cells can be paired."""
        same = self._visible.filter(dataset=self.run.dataset_id).exclude(pk=self.run.pk)
        return list(same.order_by("-created_at")[:_OTHER_RUNS])

    def groups(self) -> list[tuple[str, list[Choice]]]:
        """What can be chosen, by run."""
        own = ("This run", _choices(self.run))
        return [own, *((_title(run), _choices(run)) for run in self._others)]

    @property
    def sides(self) -> list[tuple[str, str, str]]:
        """Field, chosen column and label of both."""
        return [("a", self.a, "A, what you have"), ("b", self.b, "B, what you might take")]

    @property
    def rows(self) -> list[tuple[str, Side]]:
        return [("A", self.found.a), ("B", self.found.b)] if self.found else []

    @property
    def is_significant(self) -> bool:
        return self.found is not None and self.found.p_value is not None and self.found.p_value < _SIGNIFICANT

    def regressions(self) -> list[dict[str, Any]]:
        return self._listed(self.found.regressions if self.found else [])

    def improvements(self) -> list[dict[str, Any]]:
        return self._listed(self.found.improvements if self.found else [])

    def _listed(self, changes: list[Change]) -> list[dict[str, Any]]:
        """Each change with the beginning of its case and of both outputs. Two queries."""
        ids = [pk for change in changes for pk in (change.result_a, change.result_b)]
        found = {row.pk: row for row in brief(Result.objects.filter(pk__in=ids))}
        cases = Case.objects.filter(pk__in={change.case for change in changes})
        begun = {case.pk: case for case in brief_cases(cases)}
        return [
            {
                "change": change,
                "case": begun[change.case],
                "a": found[change.result_a],
                "b": found[change.result_b],
            }
            for change in changes
            # A retry may have taken a result away since.
            if change.result_a in found and change.result_b in found
        ]


def _title(run: Run) -> str:
    return f"{run.name or str(run.pk)[:8]}, {run.created_at:%Y-%m-%d %H:%M}"


def _choices(run: Run) -> list[Choice]:
    return [
        Choice(f"{run.pk}:{index}", f"{versioned(name)} · {name.model}")
        for index, name in enumerate(columns_of(run))
    ]
