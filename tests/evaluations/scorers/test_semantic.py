"""Similarity by the embedding model on this machine."""

import asyncio
import sys

import numpy as np
import pytest

from evaluations.scorers import Output, ScorerError, assess_async, parse_scorers, semantic
from evaluations.scorers.base import is_slow
from prompts.llm import embeddings
from prompts.llm.embeddings import EmbeddingsUnavailableError, embed
from tests.evaluations.scorers.verdicts import judged, verdict

needs_model = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("wordllama") is None,
    reason="the embedding model is not installed: requirements-local-model.txt",
)

QUESTION = "How do I reset my password?"
PARAPHRASE = "I forgot my password, how can I change it?"
UNRELATED = "Interest rates rose by two percent."


@pytest.fixture
def nothing_loaded(monkeypatch):
    monkeypatch.setattr(embeddings, "_loaded", [])
    semantic._reference.clear()


@needs_model
def test_similar_scores_the_cosine():
    row = judged("similar", PARAPHRASE, QUESTION, threshold=0.7)
    assert row.passed is True
    assert row.value == pytest.approx(float(np.prod(embed([PARAPHRASE, QUESTION]), axis=0).sum()), abs=1e-6)
    assert verdict("similar", UNRELATED, QUESTION) is False
    assert judged("similar", UNRELATED, QUESTION).value == pytest.approx(0, abs=0.3)
    assert verdict("similar", QUESTION, QUESTION, threshold=0.999) is True


@needs_model
def test_similar_to_one_of_several_is_enough_and_not_similar_needs_none():
    assert verdict("similar", [UNRELATED, PARAPHRASE], QUESTION, threshold=0.7) is True
    assert judged("not-similar", [UNRELATED, PARAPHRASE], QUESTION, threshold=0.7).passed is False


@needs_model
async def test_long_texts_leave_the_event_loop_free():
    embed(["the model is loaded"])
    specs = parse_scorers([{"type": "similar", "value": QUESTION}])
    assert not is_slow(specs, Output(PARAPHRASE))
    pauses = []

    async def watch() -> None:
        while True:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(0.001)
            pauses.append(asyncio.get_running_loop().time() - before)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    assessment = await assess_async(specs, Output(PARAPHRASE * 2_000), judge=None)
    watching.cancel()
    assert assessment.error is None
    assert len(pauses) > 2


@needs_model
def test_a_reference_is_embedded_once():
    semantic._reference.clear()
    for output in (PARAPHRASE, UNRELATED):
        judged("similar", [QUESTION, "Another reference"], output)
    assert len(semantic._reference) == 2


@pytest.mark.parametrize("value", ["", [], None, ["a", ""]])
def test_similar_needs_something_to_compare_with(value):
    with pytest.raises(ScorerError, match="none empty"):
        parse_scorers([{"type": "similar", "value": value}])


def test_without_the_package_similar_is_an_error_that_says_what_to_install(nothing_loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(EmbeddingsUnavailableError):
        embed(["a"])
    row = judged("similar", "a", "b")
    assert row.passed is None
    assert "pip install" in (row.error or "")
