"""The XOR-Full scorer against published vectors and an independent, plain reference."""

import random
import warnings

import pytest
from nltk.translate.bleu_score import sentence_bleu

from clmrc_jax.evaluate import segment
from clmrc_jax.evaluate.golds import Gold
from clmrc_jax.evaluate.xor import score_answer, score_xor

# Produced with the official scorer, mecab-python3 with unidic-lite and nltk 3.10.
OFFICIAL = [
    ("ja", ["1954年から1955年"], "1954年から1955年", 1.0, 1, 0.295795),
    ("ja", ["1954年"], "1954", 1.0, 1, 0.367879),
    ("ja", ["デイヴ・エドモンズ"], "デイヴ・エドモンズ", 0.8, 0, 0.394190),
    ("ja", ["東京"], "東京都", 0.666667, 0, 0.0),
    ("ko", ["1990년"], "1990", 1.0, 1, 0.778801),
    ("ru", ["Москва"], "москва.", 1.0, 1, 0.614788),
    ("te", ["15 యూనియన్ రిపబ్లిక్"], "15 రిపబ్లిక్", 0.8, 0, 0.469618),
    ("en", ["the United States"], "United States", 0.8, 0, 0.735141),
    ("en", ["2,718"], "2718", 1.0, 1, 0.0),
    ("zh_cn", ["美国"], "美国人", 1.0, 1, 0.0),
    ("zh_cn", ["加利福尼亚州"], "加利福尼亚", 0.0, 0, 0.818731),
    ("fi", ["yes"], "yes", 1.0, 1, 0.0),
    ("fi", ["1914"], "1914", 1.0, 1, 1.0),
    ("fi", [""], "", 0.0, 1, 0.0),
    ("ar", ["28 يوليو 1914", "1914"], "يوليو 1914", 0.8, 0, 0.740818),
]


@pytest.mark.parametrize(("lang", "answers", "prediction", "f1", "em", "bleu"), OFFICIAL)
def test_legacy_vector_equals_official_scorer(lang, answers, prediction, f1, em, bleu):
    scores = score_answer(prediction, tuple(answers), lang, "legacy")
    assert scores == pytest.approx((f1, em, bleu), abs=1e-6)


def test_legacy_real_answers_equal_plain_reference(shared_data):
    golds = _dev_sample(shared_data, 400)
    generator = random.Random(0)
    for gold in golds:
        prediction = _spoil(generator, gold, golds)
        expected = _reference(prediction, gold.answers, gold.lang)
        assert score_answer(prediction, gold.answers, gold.lang, "legacy") == expected


@pytest.mark.parametrize("mode", ["legacy", "fixed", "portable"])
def test_gold_as_prediction_on_real_dev_scores_as_designed(shared_data, mode):
    golds = _dev_sample(shared_data, 400)
    scores = score_xor(golds, {gold.id: gold.answers[0] for gold in golds}, mode)
    assert set(scores.languages) == {"ar", "bn", "fi", "ja", "ko", "ru", "te"}
    if mode == "legacy":  # the middle dot and the raw BLEU lose points even here
        assert scores.macro["bleu"] < 95
    else:
        assert scores.macro["f1"] == scores.macro["em"] == 100
        assert scores.macro["bleu"] == pytest.approx(100)


@pytest.mark.parametrize("mode", ["fixed", "portable"])
def test_fixed_middle_dot_is_symmetric(mode):
    name = "デイヴ・エドモンズ"
    for prediction in (name, "デイヴ エドモンズ", "デイヴ･エドモンズ"):
        assert score_answer(prediction, (name,), "ja", mode)[:2] == (1.0, 1.0)
    assert score_answer("乔治·华盛顿", ("乔治・华盛顿",), "zh_cn", mode)[:2] == (1.0, 1.0)


@pytest.mark.parametrize("mode", ["fixed", "portable"])
def test_fixed_counters_vanish_in_their_own_language_only(mode):
    assert score_answer("1954", ("1954年",), "ja", mode)[1] == 1
    assert score_answer("1990", ("1990년",), "ko", mode)[1] == 1
    assert score_answer("美国人", ("美国",), "zh_cn", mode)[1] == 0
    assert score_answer("1990", ("1990년",), "ja", mode)[1] == 0


