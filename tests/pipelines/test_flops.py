"""Counted operations against products worked out by hand and against the models' formulas."""

import jax
import jax.numpy as jnp
import pytest

from clmrc_jax import sharding
from clmrc_jax.models import bert, mt5
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.mt5 import Mt5Config
from clmrc_jax.pipelines import flops

BERT = BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
)
MT5 = Mt5Config(
    vocab_size=64, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=2
)


def _count(function, *arguments, trips=1):
    return flops.count(jax.make_jaxpr(function)(*arguments), trips)


def _ids(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _bert_loss(config):
    def loss(params, ids, key):
        return bert.encode(config, params, ids, ids > 0, key=key).sum()

    params = jax.eval_shape(lambda: bert.init(config, jax.random.key(0)))
    return loss, params, jax.eval_shape(lambda: jax.random.key(0))


def test_product_scan_while_and_jit_are_multiplied_out():
    x = jax.ShapeDtypeStruct((3, 4, 5), jnp.float32)
    w = jax.ShapeDtypeStruct((5, 7), jnp.float32)
    one = 2 * 3 * 4 * 5 * 7
    assert _count(lambda x, w: x @ w, x, w).flops == one

    def loops(x, w):
        def body(carry, _):
            return carry + jax.jit(lambda w: (x @ w).sum())(w), None

        total, _ = jax.lax.scan(body, 0.0, None, length=6)
        running = lambda s: (s[0] < 10) & (s[1] < 1e9)  # noqa: E731
        return jax.lax.while_loop(running, lambda s: (s[0] + 1, s[1] + (x @ w).sum()), (0, total))

    assert _count(loops, x, w, trips=10).flops == (6 + 10) * one


def test_largest_branch_and_every_device_of_a_shard_map_count():
    x = jax.ShapeDtypeStruct((8, 8), jnp.float32)

    def choose(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x @ x @ x, x)

    assert _count(choose, x).flops == 2 * 2 * 8**3
    mesh = sharding.make_mesh(devices=jax.devices()[:4])
    spec = jax.sharding.PartitionSpec("data")

    def local(x):
        return x @ x.T

    mapped = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec)
    assert _count(mapped, x).flops == 4 * (2 * 2 * 8 * 2)


@pytest.mark.parametrize(
    ("dtype", "precision", "passes"),
    [("float32", "highest", 6), ("float32", None, 1), ("bfloat16", "highest", 1)],
)
def test_full_precision_products_take_six_passes(dtype, precision, passes):
    x = jax.ShapeDtypeStruct((4, 4), dtype)
    counted = _count(lambda x: jnp.dot(x, x, precision=precision), x)
    assert counted.passes == passes * counted.flops == passes * 2 * 4**3


def test_bert_counts_equal_its_formula_forward_backward_and_with_remat():
    forward = bert.forward_flops(BERT, 3, 8)
    loss, params, key = _bert_loss(BERT)
    assert _count(loss, params, _ids(3, 8), key).flops == forward
    assert _count(jax.grad(loss), params, _ids(3, 8), key).flops == 3 * forward
    remat, *_ = _bert_loss(BertConfig(**vars(BERT) | {"remat": True}))
    # The last product of a layer need not be repeated: nothing in the backward pass reads it.
    assert 3 * forward < _count(jax.grad(remat), params, _ids(3, 8), key).flops <= 4 * forward


def test_mt5_counts_equal_its_formula():
    params = jax.eval_shape(lambda: mt5.init(MT5, jax.random.key(0)))

    def logits(params, source, target):
        encoded = mt5.encode(MT5, params, source, source > 0)
        return mt5.decode(MT5, params, encoded, source > 0, target)

    counted = _count(logits, params, _ids(2, 9), _ids(2, 5)).flops
    assert counted == mt5.forward_flops(MT5, 2, 9, 5)
