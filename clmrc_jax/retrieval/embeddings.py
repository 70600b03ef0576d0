"""Passage embeddings on disk: `.npy` shards, a manifest, resumable writing, mapped reading.

    folder/shard-00000.npy         [rows, dim] float16 | float32 | int8
    folder/shard-00000.scale.npy   [rows] float32, one scale per row (int8 only)
    folder/shard-00000.json        commit record of a shard while the folder is being written
    folder/manifest.json           what the whole folder holds; written last

Row i of the embeddings is row i of the passage store. The published code cut the corpus into
floor(N / n) rows per shard and so never indexed the last N mod n passages; here the last shard
is simply shorter, and `finish` asserts that the shards cover every row.
"""

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from etils import epath

from clmrc_jax import files
from clmrc_jax.files import InputError

DTYPES = ("float16", "float32", "int8")
MANIFEST = "manifest.json"
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class EmbeddingSpec:
    """What a folder of embeddings holds.

    count: rows in all (= passages).   dim: width.   dtype: one of DTYPES.
    fingerprint: identifies encoder, text format and corpus (`fingerprint_of`).
    normalized: rows have unit length.   shard_rows: rows of every shard but the last.
    """

    count: int
    dim: int
    dtype: str = "float16"
    fingerprint: str = ""
    normalized: bool = False
    shard_rows: int = 1 << 18

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise InputError(f"embedding dtype {self.dtype!r}: choose one of {', '.join(DTYPES)}")
        if self.count <= 0:
            raise InputError("the corpus is empty: there is no passage to embed")
        if self.dim <= 0 or self.shard_rows <= 0:
            raise InputError(f"dim {self.dim} and shard_rows {self.shard_rows} must be positive")

    @property
    def shards(self) -> int:
        return -(-self.count // self.shard_rows)

    def row_range(self, shard: int) -> tuple[int, int]:
        """First row and the row after the last of one shard."""
        start = shard * self.shard_rows
        return start, min(start + self.shard_rows, self.count)


def fingerprint_of(params: Mapping, **settings) -> str:
    """16 hex digits that change with any weight (nested dict of arrays) or setting.

    settings: whatever else decides the vectors, e.g. pooling, prefix, max_length, corpus.
    """
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())

    def add(tree, path):
        for name in sorted(tree):
            if isinstance(tree[name], Mapping):
                add(tree[name], f"{path}/{name}")
                continue
            leaf = np.ascontiguousarray(tree[name])
            digest.update(f"{path}/{name} {leaf.dtype} {leaf.shape}".encode())
            digest.update(leaf.view(np.uint8).reshape(-1).data)

    add(params, "")
    return digest.hexdigest()[:16]


