"""Scorers by edit distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoforge.lazy import lazy
from evaluations.scorers.registry import binary, scorer, threshold_of
from evaluations.scorers.text import text_or_number
from evaluations.scorers.types import Output, Score, ScorerSpec

if TYPE_CHECKING:
    from rapidfuzz.distance import Levenshtein
else:
    Levenshtein = lazy("rapidfuzz.distance.Levenshtein")


@scorer("levenshtein", reads=text_or_number, default_threshold=5.0)
def levenshtein(output: Output, expected: str, spec: ScorerSpec) -> Score:
    """At most `threshold` insertions, deletions and substitutions of one character (Levenshtein 1966)."""
    allowed = threshold_of(spec)
    # Beyond the cutoff the distance is not worked out: cutoff + 1 comes back, quickly.
    distance = Levenshtein.distance(output.text, expected, score_cutoff=int(allowed))
    more = "more than " if distance > allowed else ""
    return binary(distance <= allowed, f"distance {more}{min(distance, int(allowed))}, allowed {allowed:g}")
