"""Spans of an experiment become cells and results of a run; other spans are dropped."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec
from django.db import transaction

from autoforge.auth import Actor
from autoforge.errors import InvalidInput
from autoforge.models import Project
from evaluations import services
from evaluations.compat.langfuse.identity import SOURCE, check_run_name
from evaluations.compat.langfuse.items import find_cases
from evaluations.compat.langfuse.local import is_local, keep_local_items, key_of_local
from evaluations.compat.langfuse.spans import Span
from evaluations.models import Case, ExternalCell, Run
from evaluations.services.external import Identity, Spot
from evaluations.services.outcomes import Outcome
from evaluations.services.verdicts import cell_of

MAX_OUTPUT_CHARS = 1_048_576


class Sighting(msgspec.Struct, frozen=True):
    """A span that has to do with a cell."""

    span: Span
    identity: Identity
    case: Case
    spot: Spot

    @property
    def is_outcome(self) -> bool:
        """Whether the span is the one whose output is the cell's."""
        spot, span = self.spot, self.span
        return span.span_id == spot.observation_id if spot.observation_id else span.is_top


def store_spans(project: Project, spans: Sequence[Span], *, actor: Actor) -> list[str]:
    """What `spans` tell of experiments, committed run by run; a sentence for each run that takes no more."""
    runs: defaultdict[tuple[str, int], list[Sighting]] = defaultdict(list)
    for sighting in _sightings(project, spans):
        runs[sighting.identity.external_id, sighting.case.dataset_id].append(sighting)
    refusals = []
    for sightings in runs.values():
        try:
            _store_run(project, sightings, actor)
        except InvalidInput as error:
            refusals.append(error.detail)
    traces = {sighting.spot.trace_id for sightings in runs.values() for sighting in sightings}
    if subjects := traces | {external_id for external_id, _ in runs}:
        services.settle_scores(project, subjects)
    return refusals


def _sightings(project: Project, spans: Sequence[Span]) -> Iterator[Sighting]:
    linked = _linked_cells(project, spans)
    told = [span for span in spans if span.is_of_experiment]
    local = keep_local_items(project, told)
    cases = find_cases(project, {span.experiment("item.id") for span in told if not is_local(span)})
    for span in spans:
        if span.is_of_experiment:
            case = local.get(key_of_local(span)) if is_local(span) else cases.get(span.experiment("item.id"))
            if case is not None:
                yield _told(span, case)
        elif cell := cell_of(span.span_id, linked.get(span.trace_id, [])):
            identity = Identity(str(cell.run.external_id), cell.run.name, SOURCE)
            yield Sighting(span, identity, cell.case, Spot(cell.trace_id, cell.observation_id))


def _told(span: Span, case: Case) -> Sighting:
    """By what the span itself says."""
    external_id = span.experiment("id")
    identity = Identity(external_id, span.experiment("name") or external_id, SOURCE)
    return Sighting(span, identity, case, Spot(span.trace_id, span.root_id[:64]))


def _linked_cells(project: Project, spans: Sequence[Span]) -> dict[str, list[ExternalCell]]:
    """Cells of traces whose spans say nothing of an experiment: a call linked them to an item."""
    traces = {span.trace_id for span in spans if not span.is_of_experiment}
    if not traces:
        return {}
    cells = ExternalCell.objects.filter(project=project, trace_id__in=traces, result=None)
    by_trace: defaultdict[str, list[ExternalCell]] = defaultdict(list)
    for cell in cells.select_related("run", "case__dataset__project"):
        by_trace[cell.trace_id].append(cell)
    return by_trace


@transaction.atomic
def _store_run(project: Project, sightings: Sequence[Sighting], actor: Actor) -> None:
    first = sightings[0]
    check_run_name(first.identity.name)
    run = services.open_run(project, first.identity, first.case.dataset, actor=actor)
    _describe(run, sightings)
    by_spot: defaultdict[Spot, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        by_spot[sighting.spot].append(sighting)
    cells = services.link_cells(run, [(seen[0].case, spot) for spot, seen in by_spot.items()])
    outcomes = []
    for cell, seen in zip(cells, by_spot.values(), strict=True):
        if cell.run_id != run.pk or cell.result_id is not None:
            continue
        outcome = next((it.span for it in seen if it.is_outcome), None)
        services.add_calls(cell, _calls(seen, outcome))
        if outcome is not None:
            outcomes.append((cell, _outcome(outcome)))
    ExternalCell.objects.bulk_update([cell for cell in cells if cell.result_id is None], ["calls"])
    services.record_outcomes(run, outcomes)
    services.tell_progress(run)


def _describe(run: Run, sightings: Sequence[Sighting]) -> None:
    """By the first that says something; what cannot be kept costs no result."""
    spans = [sighting.span for sighting in sightings]
    metadata = next((found for span in spans if (found := span.experiment_metadata) is not None), None)
    description = next((said for span in spans if (said := span.experiment("description"))), None)
    with suppress(InvalidInput):
        services.describe_external_run(run, description=description, metadata=metadata)


def _calls(seen: Sequence[Sighting], outcome: Span | None) -> dict[str, services.Call]:
    """Calls within the outcome; those of evaluators come after it, and are not the cell's."""
    end_ns = outcome.end_ns if outcome else None
    spans = [it.span for it in seen if end_ns is None or it.span.end_ns <= end_ns]
    return {span.span_id: call for span in spans if (call := span.call)}


def _outcome(span: Span) -> Outcome:
    return Outcome(
        output="" if span.is_error else span.observation("output")[:MAX_OUTPUT_CHARS],
        error=(span.status or "The task failed.")[:MAX_OUTPUT_CHARS] if span.is_error else "",
        latency_ms=span.duration_ms,
    )
