"""Scores that somebody else gives to results and runs, whether they come before what they judge or after."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from autoforge.models import Project
from evaluations import events
from evaluations.claims import progress_of
from evaluations.models import ExternalCell, PendingScore, Result, ResultState, Run
from evaluations.recording import lock_run
from evaluations.scorers.types import ScoreRow

MAX_SCORES = 100  # of one result or run; further ones are left out
MAX_PENDING = 50_000  # of one project; runs and cells that are there may have as many more
PENDING_FOR = timedelta(days=1)


class GivenScore(ScoreRow, frozen=True, kw_only=True):
    """A verdict under the id that it came with: the same id again replaces it."""

    id: str


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A score and what it judges: a run by its external id, or else a trace or an observation in it."""

    score: GivenScore
    run: str = ""
    trace_id: str = ""
    observation_id: str = ""

    @property
    def subject(self) -> str:
        return self.run or self.trace_id


class Judged(NamedTuple):
    """What the scores of a result say together."""

    state: ResultState
    score: float | None


def judge(rows: Iterable[dict[str, Any]]) -> Judged:
    """Passed unless a verdict says no; the score is the mean of the values that lie in 0..1."""
    verdicts = [row["passed"] for row in rows if row["passed"] is not None]
    values = [row["value"] for row in rows if row["value"] is not None and 0 <= row["value"] <= 1]
    state = ResultState.PASSED if all(verdicts) else ResultState.FAILED
    return Judged(state, fmean(values) if values else None)


def merged(rows: Sequence[dict[str, Any]], new: Iterable[GivenScore]) -> list[dict[str, Any]]:
    """`rows` with `new` ones, each id once."""
    by_id = {row.get("id", index): row for index, row in enumerate(rows)}
    for score in new:
        if score.id in by_id or len(by_id) < MAX_SCORES:
            by_id[score.id] = msgspec.to_builtins(score)
    return list(by_id.values())


def give_scores(project: Project, given: Sequence[Given]) -> set[str]:
    """Attach each score to its result or run; one whose result is not there yet waits for it, for a day.

    Returns the ids of those that were refused, because too many wait already.
    """
    kept = keep_scores(project, given)
    settle_scores(project, {it.subject for it in kept})
    return {it.score.id for it in given} - {it.score.id for it in kept}


@transaction.atomic
def keep_scores(project: Project, given: Sequence[Given]) -> list[Given]:
    """Let scores wait until `settle_scores` is called for what they judge: those that there is room for."""
    PendingScore.objects.filter(created_at__lt=timezone.now() - PENDING_FOR).delete()
    kept = _with_room(project, list({it.score.id: it for it in given}.values()))
    rows = [
        PendingScore(
            project=project,
            subject=it.subject,
            observation_id=it.observation_id,
            key=it.score.id,
            row=msgspec.to_builtins(it.score),
        )
        for it in kept
    ]
    PendingScore.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["project", "key"],
        update_fields=["subject", "observation_id", "row"],
    )
    return kept


def _with_room(project: Project, given: list[Given]) -> list[Given]:
    """Scores of ordinary traces, which nothing ever takes away, leave room for those of experiments."""
    waiting = PendingScore.objects.filter(project=project).count()
    if waiting + len(given) <= MAX_PENDING:
        return given
    subjects = {it.subject for it in given}
    cells = ExternalCell.objects.filter(project=project, trace_id__in=subjects)
    runs = Run.objects.filter(project=project, external_id__in=subjects)
    known = {*cells.values_list("trace_id", flat=True), *runs.values_list("external_id", flat=True)}
    expected = [it for it in given if it.subject in known][: max(0, 2 * MAX_PENDING - waiting)]
    others = [it for it in given if it.subject not in known][: max(0, MAX_PENDING - waiting)]
    return expected + others


