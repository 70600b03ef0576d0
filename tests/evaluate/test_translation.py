"""BLEU and chrF of translations."""

import math

import pytest

from clmrc_jax.evaluate.translation import bleu_tokenizer, score_translations
from clmrc_jax.files import InputError

pytest.importorskip("sacrebleu")


def test_perfect_and_empty_translations_score_100_and_0():
    references = ["the cat sat on the mat .", "where is the station ?"]
    perfect = score_translations(references, references, "en")
    assert perfect.bleu == pytest.approx(100) and perfect.chrf == pytest.approx(100)
    assert perfect.count == 2
    nothing = score_translations(["", ""], references, "en")
    assert nothing.bleu == 0 and nothing.chrf == 0


def test_bleu_is_the_geometric_mean_of_ngram_precisions():
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples; equally long
    scores = score_translations(["the cat sat on a mat"], ["the cat sat on the mat"], "en")
    precisions = (5 / 6, 3 / 5, 2 / 4, 1 / 3)
    expected = 100 * math.exp(sum(map(math.log, precisions)) / 4)
    assert scores.bleu == pytest.approx(expected)


def test_tokenizer_follows_the_target_language():
    named = {code: bleu_tokenizer(code) for code in ("en", "zh", "zh_cn", "ja", "th", "xx")}
    assert named == {
        "en": "13a",
        "zh": "zh",
        "zh_cn": "zh",
        "ja": "char",
        "th": "char",
        "xx": "13a",
    }
    scores = score_translations(["猫坐在垫子上。"], ["猫坐在垫子上。"], "zh_cn")
    assert scores.bleu == pytest.approx(100)
    assert "tok:zh" in scores.signatures[0] and "nc:6" in scores.signatures[1]


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="2 translations and 1 references"):
        score_translations(["a", "b"], ["a"], "en")
    with pytest.raises(InputError, match="at least one"):
        score_translations([], [], "en")
