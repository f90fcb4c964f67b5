"""REST: start runs, watch them, stop and mend them."""

from http import HTTPStatus
from uuid import UUID

import msgspec
from django.http import HttpResponse
from dmr import Path, Query, ResponseSpec, modify, validate

from autoforge.api import Body, ProjectController
from autoforge.idempotency import answer_once
from autoforge.pagination import Page
from evaluations import services
from evaluations.reads import find_run, page_of_runs
from evaluations.schemas import NewRun, Resume, RunOut, RunsQuery


class RunPath(msgspec.Struct):
    run_id: UUID


class RunsController(ProjectController):
    """Runs of the caller's project."""

    def get(self, parsed_query: Query[RunsQuery]) -> Page[RunOut]:
        """Newest first."""
        return page_of_runs(self.project, parsed_query)

    @validate(ResponseSpec(RunOut, status_code=HTTPStatus.CREATED))
    def post(self, parsed_body: Body[NewRun]) -> HttpResponse:
        """Start an experiment. Honours Idempotency-Key."""
        return answer_once(self.request, self.project, lambda: self._started(parsed_body))

    def _started(self, new: NewRun) -> HttpResponse:
        run = services.start_run(self.project, new, actor=self.actor)
        return self.to_response(RunOut.of(run), status_code=HTTPStatus.CREATED)


class RunController(ProjectController):
    """One run."""

    def get(self, parsed_path: Path[RunPath]) -> RunOut:
        """Its state and counters."""
        return RunOut.of(find_run(self.project, parsed_path.run_id))


class CancelController(ProjectController):
    """Stop a run."""

    @modify(status_code=HTTPStatus.OK)
    def post(self, parsed_path: Path[RunPath]) -> RunOut:
        """No new cell starts; calls in flight end and are recorded."""
        return RunOut.of(services.cancel_run(find_run(self.project, parsed_path.run_id)))


class ResumeController(ProjectController):
    """Go on with a run that was stopped."""

    @modify(status_code=HTTPStatus.OK)
    def post(self, parsed_path: Path[RunPath], parsed_body: Body[Resume | None] = None) -> RunOut:
        """Make the cells that have no result; `budget_usd` raises the budget."""
        budget = parsed_body.budget_usd if parsed_body else None
        run = services.resume_run(find_run(self.project, parsed_path.run_id), budget_usd=budget)
        return RunOut.of(run)


class RetryErrorsController(ProjectController):
    """Mend a run."""

    @modify(status_code=HTTPStatus.OK)
    def post(self, parsed_path: Path[RunPath]) -> RunOut:
        """Make the cells again that ended in an error, and only those."""
        return RunOut.of(services.retry_errors(find_run(self.project, parsed_path.run_id)))
