"""Paired tests against cases whose answer is known."""

import math

import numpy as np
import pytest

from clmrc_jax.evaluate.significance import (
    approximate_randomization,
    paired_bootstrap,
    paired_scores,
    question_means,
)
from clmrc_jax.files import InputError

TESTS = (paired_bootstrap, approximate_randomization)


@pytest.mark.parametrize("test", TESTS)
def test_equal_systems_are_never_different(test):
    found = test([0, 1, 1, 0.5], [0, 1, 1, 0.5])
    assert found.difference == 0 and found.p_value == 1 and found.count == 4


@pytest.mark.parametrize("distinct", [False, True], ids=["few values", "many values"])
def test_randomization_equals_exact_enumeration(distinct):
    count = 9 if distinct else 40
    differences = np.sqrt(np.arange(1, count + 1)) if distinct else np.ones(count)
    differences[:2] *= -1
    if distinct:
        swaps = np.array(np.meshgrid(*[[-1, 1]] * count)).reshape(count, -1).T
        exact = np.mean(np.abs(swaps @ differences) >= abs(differences.sum()) - 1e-9)
    else:  # sign test: 2 or fewer of 40, either way
        exact = 2 * sum(math.comb(40, k) for k in range(3)) / 2**40
    found = approximate_randomization(differences, np.zeros(count), samples=40_000)
    assert found.p_value == pytest.approx(exact, abs=0.005)
    assert found.difference == pytest.approx(differences.mean()) and found.low is None


@pytest.mark.parametrize("distinct", [False, True], ids=["few values", "many values"])
def test_bootstrap_agrees_with_the_normal_approximation(distinct):
    generator = np.random.default_rng(5)
    if distinct:
        differences = generator.normal(0.05, 1, 2_000)
    else:
        differences = generator.choice([-1.0, 0.0, 1.0], 2_000, p=[0.1, 0.77, 0.13])
    found = paired_bootstrap(differences, np.zeros(2_000), samples=20_000)
    error = differences.std() / math.sqrt(2_000)
    z = abs(differences.mean()) / error
    assert found.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.01)
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.1 * error)


@pytest.mark.parametrize("test", TESTS)
def test_false_alarms_are_as_rare_as_promised(test):
    generator = np.random.default_rng(0)
    p_values = [
        test(*generator.integers(0, 2, (2, 300)), samples=300, seed=i).p_value for i in range(400)
    ]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.09)


@pytest.mark.parametrize("test", TESTS)
def test_clear_difference_is_significant_symmetric_and_seeded(test):
    generator = np.random.default_rng(1)
    first, second = generator.random(500) < 0.7, generator.random(500) < 0.5
    found = test(first, second, samples=2_000)
    assert 0 < found.p_value < 0.001
    assert found == test(first, second, samples=2_000)
    assert test(second, first, samples=2_000).difference == -found.difference


def test_interval_narrows_with_lower_confidence_and_holds_the_difference():
    generator = np.random.default_rng(2)
    first, second = generator.random((2, 400))
    wide = paired_bootstrap(first, second)
    narrow = paired_bootstrap(first, second, confidence=0.5)
    assert wide.low < narrow.low < wide.difference < narrow.high < wide.high


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("first", "second"), [([1], [1, 0]), ([], []), ([[1]], [[1]])])
def test_scores_that_are_not_pairs_are_refused(test, first, second):
    with pytest.raises(ValueError, match="equally long"):
        test(first, second)


def test_seeds_are_averaged_per_question_and_paired_by_id():
    runs = [
        [{"id": 1, "em": 1}, {"id": "2", "em": 0}],
        [{"id": "2", "em": 1}, {"id": "1", "em": 1}],
    ]
    means = question_means(runs, "em")
    assert means == {"1": 1, "2": 0.5}
    assert paired_scores(means, {"2": 0.0, "1": 1.0}) == ([1, 0.5], [1, 0])


def test_runs_on_other_questions_are_refused():
    with pytest.raises(InputError, match="run 1 scores other questions.*'2'"):
        question_means([[{"id": "1", "f1": 1}], [{"id": "1", "f1": 1}, {"id": "2", "f1": 1}]], "f1")
    with pytest.raises(InputError, match="the second system"):
        paired_scores({"1": 1.0}, {"2": 1.0})
    with pytest.raises(InputError, match="no run"):
        question_means([], "f1")
