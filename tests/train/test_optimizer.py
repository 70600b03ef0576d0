import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clmrc_jax.files import InputError
from clmrc_jax.sharding import DEFAULT_RULES as RULES
from clmrc_jax.sharding import make_mesh
from clmrc_jax.train import optimizer
from clmrc_jax.train.optimizer import OptimizerConfig
from clmrc_jax.train.state import abstract_state

RNG = np.random.default_rng(0)


def params():
    return {
        "dense": {"kernel": RNG.normal(size=(4, 6)), "bias": RNG.normal(size=6)},
        "LayerNorm": {"scale": RNG.normal(size=6), "bias": RNG.normal(size=6)},
    }


def run(config, start, gradients, rates, whole=None):
    """whole: what the optimizer's state is made from, where `start` is a part of it."""
    transform = optimizer.make_transform(config)
    values = jax.tree.map(jnp.float32, start)
    state = transform.init(jax.tree.map(jnp.float32, whole or start))
    for gradient, rate in zip(gradients, rates):
        updates, state = transform.update(jax.tree.map(jnp.float32, gradient), state, values)
        values = optimizer.apply_updates(values, updates, rate)
    return values


def clipped(gradient, norm):
    length = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    return jax.tree.map(lambda g: g * min(1.0, norm / length), gradient)


def test_adamw_matches_float64_reference_with_clipping_and_decay_mask():
    config = OptimizerConfig(weight_decay=0.1, clip_norm=2.0, b1=0.8, b2=0.95, eps=1e-6)
    start, rates = params(), [0.1, 0.05, 0.02]
    gradients = [jax.tree.map(lambda p: RNG.normal(size=p.shape), start) for _ in rates]

    def reference(path, value):
        first, second = np.zeros_like(value), np.zeros_like(value)
        name = path[-1].key
        for step, rate in enumerate(rates, start=1):
            gradient = clipped(gradients[step - 1], 2.0)[path[0].key][name]
            first = 0.8 * first + 0.2 * gradient
            second = 0.95 * second + 0.05 * gradient**2
            update = first / (1 - 0.8**step) / (np.sqrt(second / (1 - 0.95**step)) + 1e-6)
            decay = 0.1 * value if name == "kernel" else 0.0
            value = value - rate * (update + decay)
        return value

    expected = jax.tree_util.tree_map_with_path(reference, start)
    found = run(config, start, gradients, rates)
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(found)):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


def test_official_adam_matches_float64_reference_without_bias_correction():
    config = OptimizerConfig(name="official_adam", weight_decay=0.01)
    start, rates = params(), [0.1, 0.05, 0.02]
    gradients = [jax.tree.map(lambda p: RNG.normal(size=p.shape), start) for _ in rates]

    def reference(path, value):
        first, second = np.zeros_like(value), np.zeros_like(value)
        name = path[-1].key
        for gradient, rate in zip(gradients, rates):
            gradient = clipped(gradient, 1.0)[path[0].key][name]
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            decay = 0.01 * value if name == "kernel" else 0.0
            value = value - rate * (first / (np.sqrt(second) + 1e-6) + decay)
        return value

    expected = jax.tree_util.tree_map_with_path(reference, start)
    found = run(config, start, gradients, rates)
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(found)):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


def test_official_adam_state_lies_where_its_parameters_lie():
    mesh = make_mesh(4, 2)
    tree = {"dense": {"kernel": jax.ShapeDtypeStruct((4, 6), jnp.float32)}}
    transform = optimizer.make_transform(OptimizerConfig(name="official_adam"))
    abstract = abstract_state(tree, transform, mesh, [("dense/kernel", (None, "heads"))], RULES)
    moments = [x for x in jax.tree.leaves(abstract.opt_state) if x.shape == (4, 6)]
    assert [tuple(x.sharding.spec) for x in moments] == [(None, "model")] * 2