def test_fixed_unspaced_languages_get_partial_credit_from_official_segmenters():
    # jieba 美国|人, newmm กรุงเทพมหานคร|เมือง, khmer-nltk cuts នេះ|គឺជា|ផ្លែ|ប៉ោម(|មួយ|ទៀត)
    assert score_answer("美国人", ("美国",), "zh_cn", "fixed")[0] == pytest.approx(2 / 3)
    assert score_answer("ไทย กรุงเทพมหานคร", ("กรุงเทพมหานคร",), "th", "fixed")[0] > 0.6
    longer, shorter = "នេះគឺជាផ្លែប៉ោមមួយទៀត", "នេះគឺជាផ្លែប៉ោម"
    assert score_answer(shorter, (longer,), "km", "fixed")[0] == pytest.approx(0.8)
    assert score_answer(shorter, (longer,), "km", "legacy")[0] == 0


def test_fixed_bleu_of_exact_match_is_one_at_any_length():
    for text in ("1914", "yes", "the United States", "Венгерская Народная Республика 1949 года"):
        assert score_answer(text, (text,), "ru", "fixed")[2] == pytest.approx(1)


def test_portable_year_wrong_by_one_digit_scores_nothing():
    assert score_answer("1871年", ("1872年",), "ja", "portable") == (0, 0, 0)
    assert score_answer("東京", ("東京都",), "ja", "portable")[0] == pytest.approx(0.8)


def test_no_answer_marks_are_skipped_as_each_mode_says():
    golds = [Gold("1", "fi", ("NoAns",)), Gold("2", "fi", ("No Answer",)), Gold("3", "fi", ())]
    legacy, fixed = (score_xor(golds, {"1": "NoAns"}, mode) for mode in ("legacy", "fixed"))
    assert legacy.skipped == 2 and legacy.languages["fi"]["count"] == 1
    assert fixed.skipped == 3 and fixed.languages == {} and fixed.macro["f1"] == 0


def test_missing_prediction_scores_zero_and_foreign_one_is_counted():
    golds = [Gold("1", "fi", ("Oulu",)), Gold("2", "fi", ("Turku",)), Gold("3", "ru", ("Омск",))]
    scores = score_xor(golds, {1: "Oulu", "3": "омск", "77": "?", "78": "?"}, "fixed")
    assert (scores.missing, scores.foreign) == (1, 2)
    assert scores.languages["fi"] == {"f1": 50, "em": 50, "bleu": 50, "count": 2}
    assert scores.macro == {"f1": 75, "em": 75, "bleu": 75, "count": 3}


def _dev_sample(shared_data, count):
    from clmrc_jax.evaluate.golds import read_golds

    golds = read_golds(shared_data / "mia2022" / "mia_2022_dev_xorqa.jsonl.gz")
    return random.Random(1).sample([gold for gold in golds if gold.answers], count)


def _spoil(generator, gold, golds):
    """A gold answer, a part of one, or another question's answer."""
    text = generator.choice(gold.answers)
    if generator.random() < 0.2:
        return generator.choice(golds).answers[0]
    cut = generator.randrange(len(text) + 1)
    return generator.choice([text, text[:cut], text[cut:].title(), text + ", " + text[:cut]])


def _reference(prediction, answers, lang):
    """The official rules written out plainly, BLEU by NLTK."""
    cut = prediction
    if lang == "ja":
        cut = segment.wakati(prediction.replace("・", " ").replace("、", ","))
        answers = [segment.wakati(answer) for answer in answers]
    f1 = max(_f1(_normal(cut).split(), _normal(answer).split()) for answer in answers)
    em = max(float(_normal(cut) == _normal(answer)) for answer in answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f1, em, sentence_bleu(answers, prediction)


def _normal(text):
    dropped = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~年歳人년"
    return " ".join("".join(x for x in text.lower() if x not in dropped).split())


def _f1(predicted, answer):
    rest, common = list(answer), 0
    for token in predicted:
        if token in rest:
            rest.remove(token)
            common += 1
    return 2 * common / (len(predicted) + len(answer)) if common else 0.0
