"""Code that judges an output. Each family registers its scorers; `base` is the face of all of them."""

from evaluations.scorers import distance, judged, measures, semantic, structured, text
from evaluations.scorers.base import (
    Assessment,
    Judge,
    Output,
    Score,
    ScorerError,
    ScoreRow,
    ScorerSpec,
    assess,
    assess_async,
    needs_judge,
    parse_scorers,
    render_specs,
    scorer_names,
)

__all__ = [
    "Assessment",
    "Judge",
    "Output",
    "Score",
    "ScoreRow",
    "ScorerError",
    "ScorerSpec",
    "assess",
    "assess_async",
    "distance",
    "judged",
    "measures",
    "needs_judge",
    "parse_scorers",
    "render_specs",
    "scorer_names",
    "semantic",
    "structured",
    "text",
]
