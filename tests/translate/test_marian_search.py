"""Batched beam search: what it returns does not depend on how sentences are batched."""

import functools

import jax
import numpy as np
import pytest

from clmrc_jax.models import marian
from clmrc_jax.models.marian import MarianSearch
from clmrc_jax.train.pretrained import load_marian
from clmrc_jax.translate.marian_search import BatchSearch


@pytest.fixture(scope="module")
def swish(repository):
    return load_marian(repository / "tests/golden/marian_swish")


def sentences(count, longest):
    rng = np.random.default_rng(3)
    return [[*rng.integers(1, 49, rng.integers(0, longest)).tolist(), 0] for _ in range(count)]


def one_by_one(config, params, sources, search):
    """Each sentence in a search of its own, padded to 20 tokens."""
    run = jax.jit(functools.partial(marian.generate, config, search=search))
    found = []
    for ids in sources:
        tokens = np.array([[*ids, *[7] * (20 - len(ids))]])
        mask = np.arange(20)[None] < len(ids)
        ids = np.asarray(run(params, tokens, mask).tokens)[0, 0, 1:].tolist()
        found.append(ids[: ids.index(0)] if 0 in ids else ids)
    return found


def test_batches_of_all_lengths_equal_single_searches(swish):
    config, params = swish
    search = MarianSearch(num_beams=2, max_length=10, banned=(49,))
    searcher = BatchSearch(config, search, batch_size=8)
    sources = sentences(11, 14)
    found = searcher(searcher.place(params), sources)
    assert found == one_by_one(config, params, sources, search)
    assert searcher(searcher.place(params), []) == []


def test_translations_beyond_the_first_limit_are_searched_again(swish):
    """The first limit is 2 * 16 + 32 = 64 tokens; some of these never end."""
    config, params = swish
    search = MarianSearch(num_beams=1, max_length=70, banned=(49,))
    searcher = BatchSearch(config, search, batch_size=8)
    sources = sentences(6, 8)
    found = searcher(searcher.place(params), sources)
    assert found == one_by_one(config, params, sources, search)
    assert max(map(len, found)) == 68
