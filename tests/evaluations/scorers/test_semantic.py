"""Similarity by the embedding model on this machine."""

import sys
import threading

import numpy as np
import pytest

from evaluations import embeddings
from evaluations.embeddings import EmbeddingsUnavailableError, count_tokens, embed
from evaluations.scorers import ScorerError, parse_scorers
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


@needs_model
def test_a_paraphrase_is_closer_than_another_subject():
    question, paraphrase, unrelated = embed([QUESTION, PARAPHRASE, UNRELATED])
    assert question @ paraphrase > 0.7 > 0.2 > question @ unrelated


@needs_model
def test_rows_have_length_one_and_a_text_without_tokens_is_zero():
    rows = embed(["a", "日本語 😀", "\ud800", "x " * 5_000, ""])
    assert rows.shape == (5, 256) and rows.dtype == np.float32
    assert np.linalg.norm(rows[:4], axis=1) == pytest.approx(1, abs=1e-6)
    assert not rows[4].any()
    assert embed([]).shape == (0, 256)


@needs_model
def test_an_embedding_is_the_mean_of_its_tokens_vectors():
    model = embeddings._model()
    for text in (QUESTION, "Grüße, 世界! " * 40):
        ids = model.tokenizer.encode(text, add_special_tokens=False).ids
        mean = np.asarray(model.vectors[ids], dtype=np.float64).mean(axis=0)
        assert embed([text])[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
        assert count_tokens(text) == len(ids)


@needs_model
def test_threads_share_one_model(nothing_loaded):
    threads = [threading.Thread(target=embed, args=([QUESTION],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(embeddings._loaded) == 1


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
