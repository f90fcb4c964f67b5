"""Judges an output: every scorer gives a verdict, an error is never a failure, weights make one of many.

This module is the face of the package; registry, reading and types are behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from evaluations.scorers.reading import has_template, needs_judge, parse_scorers, render_specs
from evaluations.scorers.registry import NEGATION, find_scorer, scorer, scorer_names, scorer_of
from evaluations.scorers.types import (
    AlwaysFails,
    Assessment,
    Judge,
    Message,
    Output,
    Score,
    ScorerError,
    ScoreRow,
    ScorerSpec,
    UnjudgeableError,
)

__all__ = [
    "AlwaysFails",
    "Assessment",
    "Judge",
    "Message",
    "Output",
    "Score",
    "ScoreRow",
    "ScorerError",
    "ScorerSpec",
    "UnjudgeableError",
    "assess",
    "assess_async",
    "has_template",
    "is_slow",
    "needs_judge",
    "parse_scorers",
    "render_specs",
    "scorer",
    "scorer_names",
]

log = logging.getLogger(__name__)


def assess(specs: Sequence[ScorerSpec], output: Output, *, threshold: float | None = None) -> Assessment:
    """The verdict of all scorers on one output. One that needs a judge gives an error here."""
    return _combine([_row(spec, _score(spec, output)) for spec in specs], threshold)


async def assess_async(
    specs: Sequence[ScorerSpec], output: Output, *, judge: Judge, threshold: float | None = None
) -> Assessment:
    """As `assess`, with judged scorers asked one after the other; what a judge raises is an error.

    What takes long is worked out in a thread.
    """
    rows = []
    for spec in specs:
        entry = find_scorer(spec.type)
        if entry is not None and entry.is_judged:
            score = await _score_judged(spec, output, judge)
        elif is_slow([spec], output):
            score = await asyncio.to_thread(_score, spec, output)
        else:
            score = _score(spec, output)
        rows.append(_row(spec, score))
    return _combine(rows, threshold)


def is_slow(specs: Sequence[ScorerSpec], output: Output) -> bool:
    """Whether one of the scorers would hold up an event loop, so that `assess_async` should run them."""
    entries = ((find_scorer(spec.type), spec) for spec in specs)
    return any(entry is not None and entry.is_slow(output, spec) for entry, spec in entries)


def _score(spec: ScorerSpec, output: Output) -> Score:
    try:
        entry = scorer_of(spec)
        if entry.is_judged:
            raise UnjudgeableError("a judge is needed, and none was given")
        score: Score = entry.judge(output, entry.reads(spec), spec)
    except Exception as error:
        return _excused(spec, error)
    return _signed(spec, score)


async def _score_judged(spec: ScorerSpec, output: Output, judge: Judge) -> Score:
    try:
        entry = scorer_of(spec)
        score: Score = await entry.judge(output, entry.reads(spec), spec, judge)
    except Exception as error:
        return _excused(spec, error)
    return _signed(spec, score)


def _excused(spec: ScorerSpec, error: Exception) -> Score:
    """What becomes of an exception: a failure if the scorer means one, else an error."""
    if isinstance(error, AlwaysFails):
        return Score(value=0.0, passed=False, reason=str(error))
    sentence = str(error)
    if not isinstance(error, ScorerError | UnjudgeableError):
        log.warning("scorer %s broke", spec.type, exc_info=error)
        sentence = f"{type(error).__name__}: {sentence}"
    return Score(value=None, passed=None, reason="", error=sentence)


def _signed(spec: ScorerSpec, score: Score) -> Score:
    """The score itself, or its opposite for `not-`: the value is 1 − value (promptfoo's rule)."""
    if score.value is None or not spec.type.startswith(NEGATION):
        return score
    return Score(value=1.0 - score.value, passed=not score.passed, reason=score.reason)


def _row(spec: ScorerSpec, score: Score) -> ScoreRow:
    # A scorer of weight 0 only informs: it has a value, and no say in the verdict.
    passed = True if spec.weight == 0 and score.error is None else score.passed
    return ScoreRow(
        scorer=spec.type,
        metric=spec.metric,
        value=score.value,
        passed=passed,
        reason=_storable(score.reason),
        error=None if score.error is None else _storable(score.error),
        weight=spec.weight,
    )


def _storable(text: str) -> str:
    """`text` without what no database takes: NUL, and halves of surrogate pairs."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _combine(rows: list[ScoreRow], threshold: float | None) -> Assessment:
    """promptfoo's aggregation: a weighted mean, passed if all pass or if the mean reaches `threshold`."""
    errors = [f"{row.scorer}: {row.error}" for row in rows if row.error is not None]
    if errors:
        return Assessment(passed=None, score=None, scores=rows, error="; ".join(errors))
    score = _weighted_mean(rows)
    passed = all(row.passed for row in rows) if threshold is None else score >= threshold
    return Assessment(passed=passed, score=score, scores=rows, error=None)


def _weighted_mean(rows: list[ScoreRow]) -> float:
    """Σ value·weight / Σ weight; 1 without scorers, 0 when no scorer has a weight."""
    if not rows:
        return 1.0
    weight = sum(row.weight for row in rows)
    return sum((row.value or 0.0) * row.weight for row in rows) / weight if weight else 0.0
