"""Length buckets and parallel tokenisation."""

import dataclasses

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from clmrc_jax.data.passages import Passage, PassageStore, write_passage_store
from clmrc_jax.data.retriever_features import RetrieverFormat
from clmrc_jax.files import InputError
from clmrc_jax.retrieval.batches import (
    BatchPlan,
    PassageTokens,
    Ragged,
    make_batches,
    tokenize_ranges,
)

PLAN = BatchPlan(batch_size=4, buckets=(8, 16, 32))


def _texts(count, longest=32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 99, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


def test_make_batches_every_text_comes_once_and_unchanged():
    texts = _texts(101)
    seen = {}
    for batch in make_batches(texts, PLAN):
        for row, ids, mask in zip(batch.rows, batch.ids, batch.mask):
            assert row not in seen
            seen[row] = ids[mask].tolist()
            assert not ids[~mask].any()
    assert [seen[i] for i in range(101)] == texts


def test_make_batches_shapes_are_those_of_the_plan_and_full_but_the_last():
    batches = list(make_batches(_texts(101), PLAN))
    shapes = {batch.ids.shape for batch in batches}
    assert shapes <= {(16, 8), (8, 16), (4, 32)}
    assert all(len(batch.rows) == len(batch.ids) for batch in batches[:-1])
    assert all(batch.mask.any(axis=1).all() for batch in batches), "a row attends to nothing"


def test_make_batches_single_text_makes_a_small_batch():
    (batch,) = make_batches([[5, 6, 7]], PLAN)
    assert batch.ids.shape == (1, 8)
    (batch,) = make_batches([[5, 6, 7]] * 3, dataclasses.replace(PLAN, multiple=8))
    assert batch.ids.shape == (8, 8) and len(batch.rows) == 3


def test_make_batches_of_nothing_is_nothing():
    assert list(make_batches([], PLAN)) == []


def test_plan_rows_keep_the_token_count_and_the_mesh_multiple():
    assert [PLAN.rows(length) for length in PLAN.buckets] == [16, 8, 4]
    plan = BatchPlan(batch_size=5, buckets=(8, 32), constant_tokens=False, multiple=4)
    assert [plan.rows(length) for length in plan.buckets] == [8, 8]


def test_plan_bad_settings_are_refused():
    with pytest.raises(InputError, match="ascend"):
        BatchPlan(buckets=(32, 16))
    with pytest.raises(InputError, match="40 tokens does not fit the longest bucket 32"):
        list(make_batches([[1] * 40], PLAN))


def _store(folder, count=40):
    passages = (
        Passage(str(i), "fi", f"a{i // 3}", f"title {i}", f"text number {i} " + "la " * (i % 5))
        for i in range(count)
    )
    path = folder / "passages.array_record"
    write_passage_store(path, passages)
    return PassageStore(path)


@pytest.mark.parametrize("workers", [0, 2])
def test_tokenize_ranges_keeps_order_with_threads_and_processes(tmp_path, workers):
    store = _store(tmp_path)
    tokens = PassageTokens(str(_tokenizer_folder(tmp_path)), RetrieverFormat())
    ranges = [(start, min(start + 7, 40)) for start in range(0, 40, 7)]
    parts = tokenize_ranges(store, tokens, ranges, workers)
    texts = [part[i].tolist() for part in parts for i in range(len(part))]
    assert texts == tokens(store.get_many(range(40)))
    assert len({tuple(text) for text in texts}) == 40


def _tokenizer_folder(folder):
    """A tokenizer of single words, made here: `tokenizer.json` with numbers and a few words."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "title",
        "text",
        "number",
        "la",
        *map(str, range(40)),
    ]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    backend.save(str(folder / "tokenizer.json"))
    return folder


def _fail(passages):
    raise ValueError("no such passage")


def test_tokenize_ranges_passes_errors_on(tmp_path):
    with pytest.raises(ValueError, match="no such passage"):
        list(tokenize_ranges(_store(tmp_path), _fail, [(0, 4)]))


def test_ragged_joins_empty_and_full_texts():
    ragged = Ragged.join([[1, 2], [], [3]])
    assert [ragged[i].tolist() for i in range(len(ragged))] == [[1, 2], [], [3]]
    assert len(Ragged.join([])) == 0
