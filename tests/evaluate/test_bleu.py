"""BLEU against NLTK's."""

import random
import warnings

import pytest
from nltk.translate.bleu_score import SmoothingFunction
from nltk.translate.bleu_score import sentence_bleu as nltk_bleu

from clmrc_jax.evaluate.bleu import sentence_bleu


@pytest.fixture(scope="module")
def random_cases():
    generator = random.Random(7)

    def draw():
        return [generator.choice("abcd") for _ in range(generator.randint(0, 9))]

    return [([draw() for _ in range(generator.randint(1, 3))], draw()) for _ in range(1500)]


def test_unsmoothed_bleu_equals_nltk_to_the_bit(random_cases):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for references, hypothesis in random_cases:
            expected = nltk_bleu(references, hypothesis)
            assert sentence_bleu(references, hypothesis, "none") == expected


def test_smoothed_bleu_equals_nltk_method3_with_reweighing(random_cases):
    method = SmoothingFunction().method3
    for references, hypothesis in random_cases:
        if hypothesis:
            expected = nltk_bleu(
                references, hypothesis, smoothing_function=method, auto_reweigh=True
            )
            assert sentence_bleu(references, hypothesis, "exp") == pytest.approx(expected)


def test_bleu_of_nothing_is_zero():
    assert sentence_bleu([["a"]], [], "exp") == 0
    assert sentence_bleu([], ["a"], "none") == 0


def test_unknown_smoothing_is_refused():
    with pytest.raises(ValueError, match="'none' or 'exp'"):
        sentence_bleu([["a"]], ["a"], "some")
