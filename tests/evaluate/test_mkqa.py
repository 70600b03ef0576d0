"""MKQA's official metric against its published vectors; native records; the threshold sweep."""

import json

import pytest

from clmrc_jax.evaluate.golds import Gold
from clmrc_jax.evaluate.mkqa import (
    best_threshold,
    golds_of_record,
    official_scores,
    read_mkqa,
    read_mkqa_predictions,
    score_mkqa,
    score_mkqa_official,
)
from clmrc_jax.evaluate.normalize import mkqa_tokens
from clmrc_jax.files import InputError

VECTORS = [
    ("es", "esto es manzana", ["esto es una manzana"], 1.0, None),
    ("en", "an answer ?? without stopwords", ["answer -- without, stopwords!!"], None, 1),
    ("zh_cn", "这个一个苹果", ["这是还是苹果", "这是另一个苹果"], 0.769231, 0),
    ("km", "នេះគឺជាផ្លែប៉ោម", ["នេះគឺជាផ្លែប៉ោមមួយទៀត"], 0.833333, None),
    ("hu", "ez egy alma", ["ez alma"], 1.0, None),
    ("ar", "تفاحة", ["التفاحة"], 1.0, None),
    ("ja", "Led Zeppelin", ["Led Zeppelin II"], 0.9166667, None),
    ("th", "กรุงเทพ", ["กรุงเทพมหานคร"], 0.70, None),
    ("fr", "eau", ["l'eau"], 0.0, None),
    ("ko", "1990", ["1990년"], 0.0, None),
]


@pytest.mark.parametrize(("lang", "prediction", "answers", "f1", "em"), VECTORS)
def test_official_vector_is_reproduced(lang, prediction, answers, f1, em):
    scores = official_scores(prediction, answers, lang)
    assert f1 is None or scores[0] == pytest.approx(f1, abs=1e-6)
    assert em is None or scores[1] == em


@pytest.mark.parametrize(
    ("lang", "text", "legacy", "fixed"),
    [
        ("fr", "level", "vel", "level"),
        ("it", "italia", "talia", "italia"),
        ("ar", "مال", "م", "مال"),
        ("ar", "المال", "م", "مال"),
        ("fr", "l'eau", "au", "eau"),
        ("it", "dell’Italia", None, "italia"),
        ("de", "Die Mauer", "mauer", "mauer"),
        ("sv", "ett hus en", "hus", "hus"),
    ],
)
def test_articles_are_eaten_as_officially_and_mended_in_fixed(lang, text, legacy, fixed):
    assert legacy is None or " ".join(mkqa_tokens(text, lang)) == legacy
    assert " ".join(mkqa_tokens(text, lang, "fixed")) == fixed


def test_official_no_tokens_on_either_side_agree():
    assert official_scores("", [""], "en") == (1, 1)
    assert official_scores("the", [""], "en") == (1, 1)  # an article alone leaves nothing
    assert official_scores("", ["apple"], "en") == (0, 0)


def test_threshold_sweep_hand_computed():
    def row(f1, probability, answerable=True, prediction="x"):
        return {
            "f1": f1,
            "no_answer_probability": probability,
            "answerable": answerable,
            "prediction": prediction,
        }

    # Silence scores 1; +1.0 at 0.1, +0.5 at 0.2, -1 at 0.3, +0.4 at 0.9: best total 2.5 at 0.2.
    rows = [row(0.4, 0.9), row(0, 0.3, False), row(0.5, 0.2), row(1.0, 0.1)]
    assert best_threshold(rows) == 0.2
    # A high answer is let in although a wrong one stands before it.
    assert best_threshold([*rows, row(1.0, 0.95)]) == 0.95
    assert best_threshold([row(0, 0.3, False)]) == 0.0


