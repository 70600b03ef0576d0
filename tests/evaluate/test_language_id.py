"""Correct-language rate."""

import pytest

from clmrc_jax.evaluate.golds import Gold
from clmrc_jax.evaluate.language_id import answers_in_language, score_language, script_of

PARALLEL = {
    "ja": ["東京"],
    "en": ["Tokyo"],
    "fi": ["Tokio"],
    "sv": ["Tokyo"],
    "ru": ["Токио"],
    "zh_cn": ["东京"],
}


@pytest.mark.parametrize(
    ("prediction", "lang", "expected"),
    [
        ("東京", "ja", True),
        ("Tokyo", "ja", False),
        ("Tokyo", "fi", False),  # same script, but the answer of another language
        ("Tokyo", "sv", True),  # its own answer too
        ("tokyo.", "fi", False),
        ("Helsinki", "fi", True),
        ("大阪", "ja", True),
        ("さいたま", "zh_cn", False),
        ("도쿄", "ja", False),
        ("1871", "ja", None),
        ("JPY", "ru", None),
        ("UTF-8", "ja", None),
        ("Токио (Tokyo)", "ru", True),
        ("Osaka", "ru", False),
        ("القاهرة", "ar", True),
        ("", "fi", None),
    ],
)
def test_answer_language_is_judged_by_the_stated_rule(prediction, lang, expected):
    assert answers_in_language(prediction, lang, PARALLEL) is expected


def test_own_gold_is_right_in_any_script():
    assert answers_in_language("Microsoft", "ru", {"ru": ["Microsoft"], "en": ["Microsoft"]})


def test_every_known_language_has_a_script_rule():
    from clmrc_jax.data.languages import LANGUAGES

    for code in LANGUAGES:
        assert answers_in_language("éa", code) in (True, False)
    assert script_of("ー") == script_of("ア") == "KATAKANA" and script_of("가") == "HANGUL"


def test_rate_leaves_out_neutral_empty_and_missing_answers():
    golds = [Gold(f"{n}_{lang}", lang, tuple(PARALLEL[lang])) for n in "12" for lang in PARALLEL]
    predictions = {"1_ja": "東京", "2_ja": "Tokyo", "1_fi": "1999", "2_fi": " ", "x": "y"}
    scores = score_language(golds, predictions)
    assert scores.languages["ja"] == {"correct_language": 50, "count": 2, "neutral": 0, "empty": 0}
    assert scores.languages["fi"] == {"correct_language": 0, "count": 0, "neutral": 1, "empty": 1}
    assert scores.macro == {"correct_language": 50, "count": 2}
    assert (scores.missing, scores.foreign, scores.skipped) == (8, 1, 2)
