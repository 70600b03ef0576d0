"""Exact search in NumPy, without jax, and the rules every index follows."""

from typing import Protocol

import numpy as np

from clmrc_jax.files import InputError
from clmrc_jax.retrieval.embeddings import EmbeddingStore


class SearchIndex(Protocol):
    """What every index offers.

    `search(queries [q, d], k)` returns scores [q, k] float32 and rows [q, k] int64, best first.
    Places it cannot fill (k beyond the corpus) hold score -inf and row -1. InputError for
    queries of another width and for k < 1.
    """

    count: int
    dim: int

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]: ...


class NumpyIndex:
    """Exact maximum-inner-product search on the host; equal scores go to the lower row.

    embeddings: EmbeddingStore, or float array [n, d].   block_rows: rows scored at once.
    """

    def __init__(self, embeddings: EmbeddingStore | np.ndarray, *, block_rows: int = 1 << 15):
        self.count, self.dim = embeddings.shape
        if self.count == 0:
            raise InputError("the corpus is empty: there is nothing to search")
        self._embeddings, self._block_rows = embeddings, block_rows

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See SearchIndex.search."""
        queries = check_queries(queries, self.dim, k)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        for start in range(0, self.count, self._block_rows):
            block = read_rows(self._embeddings, start, min(start + self._block_rows, self.count))
            new = queries @ block.T  # [q, block]
            new_rows = np.broadcast_to(np.arange(start, start + len(block)), new.shape)
            scores, rows = _best(
                np.concatenate([scores, new], 1), np.concatenate([rows, new_rows], 1), k
            )
        return scores, rows


def _best(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best columns of each line, ties to the lower column (= the lower row)."""
    threshold = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    above = scores > threshold  # all of these, then ties of the threshold from the left
    ties = scores == threshold
    keep = above | (ties & (np.cumsum(ties, axis=1) <= k - above.sum(1, keepdims=True)))
    columns = np.nonzero(keep)[1].reshape(len(scores), k)
    scores, rows = (np.take_along_axis(x, columns, 1) for x in (scores, rows))
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean share of `wanted` rows [q, k] among `found` rows [q, k]; row -1 is no row."""
    shares = [
        len(set(f) & set(w) - {-1}) / max(len(set(w) - {-1}), 1)
        for f, w in zip(found.tolist(), wanted.tolist())
    ]
    return float(np.mean(shares)) if shares else 0.0


def check_queries(queries: np.ndarray, dim: int, k: int) -> np.ndarray:
    """Questions as float32 [q, dim]. Raises InputError for another width or k < 1."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise InputError(
            f"questions are encoded as {list(queries.shape)}, the index is {dim} wide: use the "
            "encoder that made the embeddings, or encode the corpus again"
        )
    if k < 1:
        raise InputError(f"top_k must be at least 1, got {k}")
    return queries


def read_rows(embeddings: EmbeddingStore | np.ndarray, start: int, stop: int) -> np.ndarray:
    """Rows start..stop-1 as float32, from a store or an array in memory."""
    if isinstance(embeddings, np.ndarray):
        return np.asarray(embeddings[start:stop], np.float32)
    return embeddings.rows(start, stop)