def test_official_scores_at_the_threshold_hand_computed():
    golds = [
        Gold("1", "en", ("Paris",)),
        Gold("2", "en", ("New York City",)),
        Gold("3", "en", ()),
        Gold("4", "en", ("NoAns",)),
    ]
    predictions = {"1": "paris", "2": "New York", "3": "Rome", "4": ""}
    probabilities = {"1": 0.1, "2": 0.2, "3": 0.8, "4": 0.9}
    scores = score_mkqa_official(golds, predictions, probabilities)
    english = scores.languages["en"]
    assert english["f1"] == pytest.approx(100 * (1 + 0.8 + 1 + 1) / 4)
    assert english["em"] == 75 and english["count"] == 4
    assert english["answerable_em"] == 50 and english["unanswerable_em"] == 100
    assert english["answerable_f1"] == pytest.approx(90) and english["f1_threshold"] == 0.2
    assert scores.macro["f1"] == english["f1"]


def test_official_missing_prediction_scores_zero_even_where_silence_is_right():
    golds = [Gold("1", "en", ()), Gold("2", "en", ("Oslo",))]
    scores = score_mkqa_official(golds, {"2": "Oslo", "x": "y"})
    assert (scores.missing, scores.foreign) == (1, 1)
    assert scores.languages["en"]["f1"] == 50


def test_cora_scoring_segments_chinese_in_fixed_mode_only():
    golds = [
        Gold("7_zh_cn", "zh_cn", ("美国历史",)),
        Gold("7_en", "en", ()),
        Gold("7_fi", "fi", ("A",)),
    ]
    predictions = {"7_zh_cn": "美国", "7_fi": "a"}
    legacy, fixed = (score_mkqa(golds, predictions, mode) for mode in ("legacy", "fixed"))
    assert legacy.languages["zh_cn"]["f1"] == 0 and legacy.macro["f1"] == 50
    assert fixed.languages["zh_cn"]["f1"] == pytest.approx(200 / 3)
    assert "en" not in fixed.languages and fixed.skipped == 1


RECORD = {
    "example_id": 563260143484355911,
    "query": "who sings i hear you knocking but you can't come in",
    "answers": {
        "en": [{"type": "entity", "text": "Dave Edmunds", "aliases": ["David Edmunds"]}],
        "ja": [
            {"type": "entity", "text": "デイヴ・エドモンズ"},
            {"type": "entity", "text": "デイヴ"},
        ],
        "fi": [{"type": "long_answer", "text": None}],
    },
}


def test_native_record_becomes_one_question_per_language():
    golds = {gold.lang: gold for gold in golds_of_record(RECORD)}
    assert golds["en"] == Gold("563260143484355911_en", "en", ("Dave Edmunds", "David Edmunds"))
    assert golds["ja"].answers == ("デイヴ・エドモンズ", "デイヴ")
    assert golds["fi"].answers == ()
    assert golds_of_record(RECORD, lang="ja")[0].id == "563260143484355911"


def test_native_file_and_official_predictions_are_read(tmp_path):
    data, answers = tmp_path / "mkqa.jsonl", tmp_path / "predictions.jsonl"
    data.write_text(json.dumps(RECORD) + "\n")
    rows = [
        {"example_id": 563260143484355911, "prediction": None, "binary_answer": "yes"},
        {"example_id": 2, "prediction": None, "binary_answer": None, "no_answer_prob": 0.5},
    ]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions, probabilities = read_mkqa_predictions(answers)
    assert predictions == {"563260143484355911": "yes", "2": ""}
    assert probabilities == {"563260143484355911": 0.0, "2": 0.5}
    scores = score_mkqa_official(read_mkqa(data, "en"), predictions, probabilities)
    assert scores.missing == 0 and scores.foreign == 1


def test_real_small_mkqa_file_scores_its_own_answers_fully(shared_data):
    golds = read_mkqa(shared_data / "format_samples" / "mkqa_test_mkqa.jsonl.gz")
    predictions = {gold.id: gold.answers[0] if gold.answers else "" for gold in golds}
    assert score_mkqa_official(golds, predictions).macro["em"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"example_id": 1}', "line 1.*prediction"),
        ('{"example_id": 1, "prediction": "a", "no_answer_prob": "x"}', "no_answer_prob"),
        ('{"example_id": 1, "prediction": ["a"]}', "must be a string"),
    ],
)
def test_wrong_official_prediction_names_line_and_field(tmp_path, text, message):
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_mkqa_predictions(path)


def test_language_without_question_is_an_error(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(RECORD))
    with pytest.raises(InputError, match="no question of language 'ru'"):
        read_mkqa(path, "ru")
