"""mT5 against PyTorch, sub-module by sub-module; golden files from tests/golden/make_goldens.py."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from clmrc_jax.models import mt5, weight_maps
from clmrc_jax.models.layers import RMSNorm, mask_to_bias
from clmrc_jax.train.pretrained import load_mt5

TOLERANCE = 3e-5  # logits of size 11


@pytest.fixture(params=["mt5_square", "mt5_narrow", "t5_tied"])
def golden(request, repository):
    """(config, params, arrays, gradients by published name)."""
    folder = repository / "tests/golden"
    config, params = load_mt5(folder / request.param)
    arrays = dict(np.load(folder / f"{request.param}.npz"))
    return config, params, arrays, load_file(folder / f"{request.param}_grads.safetensors")


encode = jax.jit(mt5.encode, static_argnums=0)
decode = jax.jit(mt5.decode, static_argnums=0)
decode_step = jax.jit(mt5.decode_step, static_argnums=0)


def logits_of(config, params, arrays):
    mask = arrays["attention_mask"]
    encoded = encode(config, params, arrays["input_ids"], mask)
    inputs = mt5.shift_right(config, jnp.array(arrays["targets"]))
    return decode(config, params, encoded, mask, inputs)


def loss_of(config, params, arrays):
    """Mean cross entropy over real target tokens, as in MT5ForConditionalGeneration."""
    log_probs = jax.nn.log_softmax(logits_of(config, params, arrays))
    chosen = jnp.take_along_axis(log_probs, arrays["targets"][..., None], axis=-1)[..., 0]
    mask = arrays["target_mask"]
    return -jnp.sum(chosen * mask) / mask.sum()


def test_first_encoder_attention_equals_pytorch(golden):
    config, params, arrays, _ = golden
    layer = params["encoder"]["layers_0"]
    x = params["shared"]["embedding"][arrays["input_ids"]]
    norm = RMSNorm(config.layer_norm_epsilon)
    x = norm.apply({"params": layer["self_attention_norm"]}, x)
    bias = mask_to_bias(jnp.array(arrays["attention_mask"]))

    def attend(module, x):
        positions = jnp.arange(x.shape[1])
        relative = module.position_bias(positions, positions)
        return module(x, module.keys_values(x), bias + relative)

    module = mt5._Attention(config, bidirectional=True, relative=True)
    ours = module.apply({"params": layer["self_attention"]}, x, method=attend)
    np.testing.assert_allclose(ours, arrays["attended"], atol=TOLERANCE)


def test_encoder_equals_pytorch(golden):
    config, params, arrays, _ = golden
    mask = arrays["attention_mask"]
    ours = encode(config, params, arrays["input_ids"], mask)
    np.testing.assert_allclose(ours[mask], arrays["encoded"][mask], atol=TOLERANCE)


def test_decoder_logits_equal_pytorch(golden):
    config, params, arrays, _ = golden
    mask = arrays["target_mask"]
    ours = logits_of(config, params, arrays)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours[mask], arrays["logits"][mask], atol=TOLERANCE)


def test_loss_and_gradients_of_every_weight_equal_pytorch(golden):
    config, params, arrays, expected = golden
    function = jax.jit(jax.value_and_grad(lambda p: loss_of(config, p, arrays)))
    loss, gradients = function(params)
    np.testing.assert_allclose(loss, arrays["loss"], rtol=1e-5)
    ours = weight_maps.mt5_to_published(config, gradients)
    assert set(ours) == set(expected)
    for name, gradient in expected.items():
        size = np.abs(gradient).max()
        np.testing.assert_allclose(ours[name], gradient, atol=1e-4 * size, err_msg=name)


def test_decode_step_by_step_equals_teacher_forcing(golden):
    config, params, arrays, _ = golden
    mask = jnp.array(arrays["attention_mask"])
    encoded = encode(config, params, arrays["input_ids"], mask)
    inputs = mt5.shift_right(config, jnp.array(arrays["targets"]))
    expected = decode(config, params, encoded, mask, inputs)
    cache = mt5.init_cache(config, params, encoded, mask, max_length=9)
    for t in range(inputs.shape[1]):
        logits, cache = decode_step(config, params, cache, inputs[:, t], t)
        np.testing.assert_allclose(logits, expected[:, t], atol=TOLERANCE)


def test_reordered_cache_continues_the_parents(golden):
    """Beams that swap and copy their pasts answer like rows that had those pasts all along."""
    config, params, arrays, _ = golden
    ids, mask = arrays["input_ids"][:2], jnp.array(arrays["attention_mask"])[:2]
    encoded = encode(config, params, ids, mask)
    tokens = np.random.default_rng(0).integers(2, config.vocab_size, (4, 5))  # [N, steps]
    parents = np.array([[1, 0, 3, 3], [0, 0, 2, 3], [1, 0, 3, 2], [1, 1, 2, 2], [0, 1, 2, 3]])
    cache = mt5.init_cache(config, params, encoded, mask, max_length=7, beams=2)
    history = np.zeros((4, 0), int)
    for t in range(5):
        logits, cache = decode_step(config, params, cache, jnp.array(tokens[:, t]), t)
        history = np.concatenate([history, tokens[:, t : t + 1]], axis=1)
        final_history = history
        cache = mt5.reorder_cache(cache, jnp.array(parents[t]))
        history = history[parents[t]]
    repeated, repeated_mask = jnp.repeat(encoded, 2, 0), jnp.repeat(mask, 2, 0)
    expected = decode(config, params, repeated, repeated_mask, jnp.array(final_history))
    np.testing.assert_allclose(logits, expected[:, -1], atol=TOLERANCE)


def test_fusion_in_decoder_passages_do_not_see_each_other(golden):
    config, params, arrays, _ = golden
    ids, mask = arrays["input_ids"], arrays["attention_mask"]
    alone = encode(config, params, ids, mask).reshape(2, -1, config.d_model)
    joined, joined_mask = mt5.encode_fusion(
        config, params, ids.reshape(2, 2, -1), mask.reshape(2, 2, -1)
    )
    np.testing.assert_array_equal(joined_mask, mask.reshape(2, -1))
    np.testing.assert_allclose(joined[joined_mask], alone[joined_mask], atol=TOLERANCE)


def test_remat_changes_no_gradient_and_dropout_follows_its_key(repository):
    config, params = load_mt5(repository / "tests/golden/mt5_square")
    saving = dataclasses.replace(config, remat=True)
    ids = jnp.arange(12).reshape(2, 6)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(c, key):
        loss = lambda p: jnp.sum(mt5.encode(c, p, ids, ids >= 0, key=key) ** 3)  # noqa: E731
        return jax.tree.leaves(jax.grad(loss)(params)["encoder"])

    key, other_key = jax.random.key(0), jax.random.key(1)
    plain, saved, other = (
        gradients(config, key),
        gradients(saving, key),
        gradients(config, other_key),
    )
    for a, b in zip(plain, saved, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max())
    assert any(np.abs(a - b).max() > 0.1 for a, b in zip(plain, other, strict=True))


def test_float16_is_refused():
    with pytest.raises(ValueError, match="bfloat16"):
        mt5.Mt5Config(dtype="float16")
