"""The embedding model on this machine."""

import importlib.util
import threading

import numpy as np
import pytest

from prompts.llm import embeddings
from prompts.llm.embeddings import count_tokens, embed, embed_and_count

needs_model = pytest.mark.skipif(
    importlib.util.find_spec("wordllama") is None,
    reason="the embedding model is not installed: requirements-local-model.txt",
)

QUESTION = "How do I reset my password?"
PARAPHRASE = "I forgot my password, how can I change it?"
UNRELATED = "Interest rates rose by two percent."


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_loaded", [])


@needs_model
def test_a_paraphrase_is_closer_than_another_subject() -> None:
    question, paraphrase, unrelated = embed([QUESTION, PARAPHRASE, UNRELATED])
    assert question @ paraphrase > 0.7 > 0.2 > question @ unrelated


@needs_model
def test_rows_have_length_one_and_a_text_without_tokens_is_zero() -> None:
    rows = embed(["a", "日本語 😀", "\ud800", "x " * 5_000, ""])
    assert rows.shape == (5, 256) and rows.dtype == np.float32
    assert np.linalg.norm(rows[:4], axis=1) == pytest.approx(1, abs=1e-6)
    assert not rows[4].any()
    assert embed([]).shape == (0, 256)


@needs_model
def test_an_embedding_is_the_mean_of_its_tokens_vectors() -> None:
    model = embeddings._model()
    for text in (QUESTION, "Grüße, 世界! " * 40):
        ids = model.tokenizer.encode(text, add_special_tokens=False).ids
        mean = np.asarray(model.vectors[ids], dtype=np.float64).mean(axis=0)
        assert embed([text])[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
        assert count_tokens(text) == embed_and_count([text])[1] == len(ids)


@needs_model
def test_threads_share_one_model(nothing_loaded: None) -> None:
    threads = [threading.Thread(target=embed, args=([QUESTION],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(embeddings._loaded) == 1
