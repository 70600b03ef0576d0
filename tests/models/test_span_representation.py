"""Span vectors and dynamic lambda against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dual_bert_reference as reference
from clmrc_jax.models.span_representation import cosine, similarity, span_vectors

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(4, 9, 5)) * 0.7
START, END = np.array([2, 0, 3, 5]), np.array([4, 0, 3, 8])
MASK = np.arange(9) < np.array([[9], [5], [7], [9]])
vectors = jax.jit(span_vectors, static_argnames=("attention", "mask_padding"))
similar = jax.jit(similarity, static_argnames=("mode", "group_size"))


@pytest.mark.parametrize("attention", ["average", "self_adaptive"])
@pytest.mark.parametrize("mask_padding", [True, False])
def test_span_vectors_equal_the_reference(attention, mask_padding):
    options = {"span_attention": attention, "mask_padding": mask_padding}
    expected = [
        reference.span_vector(options, *row) for row in zip(HIDDEN, START, END, MASK, strict=True)
    ]
    found = vectors(
        np.float32(HIDDEN), START, END, MASK, attention=attention, mask_padding=mask_padding
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("attention", ["average", "self_adaptive"])
def test_span_of_the_first_token_is_that_vector_three_times(attention):
    found = np.asarray(vectors(np.float32(HIDDEN), START, END, MASK, attention=attention))[1]
    np.testing.assert_allclose(found, np.tile(HIDDEN[1, 0], 3), atol=1e-6)


@pytest.mark.parametrize("attention", ["average", "self_adaptive"])
def test_label_outside_of_the_window_gives_zeros_and_finite_gradients(attention):
    def first(hidden):
        found = vectors(hidden, np.full(4, 50), np.full(4, 60), MASK, attention=attention)
        return jnp.sum(cosine(found, found + 1)), found

    gradient, found = jax.grad(first, has_aux=True)(jnp.float32(HIDDEN))
    assert not np.asarray(found).any() and np.isfinite(gradient).all()


@pytest.mark.parametrize("attention", ["average", "self_adaptive"])
def test_end_before_the_start_is_an_empty_span(attention):
    found = vectors(np.float32(HIDDEN), END, END - 1, MASK, attention=attention)
    assert not np.asarray(found)[[0, 2, 3]].any()


@pytest.mark.parametrize("mode", ["official_dot", "cosine_batch_mean", "cosine_example"])
@pytest.mark.parametrize("group_size", [0, 2])
def test_similarity_equals_the_reference_without_padding_rows(mode, group_size):
    target, source = RNG.normal(size=(2, 6, 12))
    source = source + 0.5 * target
    valid = np.array([True, True, True, False, True, True])
    options = {"lambda_mode": mode, "lambda_group_size": group_size}
    expected, _ = reference.row_lambdas(options, target, source, valid)
    found = similar(
        np.float32(target), np.float32(source), np.float32(valid), mode=mode, group_size=group_size
    )
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_official_dot_grows_with_the_batch_and_the_cosines_do_not():
    target, source = np.abs(RNG.normal(size=(2, 3, 12))).astype(np.float32)
    for mode, factor in (("official_dot", 2), ("cosine_batch_mean", 1)):
        once = similar(target, source, np.ones(3), mode=mode)
        twice = similar(np.tile(target, (2, 1)), np.tile(source, (2, 1)), np.ones(6), mode=mode)
        np.testing.assert_allclose(twice[0], factor * once[0], rtol=1e-5)


def test_group_that_fills_the_batch_only_has_no_similarity_and_no_nan():
    ones = np.ones((4, 3), np.float32)
    found = similar(ones, ones, np.float32([1, 1, 0, 0]), mode="cosine_batch_mean", group_size=2)
    np.testing.assert_allclose(found, [1, 1, 0, 0], atol=1e-6)


def test_cosine_of_a_zero_vector_is_zero():
    a = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(cosine(a, a), [1.0, 0.0], atol=1e-6)