class EmbeddingWriter:
    """Writes a folder of embeddings shard by shard; a second run does what is missing.

    Several processes may share one folder when each writes other shards: a shard is committed
    by its own small record, and the manifest is written by whoever calls `finish`.
    Raises InputError when the folder holds embeddings of another encoder or shape.
    """

    def __init__(self, folder: str | os.PathLike, spec: EmbeddingSpec):
        self.folder, self.spec = epath.Path(folder), spec
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / MANIFEST).exists():
            _check_spec(_read_manifest(self.folder)[0], spec, self.folder)

    def missing(self, shards: Iterable[int] | None = None) -> list[int]:
        """Shards still to be written: without a record, or whose bytes differ from it.

        shards: those to look at; their bytes are read. None for all.

        In a bucket only their number is compared: it keeps a file whole or not at all, and
        reading the rest back would take every host as long as a search.
        """
        shards = range(self.spec.shards) if shards is None else shards
        return [shard for shard in shards if not self._is_whole(shard)]

    def write(self, shard: int, vectors: np.ndarray) -> None:
        """Writes one shard: vectors [rows of the shard, dim], finite, any float dtype.

        Raises InputError for a wrong shape, and for values that are not finite or overflow.
        """
        start, stop = self.spec.row_range(shard)
        if vectors.shape != (stop - start, self.spec.dim):
            raise InputError(
                f"{self.folder}, shard {shard}: expected vectors of shape "
                f"{(stop - start, self.spec.dim)}, got {vectors.shape}"
            )
        record = {**dataclasses.asdict(self.spec), "rows": stop - start, "files": {}}
        for name, array in self._encode(shard, vectors).items():
            with files.atomic_write(self.folder / name, "wb") as file:
                described = _Described(file)
                np.lib.format.write_array(described, array, allow_pickle=False)
            record["files"][name] = described.result()
        files.write_json(self.folder / _record_name(shard), record)

    def finish(self) -> "EmbeddingStore":
        """Asserts that every row is covered, writes the manifest, opens the store."""
        if (self.folder / MANIFEST).exists():
            return EmbeddingStore(self.folder)
        shards = []
        for shard in range(self.spec.shards):
            path = self.folder / _record_name(shard)
            if not path.exists():
                raise InputError(f"{self.folder}: shard {shard} is missing; run the encoding again")
            record = files.read_json(path)
            shards.append({"rows": record["rows"], "files": record["files"]})
        rows = sum(shard["rows"] for shard in shards)
        if rows != self.spec.count:
            raise InputError(f"{self.folder}: {rows} rows written for {self.spec.count} passages")
        manifest = {"format": _FORMAT, **dataclasses.asdict(self.spec), "shards": shards}
        files.write_json(self.folder / MANIFEST, manifest)
        for shard in range(self.spec.shards):
            (self.folder / _record_name(shard)).unlink(missing_ok=True)
        return EmbeddingStore(self.folder)

    def _encode(self, shard: int, vectors: np.ndarray) -> dict[str, np.ndarray]:
        if self.spec.dtype == "int8":
            values, scale = _quantize(vectors)
            arrays = {_shard_name(shard): values, _scale_name(shard): scale}
        else:
            with np.errstate(over="ignore"):
                arrays = {_shard_name(shard): vectors.astype(self.spec.dtype)}
        for array in arrays.values():
            if not np.isfinite(array).all():
                cause = "are not finite" if not np.isfinite(vectors).all() else "overflow"
                raise InputError(
                    f"{self.folder}, shard {shard}: embeddings {cause} in {self.spec.dtype}; "
                    "check the encoder weights, or store float32"
                )
        return arrays

    def _is_whole(self, shard: int) -> bool:
        if (self.folder / MANIFEST).exists():
            described = files.read_json(self.folder / MANIFEST)["shards"][shard]["files"]
        else:
            path = self.folder / _record_name(shard)
            if not path.exists():
                return False
            record = files.read_json(path)
            _check_spec(_spec_from(record), self.spec, self.folder)
            described = record["files"]
        return all(
            (self.folder / name).exists() and self._has(self.folder / name, expected)
            for name, expected in described.items()
        )

    def _has(self, path: epath.Path, expected: dict) -> bool:
        if files.is_remote(path):
            return path.stat().length == expected["bytes"]
        return _describe(path) == expected


class EmbeddingStore:
    """Embeddings of a whole corpus, read block by block through memory maps.

    In a bucket, which cannot be mapped, every block is a read of just its bytes: nothing stays in
    memory or on the disk (67 GB for 43.6M rows of 768 float16), and each pass is a download.
    fingerprint, dim: when given, InputError unless the folder holds exactly these.
    """

    def __init__(
        self, folder: str | os.PathLike, *, fingerprint: str | None = None, dim: int | None = None
    ):
        self.folder = epath.Path(folder)
        self.spec, self._shards = _read_manifest(self.folder)
        wanted = dataclasses.replace(
            self.spec,
            fingerprint=self.spec.fingerprint if fingerprint is None else fingerprint,
            dim=self.spec.dim if dim is None else dim,
        )
        _check_spec(self.spec, wanted, self.folder)
        for shard in self._shards:
            for name, described in shard["files"].items():
                path = self.folder / name
                if not path.exists() or path.stat().length != described["bytes"]:
                    state = "missing" if not path.exists() else "truncated"
                    raise InputError(f"{path}: {state}; run the encoding again to mend it")
        self._map = functools.lru_cache(maxsize=256)(self._open)

    def __len__(self) -> int:
        return self.spec.count

    @property
    def shape(self) -> tuple[int, int]:
        return self.spec.count, self.spec.dim

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1 as float32 [stop - start, dim]."""
        if not 0 <= start <= stop <= self.spec.count:
            raise IndexError(f"rows {start}:{stop} of {self.spec.count} embeddings")
        out = np.empty((stop - start, self.spec.dim), np.float32)
        step = self.spec.shard_rows
        for shard in range(start // step, -(-stop // step)):
            first = shard * step
            low, high = max(start, first), min(stop, first + step)
            part = out[low - start : high - start]
            part[:] = self._map(_shard_name(shard))[low - first : high - first]
            if self.spec.dtype == "int8":
                part *= self._map(_scale_name(shard))[low - first : high - first][:, None]
        return out

    def blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (first row, float32 [<= rows, dim]) over the whole corpus."""
        for start in range(0, self.spec.count, rows):
            yield start, self.rows(start, min(start + rows, self.spec.count))

    def verify(self) -> None:
        """Reads everything and compares checksums. Raises InputError naming a damaged file."""
        for shard in self._shards:
            for name, described in shard["files"].items():
                if _describe(self.folder / name) != described:
                    raise InputError(
                        f"{self.folder / name}: checksum differs from {MANIFEST}; delete the file "
                        "and run the encoding again"
                    )

    def _open(self, name: str) -> "np.ndarray | _RemoteRows":
        path = self.folder / name
        if files.is_remote(path):
            return _RemoteRows(path)
        return np.load(os.fspath(path), mmap_mode="r", allow_pickle=False)


