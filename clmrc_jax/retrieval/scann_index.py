"""ScaNN: the approximate index for hosts. Tree + asymmetric hashing + reordering when large.

Which parts are used follows ScaNN's own guidance (its docs/algorithms.md):
    fewer than 20,000 rows   brute force: nothing is gained by approximation
    fewer than 100,000       asymmetric hashing of all rows, then exact reordering
    more                     tree of sqrt(n) leaves, hashing inside the visited ones, reordering
Memory while building: ScaNN takes one float32 matrix (n * d * 4 bytes; 134 GB for 43.6M rows
of 768) and keeps its own copy for reordering: float32 again, a half (bfloat16) or a quarter
(int8). The tree and the hash codebooks are trained on `training_sample` rows only.
"""

import dataclasses
import math
import os
import shutil

import numpy as np
from etils import epath

from clmrc_jax import files
from clmrc_jax.data.setting_checks import at_least
from clmrc_jax.files import InputError
from clmrc_jax.retrieval.embeddings import EmbeddingStore
from clmrc_jax.retrieval.numpy_index import SearchIndex, check_queries, read_rows, recall

MANIFEST = "index.json"
_REORDER = {"float32": "FLOAT32", "bfloat16": "BFLOAT16", "int8": "INT8"}


@dataclasses.dataclass(frozen=True)
class ScannConfig:
    """Settings of a ScaNN index; 0 = chosen from the number of rows.

    brute_force_below, tree_above: rows, see the module.   leaves: 0 = sqrt(rows).
    leaves_to_search: leaves visited per question; 0 = a tenth of them, at least 10.
    dimensions_per_block, anisotropic_threshold: of the hashing (0.2: unit-length vectors).
    reorder: candidates scored again; 0 = 10 * neighbors, at least 250.
    storage: float32, bfloat16 or int8, of the vectors that reorder (or are searched directly).
    training_sample: rows that train tree and hashing.   neighbors: default k, sizes reordering.
    """

    brute_force_below: int = 20_000
    tree_above: int = 100_000
    leaves: int = 0
    leaves_to_search: int = 0
    dimensions_per_block: int = 2
    anisotropic_threshold: float = 0.2
    reorder: int = 0
    storage: str = "float32"
    training_sample: int = 250_000
    neighbors: int = 20

    def __post_init__(self):
        if self.storage not in _REORDER:
            raise InputError(f"ScaNN storage {self.storage!r}: choose one of {', '.join(_REORDER)}")
        at_least(self, 1, "dimensions_per_block", "training_sample", "neighbors")
        sizes = ("brute_force_below", "tree_above", "leaves", "leaves_to_search", "reorder")
        at_least(self, 0, *sizes)


