"""Encoding a corpus: every row in its place, resumable, equal on one and eight devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from clmrc_jax.files import InputError
from clmrc_jax.retrieval.batches import BatchPlan
from clmrc_jax.retrieval.encode import encode_corpus, encode_questions

PLAN = BatchPlan(batch_size=4, buckets=(4, 8, 16), multiple=8)


@dataclasses.dataclass
class _Store:
    """Texts of known token ids in place of passages."""

    texts: list

    def __len__(self):
        return len(self.texts)

    def get_many(self, rows):
        return [self.texts[row] for row in rows]


def _texts(count=77, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 50, rng.integers(1, 17)).tolist() for _ in range(count)]


@jax.jit
def _sum_encoder(ids, mask):
    """Vector of a text: sum, count and last token; needs every token and its mask."""
    ids = jnp.where(mask, ids, 0)
    last = jnp.take_along_axis(ids, mask.sum(1, keepdims=True) - 1, axis=1)[:, 0]
    return jnp.stack([ids.sum(1), mask.sum(1), last], axis=1).astype(jnp.float32)


def _expected(texts):
    return np.array([[sum(text), len(text), text[-1]] for text in texts], np.float32)


def _encode(folder, texts, tokenize=list, fingerprint="f", **settings):
    settings = {"plan": PLAN, "shard_rows": 20, "window_rows": 8, "dtype": "float32"} | settings
    return encode_corpus(
        _sum_encoder, _Store(texts), tokenize, folder, fingerprint=fingerprint, **settings
    )


def test_encode_corpus_puts_every_passage_in_its_row(tmp_path):
    texts = _texts()  # 77 = 3 shards of 20 and 17 more
    store = _encode(tmp_path / "e", texts)
    np.testing.assert_array_equal(store.rows(0, 77), _expected(texts))


def test_encode_corpus_over_eight_devices_gives_the_same(tmp_path):
    texts = _texts()
    mesh = jax.make_mesh((8, 1), ("data", "model"), (AxisType.Auto,) * 2)
    store = _encode(tmp_path / "e", texts, mesh=mesh)
    np.testing.assert_array_equal(store.rows(0, 77), _expected(texts))


def test_encode_corpus_after_interruption_encodes_only_the_rest(tmp_path):
    texts, seen = _texts(), []

    def interrupted(part):
        seen.append(len(part))
        if sum(seen) > 40:
            raise KeyboardInterrupt
        return part

    with pytest.raises(KeyboardInterrupt):
        _encode(tmp_path / "e", texts, tokenize=interrupted, window_rows=20)

    def counted(part):
        resumed.append(len(part))
        return part

    resumed = []
    store = _encode(tmp_path / "e", texts, tokenize=counted, window_rows=20)
    assert sum(resumed) == 37
    np.testing.assert_array_equal(store.rows(0, 77), _expected(texts))
    resumed.clear()
    _encode(tmp_path / "e", texts, tokenize=counted, window_rows=20)
    assert resumed == []


def test_encode_corpus_foreign_folder_is_refused(tmp_path):
    _encode(tmp_path / "e", _texts())
    with pytest.raises(InputError, match="delete the folder to encode again"):
        _encode(tmp_path / "e", _texts(), fingerprint="another")


def test_encode_corpus_without_passages_is_refused(tmp_path):
    with pytest.raises(InputError, match="corpus is empty"):
        _encode(tmp_path / "e", [])


def test_encode_questions_keeps_the_order():
    texts = _texts(29)
    vectors = encode_questions(_sum_encoder, texts, plan=PLAN)
    np.testing.assert_array_equal(vectors, _expected(texts))
    assert encode_questions(_sum_encoder, [], plan=PLAN).shape == (0, 3)
