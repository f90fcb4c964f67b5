"""Scorers by edit distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoforge.lazy import lazy
from evaluations.scorers.registry import binary, scorer, threshold_of
from evaluations.scorers.text import text_or_number
from evaluations.scorers.types import Output, Score, ScorerSpec, UnjudgeableError

if TYPE_CHECKING:
    from rapidfuzz.distance import Levenshtein
else:
    Levenshtein = lazy("rapidfuzz.distance.Levenshtein")

# Cells of the table of prefixes that may be filled: 20,000 characters on each side, in about 15 ms.
MAX_CELLS = 400_000_000
_WORD_BITS = 64


@scorer("levenshtein", reads=text_or_number, default_threshold=5.0)
def levenshtein(output: Output, expected: str, spec: ScorerSpec) -> Score:
    """At most `threshold` insertions, deletions and substitutions of one character (Levenshtein 1966).

    Only a band of the table, as wide as the threshold allows, is worked out (Ukkonen 1985): with a low
    threshold long texts are cheap. Beyond MAX_CELLS the output cannot be judged.
    """
    allowed = threshold_of(spec)
    longest = max(len(output.text), len(expected))
    if longest * min(longest, 2 * allowed + _WORD_BITS) > MAX_CELLS:
        raise UnjudgeableError(
            f"{longest:,} characters are too many for a threshold of {allowed:g}: shorten them, or lower it"
        )
    # Beyond the cutoff the distance is not worked out: cutoff + 1 comes back, quickly.
    distance = Levenshtein.distance(output.text, expected, score_cutoff=int(allowed))
    more = "more than " if distance > allowed else ""
    return binary(distance <= allowed, f"distance {more}{min(distance, int(allowed))}, allowed {allowed:g}")
