"""Dual BERT, every intermediate, against the float64 reference."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

import dual_bert_reference as reference
from clmrc_jax import sharding
from clmrc_jax.models import dual_bert
from small_dual_bert import BERT, MODES, PARAMS, VARIABLES

# mode, options changed, lengths of target and source; lambda's modes have their own tests
VARIANTS = {
    "official": ("official", {}, (9, 9)),
    "official_chunked": ("official", {"saa_chunk": 4, "lambda_group_size": 2}, (9, 9)),
    "official_no_saa": ("official", {"adaptive": False}, (9, 9)),
    "official_target_cosine": (
        "official",
        {"residual": "target", "lambda_mode": "cosine_example", "equal_lengths": False},
        (12, 9),
    ),
    "paper": ("paper", {}, (9, 9)),
    "paper_explicit": ("paper", {"saa": "explicit", "lambda_mode": "const"}, (9, 13)),
    "paper_source": ("paper", {"residual": "source", "span_attention": "self_adaptive"}, (9, 9)),
}
forward = jax.jit(
    functools.partial(dual_bert.forward, maps=True),
    static_argnums=0,
    compiler_options={"xla_backend_optimization_level": 0},  # compiles in half the time
)
predict = jax.jit(dual_bert.predict, static_argnums=0)


def variant(name):
    """(config, options of the reference, batch)"""
    mode, options, lengths = VARIANTS[name]
    build, expected = MODES[mode]
    return build(BERT, **options), expected | options, reference.random_batch(lengths=lengths)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_intermediate_equals_the_reference(name):
    config, options, batch = variant(name)
    expected = reference.run(VARIABLES, options, batch)
    found = forward(config, PARAMS, batch)
    names = set(expected) & set(found)
    assert names >= {"saa_S", "saa_A_tilde", "saa_P", "transformed", "fused", "joined", "lambda"}
    assert names >= {"target_span", "source_span", "end_logits", "source_start_logits"}
    assert ("saa_A_T" in names) == config.adaptive
    for name in sorted(names - {"similarity"}):
        want = expected[name]
        np.testing.assert_allclose(
            np.reshape(found[name], want.shape), want, rtol=1e-4, atol=3e-5, err_msg=name
        )
    if "similarity" in found:
        np.testing.assert_allclose(found["similarity"], expected["similarity"], rtol=1e-4)


def padding_effect(mode):
    """Largest change of each output at real positions when both sides are padded further."""
    batch = reference.random_batch()
    config = MODES[mode][0](BERT)
    short = forward(config, PARAMS, batch)
    long = forward(config, PARAMS, reference.pad(batch, (14, 14)))
    changes = {}
    for name in ("start_logits", "source_end_logits", "target_span", "lambda"):
        a, b = np.asarray(short[name]), np.asarray(long[name])
        changes[name] = np.abs(a - (b[:, : a.shape[1]] if a.ndim == 2 else b)).max()
    return changes


def test_padding_changes_nothing_in_paper_mode():
    assert max(padding_effect("paper").values()) < 1e-5


def test_padding_changes_the_official_outputs_as_it_did_in_the_released_code():
    changes = padding_effect("official")
    assert changes["start_logits"] > 1e-3
    assert changes["source_end_logits"] < 1e-5, "the source head sees the encoder only"
    batch = reference.pad(reference.random_batch(), (14, 14))
    expected = reference.run(VARIABLES, reference.OFFICIAL, batch)
    found = forward(dual_bert.official(BERT), PARAMS, batch)
    np.testing.assert_allclose(found["lambda"], expected["lambda"], rtol=1e-4)
    np.testing.assert_allclose(found["start_logits"], expected["start_logits"], atol=3e-5)


def test_independent_lengths_of_the_same_windows_agree_with_equal_ones():
    """One encoder call for both sides, or two: the same numbers."""
    batch = reference.random_batch()
    config = dual_bert.paper(BERT)
    one = forward(config, PARAMS, batch)
    two = forward(config, PARAMS, reference.pad(batch, (9, 12)))
    for name in ("start_logits", "end_logits", "lambda"):
        np.testing.assert_allclose(one[name], two[name], atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"equal_lengths": False}])
def test_lengths_that_differ_are_refused_where_the_model_adds_source_to_target(options):
    batch = reference.random_batch(lengths=(9, 12))
    with pytest.raises(ValueError, match="target length 9 and source length 12 differ"):
        forward(dual_bert.official(BERT, **options), PARAMS, batch)


def test_predict_needs_no_labels_and_excludes_what_is_no_answer():
    batch = reference.random_batch()
    labels = ("start", "end", "source_start", "source_end", "valid")
    unlabelled = {name: array for name, array in batch.items() if name not in labels}
    expected = reference.run(VARIABLES, reference.PAPER, batch)
    found = predict(dual_bert.paper(BERT), PARAMS, unlabelled)
    for place, log_probs in zip(("start", "end"), found):
        want = reference.log_softmax(expected[f"{place}_logits"])
        np.testing.assert_allclose(log_probs, want, rtol=1e-4, atol=3e-5)
        assert np.exp(log_probs)[~batch["span_mask"]].max() == 0


def test_predict_with_labels_forms_no_groups_of_lambda():
    batch = reference.random_batch()
    config = dual_bert.paper(BERT, lambda_mode="official_dot", lambda_group_size=64)
    expected = predict(dual_bert.paper(BERT), PARAMS, batch)
    for log_probs, want in zip(predict(config, PARAMS, batch), expected):
        np.testing.assert_array_equal(log_probs, want)


def test_span_range_tokens_lets_every_real_token_be_an_answer():
    batch = reference.random_batch()
    found = predict(dual_bert.paper(BERT, span_range="tokens"), PARAMS, batch)
    for log_probs in found:
        np.testing.assert_array_equal(np.exp(log_probs) > 0, batch["attention_mask"])


def test_dropout_follows_the_key_and_its_own_rate():
    batch = reference.random_batch()
    dry = dataclasses.replace(BERT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    plain = forward(dual_bert.paper(dry), PARAMS, batch)
    first, again, other = (
        forward(dual_bert.paper(dry), PARAMS, batch, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first["target_hidden"], plain["target_hidden"])
    np.testing.assert_array_equal(first["fused"], again["fused"])
    assert np.abs(first["fused"] - other["fused"]).max() > 0.01
    off = forward(dual_bert.paper(dry, fusion_dropout=0.0), PARAMS, batch, key=jax.random.key(0))
    np.testing.assert_allclose(off["fused"], plain["fused"], atol=1e-6)
    wet = forward(dual_bert.paper(BERT), PARAMS, batch, key=jax.random.key(0))
    assert np.abs(wet["target_hidden"] - plain["target_hidden"]).max() > 0.01


def test_bfloat16_stays_near_float32():
    batch = reference.random_batch()
    half = dual_bert.paper(dataclasses.replace(BERT, dtype="bfloat16"))
    rough, exact = (forward(c, PARAMS, batch) for c in (half, dual_bert.paper(BERT)))
    assert rough["fused"].dtype == "bfloat16" and rough["start_logits"].dtype == "float32"
    assert np.abs(rough["lambda"] - exact["lambda"]).max() < 0.05


def test_init_has_the_shapes_of_the_released_variables():
    config = dual_bert.paper(BERT)
    abstract = jax.eval_shape(functools.partial(dual_bert.init, config), jax.random.key(0))
    assert jax.tree.map(np.shape, PARAMS) == jax.tree.map(lambda x: x.shape, abstract)


def test_init_keeps_pretrained_weights_and_draws_the_rest():
    init = jax.jit(dual_bert.init, static_argnums=0)
    params = init(dual_bert.paper(BERT), jax.random.key(0), PARAMS["bert"])
    jax.tree.map(np.testing.assert_array_equal, params["bert"], PARAMS["bert"])
    kernel = np.asarray(params["target_head"]["kernel"])
    assert 0 < np.abs(kernel).max() <= 0.04, "truncated at two standard deviations of 0.02"
    assert np.abs(kernel[:12] - params["source_head"]["kernel"]).max() > 0
    assert not np.asarray(params["fusion"]["query"]["bias"]).any()


def test_every_parameter_has_one_row_of_axes():
    specs = sharding.param_specs(PARAMS, dual_bert.PARAM_AXES, sharding.DEFAULT_RULES)
    flat = sharding.flatten_paths(specs)
    assert tuple(flat["fusion/query/kernel"]) == (None, "model", None)
    assert tuple(flat["fusion/output/kernel"]) == ("model", None, None)
    assert tuple(flat["target_head/kernel"]) == (None, None)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"residual": "both"}, "residual 'both' is unknown; choose one of target, source"),
        ({"lambda_mode": "cosine"}, "lambda_mode 'cosine' is unknown; choose one of cosine_ex"),
        ({"saa": "explicit", "saa_chunk": 8}, "saa_chunk works with saa='factored'"),
    ],
)
def test_config_bad_value_raises(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dual_bert.paper(BERT, **options)


def test_official_is_all_differences_and_options_are_single():
    official = dual_bert.official(BERT, residual="target")
    assert official.residual == "target" and official.lambda_mode == "official_dot"
    assert dual_bert.paper(BERT) == dual_bert.DualBertConfig(BERT)


def test_lambda_group_that_does_not_divide_the_batch_raises():
    config = dual_bert.official(BERT, lambda_group_size=3)
    with pytest.raises(ValueError, match="lambda_group_size 3 does not divide the 4 rows"):
        forward(config, PARAMS, reference.random_batch())
