"""Embeddings by the model on this machine, as OpenAI's own SDK asks for them."""

import importlib.util

import numpy as np
import openai
import pytest
from openai import OpenAI

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("wordllama") is None,
    reason="the embedding model is not installed: requirements-local-model.txt",
)

MODEL = "local-embeddings"
TEXTS = ["How do I reset my password?", "I forgot my password.", "Interest rates rose."]


def test_texts_close_in_meaning_have_close_embeddings(client: OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input=TEXTS)
    assert [item.index for item in answer.data] == [0, 1, 2]
    question, paraphrase, unrelated = (np.array(item.embedding) for item in answer.data)
    assert question.shape == (256,)
    assert np.linalg.norm(question) == pytest.approx(1, abs=1e-5)
    assert question @ paraphrase > 0.5 > question @ unrelated
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 10


def test_base64_and_numbers_are_the_same(client: OpenAI) -> None:
    """The SDK asks for base64 unless told otherwise, and decodes it."""
    default = client.embeddings.create(model=MODEL, input=TEXTS[0])
    plain = client.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format="float")
    assert default.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_fewer_dimensions_are_the_first_ones(client: OpenAI) -> None:
    short = client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=64).data[0].embedding
    whole = np.array(client.embeddings.create(model=MODEL, input=TEXTS[0]).data[0].embedding[:64])
    assert short == pytest.approx(whole / np.linalg.norm(whole), abs=1e-5)


@pytest.mark.parametrize("wrong", [[1, 2, 3], [[1, 2]], "", ["a", ""], []])
def test_what_is_no_text_is_refused(client: OpenAI, wrong: list[int]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=MODEL, input=wrong)
    assert refused.value.param == "input"


def test_another_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="text-embedding-3-small", input="Hi")
    assert MODEL in refused.value.message
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=MODEL, input="Hi", dimensions=257)