@transaction.atomic
def settle_scores(project: Project, subjects: Collection[str]) -> None:
    """Attach what waits for these traces and runs, as far as they have results by now.

    To be called after the commit that keeps scores, and after the one that records results: whichever comes
    second sees both.
    """
    waiting = PendingScore.objects.select_for_update().filter(project=project, subject__in=subjects)
    pending = list(waiting.order_by("pk"))
    if not pending:
        return
    named = Run.objects.filter(project=project, external_id__in=subjects).order_by("pk")
    runs = {run.external_id: run for run in named}
    cells = ExternalCell.objects.filter(project=project, trace_id__in=subjects)
    by_trace: defaultdict[str, list[ExternalCell]] = defaultdict(list)
    for cell in cells:
        by_trace[cell.trace_id].append(cell)
    settled = _Settled()
    for row in pending:
        settled.place(row, runs.get(row.subject), cell_of(row.observation_id, by_trace[row.subject]))
    for run, scores in settled.of_runs.items():
        _add_to_run(run, scores)
    for run_id, by_result in sorted(settled.of_results.items()):
        _rejudge(run_id, by_result)
    PendingScore.objects.filter(pk__in=settled.keys).delete()


@dataclass
class _Settled:
    """Pending scores that have found what they judge."""

    keys: list[int] = field(default_factory=list)
    of_runs: dict[Run, list[GivenScore]] = field(default_factory=dict)
    of_results: dict[UUID, dict[int, list[GivenScore]]] = field(default_factory=dict)

    def place(self, row: PendingScore, run: Run | None, cell: ExternalCell | None) -> None:
        score = msgspec.convert(row.row, GivenScore)
        if run is not None:
            self.of_runs.setdefault(run, []).append(score)
        elif cell is not None and cell.result_id is not None:
            self.of_results.setdefault(cell.run_id, {}).setdefault(cell.result_id, []).append(score)
        else:
            return
        self.keys.append(row.pk)


def cell_of(observation_id: str, cells: Sequence[ExternalCell]) -> ExternalCell | None:
    """Which of a trace's cells is meant: the one of that observation, else the only one there is."""
    exact = next((cell for cell in cells if cell.observation_id == observation_id), None)
    return exact or (cells[0] if len(cells) == 1 else None)


def _add_to_run(run: Run, scores: Sequence[GivenScore]) -> None:
    lock_run(run.pk)
    run.refresh_from_db(fields=["scores"])
    run.scores = merged(run.scores, scores)
    run.verdicts = F("verdicts") + len(scores)
    run.save(update_fields=["scores", "verdicts"])


def _rejudge(run_id: UUID, by_result: dict[int, list[GivenScore]]) -> None:
    lock_run(run_id)
    results = list(Result.objects.filter(pk__in=by_result).order_by("pk"))
    passed = failed = 0
    for result in results:
        before = result.state
        result.scores = merged(result.scores, by_result[result.pk])
        state, result.score = judge(result.scores)
        if before != ResultState.ERROR:
            result.state = state
            passed += (state == ResultState.PASSED) - (before == ResultState.PASSED)
            failed += (state == ResultState.FAILED) - (before == ResultState.FAILED)
    Result.objects.bulk_update(results, ["scores", "score", "state"])
    Run.objects.filter(pk=run_id).update(
        passed=F("passed") + passed,
        failed=F("failed") + failed,
        verdicts=F("verdicts") + sum(map(len, by_result.values())),
    )
    _tell(Run.objects.get(pk=run_id), results)


def _tell(run: Run, results: Sequence[Result]) -> None:
    """The changed rows in the form in which new ones are told."""
    names = ("column", "repeat", "state", "score", "latency_ms", "cached")
    rows: list[dict[str, object]] = [
        {"id": it.pk, "case": it.case_id} | {name: getattr(it, name) for name in names} for it in results
    ]
    event = events.ResultRecorded(project_id=run.project_id, run_id=run.pk, results=rows)
    transaction.on_commit(partial(events.emit, event))
    transaction.on_commit(partial(events.emit, progress_of(run.pk, run)))
