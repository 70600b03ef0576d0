"""The rules of SQuAD 1.1, 2.0, XQuAD and the Japanese and French SQuAD."""

import random
import re
import string
from collections import Counter

import pytest

from clmrc_jax.evaluate.mrc_golds import read_mrc_golds
from clmrc_jax.evaluate.mrc_squad import (
    asai_words,
    fixed_scores,
    ja_fr_legacy,
    squad2_legacy,
    squad_legacy,
)


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        ("The Denver Broncos!", ("Denver Broncos",), 1, 1),
        ("Denver", ("Denver Broncos", "Carolina"), 0, 2 / 3),
        ("well-known", ("wellknown",), 1, 1),
        ("well known", ("well-known",), 0, 0),
        ("10–9", ("10-9",), 0, 0),  # only ASCII punctuation is deleted
        ("the", ("a",), 1, 0),  # both become empty
        ("theatre", ("atre",), 0, 0),
        ("to be to", ("to be",), 0, 0.8),  # bags: `to` counts once
    ],
)
def test_squad_legacy_scores_of_known_pairs(prediction, answers, em, f1):
    assert squad_legacy(prediction, answers, "en") == pytest.approx((em, f1))


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        ("", (), 1, 1),
        ("anything", (), 0, 0),
        ("", ("Paris",), 0, 0),
        ("the", (), 1, 1),  # normalises to nothing
        ("Paris", ("the", "Paris"), 1, 1),  # answers that normalise to nothing do not count
        ("", ("the", "Paris"), 0, 0),
        ("Paris France", ("Paris",), 0, 2 / 3),
    ],
)
def test_squad2_legacy_scores_of_known_pairs(prediction, answers, em, f1):
    assert squad2_legacy(prediction, answers, "en") == pytest.approx((em, f1))


@pytest.mark.parametrize(
    ("lang", "prediction", "answer", "em", "f1"),
    [
        ("en", "10–9", "10-9", 1, 1),
        ("en", "well known", "well-known", 1, 1),
        ("en", "“Don’t”", "don't", 1, 1),
        ("en", "the", "a", 0, 0),
        ("en", "", "", 1, 1),
        ("de", "der Rhein", "Rhein", 1, 1),
        ("en", "der Rhein", "Rhein", 0, 2 / 3),  # not an article of English
        ("fr", "l’Église", "église", 1, 1),
        ("es", "¿Los Ángeles?", "Ángeles", 1, 1),
        ("ar", "الكتاب", "كتاب", 1, 1),
        ("hi", "भारत।", "भारत", 1, 1),
        ("zh", "北京，大学", "北京大学", 1, 1),
        ("zh", "308分", "308", 0, 2 / 3),
        ("zh", "1998，2002年", "1998年", 0, 0.8),
        ("ru", "1\u200b000", "1000", 1, 1),
    ],
)
def test_fixed_scores_follow_the_language(lang, prediction, answer, em, f1):
    assert fixed_scores(prediction, (answer,), lang) == pytest.approx((em, f1))


def test_fixed_thai_gets_partial_credit_from_the_segmenter():
    em, f1 = fixed_scores("ไทย กรุงเทพมหานคร", ("กรุงเทพมหานคร",), "th")
    assert em == 0 and f1 > 0.6
    assert squad_legacy("ไทยกรุงเทพมหานคร", ("กรุงเทพมหานคร",), "th") == (0, 0)


def test_fixed_unanswerable_accepts_only_the_empty_prediction():
    assert fixed_scores("", (), "en") == (1, 1)
    assert fixed_scores(".", (), "en") == fixed_scores("a", (), "en") == (0, 0)


@pytest.mark.parametrize(
    ("lang", "text", "words"),
    [
        ("ja", "1954年から", ["1954", "年", "から"]),
        ("ja", "１,２３４．５Ｋｍ", ["1,234.5", "km"]),  # full width folded, the number rejoined
        ("fr", "L’Église de 'Paris'", ["l'église", "de", "'paris'"]),
        ("fr", "Les chats, les chiens", ["les", "chats,", "les", "chiens"]),
    ],
)
def test_asai_words_keep_punctuation_and_articles(lang, text, words):
    assert asai_words(text, lang) == tuple(words)


def test_ja_fr_legacy_scores_words_of_each_language():
    assert ja_fr_legacy("東京", ("東京都",), "ja") == pytest.approx((0, 2 / 3))
    assert ja_fr_legacy("Le Denver Broncos", ("Denver Broncos",), "fr") == pytest.approx((0, 0.8))
    assert ja_fr_legacy("", ("",), "fr") == (1, 1)


@pytest.mark.parametrize(
    "name", ["squad/squad_dev-v1.1_part1", "xquad/xquad.de", "xquad/xquad.zh", "xquad/xquad.ar"]
)
def test_squad_legacy_equals_plain_reference_on_real_answers(shared_data, name):
    generator = random.Random(3)
    golds = read_mrc_golds(shared_data / f"{name}.json.gz", "en")
    for gold in generator.sample(golds, 300):
        answer = generator.choice(gold.answers)
        cut = generator.randrange(len(answer) + 1)
        for prediction in (
            answer,
            answer[cut:],
            "the " + answer + generator.choice(golds).answers[0],
        ):
            em = max(float(_normal(prediction) == _normal(x)) for x in gold.answers)
            f1 = max(_f1(_normal(prediction).split(), _normal(x).split()) for x in gold.answers)
            assert squad_legacy(prediction, gold.answers, "en") == pytest.approx((em, f1))


def _normal(text):
    kept = "".join(x for x in text.lower() if x not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _f1(predicted, answer):
    common = (Counter(predicted) & Counter(answer)).total()
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(answer)
    return 2 * precision * recall / (precision + recall)
