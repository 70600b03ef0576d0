"""The task table."""

import json

import pytest

from clmrc_jax.evaluate.tasks import TASKS, Request, evaluate
from clmrc_jax.files import InputError


@pytest.mark.parametrize(
    ("task", "request_", "message"),
    [
        ("squads", Request("legacy", "p.json"), "unknown task 'squads'; known tasks: xor_full"),
        ("xor_full", Request("new", "p.json", "d"), "no mode 'new'; it has: legacy, fixed"),
        ("xor_full", Request("legacy", "p.json"), "needs --data"),
    ],
)
def test_wrong_request_says_what_is_known(task, request_, message):
    with pytest.raises(InputError, match=message):
        evaluate(task, request_)


def test_every_row_has_a_default_mode_and_help():
    assert all(row.modes and row.help for row in TASKS.values())


@pytest.mark.parametrize(
    ("task", "lang"),
    [
        ("cmrc2018", "zh_cn"),
        ("drcd", "zh_tw"),
        ("squad", "en"),
        ("squad2", "en"),
        ("xquad", "fr"),
        ("squad_ja_fr", "fr"),
    ],
)
def test_reading_comprehension_tasks_know_their_language(tmp_path, task, lang):
    data, predictions = tmp_path / "test.fr.json", tmp_path / "p.json"
    data.write_text(json.dumps([{"id": "1", "answers": ["a b"]}]))
    predictions.write_text(json.dumps({"1": "a b"}))
    for mode in TASKS[task].modes:
        scores = evaluate(task, Request(mode, predictions, data))
        assert set(scores.languages) == {lang}
        assert scores.extras["em"] == scores.extras["f1"] == 100
