"""Retrieval metrics on hand-computed runs."""

import json

import pytest

from clmrc_jax.evaluate.golds import Gold
from clmrc_jax.evaluate.recall import (
    first_hit,
    language_matrix,
    read_run,
    score_retrieval,
    score_token_recall,
)
from clmrc_jax.files import InputError


def _passage(lang, text, title=""):
    return {"id": "p", "lang": lang, "title": title, "text": text, "score": 1.0}


def _row(q_id, lang, answers, *passages):
    return {"q_id": q_id, "question": "?", "lang": lang, "answers": answers, "ctxs": list(passages)}


RUN = [
    _row(
        "1_ja",
        "ja",
        ["東京"],
        _passage("en", "Nothing here."),
        _passage("en", "It is Tokyo."),
        _passage("ja", "首都は東京。"),
    ),
    _row("1_en", "en", ["Tokyo"], _passage("en", "the city", title="Tokyo")),
    _row("2_ja", "ja", ["yes"], _passage("ja", "yes yes")),
    _row("3_ja", "ja", ["no", "大阪"], _passage("en", "no such thing"), _passage("ko", "오사카")),
]


def test_recall_in_language_and_over_parallel_answers_hand_computed():
    scores = score_retrieval(RUN, k=3)
    assert scores.languages["ja"] == {
        "r_l@3": 50,
        "r_multi@3": 50,
        "mrr_l@3": pytest.approx(100 / 3 / 2),
        "mrr_multi@3": pytest.approx(100 / 2 / 2),
        "count": 2,
    }
    assert scores.languages["en"]["r_l@3"] == 100  # the title counts
    assert scores.macro["r_l@3"] == 75 and scores.skipped == 1


def test_smaller_depth_separates_the_two_recalls():
    japanese = score_retrieval(RUN, k=2).languages["ja"]
    assert (japanese["r_l@2"], japanese["r_multi@2"]) == (0, 50)


def test_further_questions_add_their_languages_answers():
    golds = [Gold("3_ja", "ja", ("大阪",)), Gold("3_ko", "ko", ("오사카",))]
    scores = score_retrieval(RUN, golds, k=3)
    assert scores.languages["ja"]["r_multi@3"] == 100
    assert scores.languages["ja"]["r_l@3"] == 50
    assert (scores.missing, scores.foreign) == (1, 3)


class _Row(dict):
    """A row that is counted while it lives."""

    alive = most = 0

    def __init__(self, row):
        super().__init__(row)
        _Row.alive += 1
        _Row.most = max(_Row.most, _Row.alive)

    def __del__(self):
        _Row.alive -= 1


class _OnDisk:
    """A run that is made row by row whenever it is read."""

    def __iter__(self):
        return (_Row(row) for row in RUN * 5)


def test_a_run_on_disk_is_not_kept_in_memory_and_scores_the_same():
    golds = [Gold("3_ja", "ja", ("大阪",)), Gold("3_ko", "ko", ("오사카",))]
    assert score_retrieval(_OnDisk(), golds, k=2) == score_retrieval(RUN * 5, golds, k=2)
    assert _Row.most <= 2, "the one that is read and the one before"


def test_a_run_that_can_be_read_only_once_scores_the_same():
    scores = score_retrieval(iter(RUN), k=2)
    assert scores == score_retrieval(RUN, k=2)
    assert scores.extras["matrix"] == language_matrix(RUN, k=2)


def test_legacy_rule_misses_japanese():
    assert score_retrieval(RUN, k=3, mode="dpr").languages["ja"]["r_l@3"] == 0


def test_first_hit_ranks_from_one():
    assert first_hit(["a", "Rome b"], {"en": ["Rome"], "fi": ["Rooma"]}) == 2
    assert first_hit(["a"], {"en": []}) is None


def test_language_matrix_rows_sum_to_a_hundred():
    matrix = language_matrix(RUN, k=2)
    assert matrix["en"] == {"en": 100}
    assert matrix["ja"] == {"en": 60, "ja": 20, "ko": 20}


def test_token_budget_cuts_before_the_answer_hand_computed():
    run = [
        _row("1", "fi", ["late answer"], _passage("en", "a b c"), _passage("en", "late answer")),
        _row("2", "fi", ["B"], _passage("en", "a b c")),
        _row("3", "fi", ["yes"], _passage("en", "yes")),
        _row("4", "ru", ["a b"], _passage("en", "a  b")),
    ]
    scores = score_token_recall(run, budgets=(4, 5), tokenize=str.split)
    assert scores.languages["fi"] == {"r@4t": 0, "r@5t": 50, "count": 2}
    assert scores.languages["ru"]["r@4t"] == 100  # tokens are joined by single blanks
    assert scores.macro["r@5t"] == 75 and scores.skipped == 1
    named = score_token_recall(run, tokenize=str.split)
    assert list(named.macro) == ["r@2kt", "r@5kt", "count"]


def test_run_file_is_read_and_its_errors_name_the_passage(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in RUN))
    assert score_retrieval(read_run(path), k=3).macro == score_retrieval(RUN, k=3).macro
    for broken, message in (
        ({**RUN[0], "ctxs": None}, "line 1: field 'ctxs'"),
        ({**RUN[0], "ctxs": [{"lang": "ja"}]}, r"ctxs\[0\].*'text'"),
        ({**RUN[0], "ctxs": [{"text": "a"}]}, r"ctxs\[0\].*'lang'"),
        ({**RUN[0], "q_id": None}, "'q_id'"),
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=message):
            read_run(path)
