"""Opens a search index by name: the one place where backends are chosen."""

import os
import sys

import numpy as np
from etils import epath
from jax.sharding import Mesh

from clmrc_jax.files import InputError
from clmrc_jax.retrieval.embeddings import EmbeddingStore
from clmrc_jax.retrieval.exact import ExactIndex
from clmrc_jax.retrieval.numpy_index import NumpyIndex, SearchIndex
from clmrc_jax.retrieval.scann_index import MANIFEST, ScannConfig, ScannIndex, measure_recall

KINDS = ("exact", "scann", "numpy")
_SAMPLE_ROWS = 256  # questions of a recall measurement
_RECALL_AT = 10


def open_index(
    kind: str,
    embeddings: EmbeddingStore,
    *,
    mesh: Mesh | None = None,
    folder: str | os.PathLike | None = None,
    queries: np.ndarray | None = None,
    scann: ScannConfig | None = None,
    **exact_options,
) -> tuple[SearchIndex, float]:
    """Opens (or builds) an index over the embeddings; returns it and its recall@10.

    kind: exact (devices of the mesh), scann (host, approximate), numpy (host, exact).
    folder: where a ScaNN index is saved and found again; an index of other embeddings there
    is replaced.   queries: sample questions [q, d] for the recall measurement; without them
    rows of the corpus stand in.   exact_options: of ExactIndex.
    The recall against exact search is measured and printed (stderr) whenever an index is built; it is
    1.0 by definition for exact backends. Raises InputError for an unknown kind.
    """
    if kind == "exact":
        return ExactIndex(embeddings, mesh, **exact_options), 1.0
    if kind == "numpy":
        return NumpyIndex(embeddings), 1.0
    if kind != "scann":
        raise InputError(f"index {kind!r}: choose one of {', '.join(KINDS)}")
    fingerprint = embeddings.spec.fingerprint
    saved = _load_saved(folder, embeddings, scann or ScannConfig())
    if saved is not None:
        return saved, saved.manifest["recall"]
    index = ScannIndex.build(embeddings, scann, fingerprint=fingerprint)
    exact = ExactIndex(embeddings, mesh, **exact_options)
    sample = _sample(embeddings) if queries is None else queries[:_SAMPLE_ROWS]
    value = measure_recall(index, exact, sample, _RECALL_AT)
    index.manifest |= {"recall": value, "recall_at": _RECALL_AT, "recall_queries": len(sample)}
    print(
        f"  scann ({index.manifest['method']}, {index.count:,} rows): recall@{_RECALL_AT} "
        f"{value:.4f} against exact search on {len(sample)} questions",
        file=sys.stderr,  # stdout may be JSON
    )
    if folder is not None:
        index.save(folder)
    return index, value


def _load_saved(folder, embeddings: EmbeddingStore, config: ScannConfig) -> ScannIndex | None:
    """The index saved in `folder`, when it is of these embeddings and settings."""
    if folder is None or not (epath.Path(folder) / MANIFEST).exists():
        return None
    index = ScannIndex.load(folder)
    wanted = (embeddings.spec.fingerprint, embeddings.shape, config)
    manifest = index.manifest
    found = (
        manifest["fingerprint"],
        (index.count, index.dim),
        ScannConfig(**manifest["config"]),
    )
    return index if found == wanted else None


def _sample(embeddings: EmbeddingStore) -> np.ndarray:
    step = max(1, len(embeddings) // _SAMPLE_ROWS)
    rows = range(0, len(embeddings), step)[:_SAMPLE_ROWS]
    return np.concatenate([embeddings.rows(row, row + 1) for row in rows])
