"""Which scorers exist: a name, a function that judges, and how it reads what it compares with."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evaluations.scorers.types import Output, Score, ScorerError, ScorerSpec

NEGATION = "not-"
MAX_SHOWN_CHARS = 120

# Returns a Score of the form without `not-`, or for a judged scorer an awaitable of one.
Judging = Callable[..., Any]


@dataclass(frozen=True)
class Scorer:
    """An entry of the registry; `scorer` says what the fields mean."""

    judge: Judging
    reads: Callable[[ScorerSpec], Any]
    checks: Callable[[Any], object]
    default_threshold: float | None
    highest_threshold: float
    needs_value: bool
    is_judged: bool
    is_slow: Callable[[Output, ScorerSpec], bool]


_REGISTRY: dict[str, Scorer] = {}


def scorer(
    *names: str,
    reads: Callable[[ScorerSpec], Any],
    checks: Callable[[Any], object] = lambda expected: None,
    default_threshold: float | None = None,
    highest_threshold: float = math.inf,
    needs_value: bool = True,
    is_slow: Callable[[Output, ScorerSpec], bool] = lambda output, spec: False,
) -> Callable[[Judging], Judging]:
    """Register `judge(output, expected, spec)` under `names`.

    `reads(spec)` gives `expected` or raises ScorerError; `checks(expected)` is what else is verified
    when a run is started. A coroutine function is a judged scorer: the judge is its fourth argument.
    What `is_slow` is judged in a thread of its own, where there is an event loop to keep free.
    """

    def register(judge: Judging) -> Judging:
        is_judged = inspect.iscoroutinefunction(judge)
        entry = Scorer(
            judge, reads, checks, default_threshold, highest_threshold, needs_value, is_judged, is_slow
        )
        _REGISTRY.update(dict.fromkeys(names, entry))
        return judge

    return register


def scorer_names() -> list[str]:
    """Every scorer's name, without the `not-` forms, in alphabetical order."""
    return sorted(_REGISTRY)


def find_scorer(type_: str) -> Scorer | None:
    """The scorer behind a spec's type, with or without `not-`."""
    return _REGISTRY.get(type_.removeprefix(NEGATION))


def scorer_of(spec: ScorerSpec) -> Scorer:
    """The spec's scorer. Raises ScorerError when there is none of that name."""
    if entry := find_scorer(spec.type):
        return entry
    raise ScorerError("type", f'"{spec.type}" is no known scorer. Known: {", ".join(scorer_names())}.')


def threshold_of(spec: ScorerSpec) -> float:
    """The spec's threshold, or its scorer's default. Raises ScorerError when there is neither."""
    threshold = scorer_of(spec).default_threshold if spec.threshold is None else spec.threshold
    if threshold is None:
        raise ScorerError("threshold", "is missing: give the highest value that passes.")
    return threshold


def binary(passed: bool, reason: str) -> Score:
    """The score of a yes-or-no scorer: 1 or 0."""
    return Score(value=float(passed), passed=passed, reason=reason)


def shown(value: Any) -> str:
    """`value` as JSON on one line, cut to a length that a table of reasons can show."""
    quoted = json.dumps(
        value[:MAX_SHOWN_CHARS] if isinstance(value, str) else value, ensure_ascii=False, default=str
    )
    return quoted if len(quoted) <= MAX_SHOWN_CHARS else f"{quoted[: MAX_SHOWN_CHARS - 1]}…"
