"""Runs that somebody else executes: opened by what is heard of them, closed when nothing more is heard.

Such a run is live while its one worker row is: `take_up_runs` finishes it after that, as it does any run
that has nothing left to do and nobody who does it.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from django.conf import settings
from django.db import transaction
from django.db.models import Count, Max
from django.db.models.functions import Now

from autoforge.auth import Actor
from autoforge.errors import Conflict, InvalidInput
from autoforge.models import Project
from evaluations.models import Case, Dataset, ExternalCell, Run, RunState, RunWorker
from evaluations.recording import lock_run

MAX_REPEATS = 100
MAX_ABOUT_BYTES = 65_536
_MAX_NAME_CHARS = 200


class Identity(msgspec.Struct, frozen=True):
    """What a run is called elsewhere; `source` says where that is."""

    external_id: str
    name: str
    source: str


class Spot(msgspec.Struct, frozen=True):
    """Where a cell is executed: a trace, and the observation in it that is the cell's."""

    trace_id: str
    observation_id: str


@transaction.atomic
def open_run(project: Project, identity: Identity, dataset: Dataset, *, actor: Actor) -> Run:
    """The run of that identity or of that name over the data set: locked, live unless it was cancelled.

    Raises InvalidInput for a long name or id, and when the run of that identity is over another data set.
    """
    if max(len(identity.name), len(identity.external_id)) > _MAX_NAME_CHARS:
        raise InvalidInput(f"The name and id of a run have at most {_MAX_NAME_CHARS} characters.")
    # The data set's lock lets only one of many first messages open the run.
    Dataset.objects.select_for_update().get(pk=dataset.pk)
    run = find_external_run(project, identity, dataset) or _new_run(project, identity, dataset, actor)
    if run.dataset_id != dataset.pk:
        raise InvalidInput(f"The run {run.name!r} is over the data set {run.dataset.name!r}, and no other.")
    lock_run(run.pk)
    run.refresh_from_db()
    if run.state == RunState.FINISHED:
        _reopen(run)
    expect_news(run)
    return run


def find_external_run(project: Project, identity: Identity, dataset: Dataset) -> Run | None:
    """The run of that identity, else of that name over the data set."""
    runs = Run.objects.filter(project=project, external_id__isnull=False).select_related("dataset")
    same_name = runs.filter(dataset=dataset, name=identity.name)
    return runs.filter(external_id=identity.external_id).first() or same_name.first()


def _new_run(project: Project, identity: Identity, dataset: Dataset, actor: Actor) -> Run:
    dataset.refresh_from_db()
    name = identity.name
    return Run.objects.create(
        project=project,
        dataset=dataset,
        external_id=identity.external_id,
        name=name,
        state=RunState.RUNNING,
        prompts=[{"name": name, "version": None, "type": "text", "template": "", "config": {}}],
        endpoints=[{"name": identity.source, "source": identity.source}],
        concurrency=1,
        last_case_id=dataset.cases.aggregate(last=Max("pk", default=0))["last"],
        total=dataset.case_count,
        created_by=actor.name,
        enqueued_at=Now(),
        started_at=Now(),
    )


def _reopen(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(
        state=RunState.RUNNING, active_s=run.wall_s or 0.0, started_at=Now(), finished_at=None
    )
    run.refresh_from_db()


def describe_external_run(run: Run, *, description: str | None, metadata: Any) -> None:
    """Keep what who executes `run` says of it; None leaves a part as it is. Raises InvalidInput.

    `run` is locked by `open_run`.
    """
    said = {"description": description, "metadata": metadata}
    about = (run.about or {}) | {part: value for part, value in said.items() if value is not None}
    if about == (run.about or {}):
        return
    if len(msgspec.json.encode(about)) > MAX_ABOUT_BYTES:
        raise InvalidInput(f"The description and metadata of a run have at most {MAX_ABOUT_BYTES:,} bytes.")
    run.about = about
    run.save(update_fields=["about"])


def expect_news(run: Run) -> None:
    """Live on: for long while results are missing, else only as long as their scores may take."""
    if not run.is_live:
        return
    is_complete = run.total and run.done >= run.total
    ahead_s = 0.0 if is_complete else settings.RUN_EXTERNAL_SILENT_S - settings.RUN_SHARD_SILENT_S
    heartbeat = Now() + timedelta(seconds=ahead_s)
    source = run.endpoints[0]["source"]
    RunWorker.objects.update_or_create(run=run, name=source, defaults={"heartbeat_at": heartbeat})


def link_cells(run: Run, wanted: Sequence[tuple[Case, Spot]]) -> list[ExternalCell]:
    """The cells of those cases at those spots; new ones are further repeats. `run` is locked by `open_run`.

    A spot keeps the case and the run it had first. Raises InvalidInput for too many repeats or cells.
    """
    traces = {spot.trace_id for _, spot in wanted}
    cells = ExternalCell.objects.filter(project=run.project_id, trace_id__in=traces).select_related("run")
    known = {Spot(cell.trace_id, cell.observation_id): cell for cell in cells}
    repeats = _repeats(run, [case for case, _ in wanted])
    for case, spot in wanted:
        if spot not in known:
            repeat = repeats.get(case.pk, 0)
            repeats[case.pk] = repeat + 1
            known[spot] = ExternalCell(
                project_id=run.project_id, run=run, case=case, repeat=repeat, **msgspec.structs.asdict(spot)
            )
    new = [cell for cell in known.values() if cell.pk is None]
    _grow(run, new)
    ExternalCell.objects.bulk_create(new)
    return [known[spot] for _, spot in wanted]


def _repeats(run: Run, cases: Sequence[Case]) -> dict[int, int]:
    counted = ExternalCell.objects.filter(run=run, case__in=cases).order_by().values("case_id")
    return dict(counted.annotate(count=Count("pk")).values_list("case_id", "count"))


def _grow(run: Run, new: Sequence[ExternalCell]) -> None:
    """Make room for `new`: cases that came since the run was opened, and further repeats."""
    repeats = max([run.repeats, *(cell.repeat + 1 for cell in new)])
    last_case_id = max([run.last_case_id, *(cell.case_id for cell in new)])
    if (repeats, last_case_id) == (run.repeats, run.last_case_id):
        return
    if repeats > MAX_REPEATS:
        raise InvalidInput(f"A run has each case at most {MAX_REPEATS} times.")
    run.repeats, run.last_case_id = repeats, last_case_id
    # An item that changed since then has results of its old case, too.
    linked = ExternalCell.objects.filter(run=run).count() + len(new)
    run.total = max(run.frozen_cases().count() * repeats, linked)
    if run.total > settings.RUN_MAX_CELLS:
        raise InvalidInput(
            f"The run would have {run.total:,} cells; the limit is {settings.RUN_MAX_CELLS:,}."
        )
    run.save(update_fields=["repeats", "last_case_id", "total"])


def delete_external_run(run: Run) -> None:
    """Delete `run` with its results. Raises Conflict for one that is executed here."""
    if not run.is_external:
        raise Conflict("Only runs that were executed by a client can be deleted by it.")
    run.delete()
