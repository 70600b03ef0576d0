"""Marian against PyTorch; golden files from tests/golden/make_marian_goldens.py."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from clmrc_jax import sharding
from clmrc_jax.models import marian, weight_maps
from clmrc_jax.models.marian import MarianConfig, MarianSearch
from clmrc_jax.train.objectives import seq2seq_objective
from clmrc_jax.train.pretrained import load_marian

NAMES = ("marian_swish", "marian_relu", "marian_gelu")
TOLERANCE = 5e-5  # logits of size 10

encode = jax.jit(marian.encode, static_argnums=0)
decode = jax.jit(marian.decode, static_argnums=0)
decode_step = jax.jit(marian.decode_step, static_argnums=0)
generate = jax.jit(marian.generate, static_argnums=(0, 4))


@pytest.fixture(params=NAMES)
def golden(request, repository):
    """(config, params, arrays, gradients by published name)."""
    folder = repository / "tests/golden"
    config, params = load_marian(folder / request.param)
    arrays = dict(np.load(folder / f"{request.param}.npz"))
    return config, params, arrays, load_file(folder / f"{request.param}_grads.safetensors")


@pytest.fixture
def swish(repository):
    """(config, params) of the model that `generate` was run with."""
    return load_marian(repository / "tests/golden/marian_swish")


def logits_of(config, params, arrays):
    mask = arrays["attention_mask"]
    encoded = encode(config, params, arrays["input_ids"], mask)
    inputs = marian.shift_right(config, jnp.array(arrays["targets"]))
    return decode(config, params, encoded, mask, inputs)


def test_positions_equal_pytorch(golden):
    config, _, arrays, _ = golden
    theirs = arrays["positions"]
    np.testing.assert_allclose(marian.sinusoids(*theirs.shape), theirs, atol=1e-6)


def test_encoder_and_logits_equal_pytorch(golden):
    config, params, arrays, _ = golden
    mask, target_mask = arrays["attention_mask"], arrays["target_mask"]
    encoded = encode(config, params, arrays["input_ids"], mask)
    np.testing.assert_allclose(encoded[mask], arrays["encoded"][mask], atol=TOLERANCE)
    logits = logits_of(config, params, arrays)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits[target_mask], arrays["logits"][target_mask], atol=TOLERANCE)


def test_seq2seq_loss_and_gradients_of_every_weight_equal_pytorch(golden):
    config, params, arrays, expected = golden
    batch = {
        "encoder_input_tokens": arrays["input_ids"],
        "encoder_mask": arrays["attention_mask"],
        "decoder_target_tokens": arrays["targets"],
        "decoder_mask": arrays["target_mask"],
    }
    objective = seq2seq_objective(config, model=marian)
    function = jax.jit(jax.value_and_grad(lambda p: objective(p, batch, None)[0]))
    loss, gradients = function(params)
    np.testing.assert_allclose(loss, arrays["loss"], rtol=1e-5)
    published = weight_maps.marian_to_published(config, gradients)
    bias = published.pop("final_logits_bias")  # PyTorch does not train it
    assert np.abs(bias).max() > 0
    assert published.keys() == expected.keys()
    for name, gradient in expected.items():
        ours = published[name]
        if name == "model.shared.weight":  # PyTorch keeps the row of the padding at rest
            ours, gradient = ours[:-1], gradient[:-1]
        np.testing.assert_allclose(ours, gradient, rtol=1e-3, atol=3e-5, err_msg=name)


def test_stepwise_logits_equal_teacher_forced_ones(golden):
    config, params, arrays, _ = golden
    mask, beams = arrays["attention_mask"], 2
    full = logits_of(config, params, arrays)
    encoded = encode(config, params, arrays["input_ids"], mask)
    inputs = marian.shift_right(config, jnp.array(arrays["targets"]))
    cache = marian.init_cache(config, params, encoded, mask, inputs.shape[1], beams)
    for position in range(inputs.shape[1]):
        tokens = jnp.repeat(inputs[:, position], beams)
        logits, cache = decode_step(config, params, cache, tokens, position)
        expected = np.repeat(full[:, position], beams, axis=0)
        np.testing.assert_allclose(logits, expected, atol=TOLERANCE)


def test_every_search_equals_transformers_generate(swish, repository):
    config, params = swish
    folder = repository / "tests/golden"
    arrays = np.load(folder / "marian_generate.npz")
    inputs = (arrays["input_ids"], arrays["attention_mask"])
    settings = json.loads((folder / "marian_generate.json").read_text())
    different = set()
    for name, given in settings.items():
        search = MarianSearch(
            num_beams=given["num_beams"],
            max_length=given["max_length"],
            length_penalty=given.get("length_penalty", 1.0),
            early_stopping=given.get("early_stopping", False),
            banned=(config.pad_token_id,) if "bad_words_ids" in given else (),
            renormalize=given.get("renormalize_logits", False),
            force_eos=given.get("forced_eos_token_id", 0) is not None,
        )
        found = generate(config, params, *inputs, search)
        tokens = np.asarray(found.tokens[:, 0])
        np.testing.assert_array_equal(tokens, arrays[f"{name}/tokens"], err_msg=name)
        if search.num_beams > 1:
            scores = arrays[f"{name}/scores"]
            np.testing.assert_allclose(found.scores[:, 0], scores, atol=2e-5, err_msg=name)
        different.add(tokens.tobytes())
    assert len(different) >= 6, "settings that change nothing test nothing"


def test_dropout_needs_a_key_and_padding_changes_nothing(swish):
    config, params = swish
    config = dataclasses.replace(config, attention_dropout=0.1, activation_dropout=0.1)
    rng = np.random.default_rng(0)
    tokens, mask = rng.integers(1, 49, (3, 6)), np.ones((3, 6), bool)
    run = functools.partial(encode, config, params)
    plain, dropped = run(tokens, mask), run(tokens, mask, key=jax.random.key(0))
    assert np.abs(plain - dropped).max() > 1e-2
    np.testing.assert_array_equal(run(tokens, mask, key=jax.random.key(0)), dropped)
    padded = run(
        np.pad(tokens, ((0, 0), (0, 4)), constant_values=7), np.pad(mask, ((0, 0), (0, 4)))
    )
    np.testing.assert_allclose(padded[:, :6], plain, atol=1e-5)


def test_remat_and_bfloat16_compute_the_same_function(swish, repository):
    config, params = swish
    arrays = dict(np.load(repository / "tests/golden/marian_swish.npz"))
    plain = logits_of(config, params, arrays)
    np.testing.assert_allclose(
        logits_of(dataclasses.replace(config, remat=True), params, arrays), plain, atol=1e-5
    )
    half = logits_of(dataclasses.replace(config, dtype="bfloat16"), params, arrays)
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - plain).mean() < 0.1


def test_parameters_have_axes_and_initial_ones_the_shapes_of_the_map():
    config = MarianConfig(
        vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=4, encoder_ffn_dim=12, decoder_ffn_dim=16,
    )  # fmt: skip
    params = marian.init(config, jax.random.key(0))
    sharding.param_specs(params, marian.PARAM_AXES)
    published = weight_maps.marian_to_published(config, params)
    assert published["final_logits_bias"].shape == (1, 20)
    back = weight_maps.marian_from_published(config, published)
    jax.tree.map(np.testing.assert_array_equal, back, jax.device_get(params))
    assert marian.forward_flops(config, 2, 3, 4) == 2 * marian.forward_flops(config, 1, 3, 4)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(activation_function="tanh"), "activation_function 'tanh'"),
        (dict(d_model=50), "d_model 50 is not divisible by 8 heads"),
    ],
)
def test_impossible_configs_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MarianConfig(**wrong)
