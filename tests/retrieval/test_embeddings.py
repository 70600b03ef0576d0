"""Embedding folders: coverage, resuming, checksums, and what a foreign folder says."""

import json

import numpy as np
import pytest

from bucket import Bucket
from clmrc_jax.files import InputError
from clmrc_jax.retrieval.embeddings import (
    EmbeddingSpec,
    EmbeddingStore,
    EmbeddingWriter,
    fingerprint_of,
)


def _vectors(count=23, dim=6, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def _write(folder, vectors, **settings):
    spec = EmbeddingSpec(*vectors.shape, **{"shard_rows": 5, "fingerprint": "f", **settings})
    writer = EmbeddingWriter(folder, spec)
    for shard in writer.missing():
        writer.write(shard, vectors[slice(*spec.row_range(shard))])
    return writer.finish()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 0), ("float16", 2e-3), ("int8", 1.5e-2)]
)
def test_store_every_dtype_gives_the_rows_back(tmp_path, dtype, tolerance):
    vectors = _vectors()
    store = _write(tmp_path / "e", vectors, dtype=dtype)
    assert store.shape == (23, 6) and len(store) == 23
    np.testing.assert_allclose(store.rows(0, 23), vectors, atol=tolerance * 3)
    np.testing.assert_array_equal(store.rows(3, 17), store.rows(0, 23)[3:17])
    assert store.rows(4, 4).shape == (0, 6)
    assert store.rows(0, 1).dtype == np.float32
    store.verify()


def test_store_blocks_cover_the_last_rows(tmp_path):
    vectors = _vectors(count=17)  # 17 = 3 shards of 5 and 2 rows more
    store = _write(tmp_path / "e", vectors, dtype="float32")
    starts, blocks = zip(*store.blocks(7))
    assert starts == (0, 7, 14)
    np.testing.assert_array_equal(np.concatenate(blocks), vectors)


def test_int8_zero_row_stays_zero(tmp_path):
    vectors = _vectors()
    vectors[4] = 0
    store = _write(tmp_path / "e", vectors, dtype="int8")
    assert not store.rows(4, 5).any()


def test_writer_after_interruption_writes_only_missing_shards(tmp_path):
    vectors, folder = _vectors(), tmp_path / "e"
    spec = EmbeddingSpec(23, 6, shard_rows=5, fingerprint="f")
    first = EmbeddingWriter(folder, spec)
    assert first.missing() == [0, 1, 2, 3, 4]
    for shard in (0, 2):
        first.write(shard, vectors[slice(*spec.row_range(shard))])
    (folder / "shard-00001.npy").write_bytes(b"torn")  # never committed
    assert EmbeddingWriter(folder, spec).missing() == [1, 3, 4]
    assert EmbeddingWriter(folder, spec).missing(range(1, 4)) == [1, 3]
    with pytest.raises(InputError, match="shard 1 is missing"):
        EmbeddingWriter(folder, spec).finish()
    with pytest.raises(InputError, match="not a finished embedding folder"):
        EmbeddingStore(folder)
    _write(folder, vectors)
    assert EmbeddingWriter(folder, spec).missing() == []


def test_writer_damaged_shard_is_written_again(tmp_path):
    vectors, folder = _vectors(), tmp_path / "e"
    store = _write(folder, vectors)
    path = folder / "shard-00003.npy"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="shard-00003.npy: checksum"):
        store.verify()
    assert EmbeddingWriter(folder, store.spec).missing() == [3]
    _write(folder, vectors).verify()


def test_store_truncated_shard_names_the_file(tmp_path):
    _write(tmp_path / "e", _vectors())
    path = tmp_path / "e" / "shard-00001.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="shard-00001.npy: truncated"):
        EmbeddingStore(tmp_path / "e")
    path.unlink()
    with pytest.raises(InputError, match="shard-00001.npy: missing"):
        EmbeddingStore(tmp_path / "e")


