"""Search against transformers' `generate`, exhaustive enumeration and sorting."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from clmrc_jax.models import decoding, mt5
from clmrc_jax.train.pretrained import load_mt5

EOS = 1


def markov_step(table):
    """A model without memory: logits of the next token from (position, token)."""
    return lambda cache, tokens, position: (table[position, tokens], cache)


def keep(cache, parents):
    return cache


def random_table(seed, length, vocabulary):
    rng = np.random.default_rng(seed)
    return jnp.array(2 * rng.standard_normal((length, vocabulary, vocabulary)), jnp.float32)


def every_hypothesis(table, max_length, penalty):
    """All sequences with their scores in float64, best first: what an endless beam would find."""
    table = np.asarray(table, np.float64)
    log_probs = table - np.log(np.exp(table).sum(-1, keepdims=True))
    others = [token for token in range(table.shape[-1]) if token != EOS]
    found = []
    for length in range(2, max_length + 1):
        last = [EOS] if length < max_length else range(table.shape[-1])
        for tokens in itertools.product([0], *[others] * (length - 2), last):
            steps = zip(range(length - 1), tokens[:-1], tokens[1:], strict=True)
            score = sum(log_probs[step] for step in steps) / (length - 1) ** penalty
            found.append((score, tokens))
    return sorted(found, reverse=True)


def mt5_search(config, params, ids, mask, setting):
    beams, n_best = setting.pop("num_beams"), setting.pop("num_return_sequences", 1)

    @jax.jit
    def run(params):
        encoded = mt5.encode(config, params, ids, mask)
        cache = mt5.init_cache(config, params, encoded, mask, setting["max_length"], beams)
        step = functools.partial(mt5.decode_step, config, params)
        if beams == 1:
            return decoding.greedy(step, cache, batch=len(ids), **setting)
        search = decoding.BeamConfig(beams=beams, n_best=n_best, **setting)
        return decoding.beam_search(step, cache, search, batch=len(ids), reorder=mt5.reorder_cache)

    return run(params)


SETTINGS = (
    "greedy",
    "greedy_min_length",
    "beams",
    "beams_short",
    "beams_stop_early",
    "beams_never_early",
    "beams_penalty_0.6",
    "beams_penalty_1.5",
    "beams_penalty_1.5_stop_early",
    "beams_min_length",
    "beams_2",
)


@pytest.mark.parametrize("name", SETTINGS)
def test_search_equals_transformers_generate_token_by_token(repository, name):
    folder = repository / "tests/golden"
    settings = json.loads((folder / "generate.json").read_text())
    assert set(settings) == set(SETTINGS)
    golden = np.load(folder / "generate.npz")
    config, params = load_mt5(folder / "mt5_square")
    assert len(golden["input_ids"]) >= 20
    result = mt5_search(
        config, params, golden["input_ids"], golden["attention_mask"], settings[name]
    )
    np.testing.assert_array_equal(result.tokens, golden[f"{name}/tokens"])
    if f"{name}/scores" in golden:
        np.testing.assert_allclose(result.scores, golden[f"{name}/scores"], atol=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_beam_search_wide_enough_finds_the_best_of_all(penalty):
    table = random_table(0, 4, 4)
    search = decoding.BeamConfig(
        beams=128, n_best=6, max_length=5, length_penalty=penalty, early_stopping="never"
    )
    run = jax.jit(
        lambda: decoding.beam_search(markov_step(table), (), search, batch=1, reorder=keep)
    )
    result = run()
    expected = every_hypothesis(table, 5, penalty)[:6]
    for found, length, score, (best, tokens) in zip(
        result.tokens[0], result.lengths[0], result.scores[0], expected, strict=True
    ):
        assert tuple(found[:length].tolist()) == tokens
        assert not found[length:].any()
        np.testing.assert_allclose(score, best, atol=1e-5)


def test_greedy_takes_the_largest_logit_until_the_end_token():
    table = random_table(3, 7, 5)
    result = decoding.greedy(markov_step(table), (), batch=1, max_length=8)
    expected, score = [0], 0.0
    while expected[-1] != EOS and len(expected) < 8:
        row = np.asarray(table[len(expected) - 1, expected[-1]], np.float64)
        expected.append(int(row.argmax()))
        score += row.max() - np.log(np.exp(row).sum())
    assert result.tokens[0, 0, : len(expected)].tolist() == expected
    assert int(result.lengths[0, 0]) == len(expected)
    np.testing.assert_allclose(result.scores[0, 0], score, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_allowed_tokens_are_the_only_ones_generated(beams):
    table = random_table(4, 9, 12)
    allowed = np.zeros((2, 12), bool)
    allowed[0, [EOS, 4, 7]] = True
    allowed[1, [EOS, 2, 3, 9]] = True
    if beams == 1:
        result = decoding.greedy(
            markov_step(table), (), batch=2, max_length=10, allowed_tokens=allowed
        )
    else:
        search = decoding.BeamConfig(beams=beams, max_length=10, min_length=6, n_best=beams)
        result = decoding.beam_search(
            markov_step(table), (), search, batch=2, reorder=keep, allowed_tokens=allowed
        )
        assert result.lengths.min() >= 6
    for source in range(2):
        for tokens, length in zip(result.tokens[source], result.lengths[source], strict=True):
            assert allowed[source][np.asarray(tokens[1:length])].all()


def test_one_mask_for_all_sources_equals_the_same_mask_for_each():
    table = random_table(5, 6, 9)
    allowed = np.arange(9) % 2 == 1
    search = decoding.BeamConfig(beams=2, max_length=7)
    run = functools.partial(
        decoding.beam_search, markov_step(table), (), search, batch=3, reorder=keep
    )
    one, each = run(allowed_tokens=allowed), run(allowed_tokens=np.tile(allowed, (3, 1)))
    np.testing.assert_array_equal(one.tokens, each.tokens)


def test_search_ends_as_soon_as_every_source_has_ended():
    """The end token comes first; a second step would poison the scores with NaN."""
    certain_end = jnp.full(6, -20.0).at[EOS].set(20.0)

    def step(cache, tokens, position):
        logits = jnp.broadcast_to(certain_end, (len(tokens), 6))
        return jnp.where(position > 0, jnp.nan, logits), cache

    greedy = decoding.greedy(step, (), batch=2, max_length=30)
    assert greedy.lengths.tolist() == [[2], [2]] and np.isfinite(greedy.scores).all()
    search = decoding.BeamConfig(beams=1, max_length=30)
    beam = decoding.beam_search(step, (), search, batch=2, reorder=keep)
    assert beam.lengths.tolist() == [[2], [2]] and np.isfinite(beam.scores).all()


@pytest.mark.parametrize("vocabulary", [7, 8191, 8192, 8448, 10007])
@pytest.mark.parametrize("count", [1, 8])
def test_best_continuations_equal_a_full_sort(vocabulary, count):
    rng = np.random.default_rng(vocabulary)
    # whole numbers: plenty of ties, which must not cost or repeat a token
    logits = rng.integers(-9, 9, (3, vocabulary)).astype(np.float32)
    logits[1, : vocabulary // 2] = -np.inf
    values, ids = jax.jit(decoding.best_continuations, static_argnums=1)(logits, count)
    count = min(count, vocabulary)
    expected, _ = lax.top_k(jax.nn.log_softmax(logits), count)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    picked = np.take_along_axis(logits, np.asarray(ids), axis=1)
    np.testing.assert_allclose(picked, np.sort(logits)[:, ::-1][:, :count])
    assert all(len(set(row)) == count for row in ids.tolist())


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(beams=2, n_best=3), "n_best=3"),
        (dict(early_stopping="sometimes"), "early_stopping='sometimes'"),
        (dict(max_length=1), "max_length=1"),
        (dict(min_length=9, max_length=5), "min_length=9"),
    ],
)
def test_impossible_searches_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        decoding.BeamConfig(**wrong)