def test_adafactor_matches_float64_reference():
    config = OptimizerConfig(name="adafactor", clip_norm=0, min_factored=4)
    start, rates = params(), [0.1, 0.05, 0.02]
    gradients = [jax.tree.map(lambda p: RNG.normal(size=p.shape), start) for _ in rates]

    def reference(path, value):
        name, rows, columns, full = path[-1].key, 0.0, 0.0, 0.0
        for step, rate in enumerate(rates, start=1):
            gradient = gradients[step - 1][path[0].key][name]
            square, keep = gradient**2 + 1e-30, 1 - step**-0.8
            if gradient.ndim == 2:  # Shazeer & Stern 2018, algorithm 4
                rows = keep * rows + (1 - keep) * square.mean(1)
                columns = keep * columns + (1 - keep) * square.mean(0)
                second = np.outer(rows, columns) / rows.mean()
            else:
                second = full = keep * full + (1 - keep) * square
            update = gradient / np.sqrt(second)
            update = update / max(1.0, np.sqrt(np.mean(update**2)))
            value = value - rate * update * max(1e-3, np.sqrt(np.mean(value**2)))
        return value

    expected = jax.tree_util.tree_map_with_path(reference, start)
    found = run(config, start, gradients, rates)
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(found)):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "linear"}, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0, 8: 0.5, 13: 0.0, 20: 0.0}),
        ({"schedule": "linear", "end_factor": 0.2}, {3: 1.0, 8: 0.6, 13: 0.2}),
        ({"schedule": "cosine"}, {0: 0.25, 3: 1.0, 8: 0.5, 13: 0.0}),
        ({"schedule": "constant"}, {0: 0.25, 3: 1.0, 12: 1.0}),
        # a cosine over all 13 updates that starts where the warm-up ends
        (
            {"schedule": "official"},
            {0: 0.0, 1: 1 / 3, 2: 2 / 3, 3: 0.5 + 0.5 * np.cos(3 * np.pi / 13), 13: 0.0, 20: 0.0},
        ),
        ({"schedule": "official", "warmup_steps": 0}, {0: 1.0, 13: 0.0}),
        ({"schedule": "linear", "warmup_steps": 0}, {0: 1.0, 12: 1 / 13}),
    ],
)
def test_schedule_values_by_hand(settings, expected):
    config = OptimizerConfig(**({"learning_rate": 1.0, "warmup_steps": 3} | settings))
    for step, rate in expected.items():
        assert optimizer.schedule(config, step, 13) == pytest.approx(rate, abs=1e-12)


def test_official_schedule_jumps_at_the_end_of_a_tenth_of_warm_up():
    config = OptimizerConfig(schedule="official", learning_rate=1.0, warmup_steps=100)
    before, after = (optimizer.schedule(config, step, 1000) for step in (99, 100))
    assert before == pytest.approx(0.99) and after == pytest.approx(0.9755, abs=1e-4)


def test_decay_mask_spares_biases_and_every_norm_scale():
    tree = {
        "shared": {"embedding": 0.0},
        "encoder": {
            "layers_0": {
                "self_attention": {"q": {"kernel": 0.0}},
                "self_attention_norm": {"scale": 0.0},
                "mlp_norm": {"scale": 0.0},
            },
            "final_norm": {"scale": 0.0},
        },
        "layers_0": {"attention": {"LayerNorm": {"scale": 0.0, "bias": 0.0}}},
        "scale_head": {"kernel": 0.0, "bias": 0.0},
    }
    mask = optimizer.decay_mask(OptimizerConfig(), tree)
    decayed = [path for path, on in optimizer.flatten_paths(mask).items() if on]
    assert decayed == [
        "encoder/layers_0/self_attention/q/kernel",
        "scale_head/kernel",
        "shared/embedding",
    ]


FROZEN = OptimizerConfig(frozen="dense/.*", weight_decay=0.1, clip_norm=2.0)


def test_frozen_parameters_have_no_statistics_and_the_others_train_as_if_alone():
    start = params()
    trained, frozen = optimizer.divide(FROZEN, start)
    assert set(optimizer.flatten_paths(trained)) == {"LayerNorm/scale", "LayerNorm/bias"}
    assert set(optimizer.flatten_paths(frozen)) == {"dense/kernel", "dense/bias"}
    united = optimizer.unite(trained, frozen)
    assert jax.tree.structure(united) == jax.tree.structure(start)
    assert all(x is y for x, y in zip(jax.tree.leaves(united), jax.tree.leaves(start)))
    state = optimizer.make_transform(FROZEN).init(start)
    assert {x.shape for x in jax.tree.leaves(state)} == {(), (6,)}
    alone = OptimizerConfig(weight_decay=0.1, clip_norm=2.0)
    gradients = [jax.tree.map(lambda p: RNG.normal(size=p.shape), trained) for _ in range(3)]
    expected = run(alone, {"LayerNorm": start["LayerNorm"]}, gradients_of(gradients), [0.1] * 3)
    found = run(FROZEN, trained, gradients, [0.1] * 3, whole=start)
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(got, want)


def gradients_of(trees):
    return [{"LayerNorm": tree["LayerNorm"]} for tree in trees]


@pytest.mark.parametrize("frozen, share", [("nothing", "no"), (".*", "every")])
def test_frozen_that_matches_no_or_every_parameter_raises(frozen, share):
    with pytest.raises(InputError, match=f"matches {share} parameter; .* LayerNorm/bias"):
        optimizer.make_transform(OptimizerConfig(frozen=frozen)).init(params())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen": "(("}, "frozen '\\(\\(' is no regex"),
        ({"name": "sgd"}, "optimizer name 'sgd' is unknown; choose one of adamw, adafactor"),
        ({"schedule": "step"}, "schedule 'step' is unknown"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
    ],
)
def test_optimizer_config_bad_value_raises(settings, message):
    with pytest.raises(InputError, match=message):
        OptimizerConfig(**settings)
