"""Encodes a passage corpus, or questions, with any jitted encoder."""

import collections
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clmrc_jax import hosts
from clmrc_jax.progress import Meter
from clmrc_jax.retrieval.batches import BatchPlan, Ragged, TokenBatch, make_batches, tokenize_ranges
from clmrc_jax.retrieval.embeddings import EmbeddingSpec, EmbeddingStore, EmbeddingWriter

EncodeFn = Callable[[jax.Array, jax.Array], jax.Array]
_IN_FLIGHT = 4  # batches queued on the device: it never waits for the host, memory stays small


def encode_corpus(
    encode_fn: EncodeFn,
    store,
    tokenize: Callable,
    folder: str | os.PathLike,
    *,
    plan: BatchPlan,
    fingerprint: str,
    dtype: str = "float16",
    shard_rows: int = 1 << 18,
    window_rows: int = 1 << 14,
    normalized: bool = False,
    workers: int = 0,
    mesh: Mesh | None = None,
    description: str = "encode passages",
) -> EmbeddingStore:
    """Encodes every passage of `store` into `folder`; finished shards are skipped.

    encode_fn: (ids [b, L] int32, mask [b, L] bool) -> [b, dim], jitted by the caller.
    store: len() and get_many(rows) -> passages; row i becomes embedding i.
    tokenize: list of passages -> list of token ids; must pickle when workers > 0.
    plan: the batch shapes.   window_rows: passages sorted by length together.
    mesh: batches are laid over its "data" axis; None = the default device.
    Several hosts share the work shard by shard; each needs a mesh of its own devices.
    Raises InputError for an empty corpus and for a folder of another encoder.
    """
    spec = EmbeddingSpec(
        len(store), _width(encode_fn, plan), dtype, fingerprint, normalized, shard_rows
    )
    writer = EmbeddingWriter(folder, spec)
    mine = range(jax.process_index(), spec.shards, jax.process_count())
    missing = writer.missing(mine)
    windows = {shard: _windows(*spec.row_range(shard), window_rows) for shard in missing}
    left = sum(stop - start for ranges in windows.values() for start, stop in ranges)
    ahead = tokenize_ranges(store, tokenize, sum(windows.values(), []), workers)
    with Meter(description, spec.count, start=spec.count - left) as meter:
        for shard, ranges in windows.items():
            first, stop = spec.row_range(shard)
            vectors = np.empty((stop - first, spec.dim), np.float32)
            texts = ((low - first, next(ahead)) for low, _ in ranges)
            _encode(encode_fn, texts, vectors, plan, mesh, meter)
            writer.write(shard, vectors)
    ahead.close()
    return _finish(writer)


def encode_questions(
    encode_fn: EncodeFn,
    texts: Sequence[Sequence[int]],
    *,
    plan: BatchPlan,
    mesh: Mesh | None = None,
    description: str = "encode questions",
) -> np.ndarray:
    """Encodes tokenised questions held in memory: float32 [len(texts), dim], same order."""
    vectors = np.empty((len(texts), _width(encode_fn, plan)), np.float32)
    with Meter(description, len(texts)) as meter:
        _encode(encode_fn, [(0, Ragged.join(texts))], vectors, plan, mesh, meter)
    return vectors


def _encode(
    encode_fn: EncodeFn,
    texts: Iterable[tuple[int, Ragged]],
    vectors: np.ndarray,
    plan: BatchPlan,
    mesh: Mesh | None,
    meter: Meter,
) -> None:
    """Encodes windows of texts (first row, token ids) and scatters the results to `vectors`.

    The dispatch is asynchronous: a result is fetched only when _IN_FLIGHT newer batches have
    been sent, so the device always has its next batch.
    """
    sharding = None if mesh is None else NamedSharding(mesh, PartitionSpec("data"))
    begin, done = time.monotonic(), 0
    flying = collections.deque()

    def land() -> None:
        nonlocal done
        rows, result = flying.popleft()
        vectors[rows] = np.asarray(result)[: len(rows)]
        done += len(rows)
        meter.advance(len(rows), f"{done / (time.monotonic() - begin):.0f}/s")

    for first, batch in _batches(texts, plan):
        ids, mask = jax.device_put((batch.ids, batch.mask), sharding)
        result = encode_fn(ids, mask)
        result.copy_to_host_async()
        flying.append((first + batch.rows, result))
        if len(flying) > _IN_FLIGHT:
            land()
    while flying:
        land()


def _batches(
    texts: Iterable[tuple[int, Ragged]], plan: BatchPlan
) -> Iterator[tuple[int, TokenBatch]]:
    for first, window in texts:
        for batch in make_batches(window, plan):
            yield first, batch


def _width(encode_fn: EncodeFn, plan: BatchPlan) -> int:
    """Embedding width, by shape inference alone."""
    shape = plan.rows(plan.buckets[0]), plan.buckets[0]
    ids, mask = (jax.ShapeDtypeStruct(shape, dtype) for dtype in (np.int32, np.bool_))
    return jax.eval_shape(encode_fn, ids, mask).shape[-1]


def _windows(start: int, stop: int, rows: int) -> list[tuple[int, int]]:
    return [(low, min(low + rows, stop)) for low in range(start, stop, rows)]


def _finish(writer: EmbeddingWriter) -> EmbeddingStore:
    # After a restart one host may have all that is missing, hours of work.
    hosts.wait_for_all("embedding shards written")
    if hosts.is_first():
        writer.finish()
    hosts.wait_for_all("embedding manifest written")
    return EmbeddingStore(writer.folder)
