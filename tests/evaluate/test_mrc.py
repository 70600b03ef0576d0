"""Scores of whole prediction files."""

import pytest

from clmrc_jax.evaluate.golds import Gold
from clmrc_jax.evaluate.mrc import MODES, score_cmrc, score_ja_fr, score_squad, score_squad2
from clmrc_jax.evaluate.mrc_golds import read_mrc_golds
from clmrc_jax.files import InputError


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("score", "name", "lang"),
    [
        (score_cmrc, "cmrc2018/cmrc2018_dev", "zh_cn"),
        (score_cmrc, "drcd/DRCD_test", "zh_tw"),
        (score_squad, "xquad/xquad.ru", "ru"),
        (score_squad, "xquad/xquad.zh", "zh"),
        (score_squad2, "squad/squad_dev-v2.0_cs224n-dev", "en"),
        (score_ja_fr, "squad_ja_fr_test/squad_japanese_test", "ja"),
        (score_ja_fr, "squad_ja_fr_test/squad_french_test", "fr"),
    ],
)
def test_gold_answers_score_one_hundred(shared_data, score, name, lang, mode):
    golds = read_mrc_golds(shared_data / f"{name}.json.gz", lang)
    scores = score(golds, {x.id: x.answers[0] if x.answers else "" for x in golds}, mode)
    assert scores.extras["em"] == scores.extras["f1"] == 100
    assert scores.extras["count"] == len(golds) == len(scores.questions)
    assert (scores.missing, scores.foreign, scores.skipped) == (0, 0, 0)


def test_gold_spans_without_blanks_lose_what_the_specification_says(shared_data):
    """The official decoder deletes every blank; the loss is the published one."""
    for name, em, f1 in (("cmrc2018/cmrc2018_dev", 97.98, 98.97), ("drcd/DRCD_dev", 99.97, 99.99)):
        golds = read_mrc_golds(shared_data / f"{name}.json.gz", "zh")
        scores = score_cmrc(golds, {x.id: x.answers[0].replace(" ", "") for x in golds})
        found = scores.extras
        assert (found["em"], found["f1"]) == pytest.approx((em, f1), abs=0.01)
        assert found["average"] == (found["em"] + found["f1"]) / 2


@pytest.mark.parametrize("mode", MODES)
def test_missing_predictions_count_zero_and_foreign_ones_are_counted(mode):
    golds = [Gold("1", "zh", ("北京",)), Gold("2", "zh", ("上海",)), Gold("3", "zh", ())]
    scores = score_cmrc(golds, {1: "北京", "9": "x", "8": "y"}, mode)
    assert scores.extras == {"em": 50, "f1": 50, "count": 2, "average": 50}
    assert (scores.missing, scores.foreign, scores.skipped) == (1, 2, 1)
    assert scores.questions[1] == {
        "id": "2",
        "lang": "zh",
        "prediction": None,
        "answers": ["上海"],
        "em": 0.0,
        "f1": 0.0,
    }


def test_file_without_answers_is_an_error():
    with pytest.raises(InputError, match="none of the 1 questions has an answer"):
        score_squad([Gold("1", "en", ())], {})


@pytest.mark.parametrize("mode", MODES)
def test_squad2_splits_by_answerability(mode):
    golds = [Gold("a", "en", ("Paris",)), Gold("b", "en", ("Rome",)), Gold("c", "en", ())]
    scores = score_squad2([*golds, Gold("d", "en", ())], {"a": "Paris", "b": "", "c": "x"}, mode)
    assert scores.extras["parts"] == {
        "has_answer": {"em": 50, "f1": 50, "count": 2},
        "no_answer": {"em": 0, "f1": 0, "count": 2},  # a missing answer is not an empty one
    }
    assert scores.extras["em"] == 25 and scores.missing == 1


def test_squad2_best_threshold_equals_trying_every_threshold():
    golds = [Gold(str(i), "en", ("Paris",) if i % 3 else ()) for i in range(30)]
    predictions = {str(i): ("Paris", "Rome", "Paris France")[i % 5 % 3] for i in range(30)}
    nulls = {str(i): (i * 7 % 30) / 30 for i in range(30)}
    scores = score_squad2(golds, predictions, null_scores=nulls)
    for metric in ("em", "f1"):
        totals = {
            threshold: score_squad2(
                golds, {k: "" if nulls[k] > threshold else v for k, v in predictions.items()}
            ).extras[metric]
            for threshold in (-1.0, *nulls.values())
        }
        assert scores.extras[f"best_{metric}"] == pytest.approx(max(totals.values()))
        assert totals[scores.extras[f"best_{metric}_threshold"]] == pytest.approx(
            max(totals.values())
        )
