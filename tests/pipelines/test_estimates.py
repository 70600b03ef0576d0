"""Sizes by formula against arrays that exist, published counts, and XLA's own accounting."""

import dataclasses
import json
import math
import tracemalloc
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from clmrc_jax import sharding
from clmrc_jax.data.generator_features import GeneratorFormat
from clmrc_jax.models import bert, biencoder, mt5
from clmrc_jax.pipelines import estimates, mining
from clmrc_jax.train.optimizer import OptimizerConfig, make_transform
from clmrc_jax.train.state import abstract_state, make_start

TINY = mt5.Mt5Config(vocab_size=512, d_model=128, d_kv=16, d_ff=256, num_layers=2, num_heads=8,
                     num_decoder_layers=3)  # fmt: skip


def _mesh(data, model):
    return AbstractMesh((data, model), ("data", "model"), (AxisType.Auto,) * 2)


def test_parameter_count_of_published_models_is_the_published_one():
    mbert = estimates.parameter_count(lambda key: bert.init(bert.BertConfig(), key))
    assert mbert == 167_356_416 - 590_592, "google-bert/bert-base-multilingual-uncased, no pooler"
    assert estimates.parameter_count(lambda key: mt5.init(mt5.Mt5Config(), key)) == 582_401_280
    towers = estimates.parameter_count(
        lambda key: biencoder.init(biencoder.BiEncoderConfig(tied=False), key)
    )
    assert towers == 2 * mbert


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("frozen", ["", "shared/.*"])
def test_training_state_bytes_are_those_of_the_arrays_on_a_device(optimizer, frozen):
    config, mesh = OptimizerConfig(name=optimizer, frozen=frozen), sharding.make_mesh(2, 4)
    init = lambda key: mt5.init(TINY, key)  # noqa: E731
    planned = estimates.training_state_bytes(
        init, config, _mesh(2, 4), mt5.PARAM_AXES, sharding.DEFAULT_RULES, accumulate=2
    )
    shapes = jax.eval_shape(init, jax.random.key(0))
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    transform = make_transform(config)
    abstract = abstract_state(params, transform, mesh, mt5.PARAM_AXES, sharding.DEFAULT_RULES)
    state = make_start(transform, abstract)(params)

    def on_first_device(tree):
        return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))

    assert planned["parameters"] == on_first_device(state.params)
    assert planned["optimizer"] == on_first_device(state.opt_state)
    held = on_first_device(state.params["shared"]) if frozen else 0
    assert planned["gradients"] == 2 * (planned["parameters"] - held)


def test_beam_cache_bytes_are_those_of_the_cache():
    encoded = jax.ShapeDtypeStruct((4, 96, TINY.d_model), jnp.float32)
    mask = jax.ShapeDtypeStruct((4, 96), bool)
    params = jax.eval_shape(lambda key: mt5.init(TINY, key), jax.random.key(0))
    cache = jax.eval_shape(lambda p, e, m: mt5.init_cache(TINY, p, e, m, 20), params, encoded, mask)
    size = sum(math.prod(x.shape) * 4 for x in jax.tree.leaves(cache) if x.ndim == 4)
    assert estimates.beam_cache_bytes(TINY, 4, 96, 20, 1) == size
    # four beams: the answer's part fourfold, and twice while beams are gathered
    answer = 2 * TINY.num_decoder_layers * 4 * 20 * 8 * 16 * 4
    assert estimates.beam_cache_bytes(TINY, 4, 96, 20, 4) == size + 7 * answer


def test_bert_training_bytes_agree_with_xla_within_half():
    config = bert.BertConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=128,
    )
    params = jax.eval_shape(lambda key: bert.init(config, key), jax.random.key(0))
    ids, mask = (jax.ShapeDtypeStruct((32, 128), dtype) for dtype in (jnp.int32, bool))
    loss = lambda p, i, m: jnp.sum(bert.encode(config, p, i, m)[:, 0] ** 2)  # noqa: E731
    compiled = jax.jit(jax.grad(loss)).lower(params, ids, mask).compile()
    found = compiled.memory_analysis().temp_size_in_bytes
    assert estimates.bert_training_bytes(config, 32, 128) == pytest.approx(found, rel=0.5)


def test_remat_keeps_less_and_every_size_grows_with_rows():
    for rows in (1, 8):
        remat = mt5.Mt5Config(remat=True, dtype="bfloat16")
        plain = mt5.Mt5Config(dtype="bfloat16")
        less = estimates.mt5_training_bytes(remat, rows, 512, 32)
        assert less < estimates.mt5_training_bytes(plain, rows, 512, 32) / 5
    assert less == 8 * estimates.mt5_training_bytes(remat, 1, 512, 32)


def test_generation_flops_of_one_beam_are_those_of_a_forward_pass():
    encoder, decoder = estimates.generation_flops(TINY, 4, 96, 20, 1)
    assert encoder + decoder == pytest.approx(mt5.forward_flops(TINY, 4, 96, 20))
    assert estimates.generation_flops(TINY, 4, 96, 20, 4) == pytest.approx((encoder, 4 * decoder))


def test_labelling_memory_is_that_of_a_part_and_covers_what_python_takes(smoke_corpus):
    settings = types.SimpleNamespace(
        generator=types.SimpleNamespace(label_chunk=300),
        generator_format=GeneratorFormat(passages=2, source_buckets=(64, 128)),
    )
    few, many = (estimates.labelling_memory(settings, n, 500) for n in (300, 3000))
    assert few["tokens of a part"] == many["tokens of a part"] == 300 * 64 * 36
    assert many["total"] - few["total"] == 2700 * 48
    row = {"q_id": "q", "question": "q?", "lang": "en", "answers": ["a"]}
    rows = [
        row | {"ctxs": [dataclasses.asdict(p)]} for p in smoke_corpus.store.get_many(range(300))
    ]
    text = sum(len(json.dumps(r["ctxs"][0], ensure_ascii=False).encode()) for r in rows) / 300
    lines = [json.dumps(r) for r in rows]
    tracemalloc.start()
    held = list(mining.retrieved_candidates(map(json.loads, lines), mining.MiningRules()))
    tokens = [[10_000 + 64 * i + k for k in range(64)] for i in range(len(held))]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    planned = estimates.labelling_memory(settings, len(tokens), text)["total"]
    assert 0.5 * planned < taken < planned