class _RemoteRows:
    """The rows of a `.npy` file in a bucket: `rows[low:high]` reads them and nothing else."""

    def __init__(self, path: epath.Path):
        self._path = path
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, self._dtype = np.lib.format.read_array_header_1_0(file)
            self._start, self._row_shape = file.tell(), shape[1:]

    def __getitem__(self, rows: slice) -> np.ndarray:
        row_bytes = self._dtype.itemsize * math.prod(self._row_shape)
        with self._path.open("rb") as file:
            file.seek(self._start + rows.start * row_bytes)
            content = file.read((rows.stop - rows.start) * row_bytes)
        return np.frombuffer(content, self._dtype).reshape(-1, *self._row_shape)


class _Described:
    """A file being written that counts and hashes what goes into it, see `_describe`."""

    def __init__(self, file):
        self._file, self._bytes, self._digest = file, 0, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self._bytes += len(content)
        self._digest.update(content)
        return self._file.write(content)

    def result(self) -> dict:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def _quantize(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 per row: values [n, d] int8, scale [n] float32, vector = value * scale."""
    scale = np.abs(vectors).max(axis=1).astype(np.float32) / 127
    safe = np.where(scale > 0, scale, 1)  # a zero row stays zero
    values = np.rint(np.nan_to_num(vectors / safe[:, None])).clip(-127, 127)
    return values.astype(np.int8), scale


def _read_manifest(folder: epath.Path) -> tuple[EmbeddingSpec, list[dict]]:
    path = folder / MANIFEST
    if not path.exists():
        raise InputError(f"{folder}: no {MANIFEST}; not a finished embedding folder")
    manifest = files.read_json(path)
    try:
        if manifest["format"] != _FORMAT:
            raise InputError(f"{path}: format {manifest['format']}, this version reads {_FORMAT}")
        spec, shards = _spec_from(manifest), manifest["shards"]
        rows = [shard["rows"] for shard in shards]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: field {error} is missing or damaged; encode again") from error
    if sum(rows) != spec.count or len(rows) != spec.shards:
        raise InputError(f"{path}: shards hold {sum(rows)} rows, not the {spec.count} promised")
    return spec, shards


def _check_spec(found: EmbeddingSpec, wanted: EmbeddingSpec, folder: epath.Path) -> None:
    for field in dataclasses.fields(EmbeddingSpec):
        have, want = getattr(found, field.name), getattr(wanted, field.name)
        if have != want:
            raise InputError(
                f"{folder}: holds embeddings with {field.name} {have!r}, but {want!r} is needed; "
                "delete the folder to encode again, or choose another one"
            )


def _spec_from(record: dict) -> EmbeddingSpec:
    return EmbeddingSpec(**{f.name: record[f.name] for f in dataclasses.fields(EmbeddingSpec)})


def _describe(path: epath.Path) -> dict:
    """Length and checksum of a file, as the manifest holds them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return {"bytes": path.stat().length, "sha256": digest.hexdigest()}


def _shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.npy"


def _scale_name(shard: int) -> str:
    return f"shard-{shard:05d}.scale.npy"


def _record_name(shard: int) -> str:
    return f"shard-{shard:05d}.json"
