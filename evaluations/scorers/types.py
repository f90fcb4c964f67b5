"""What scorers take and give: plain frozen values, shared by every family."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import msgspec

Message = dict[str, Any]
# Asks the model behind an endpoint name (None: the run's own) and returns its text. Raises on failure.
Judge = Callable[[str | None, list[Message]], Awaitable[str]]


class Score(msgspec.Struct, frozen=True):
    """One scorer's verdict. `value` lies in 0..1; it and `passed` are None exactly when `error` is set."""

    value: float | None
    passed: bool | None
    reason: str
    error: str | None = None


class Output(msgspec.Struct, frozen=True):
    """What is judged: a completion's text and what was measured while it was made."""

    text: str
    latency_ms: float | None = None
    cost_usd: Decimal | None = None
    cached: bool = False
    finish_reason: str | None = None


class ScorerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scorer as a run names it. `provider` is the judge's endpoint; `rubric_prompt` replaces its prompt."""

    type: str
    value: Any = None
    threshold: float | None = None
    weight: float = 1.0
    metric: str | None = None
    provider: str | None = None
    rubric_prompt: str | list[Message] | None = None


class ScoreRow(msgspec.Struct, frozen=True):
    """A verdict together with the scorer that gave it, as a result stores it."""

    scorer: str
    metric: str | None
    value: float | None
    passed: bool | None
    reason: str
    error: str | None
    weight: float


class Assessment(msgspec.Struct, frozen=True):
    """All verdicts on one output. `passed` and `score` are None exactly when `error` is set."""

    passed: bool | None
    score: float | None
    scores: list[ScoreRow]
    error: str | None


class ScorerError(ValueError):
    """A scorer that cannot be used as written. `field` is what to change, `advice` how.

    It refuses the run that is being started. A template may make a value unusable later: then it
    is the score's error.
    """

    def __init__(self, field: str, advice: str, *, index: int | None = None, scorer: str = "") -> None:
        self.field, self.advice, self.index = field, advice, index
        named = f" ({scorer})" if scorer else ""
        where = field if index is None else f"scorers[{index}].{field}{named}"
        super().__init__(f"{where}: {advice}")


class UnjudgeableError(Exception):
    """An output about which the scorer cannot say anything: an error, neither passed nor failed."""


class AlwaysFails(Exception):
    """The verdict is a failure whether or not the scorer is negated, e.g. an invalid pattern."""