class ScannIndex:
    """A ScaNN index; make one with `build` or `load`."""

    def __init__(self, searcher, manifest: dict):
        self._searcher, self.manifest = searcher, manifest
        self.count, self.dim = manifest["count"], manifest["dim"]

    @classmethod
    def build(
        cls,
        embeddings: EmbeddingStore | np.ndarray,
        config: ScannConfig | None = None,
        *,
        fingerprint: str = "",
        threads: int = 0,
    ) -> "ScannIndex":
        """Builds the index in memory (see the module for how much).

        embeddings: store or [n, d].   fingerprint: kept in the manifest, checked by `load`.
        threads: training threads, 0 = all cores. Raises InputError where scann is missing.
        """
        scann, config = _import_scann(), config or ScannConfig()
        count, dim = embeddings.shape
        if count == 0:
            raise InputError("the corpus is empty: there is nothing to index")
        builder = scann.builder(_matrix(embeddings), config.neighbors, "dot_product")
        if threads:
            builder.set_n_training_threads(threads)
        method = _configure(builder, count, config)
        manifest = {"count": count, "dim": dim, "fingerprint": fingerprint, "method": method}
        return cls(builder.build(), manifest | {"config": dataclasses.asdict(config)})

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the index to a folder, atomically; replaces one that is there.

        For a bucket it is written into the local cache folder first, and uploaded: 1.7 kB per
        vector of 768 stored as bfloat16 (75 GB for 43.6M), 3.3 as float32, 1.0 as int8.
        Raises InputError for a full disk.
        """
        with files.local_build(folder, last=MANIFEST) as local:
            local.mkdir()
            try:
                self._searcher.serialize(os.fspath(local), relative_path=True)
            except RuntimeError as error:  # ScaNN does not say which of its writes failed, or why
                free = shutil.disk_usage(local).free / 1e9
                raise InputError(
                    f"{folder}: ScaNN cannot write its index ({error}); {free:,.2f} GB are free in "
                    f"{local.parent}: free space there, then run the same command again"
                ) from error
            files.write_json(local / MANIFEST, self.manifest)

    @classmethod
    def load(cls, folder: str | os.PathLike, *, fingerprint: str | None = None) -> "ScannIndex":
        """Opens a saved index. Raises InputError when it is not one, or of other embeddings.

        One in a bucket lies on the local disk, in the cache folder, while it is read.
        """
        folder = epath.Path(folder)
        if not (folder / MANIFEST).exists():
            raise InputError(f"{folder}: no {MANIFEST}; not a saved index, build it again")
        manifest = files.read_json(folder / MANIFEST)
        if fingerprint is not None and manifest.get("fingerprint") != fingerprint:
            raise InputError(
                f"{folder}: index of other embeddings (fingerprint "
                f"{manifest.get('fingerprint')!r}, wanted {fingerprint!r}); delete the folder"
            )
        try:
            with files.local_folder(folder) as local:
                return cls(_import_scann().load_searcher(local), manifest)
        except (ValueError, RuntimeError, OSError) as error:
            raise InputError(f"{folder}: cannot be loaded ({error}); delete the folder") from error

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See SearchIndex.search; the rows are approximate unless the method is brute_force."""
        queries = check_queries(queries, self.dim, k)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        if not len(queries):
            return scores, rows
        wanted = min(k, self.count)
        reorder = None
        if self.manifest["method"] != "brute_force":
            reorder = min(_candidates(self.manifest["config"], wanted), self.count)
        found, distances = self._searcher.search_batched_parallel(
            queries, final_num_neighbors=wanted, pre_reorder_num_neighbors=reorder
        )
        width = found.shape[1]
        real = np.isfinite(distances)  # too few rows in the visited leaves: NaN
        scores[:, :width] = np.where(real, distances, -np.inf)
        rows[:, :width] = np.where(real, found.astype(np.int64), -1)
        return scores, rows


def measure_recall(
    index: SearchIndex, reference: SearchIndex, queries: np.ndarray, k: int = 10
) -> float:
    """recall@k of an index against exact search on sample questions [q, d]; 0 to 1."""
    return recall(index.search(queries, k)[1], reference.search(queries, k)[1])


def _configure(builder, count: int, config: ScannConfig) -> str:
    """Adds the parts that `count` rows deserve; returns the name of the method."""
    from scann.scann_ops.py.scann_builder import ReorderType  # noqa: PLC0415  (optional package)

    storage = ReorderType[_REORDER[config.storage]]
    if count < config.brute_force_below:
        builder.score_brute_force(storage)
        return "brute_force"
    sample = min(config.training_sample, count)
    if count >= config.tree_above:
        leaves = config.leaves or round(math.sqrt(count))
        builder.tree(
            num_leaves=leaves,
            num_leaves_to_search=min(leaves, config.leaves_to_search or max(10, leaves // 10)),
            training_sample_size=sample,
        )
    builder.score_ah(
        config.dimensions_per_block,
        anisotropic_quantization_threshold=config.anisotropic_threshold,
        training_sample_size=sample,
    )
    builder.reorder(_candidates(dataclasses.asdict(config), config.neighbors), storage)
    return "tree_ah" if count >= config.tree_above else "ah"


def _candidates(config: dict, k: int) -> int:
    return max(k, config["reorder"] or max(250, 10 * k))


def _matrix(embeddings: EmbeddingStore | np.ndarray) -> np.ndarray:
    if isinstance(embeddings, np.ndarray):
        return np.ascontiguousarray(embeddings, np.float32)
    matrix = np.empty(embeddings.shape, np.float32)
    for start in range(0, len(matrix), 1 << 16):
        stop = min(start + (1 << 16), len(matrix))
        matrix[start:stop] = read_rows(embeddings, start, stop)
    return matrix


def _import_scann():
    try:
        from scann import scann_ops_pybind  # noqa: PLC0415  (no wheel on some platforms)
    except ImportError as error:
        raise InputError(
            "index 'scann' needs the package scann, which has wheels for Linux only: "
            "pip install scann, or use --config.index.kind=exact (retrieve.py: --index=exact)"
        ) from error
    return scann_ops_pybind
