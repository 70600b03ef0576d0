"""A training step is the same on every mesh and under every rule, and sends what it must."""

import collections
import functools
import importlib.util
import math
import pathlib
import re

import jax
import numpy as np
import pytest

from clmrc_jax import sharding

TINY = pathlib.Path(__file__).with_name("tiny.py")
spec = importlib.util.spec_from_file_location("tiny", TINY)
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

KINDS = "all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all"
OBJECTIVES = ("contrastive", "seq2seq", "dual_span")
MESHES = [(data, model, fsdp) for data, model in ((8, 1), (4, 2), (2, 4)) for fsdp in (False, True)]
# One of each kind; the other combinations take minutes to compile.
QUICK = {
    ("contrastive", 2, 4, True),
    ("seq2seq", 4, 2, False),
    ("dual_span", 8, 1, True),
}
CASES = [
    pytest.param(*c, id=f"{c[0]}-{c[1]}x{c[2]}{'-fsdp' * c[3]}", marks=[pytest.mark.slow] * slow)
    for c in ((name, *mesh) for name in OBJECTIVES for mesh in MESHES)
    for slow in [c not in QUICK]
]


def train(name, *mesh, steps=3):
    """(losses and gradient norms [steps, 2], state) of some steps on one batch, with dropout."""
    case, program = tiny.case(name), tiny.program(name, *mesh)
    batch, values = sharding.place_batch(program.mesh, case.batch), []
    state = program.start(case.params)
    for _ in range(steps):
        state, found = program.step(state, batch, jax.random.key(5), np.float32(0.05))
        values.append([float(found["loss"]), float(found["grad_norm"])])
    return np.array(values), state


@functools.cache
def on_one_device(name):
    values, state = train(name, 1, 1)
    return values, jax.device_get(state.params)


@pytest.mark.parametrize(("name", "data", "model", "fsdp"), CASES)
def test_steps_equal_those_of_one_device(name, data, model, fsdp):
    expected, expected_params = on_one_device(name)
    assert expected[-1, 0] < expected[0, 0], "the steps do something"
    values, state = train(name, data, model, fsdp)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    params = jax.device_get(state.params)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected_params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert_placed(state, tiny.case(name), tiny.program(name, data, model, fsdp))


def assert_placed(state, case, program):
    """Parameters lie as the rules say, and every statistic of the optimizer as its parameter."""
    specs = sharding.param_specs(case.params, case.axes, program.rules, program.mesh)
    flat = jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, jax.P))
    params = sharding.flatten_paths(state.params)
    for (path, leaf), wanted in zip(params.items(), flat, strict=True):
        place = jax.NamedSharding(program.mesh, wanted)
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim), path
    compared = 0
    for path, leaf in sharding.flatten_paths(state.opt_state).items():
        owner = next((params[p] for p in params if path.endswith(f"/{p}")), None)
        if owner is not None and leaf.shape == owner.shape:
            assert leaf.sharding.is_equivalent_to(owner.sharding, leaf.ndim), path
            compared += 1
    assert compared > len(params) / 4  # Adafactor keeps whole statistics of vectors alone


def collectives(text: str) -> collections.Counter:
    """(kind, shape) -> number, of the arrays that a compiled program's collectives give."""
    found = collections.Counter()
    for shapes, kind in re.findall(rf"= (.+?) ({KINDS})(?:-start)?\(", text):
        for dims in re.findall(r"\w+\[([\d,]*)\]", shapes):
            found[kind, tuple(int(n) for n in dims.split(",") if n)] += 1
    return found


def test_contrastive_step_sends_what_one_draws_on_paper():
    """In-batch negatives over all 8 devices: 50 collectives, 42 of them gradients.

    Every device scores all questions (one gather, and two of the keys of their positives)
    against its own passages. Four reductions over the devices, of one number per question, give
    its largest score, sum of exponentials, positive's score and rank. Back comes one sum of the
    questions' gradients; the passages' stay where they are. Then each parameter's gradient.
    """
    case, questions = tiny.case("contrastive"), tiny.ROWS
    sent = collectives(tiny.program("contrastive", 8, 1).text)
    width = tiny.BERT.hidden_size
    drawn = {
        ("all-gather", (questions, width)): 1,
        ("all-gather", (questions,)): 2,
        ("all-reduce", (questions, 1)): 1,
        ("all-reduce", (questions,)): 3,
        ("all-reduce", (questions, width)): 1,
    }
    rest = sent - collections.Counter(drawn)
    assert sent - rest == drawn
    assert sum(drawn.values()) == 8 and sum(rest.values()) == 42
    assert {kind for kind, _ in rest} == {"all-reduce"}
    params = sharding.flatten_paths(case.params).items()
    sizes = [x.size for path, x in params if "position" not in path]
    for side in ("question", "passage"):  # of the position table, the places in use
        sizes.append(case.batch[f"{side}_ids"].shape[-1] * width)
    assert sorted(math.prod(shape) for _, shape in rest.elements()) == sorted(sizes)


@pytest.mark.parametrize("fsdp", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_loss_is_computed_without_gathering_the_vocabulary(fsdp):
    """Embeddings, logits and all that is made of them exist in halves only, on every device."""
    text = tiny.program("seq2seq", 4, 2, fsdp).text
    vocabulary, targets = tiny.MT5.vocab_size, tiny.case("seq2seq").batch["decoder_mask"].shape
    logits = (targets[0] // 4, targets[1], vocabulary // 2)
    assert f"f32[{','.join(map(str, logits))}]" in text
    shapes = [dims.split(",") for dims in re.findall(r"\w+\[([\d,]+)\]", text)]
    assert not [dims for dims in shapes if str(vocabulary) in dims]
