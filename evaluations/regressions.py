"""Which runs regressed: the newest finished run of each experiment against the one before it."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import msgspec
from django.db.models import Count, OuterRef, QuerySet, Subquery

from autoforge.caching import read_once
from evaluations.models import Result, ResultState, Run, RunState
from evaluations.schemas import columns_of, versioned
from evaluations.statistics import Interval, holm, mcnemar_exact, paired_difference_interval

# The newest finished runs that are looked at, experiments among them, and cells of a run that are paired.
_MAX_RUNS, _MAX_EXPERIMENTS, _MAX_CELLS = 200, 8, 20_000
_CHUNK_RUNS = 25
_COUNT_S = 2.0
SIGNIFICANT = 0.05


class Pairs(NamedTuple):
    """The cells of one column that have a verdict in both runs, by what they were and became."""

    both: int = 0
    lost: int = 0
    won: int = 0
    neither: int = 0


@dataclass(frozen=True)
class ColumnChange:
    """A column of the newest run of an experiment against the same column of the run before.

    `p_adjusted` is McNemar's exact p-value, corrected (Holm) for the number of columns compared here.
    """

    run: Run
    before: Run
    column: int
    pairs: Pairs
    p_adjusted: float

    @property
    def count(self) -> int:
        return sum(self.pairs)

    @property
    def rate_before(self) -> float:
        return (self.pairs.both + self.pairs.lost) / self.count

    @property
    def rate(self) -> float:
        return (self.pairs.both + self.pairs.won) / self.count

    @property
    def difference(self) -> float:
        return self.rate - self.rate_before

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the difference."""
        both, lost, won, neither = self.pairs
        return paired_difference_interval(both, won, lost, neither)

    @property
    def verdict(self) -> str:
        """regressed, improved or unclear."""
        if self.p_adjusted >= SIGNIFICANT:
            return "unclear"
        return "regressed" if self.difference < 0 else "improved"

    @property
    def title(self) -> str:
        old, new = columns_of(self.before)[self.column], columns_of(self.run)[self.column]
        is_same = old.version in (None, new.version)
        name = versioned(new) if is_same else f"{versioned(old)} → v{new.version}"
        return f"{name} · {new.model}"


def newest_changes(runs: QuerySet[Run], limit: int) -> list[ColumnChange]:
    """The columns of the newest experiments among `runs`, regressions first, the largest loss first."""
    compared = [
        (new, old, column, pairs)
        for new, old in _successions(runs)
        for column, pairs in sorted(_paired(new, old).items())
        if sum(pairs)
    ]
    adjusted = holm([mcnemar_exact(pairs.lost, pairs.won) for *_, pairs in compared])
    changes = [ColumnChange(*found, p_adjusted=p) for found, p in zip(compared, adjusted, strict=True)]
    rank = {"regressed": 0, "unclear": 1, "improved": 2}
    return sorted(changes, key=lambda change: (rank[change.verdict], change.difference))[:limit]


def _successions(runs: QuerySet[Run]) -> Iterator[tuple[Run, Run]]:
    """The newest run of each experiment with the one before it, the newest experiment first."""
    finished = runs.filter(state=RunState.FINISHED).select_related("project", "dataset")
    newest: dict[bytes, Run] = {}
    settled: set[bytes] = set()
    newest_first = finished.order_by("-created_at")[:_MAX_RUNS]
    for run in newest_first.iterator(chunk_size=_CHUNK_RUNS):
        if len(settled) == _MAX_EXPERIMENTS:
            return
        experiment = _experiment_of(run)
        if experiment in settled:
            continue
        if experiment not in newest:
            newest[experiment] = run
        else:
            settled.add(experiment)
            yield newest[experiment], run


def _experiment_of(run: Run) -> bytes:
    """What two runs have in common that ask the same question; versions of prompts may differ."""
    prompts = [prompt["name"] for prompt in run.prompts]
    models = [endpoint["name"] for endpoint in run.endpoints]
    same = (run.project_id, run.dataset_id, prompts, models, run.scorers, run.threshold)
    return msgspec.json.encode(same)


def _paired(new: Run, old: Run) -> dict[int, Pairs]:
    """Pairs by column; nothing for runs too large to be paired while somebody waits."""
    if max(new.total, old.total) > _MAX_CELLS:
        return {}
    key = ":".join(f"{run.pk}:{run.done}:{run.finished_at:%s.%f}" for run in (new, old))
    encoded = read_once(
        "evaluation_results",
        f"changes:{key}",
        partial(_counted, new, old),
        load_s=_COUNT_S,
        keep=lambda: True,
    )
    return msgspec.json.decode(encoded, type=dict[int, Pairs])


def _counted(new: Run, old: Run) -> bytes:
    same = {"run": old, "case": OuterRef("case"), "column": OuterRef("column"), "repeat": OuterRef("repeat")}
    earlier = Subquery(Result.objects.filter(**same).values("state"))
    rows: Any = (
        Result.objects.filter(run=new)
        .order_by()
        .annotate(before=earlier)
        .values("column", "before", "state")
        .annotate(count=Count("pk"))
    )
    kinds = {
        (ResultState.PASSED, ResultState.PASSED): "both",
        (ResultState.PASSED, ResultState.FAILED): "lost",
        (ResultState.FAILED, ResultState.PASSED): "won",
        (ResultState.FAILED, ResultState.FAILED): "neither",
    }
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for row in rows:
        # Errors, and cells that only one run has, tell nothing.
        if kind := kinds.get((row["before"], row["state"])):
            counts[row["column"]][kind] = row["count"]
    return msgspec.json.encode({column: Pairs(**found) for column, found in counts.items()})
