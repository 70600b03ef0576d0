"""Exact maximum-inner-product search, sharded over the mesh: the reference of every index.

Each device scores its rows of the corpus tile by tile and keeps a running top k; one merge over
the devices follows. A corpus beyond `max_rows_on_device` is streamed block by block.

Deterministic: the tile size depends on the corpus alone, equal scores go to the lower row, and
every merge keeps lower rows first, so 1 device and 8 devices give equal answers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from clmrc_jax.files import InputError
from clmrc_jax.retrieval.embeddings import EmbeddingStore
from clmrc_jax.retrieval.numpy_index import check_queries, read_rows
from clmrc_jax.sharding import make_mesh, place, replicated

_MAX_TILE = 1 << 14


class ExactIndex:
    """Exact search over an embedding matrix.

    embeddings: EmbeddingStore, or float array [n, d] in memory.
    mesh: rows are sharded over all its axes; None = one device. Over a mesh of several processes
    they all make the index and search it together, with equal questions.
    dtype: storage on the device: float32 (full precision products) or bfloat16 (half the
    memory; questions are rounded too); sums and scores are float32 either way.
    max_rows_on_device: rows per device held at once; None = all of them stay there.
    query_batch: questions scored together.
    """

    def __init__(
        self,
        embeddings: EmbeddingStore | np.ndarray,
        mesh: Mesh | None = None,
        *,
        dtype=jnp.float32,
        max_rows_on_device: int | None = None,
        query_batch: int = 256,
    ):
        self.count, self.dim = embeddings.shape
        if self.count == 0:
            raise InputError("the corpus is empty: there is nothing to search")
        if self.count >= 1 << 31:
            raise InputError(f"{self.count} rows: row numbers are int32; split the corpus")
        self._embeddings, self._dtype, self._query_batch = embeddings, jnp.dtype(dtype), query_batch
        self._mesh = mesh or make_mesh(1, 1, jax.local_devices()[:1])
        self._on_cpu = self._mesh.devices.flat[0].platform == "cpu"
        self._tile, self._block = block_sizes(self.count, self._mesh.size, max_rows_on_device)
        self._resident = self._load(0) if self._block >= self.count else None

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k rows of largest inner product: scores [q, k] float32, rows [q, k] int64.

        queries: [q, d]. Best first; equal scores: lower row first. Places beyond the corpus
        (k > n) hold score -inf and row -1. Raises InputError for another width or k < 1.
        """
        queries = check_queries(queries, self.dim, k)
        batch = min(self._query_batch, max(8, _power_of_two(len(queries))))
        parts = [
            self._replicate(queries[i : i + batch], batch) for i in range(0, len(queries), batch)
        ]
        best = [self._nothing(batch, k) for _ in parts]
        for first in range(0, self.count, self._block):
            block = self._load(first) if self._resident is None else self._resident
            for i, part in enumerate(parts):
                best[i] = search_block(
                    part, block, best[i], first, self.count, mesh=self._mesh, tile=self._tile
                )
                if self._on_cpu:  # two programs with collectives in flight can deadlock there
                    jax.block_until_ready(best[i])
        scores, rows = (
            np.empty((len(queries), k), np.float32),
            np.empty((len(queries), k), np.int64),
        )
        for i, (part_scores, part_rows) in enumerate(best):
            own = slice(i * batch, min((i + 1) * batch, len(queries)))
            scores[own] = np.asarray(part_scores)[: own.stop - own.start]
            rows[own] = np.asarray(part_rows)[: own.stop - own.start]
        return scores, rows

    def _replicate(self, queries: np.ndarray, batch: int) -> jax.Array:
        """Questions on every device, filled up to the one compiled batch size."""
        padded = np.zeros((batch, self.dim), self._dtype)
        padded[: len(queries)] = queries
        return place(padded, replicated(self._mesh))

    def _nothing(self, batch: int, k: int) -> tuple[jax.Array, jax.Array]:
        """Scores and rows of a search that has seen no row yet."""
        empty = np.full((batch, k), -np.inf, np.float32), np.full((batch, k), -1, np.int32)
        return place(empty, (replicated(self._mesh),) * 2)

    def _load(self, first: int) -> jax.Array:
        """One block on the devices, each reading only its own rows from disk."""

        def read(index) -> np.ndarray:
            low, high, _ = index[0].indices(self._block)
            part = np.zeros((high - low, self.dim), self._dtype)
            start, stop = (min(first + row, self.count) for row in (low, high))
            part[: stop - start] = read_rows(self._embeddings, start, stop)
            return part

        sharding = NamedSharding(self._mesh, P(self._mesh.axis_names))
        return jax.make_array_from_callback((self._block, self.dim), sharding, read)


def block_sizes(count: int, devices: int, max_rows_on_device: int | None) -> tuple[int, int]:
    """(rows of a tile, rows of a block over all devices) for a corpus of `count` rows."""
    tile = min(_MAX_TILE, max(128, _power_of_two(count) // 16))
    rows = -(-count // devices)
    if max_rows_on_device is not None:
        rows = max(min(rows, max_rows_on_device // tile * tile), 1)
    return tile, -(-rows // tile) * tile * devices


@functools.partial(jax.jit, static_argnames=("mesh", "tile"), donate_argnums=2)
def search_block(queries, block, best, first, count, *, mesh: Mesh, tile: int):
    """Running top k after one more block.

    queries: [q, d]   block: [rows, d] sharded by rows   best: scores and rows [q, k]
    first: number of the block's first row   count: rows of the corpus   returns: like best
    """
    axes = mesh.axis_names

    def local(queries, block, best, first, count):
        position = jax.lax.axis_index(axes)
        begin = first + position * block.shape[0]
        # Only the first device starts from the running best, else the merge would repeat it.
        start = jax.tree.map(
            lambda x, empty: jnp.where(position == 0, x, empty), best, (-jnp.inf, -1)
        )
        found = _scan_tiles(queries, block, start, begin, count, tile)
        scores, rows = (jax.lax.all_gather(x, axes, axis=1, tiled=True) for x in found)
        return _top(scores, rows, best[0].shape[1])

    return jax.shard_map(
        local, mesh=mesh, in_specs=(P(), P(axes), P(), P(), P()), out_specs=P(), check_vma=False
    )(queries, block, best, first, count)


def _scan_tiles(queries, block, best, begin, count, tile):
    """Top k over one device's rows, tile by tile, in ascending order of rows."""
    k = best[0].shape[1]
    precision = jax.lax.Precision.HIGHEST if block.dtype == jnp.float32 else None

    def step(best, number):
        part = jax.lax.dynamic_slice_in_dim(block, number * tile, tile)  # [tile, d]
        scores = jnp.einsum(
            "qd,td->qt", queries, part, precision=precision, preferred_element_type=jnp.float32
        )
        rows = begin + number * tile + jnp.arange(tile, dtype=jnp.int32)
        scores = jnp.where(rows < count, scores, -jnp.inf)
        rows = jnp.broadcast_to(jnp.where(rows < count, rows, -1), scores.shape)
        merged = [jnp.concatenate(pair, axis=1) for pair in zip(best, (scores, rows))]
        return _top(*merged, k), None

    return jax.lax.scan(step, best, jnp.arange(block.shape[0] // tile, dtype=jnp.int32))[0]


def _top(scores, rows, k):
    """The k best columns; lax.top_k puts the lower column first among equals."""
    scores, columns = jax.lax.top_k(scores, k)
    return scores, jnp.take_along_axis(rows, columns, axis=1)


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()
