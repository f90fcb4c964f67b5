"""Embeddings of texts on this machine, from the files of the wordllama package, without importing it.

A text's embedding is the mean of its tokens' vectors, as in "Static embeddings" models such as GloVe;
the vectors are those of l2_supercat, 256 dimensions (github.com/dleemiller/WordLlama).
"""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from autoforge.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import tokenizers

    Matrix = npt.NDArray[np.float32]
else:
    np, tokenizers = lazy("numpy"), lazy("tokenizers")

PACKAGE = "wordllama"
MAX_TEXT_CHARS = 100_000

_DTYPES = {"F16": "float16", "F32": "float32"}
_lock = threading.Lock()
_loaded: list[_Model] = []


class EmbeddingsUnavailableError(RuntimeError):
    """The model's files are not on this machine."""


class _Model(NamedTuple):
    vectors: npt.NDArray[Any]
    tokenizer: Any


def embed(texts: list[str]) -> Matrix:
    """One row of length 1 per text, shape (len(texts), dimensions); a text without tokens is a row of zeros.

    Only the first 100,000 characters of a text count. Raises EmbeddingsUnavailableError.
    """
    return embed_and_count(texts)[0]


def embed_and_count(texts: list[str]) -> tuple[Matrix, int]:
    """The rows of `embed`, and how many tokens the texts have together. Raises EmbeddingsUnavailableError."""
    model = _model()
    tokens = [_token_ids(model, text[:MAX_TEXT_CHARS]) for text in texts]
    rows = [_mean_vector(model, ids) for ids in tokens]
    stacked = np.array(rows, dtype=np.float32).reshape(len(rows), model.vectors.shape[1])
    return unit_rows(stacked), sum(map(len, tokens))


def is_loaded() -> bool:
    """Whether the next call finds the model in memory; reading it takes 0.2 s."""
    return bool(_loaded)


def unit_rows(rows: Matrix) -> Matrix:
    """Every row scaled to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def count_tokens(text: str) -> int:
    """How many tokens of the model `text` has. Raises EmbeddingsUnavailableError."""
    return len(_token_ids(_model(), text[:MAX_TEXT_CHARS]))


def _mean_vector(model: _Model, ids: list[int]) -> Matrix:
    if not ids:
        return np.zeros(model.vectors.shape[1], dtype=np.float32)
    # A sum by counts of distinct tokens, so that a long text needs no row per token.
    distinct, counts = np.unique(np.asarray(ids), return_counts=True)
    distinct = np.minimum(distinct, len(model.vectors) - 1)
    mean: Matrix = counts.astype(np.float32) @ model.vectors[distinct].astype(np.float32) / len(ids)
    return mean


def _token_ids(model: _Model, text: str) -> list[int]:
    # A lone surrogate cannot be written as UTF-8, which the tokenizer needs.
    readable = text.encode("utf-8", "replace").decode()
    # Of the tokenizer's calls, those for several texts let other threads run meanwhile.
    (encoding,) = model.tokenizer.encode_batch_fast([readable], add_special_tokens=False)
    ids: list[int] = encoding.ids
    return ids


def _model() -> _Model:
    """The model, loaded by the first thread that needs it."""
    if not _loaded:
        with _lock:
            if not _loaded:
                _loaded.append(_load(_package_directory()))
    return _loaded[0]


def _package_directory() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddingsUnavailableError(
            "Local embeddings need the package wordllama: "
            "pip install --no-deps -r requirements-local-model.txt"
        )
    return Path(spec.submodule_search_locations[0])


def _load(directory: Path) -> _Model:
    weights = next(directory.glob("weights/*.safetensors"), None)
    tokenizer = next(directory.glob("tokenizers/*_tokenizer_config.json"), None)
    if weights is None or tokenizer is None:
        raise EmbeddingsUnavailableError(f"{PACKAGE} has no weights or no tokenizer: install it again.")
    return _Model(_read_safetensors(weights), tokenizers.Tokenizer.from_file(str(tokenizer)))


def _read_safetensors(path: Path) -> npt.NDArray[Any]:
    """The only tensor of a safetensors file: u64 header length, JSON header, data. Mapped, not read.

    Format: github.com/huggingface/safetensors, "Format".
    """
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    (tensor,) = (entry for name, entry in header.items() if name != "__metadata__")
    offset = 8 + header_bytes + tensor["data_offsets"][0]
    return np.memmap(path, _DTYPES[tensor["dtype"]], "r", offset, tuple(tensor["shape"]))
