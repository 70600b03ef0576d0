"""Span losses and their gradients against finite differences of the float64 reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dual_bert_reference as reference
from clmrc_jax import sharding
from clmrc_jax.models import dual_bert, official_names
from clmrc_jax.train import span_objectives, step
from clmrc_jax.train.span_objectives import span_losses
from small_dual_bert import BERT, MODES, PARAMS, ROWS, VARIABLES

TARGET_COSINE = {"residual": "target", "lambda_mode": "cosine_example", "equal_lengths": False}
# mode, options, lengths of target and source
VARIANTS = {
    "official": ("official", {}, (9, 9)),
    "official_groups_chunked": ("official", {"lambda_group_size": 2, "saa_chunk": 4}, (9, 9)),
    "official_no_saa": ("official", {"adaptive": False}, (9, 9)),
    "target_cosine": ("official", TARGET_COSINE, (12, 9)),
    "target_cosine_stop": ("official", TARGET_COSINE | {"lambda_stop_grad": True}, (12, 9)),
    "paper": ("paper", {}, (9, 12)),
}


def value_and_grad(objective):
    """Jitted (params, batch) -> ((loss, metrics), gradients), without dropout."""
    run = jax.value_and_grad(lambda p, b: objective(p, b, None), has_aux=True)
    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})  # compiles faster


def slope(loss, variables, name, direction, step=1e-5):
    """Central difference of a float64 loss along a direction in one variable."""
    ends = [loss(variables | {name: variables[name] + sign * direction}) for sign in (step, -step)]
    return (ends[0] - ends[1]) / (2 * step)


def assert_gradients(found, loss, variables):
    """Compares every variable's gradient along two random directions."""
    rng = np.random.default_rng(5)
    assert set(found) == set(variables)
    largest = max(np.linalg.norm(gradient) for gradient in found.values())
    for name, gradient in found.items():
        for _ in range(2):
            direction = rng.normal(size=gradient.shape)
            direction /= np.linalg.norm(direction)
            want = slope(loss, variables, name, direction)
            got = np.sum(gradient * direction)
            scale = max(np.linalg.norm(gradient), 1e-2 * largest)
            assert abs(got - want) < 1e-3 * scale, (name, got, want)


@pytest.mark.parametrize("name", VARIANTS)
def test_dual_loss_and_gradients_equal_the_reference(name):
    mode, changed, lengths = VARIANTS[name]
    build, options = MODES[mode]
    config, options = build(BERT, **changed), options | changed
    batch = reference.random_batch(lengths=lengths)
    expected = reference.run(VARIABLES, options, batch)
    objective = span_objectives.dual_span_objective(config)
    (loss, metrics), gradients = value_and_grad(objective)(PARAMS, batch)
    np.testing.assert_allclose(loss, expected["loss"], rtol=2e-5)
    np.testing.assert_allclose(metrics["lambda"], expected["lambda"].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["target_loss"], expected["target_losses"].mean(), rtol=2e-5)
    auxiliary = expected["source_losses"].mean()
    np.testing.assert_allclose(metrics["auxiliary_loss"], auxiliary, rtol=2e-5)
    assert metrics["weight"] == 4
    assert np.any(expected["lambda"] > 0.1), "a clamped lambda has no gradient to compare"
    fixed = expected["lambda"] if config.lambda_stop_grad else None
    assert_gradients(
        official_names.to_official(ROWS, gradients),
        lambda variables: reference.run(variables, options, batch, fixed)["loss"],
        VARIABLES,
    )


def test_no_auxiliary_loss_leaves_the_source_head_alone_but_uses_the_source():
    batch = reference.random_batch()
    config = dual_bert.paper(BERT, lambda_mode="none")
    run = value_and_grad(span_objectives.dual_span_objective(config))
    (loss, metrics), gradients = run(PARAMS, batch)
    assert loss == metrics["target_loss"] and metrics["lambda"] == 0
    assert not any(np.any(g) for g in jax.tree.leaves(gradients["source_head"]))
    assert np.abs(gradients["fusion"]["key"]["kernel"]).max() > 0


def test_constant_lambda_weighs_the_auxiliary_loss():
    batch = reference.random_batch()
    config = dual_bert.paper(BERT, lambda_mode="const", lambda_value=0.25)
    loss, metrics = jax.jit(span_objectives.dual_span_objective(config))(PARAMS, batch, None)
    expected = metrics["target_loss"] + 0.25 * metrics["auxiliary_loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_plain_loss_and_gradients_equal_the_reference():
    batch = reference.random_batch(invalid=[2])
    batch = {k: v for k, v in batch.items() if not k.startswith("source_")}
    rows = official_names.span_reader_variables(BERT)
    scope = "source/cls/squad"  # a head on the encoder's own width
    names = {row.name: row.name.replace("cls/squad", scope) for row in rows}
    variables = {name: VARIABLES[theirs] for name, theirs in names.items()}

    def loss(v):
        hidden = reference.encode(
            v, *(batch[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
        )
        logits = hidden @ v["cls/squad/output_weights"].T + v["cls/squad/output_bias"]
        logits = logits + np.where(batch["span_mask"], 0, -1e4)[..., None]
        log_probs = reference.log_softmax(logits.swapaxes(1, 2))
        gold = [log_probs[np.arange(4), c, batch[n]] for c, n in enumerate(("start", "end"))]
        return -(np.sum(gold, axis=0) / 2)[batch["valid"]].mean()

    params = official_names.from_official(rows, variables)
    run = value_and_grad(span_objectives.span_objective(BERT))
    (found, metrics), gradients = run(params, batch)
    np.testing.assert_allclose(found, loss(variables), rtol=1e-5)
    assert metrics["weight"] == 3
    assert_gradients(official_names.to_official(rows, gradients), loss, variables)


@functools.cache
def whole_batch():
    """Eight rows, two of them only fillers, in one piece on one device."""
    batch = reference.random_batch(rows=8, invalid=[1, 6])
    objective = span_objectives.dual_span_objective(dual_bert.paper(BERT))
    return objective, batch, value_and_grad(objective)(PARAMS, batch)


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_loss_and_gradients_are_the_same_on_a_mesh():
    objective, batch, expected = whole_batch()
    mesh = sharding.make_mesh(4, 2)
    places = sharding.param_shardings(mesh, PARAMS, dual_bert.PARAM_AXES)
    with sharding.activate(mesh):
        found = value_and_grad(objective)(
            jax.device_put(PARAMS, places), sharding.place_batch(mesh, batch)
        )
    assert_same(found, expected)


def test_accumulating_micro_batches_is_the_whole_batch():
    objective, batch, ((loss, metrics), gradients) = whole_batch()
    mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
    dry = lambda p, b, key: objective(p, b, None)  # noqa: E731
    run = jax.jit(lambda p, b: step.gradients(dry, p, b, jax.random.key(0), 2, mesh))
    assert_same(run(PARAMS, batch), (loss, metrics, gradients))


@pytest.mark.parametrize("terms, factor", [("sum", 2), ("mean", 1)])
def test_span_losses_of_uniform_logits_by_hand(terms, factor):
    found = span_losses(
        jnp.zeros((2, 8)), jnp.zeros((2, 8)), np.array([1, 9]), np.array([7, 8]), terms=terms
    )
    np.testing.assert_allclose(found, [factor * np.log(8), 0], rtol=1e-6)