def test_store_foreign_encoder_or_width_names_the_remedy(tmp_path):
    store = _write(tmp_path / "e", _vectors())
    with pytest.raises(InputError, match="fingerprint 'f', but 'g' is needed; delete the folder"):
        EmbeddingStore(tmp_path / "e", fingerprint="g")
    with pytest.raises(InputError, match="dim 6, but 8"):
        EmbeddingStore(tmp_path / "e", dim=8)
    with pytest.raises(InputError, match="count 23, but 24"):
        EmbeddingWriter(tmp_path / "e", EmbeddingSpec(24, 6, shard_rows=5, fingerprint="f"))
    assert EmbeddingStore(tmp_path / "e", fingerprint="f", dim=6).spec == store.spec


def test_store_manifest_that_loses_rows_is_refused(tmp_path):
    _write(tmp_path / "e", _vectors())
    path = tmp_path / "e" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"].pop()
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="hold 20 rows, not the 23"):
        EmbeddingStore(tmp_path / "e")


def test_writer_refuses_bad_vectors_and_leaves_nothing(tmp_path):
    writer = EmbeddingWriter(tmp_path / "e", EmbeddingSpec(3, 2))
    with pytest.raises(InputError, match="expected vectors of shape"):
        writer.write(0, np.zeros((2, 2), np.float32))
    with pytest.raises(InputError, match="not finite"):
        writer.write(0, np.full((3, 2), np.nan, np.float32))
    with pytest.raises(InputError, match="overflow in float16"):
        writer.write(0, np.full((3, 2), 1e6, np.float32))
    assert list((tmp_path / "e").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0, "dim": 4}, "corpus is empty"),
        ({"count": 1, "dim": 4, "dtype": "float8"}, "choose one of float16"),
    ],
)
def test_spec_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        EmbeddingSpec(**settings)


def test_fingerprint_changes_with_weights_and_settings():
    params = {"a": {"kernel": np.ones((2, 3))}, "b": np.zeros(2)}
    base = fingerprint_of(params, pooling="mean")
    assert base == fingerprint_of(
        {"b": np.zeros(2), "a": {"kernel": np.ones((2, 3))}}, pooling="mean"
    )
    assert base != fingerprint_of(params, pooling="cls")
    assert base != fingerprint_of({**params, "b": np.array([0, 1e-9])}, pooling="mean")
    assert base != fingerprint_of({**params, "b": np.zeros((2, 1))}, pooling="mean")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_store_in_a_bucket_gives_the_same_rows_and_keeps_nothing(in_bucket, tmp_path, dtype):
    vectors = _vectors()
    local = _write(tmp_path / "e", vectors, dtype=dtype)
    store = _write(in_bucket / "e", vectors, dtype=dtype)
    for start, stop in ((0, 23), (3, 17), (7, 8), (4, 4), (20, 23)):
        np.testing.assert_array_equal(store.rows(start, stop), local.rows(start, stop))
    store.verify()
    assert not list(tmp_path.glob("cache/*"))
    assert sorted(p.name for p in store.folder.iterdir()) == sorted(
        p.name for p in local.folder.iterdir()
    )


def test_store_in_a_bucket_reads_only_the_bytes_of_the_rows(in_bucket, monkeypatch):
    store, read = _write(in_bucket / "e", _vectors(1000), shard_rows=1000), []
    opened = Bucket._open

    def counting(self, *args, **kwargs):
        file = opened(self, *args, **kwargs)
        return _Counted(file, read)

    monkeypatch.setattr(Bucket, "_open", counting)
    store.rows(500, 510)
    assert sum(read) < 300, "a header and ten rows of 12 bytes"


class _Counted:
    def __init__(self, file, read):
        self._file, self._read = file, read

    def read(self, count):
        self._read.append(count)
        return self._file.read(count)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def test_writer_in_a_bucket_resumes_at_missing_and_cut_shards(in_bucket):
    vectors, folder = _vectors(), in_bucket / "e"
    spec = EmbeddingSpec(23, 6, shard_rows=5, fingerprint="f")
    writer = EmbeddingWriter(folder, spec)
    for shard in (0, 1, 3):
        writer.write(shard, vectors[slice(*spec.row_range(shard))])
    (folder / "shard-00001.npy").write_bytes(b"part")
    assert EmbeddingWriter(folder, spec).missing() == [1, 2, 4]
