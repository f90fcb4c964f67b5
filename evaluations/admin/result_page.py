"""What the page of a result shows: what was asked, what came back, how it was judged."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from evaluations.admin.run_page import brief, named
from evaluations.models import Result
from evaluations.schemas import ColumnOut, columns_of, versioned
from prompts.rendering import RenderError, render


@dataclass
class ResultPage:
    """One cell, with the same case in the run's other columns beside it."""

    result: Result
    messages: list[dict[str, Any]] = field(default_factory=list)
    render_error: str = ""

    def __post_init__(self) -> None:
        """What the model was asked, rendered again from the run's snapshot."""
        if self.result.run.is_external:
            self.messages = [{"role": "input", "content": self.result.case.vars}]
            return
        prompt, _ = self.result.run.column_parts(self.result.column)
        try:
            self.messages = render(prompt["template"], prompt["type"], self.result.case.vars)
        except RenderError as error:
            self.render_error = str(error)

    @property
    def title(self) -> str:
        return f"Case {self.result.case_id}, {versioned(self.column)}"

    @cached_property
    def column(self) -> ColumnOut:
        return columns_of(self.result.run)[self.result.column]

    def siblings(self) -> list[Any]:
        """The other cells of this case in this run."""
        same = Result.objects.filter(run=self.result.run, case=self.result.case_id)
        others = brief(same.exclude(pk=self.result.pk).order_by("column", "repeat"))
        return list(named(others, self.result.run))

    @cached_property
    def earlier(self) -> int | None:
        """The result before this one in its column."""
        before = self._neighbours.filter(pk__lt=self.result.pk)
        return before.order_by("-pk").values_list("pk", flat=True).first()

    @cached_property
    def later(self) -> int | None:
        after = self._neighbours.filter(pk__gt=self.result.pk)
        return after.order_by("pk").values_list("pk", flat=True).first()

    @property
    def _neighbours(self) -> Any:
        return Result.objects.filter(run=self.result.run_id, column=self.result.column)
