"""ScaNN against exact search: each method, saving, loading, and what goes wrong."""

import resource
import sys

import numpy as np
import pytest

from clmrc_jax.files import InputError
from clmrc_jax.retrieval.embeddings import EmbeddingSpec, EmbeddingWriter
from clmrc_jax.retrieval.index import open_index
from clmrc_jax.retrieval.numpy_index import NumpyIndex
from clmrc_jax.retrieval.scann_index import ScannConfig, ScannIndex, measure_recall

pytest.importorskip("scann", reason="ScaNN has no wheel for this platform")

TREE = ScannConfig(brute_force_below=100, tree_above=1000, leaves=20, leaves_to_search=10)
HASHING = ScannConfig(brute_force_below=100, tree_above=10**6)


def _clustered(count=3000, dim=32, seed=0):
    """Unit vectors around 40 topics, as passages are, and questions near some of them."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(40, dim))
    corpus = topics[rng.integers(40, size=count)] + 0.5 * rng.normal(size=(count, dim))
    queries = corpus[:60] + 0.2 * rng.normal(size=(60, dim))
    return (
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (corpus, queries)
    )


def _store(folder, corpus, fingerprint="f"):
    spec = EmbeddingSpec(*corpus.shape, "float32", fingerprint)
    writer = EmbeddingWriter(folder, spec)
    writer.write(0, corpus)
    return writer.finish()


def test_scann_small_corpus_is_searched_by_brute_force_exactly():
    corpus, queries = _clustered()
    index = ScannIndex.build(corpus)
    assert index.manifest["method"] == "brute_force"
    scores, rows = index.search(queries, 10)
    expected_scores, expected_rows = NumpyIndex(corpus).search(queries, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


@pytest.mark.parametrize(("config", "method"), [(TREE, "tree_ah"), (HASHING, "ah")])
def test_scann_large_methods_find_what_exact_search_finds(config, method):
    corpus, queries = _clustered()
    index = ScannIndex.build(corpus, config)
    assert index.manifest["method"] == method
    assert measure_recall(index, NumpyIndex(corpus), queries, 10) > 0.95
    scores, rows = index.search(queries, 10)
    np.testing.assert_allclose(
        scores, np.take_along_axis(queries @ corpus.T, rows, 1), atol=1e-4
    )  # reordered: true scores


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_scann_smaller_storage_keeps_recall(storage):
    corpus, queries = _clustered()
    config = ScannConfig(brute_force_below=100, tree_above=1000, storage=storage)
    index = ScannIndex.build(corpus, config)
    assert measure_recall(index, NumpyIndex(corpus), queries, 10) > 0.85


def test_scann_k_beyond_the_corpus_fills_with_minus_one():
    corpus, queries = _clustered(count=120)
    for config in (None, ScannConfig(brute_force_below=1, tree_above=50, leaves=4)):
        scores, rows = ScannIndex.build(corpus, config).search(queries, 130)
        assert (rows[:, -10:] == -1).all() and np.isneginf(scores[rows == -1]).all()
        found = [row[row >= 0] for row in rows]
        assert all(len(set(row)) == len(row) for row in found)


def test_scann_saved_folder_gives_the_same_answers_elsewhere(tmp_path):
    corpus, queries = _clustered()
    index = ScannIndex.build(corpus, TREE, fingerprint="f")
    index.save(tmp_path / "index")
    (tmp_path / "index").rename(tmp_path / "moved")
    loaded = ScannIndex.load(tmp_path / "moved", fingerprint="f")
    for a, b in zip(loaded.search(queries, 5), index.search(queries, 5)):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["moved"], "no temporary folder stays"
    with pytest.raises(InputError, match="index of other embeddings"):
        ScannIndex.load(tmp_path / "moved", fingerprint="g")
    with pytest.raises(InputError, match="not a saved index"):
        ScannIndex.load(tmp_path / "index")


def test_open_index_builds_once_prints_recall_and_reloads(tmp_path, capsys):
    corpus, queries = _clustered()
    store = _store(tmp_path / "e", corpus)
    index, value = open_index("scann", store, folder=tmp_path / "i", queries=queries, scann=TREE)
    assert value > 0.95
    assert f"recall@10 {value:.4f} against exact search on 60 questions" in capsys.readouterr().err
    again, same = open_index("scann", store, folder=tmp_path / "i", scann=TREE)
    assert same == value and capsys.readouterr().err == ""
    np.testing.assert_array_equal(again.search(queries, 5)[1], index.search(queries, 5)[1])
    other = _store(tmp_path / "e2", corpus[::-1].copy(), fingerprint="g")
    open_index("scann", other, folder=tmp_path / "i", scann=TREE)
    assert "recall@10" in capsys.readouterr().err, "an index of other embeddings is replaced"


@pytest.mark.parametrize("kind", ["exact", "numpy"])
def test_open_index_exact_kinds_agree(tmp_path, kind):
    corpus, queries = _clustered(count=200)
    index, value = open_index(kind, _store(tmp_path, corpus))
    assert value == 1.0
    np.testing.assert_array_equal(
        index.search(queries, 7)[1], NumpyIndex(corpus).search(queries, 7)[1]
    )


def test_open_index_unknown_kind_or_missing_package_says_what_to_do(tmp_path, monkeypatch):
    corpus, queries = _clustered(count=60)
    store = _store(tmp_path, corpus)
    with pytest.raises(InputError, match="choose one of exact, scann, numpy"):
        open_index("faiss", store)
    with pytest.raises(InputError, match="the index is 32 wide"):
        ScannIndex.build(corpus).search(queries[:, :5], 3)
    monkeypatch.setitem(sys.modules, "scann", None)
    with pytest.raises(InputError, match="pip install scann, or use --config.index.kind=exact"):
        open_index("scann", store)


def test_scann_config_bad_storage_is_refused():
    with pytest.raises(InputError, match="choose one of float32"):
        ScannConfig(storage="float16")


@pytest.mark.parametrize("config", [TREE, HASHING, ScannConfig()])
def test_scann_index_in_a_bucket_is_found_again(in_bucket, tmp_path, config):
    corpus, queries = _clustered()
    store = _store(in_bucket / "e", corpus)
    first, recall = open_index("scann", store, folder=in_bucket / "scann", scann=config)
    names = {path.name for path in (in_bucket / "scann").iterdir()}
    again, same = open_index("scann", store, folder=in_bucket / "scann", scann=config)
    assert same == recall and "index.json" in names
    for found, expected in zip(again.search(queries, 10), first.search(queries, 10)):
        np.testing.assert_array_equal(found, expected)
    left = [path.name for path in (tmp_path / "cache").iterdir()]
    assert all(name.endswith(".lock") for name in left), "nothing stays on the disk"


def test_full_disk_while_saving_names_the_folder_and_the_space_and_leaves_nothing(tmp_path):
    index = ScannIndex.build(next(_clustered()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(
            InputError, match=r"index: ScaNN cannot write .* GB are free in .*again"
        ):
            index.save(tmp_path / "index")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
