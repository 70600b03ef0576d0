"""Exact search against float64 NumPy, on one device and on eight."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from clmrc_jax.files import InputError
from clmrc_jax.retrieval.embeddings import EmbeddingSpec, EmbeddingWriter
from clmrc_jax.retrieval.exact import ExactIndex, search_block
from clmrc_jax.retrieval.numpy_index import NumpyIndex, recall


def _mesh(data, model=1):
    return jax.make_mesh(
        (data, model),
        ("data", "model"),
        (AxisType.Auto,) * 2,
        devices=jax.devices()[: data * model],
    )


def _data(count=1003, queries=37, dim=24, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape).astype(np.float32) for shape in ((count, dim), (queries, dim)))


def _reference(corpus, queries, k):
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


@pytest.fixture(params=["exact-1", "exact-8x1", "exact-4x2", "exact-streamed", "numpy"])
def make_index(request):
    """Every exact backend, as a function of the corpus."""
    return {
        "exact-1": lambda corpus: ExactIndex(corpus, query_batch=16),
        "exact-8x1": lambda corpus: ExactIndex(corpus, _mesh(8), query_batch=16),
        "exact-4x2": lambda corpus: ExactIndex(corpus, _mesh(4, 2)),
        "exact-streamed": lambda corpus: ExactIndex(corpus, _mesh(2), max_rows_on_device=130),
        "numpy": lambda corpus: NumpyIndex(corpus, block_rows=100),
    }[request.param]


def test_search_equals_float64_numpy(make_index):
    corpus, queries = _data()
    scores, rows = make_index(corpus).search(queries, 10)
    expected_scores, expected_rows = _reference(corpus, queries, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
    assert scores.dtype == np.float32 and rows.dtype == np.int64


def test_search_ties_go_to_the_lower_row(make_index):
    corpus, queries = _data(count=40)
    corpus = np.round(corpus * 2)  # small integers: products are exact, ties are real
    corpus = np.concatenate([corpus] * 20)  # every passage twenty times
    queries = np.round(queries * 2)
    _, rows = make_index(corpus).search(queries, 25)
    np.testing.assert_array_equal(rows, _reference(corpus, queries, 25)[1])


def test_search_k_beyond_the_corpus_fills_with_minus_one(make_index):
    corpus, queries = _data(count=3)
    scores, rows = make_index(corpus).search(queries, 5)
    np.testing.assert_array_equal(rows[:, :3], _reference(corpus, queries, 3)[1])
    assert (rows[:, 3:] == -1).all() and np.isneginf(scores[:, 3:]).all()


def test_search_negative_scores_beat_the_padding(make_index):
    corpus, _ = _data(count=5)
    corpus = -np.abs(corpus)
    scores, rows = make_index(corpus).search(np.ones((1, 24), np.float32), 5)
    assert sorted(rows[0].tolist()) == [0, 1, 2, 3, 4] and (scores < 0).all()


def test_search_no_queries_gives_empty_results(make_index):
    corpus, _ = _data(count=5)
    scores, rows = make_index(corpus).search(np.zeros((0, 24), np.float32), 4)
    assert scores.shape == rows.shape == (0, 4)


def test_search_bad_queries_name_the_widths(make_index):
    corpus, queries = _data()
    index = make_index(corpus)
    with pytest.raises(InputError, match="the index is 24 wide"):
        index.search(queries[:, :7], 3)
    with pytest.raises(InputError, match="at least 1"):
        index.search(queries, 0)
    with pytest.raises(InputError, match="corpus is empty"):
        make_index(corpus[:0])


def test_search_one_and_eight_devices_are_bit_equal():
    corpus, queries = _data(count=5000, dim=96)
    found = [ExactIndex(corpus, _mesh(n)).search(queries, 50) for n in (1, 8)]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_array_equal(found[0][0], found[1][0])


def test_search_merges_the_devices_once():
    """Every device scans its own tiles alone; then its best k go round once, scores and rows."""
    mesh, questions, k, dim, tile = _mesh(4, 2), 16, 5, 24, 128

    def shape(sizes, dtype, *axes):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=NamedSharding(mesh, P(*axes)))

    best = shape((questions, k), jnp.float32), shape((questions, k), jnp.int32)
    block = shape((8 * 3 * tile, dim), jnp.float32, ("data", "model"))
    queries = shape((questions, dim), jnp.float32)
    lowered = search_block.lower(queries, block, best, 0, 3000, mesh=mesh, tile=tile)
    text = lowered.compile().as_text()
    kinds = "all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all"
    sent = re.findall(rf"^ +(?:ROOT )?\S+ = (\S+?)(?:{{\S*)? ({kinds})\(", text, re.M)
    merged = f"[{questions},{8 * k}]"
    assert sorted(sent) == [(f"f32{merged}", "all-gather"), (f"s32{merged}", "all-gather")]
    entry = text[text.index("\nENTRY ") :]  # the scan's body is another computation
    assert entry.count(" all-gather(") == 2


def test_search_bfloat16_finds_nearly_the_same():
    corpus, queries = _data(count=3000, dim=64)
    index = ExactIndex(corpus, _mesh(8), dtype=jnp.bfloat16)
    scores, rows = index.search(queries, 10)
    assert recall(rows, _reference(corpus, queries, 10)[1]) > 0.9
    exact = np.take_along_axis(queries @ corpus.T, rows, 1)
    np.testing.assert_allclose(scores, exact, rtol=0.02, atol=0.1)  # 8 bits of mantissa


def test_search_reads_a_folder_in_blocks(tmp_path):
    corpus, queries = _data()
    spec = EmbeddingSpec(1003, 24, "float16", shard_rows=200)
    writer = EmbeddingWriter(tmp_path, spec)
    for shard in writer.missing():
        writer.write(shard, corpus[slice(*spec.row_range(shard))])
    store = writer.finish()
    _, rows = ExactIndex(store, _mesh(8), max_rows_on_device=64).search(queries, 7)
    np.testing.assert_array_equal(rows, _reference(store.rows(0, 1003), queries, 7)[1])


def test_recall_counts_shared_rows():
    assert recall(np.array([[1, 2], [3, -1]]), np.array([[2, 4], [3, -1]])) == 0.75
