"""Data sets, and runs of prompts over them."""

from evaluations.models.datasets import Case, Dataset
from evaluations.models.external import ExternalCase, ExternalCell, PendingScore
from evaluations.models.runs import (
    LIVE_STATES,
    Result,
    ResultQuerySet,
    ResultState,
    Run,
    RunQuerySet,
    RunState,
    RunWorker,
    Shard,
)

__all__ = [
    "LIVE_STATES",
    "Case",
    "Dataset",
    "ExternalCase",
    "ExternalCell",
    "PendingScore",
    "Result",
    "ResultQuerySet",
    "ResultState",
    "Run",
    "RunQuerySet",
    "RunState",
    "RunWorker",
    "Shard",
]
