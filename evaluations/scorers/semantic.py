"""Scorers by meaning: how close two texts are as embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoforge.lru import Lru
from evaluations.scorers.javascript import js_string
from evaluations.scorers.registry import scorer, shown, threshold_of
from evaluations.scorers.types import Output, Score, ScorerError, ScorerSpec, UnjudgeableError
from prompts.llm.embeddings import MAX_TEXT_CHARS, EmbeddingsUnavailableError, embed, is_loaded

if TYPE_CHECKING:
    from prompts.llm.embeddings import Matrix

# What takes about a millisecond.
FAST_CHARS = 3_000
_REFERENCES, _REFERENCE_BYTES = 2_048, 4 * 2**20


def _embedded(text: str) -> Matrix:
    row: Matrix = embed([text])[0]
    return row


# The same references are compared with in every column and repeat.
_reference = Lru("embedded references", _embedded, max_entries=_REFERENCES, max_bytes=_REFERENCE_BYTES)


def references(spec: ScorerSpec) -> list[str]:
    """One text or a list of them, none empty."""
    values = spec.value if isinstance(spec.value, list) else [spec.value]
    if not values or not all(isinstance(value, str | int | float) and value != "" for value in values):
        raise ScorerError("value", f"must be a text or a list of texts, none empty, not {shown(spec.value)}.")
    return [js_string(value) for value in values]


def takes_long(output: Output, spec: ScorerSpec) -> bool:
    """A long text, or the first one."""
    return not is_loaded() or len(output.text) + len(str(spec.value)) > FAST_CHARS


@scorer(
    "similar",
    "similar:cosine",
    reads=references,
    default_threshold=0.75,
    highest_threshold=1.0,
    is_slow=takes_long,
)
def similar(output: Output, expected: list[str], spec: ScorerSpec) -> Score:
    """Cosine similarity to the closest value of at least `threshold`.

    The score is the similarity, 0 when it is negative.
    """
    try:
        row = _embedded(output.text)
        closest = max(float(_reference(text[:MAX_TEXT_CHARS]) @ row) for text in expected)
    except EmbeddingsUnavailableError as error:
        raise UnjudgeableError(str(error)) from None
    similarity = min(1.0, max(0.0, closest))
    threshold = threshold_of(spec)
    return Score(similarity, similarity >= threshold, f"similarity {similarity:.3f}, threshold {threshold:g}")
