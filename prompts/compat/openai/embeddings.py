"""`/v1/embeddings`: by the embedding model on this machine, at no cost."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
from django.http import HttpResponse

from autoforge.errors import InvalidInput, Unavailable
from prompts.compat.openai.errors import NO_RETRY, ModelNotFound
from prompts.compat.openai.schemas import EmbeddingsRequest, read_embeddings
from prompts.compat.openai.surface import Exchange, json_response
from prompts.llm.embeddings import EmbeddingsUnavailableError, embed_and_count, unit_rows

if TYPE_CHECKING:
    from prompts.llm.embeddings import Matrix

EMBEDDINGS_MODEL = "local-embeddings"
DIMENSIONS = 256

# It computes: one thread of its own keeps it from taking those that wait for the database.
_thread = ThreadPoolExecutor(1, "embeddings")


async def embed_texts(exchange: Exchange) -> HttpResponse:
    """One embedding for each text. Raises ModelNotFound, InvalidInput, Unavailable."""
    body = read_embeddings(exchange.request.body)
    texts = _texts(body)
    content = await asyncio.get_running_loop().run_in_executor(_thread, _embedded, body, texts)
    return json_response(content)


def _texts(body: EmbeddingsRequest) -> list[str]:
    if body.model != EMBEDDINGS_MODEL:
        sentence = f"The model {body.model!r} does not exist here: embeddings are made by {EMBEDDINGS_MODEL}."
        raise ModelNotFound(sentence, param="model")
    if body.dimensions is not None and not 1 <= body.dimensions <= DIMENSIONS:
        raise InvalidInput(f"dimensions is between 1 and {DIMENSIONS}.", param="dimensions")
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not all(isinstance(text, str) and text for text in texts):
        sentence = "input must be a text or a list of texts, none empty: token numbers are another model's."
        raise InvalidInput(sentence, param="input")
    return [str(text) for text in texts]


def _embedded(body: EmbeddingsRequest, texts: list[str]) -> bytes:
    try:
        rows, tokens = embed_and_count(texts)
    except EmbeddingsUnavailableError as error:
        raise Unavailable(str(error), headers=dict(NO_RETRY)) from error
    # Vectors of this kind of model may be cut short: the first dimensions say most.
    kept = unit_rows(rows[:, : body.dimensions]) if body.dimensions else rows
    data = [
        {"object": "embedding", "index": position, "embedding": vector}
        for position, vector in enumerate(_vectors(kept, is_base64=body.encoding_format == "base64"))
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "model": body.model, "data": data, "usage": usage})


def _vectors(rows: Matrix, *, is_base64: bool) -> list[Any]:
    """As numbers, or as little-endian 32-bit floats in base64."""
    if not is_base64:
        return rows.tolist()
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
