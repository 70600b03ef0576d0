"""The task table."""

import dataclasses
import json

import pytest

from clmrc_jax.evaluate.tasks import OPTIONS, TASKS, Request, evaluate
from clmrc_jax.files import InputError


@pytest.mark.parametrize(
    ("task", "request_", "message"),
    [
        ("squads", Request("legacy", "p.json"), "unknown task 'squads'; known tasks: xor_full"),
        ("xor_full", Request("new", "p.json", "d"), "no mode 'new'; it has: legacy, fixed"),
        ("xor_full", Request("legacy", "p.json"), "needs --data"),
        ("xor_full", Request("legacy", "p.json", "d", lang="ja"), "no --lang.*Leave it out.*mkqa"),
        ("cmrc2018", Request("legacy", "p.json", "d", lang="ja"), "cmrc2018 takes no --lang"),
        ("mkqa", Request("legacy", "p.json", "d", top_k=10), "--top_k.*take it: retrieval\\)"),
        ("squad", Request("legacy", "p.json", "d", null_scores="n"), "null_scores.*it: squad2\\)"),
        ("xor_retrieve", Request("legacy", "p.json", "d"), "xor_retrieve takes no --data"),
    ],
)
def test_wrong_request_says_what_is_known(task, request_, message):
    with pytest.raises(InputError, match=message):
        evaluate(task, request_)


def test_every_row_has_a_default_mode_and_help():
    assert all(row.modes and row.help for row in TASKS.values())


def test_every_option_has_a_field_and_a_task_that_takes_it():
    fields = {field.name for field in dataclasses.fields(Request)}
    taken = {name for row in TASKS.values() for name in row.options}
    assert taken == set(OPTIONS) == fields - {"mode", "predictions"}
    assert all("data" in row.options for row in TASKS.values() if row.needs_data)


def test_a_depth_that_the_run_does_not_have_is_refused(tmp_path):
    def write(*lengths):
        ctxs = [{"lang": "en", "text": "Oulu"}] * max(lengths)
        rows = [
            {"q_id": str(i), "lang": "fi", "answers": ["Oulu"], "ctxs": ctxs[:length]}
            for i, length in enumerate(lengths)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    path = tmp_path / "run.jsonl"
    write(5, 3)
    for top_k in (None, 6):
        message = rf"run.jsonl: .*at most 5 passage.*--top_k={top_k or 10}\. Give --top_k=5"
        with pytest.raises(InputError, match=message):
            evaluate("retrieval", Request("fixed", path, top_k=top_k))
    scores = evaluate("retrieval", Request("fixed", path, top_k=5))
    assert scores.macro["r_l@5"] == 100, "one question may have fewer passages"
    write(10, 0)
    assert evaluate("retrieval", Request("fixed", path)).macro["r_l@10"] == 50
    write(0)
    with pytest.raises(InputError, match="no question has a passage"):
        evaluate("retrieval", Request("fixed", path))


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
