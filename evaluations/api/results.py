"""REST: what came out of runs: results, reports, comparisons, exports."""

from http import HTTPStatus
from uuid import UUID

import msgspec
from django.http import StreamingHttpResponse
from dmr import Path, Query, ResponseSpec, validate

from autoforge.api import ProjectController
from autoforge.pagination import Page
from evaluations.api.runs import RunPath
from evaluations.comparisons import Comparison, compare
from evaluations.exports import export
from evaluations.reads import find_run, page_of_results
from evaluations.reports import RunReport, report_of
from evaluations.schemas import ResultOut, ResultsQuery


class ComparePath(msgspec.Struct):
    run_id: UUID
    other_id: UUID


class CompareQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which columns (default: the first of each; of one run, its first two), and how many changes to list."""

    column_a: int | None = None
    column_b: int | None = None
    limit: int = 50


class ExportQuery(msgspec.Struct, forbid_unknown_fields=True):
    format: str = "jsonl"


class ResultsController(ProjectController):
    """Results of a run."""

    def get(self, parsed_path: Path[RunPath], parsed_query: Query[ResultsQuery]) -> Page[ResultOut]:
        """Filtered by state, score, latency, case or column; sorted by id, score or latency."""
        return page_of_results(find_run(self.project, parsed_path.run_id), parsed_query)


class ReportController(ProjectController):
    """A run in numbers."""

    def get(self, parsed_path: Path[RunPath]) -> RunReport:
        """One entry a column, with intervals."""
        return report_of(find_run(self.project, parsed_path.run_id))


class CompareController(ProjectController):
    """Two columns against each other."""

    def get(self, parsed_path: Path[ComparePath], parsed_query: Query[CompareQuery]) -> Comparison:
        """Paired by cell: is the difference real, what got better, what got worse?"""
        return compare(
            find_run(self.project, parsed_path.run_id),
            find_run(self.project, parsed_path.other_id),
            column_a=parsed_query.column_a,
            column_b=parsed_query.column_b,
            limit=parsed_query.limit,
        )


class ExportController(ProjectController):
    """All results of a run as a file."""

    @validate(ResponseSpec(str, status_code=HTTPStatus.OK))
    def get(self, parsed_path: Path[RunPath], parsed_query: Query[ExportQuery]) -> StreamingHttpResponse:
        """`?format=jsonl|csv|junit`, streamed."""
        return export(find_run(self.project, parsed_path.run_id), parsed_query.format)
