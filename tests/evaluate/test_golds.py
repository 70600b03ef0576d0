"""Reading questions and predictions, and the errors a person gets for bad ones."""

import pytest

from clmrc_jax.evaluate.golds import (
    Gold,
    answers_by_fact,
    fact_id,
    read_golds,
    read_predictions,
)
from clmrc_jax.files import InputError


def test_rows_are_read_with_string_ids_and_canonical_languages(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"id": 7, "lang": "zh-cn", "answers": ["美国"], "question": "?"}\n\n'
        '{"id": "8", "lang": "fi", "answers": "Oulu"}\n'
    )
    assert read_golds(path) == [Gold("7", "zh_cn", ("美国",)), Gold("8", "fi", ("Oulu",))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"lang": "fi", "answers": []}', "line 1: field 'id'"),
        ('{"id": true, "lang": "fi", "answers": []}', "line 1: field 'id'"),
        ('{"id": "1", "answers": []}', "line 1: field 'lang'"),
        ('{"id": "1", "lang": "xx", "answers": []}', "line 1: unknown language code 'xx'"),
        ('{"id": "1", "lang": "fi"}', "line 1: field 'answers'"),
        ('{"id": "1", "lang": "fi", "answers": [1]}', "line 1: field 'answers'"),
        ('{"id": "1", "lang": "fi"', "line 1: not valid JSON"),
        ("", "holds no question"),
        ('{"id": 1, "lang": "fi", "answers": []}\n' * 2, "id '1' stands on 2 lines"),
    ],
)
def test_bad_question_row_names_line_and_field(tmp_path, text, message):
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_golds(path)


def test_predictions_accept_null_and_numbers(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"1": null, "2": 1914, "3": "Oulu"}')
    assert read_predictions(path) == {"1": "", "2": "1914", "3": "Oulu"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", "one JSON object"), ('{"a": {"b": "c"}}', "id 'a'"), ("{", "not valid JSON")],
)
def test_bad_predictions_are_refused(tmp_path, text, message):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_predictions(path)


def test_prediction_that_stands_twice_or_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"1": "a", "2": "b", "1": "c"}')
    with pytest.raises(InputError, match=r"p.json: '1' stands there twice"):
        read_predictions(path)
    path.write_text(r'{"1": "a\ud83d"}')
    with pytest.raises(
        InputError, match=r"p.json, id '1' has half a character, .ud83d at offset 1"
    ):
        read_predictions(path)


def test_parallel_questions_share_a_fact():
    assert fact_id("12_a_zh_cn", "zh_cn") == "12_a" and fact_id("12", "fi") == "12"
    golds = [Gold("1_fi", "fi", ("Rooma",)), Gold("1_en", "en", ("Rome",)), Gold("2", "fi", ())]
    assert answers_by_fact(golds) == {"1": {"fi": ("Rooma",), "en": ("Rome",)}, "2": {"fi": ()}}
