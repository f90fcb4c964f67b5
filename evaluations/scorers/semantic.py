"""Scorers by meaning: how close two texts are as embeddings."""

from __future__ import annotations

from evaluations.scorers.javascript import js_string
from evaluations.scorers.registry import scorer, shown, threshold_of
from evaluations.scorers.types import Output, Score, ScorerError, ScorerSpec, UnjudgeableError
from prompts.llm.embeddings import EmbeddingsUnavailableError, embed


def references(spec: ScorerSpec) -> list[str]:
    """One text or a list of them, none empty."""
    values = spec.value if isinstance(spec.value, list) else [spec.value]
    if not values or not all(isinstance(value, str | int | float) and value != "" for value in values):
        raise ScorerError("value", f"must be a text or a list of texts, none empty, not {shown(spec.value)}.")
    return [js_string(value) for value in values]


@scorer("similar", "similar:cosine", reads=references, default_threshold=0.75, highest_threshold=1.0)
def similar(output: Output, expected: list[str], spec: ScorerSpec) -> Score:
    """Cosine similarity to the closest value of at least `threshold`.

    The score is the similarity, 0 when it is negative.
    """
    try:
        rows = embed([output.text, *expected])
    except EmbeddingsUnavailableError as error:
        raise UnjudgeableError(str(error)) from None
    similarity = min(1.0, max(0.0, float((rows[1:] @ rows[0]).max())))
    threshold = threshold_of(spec)
    return Score(similarity, similarity >= threshold, f"similarity {similarity:.3f}, threshold {threshold:g}")
