"""Averages."""

from clmrc_jax.evaluate.scores import Scores, average


def test_macro_average_weighs_languages_not_questions():
    rows = [{"lang": "fi", "x": 1.0}] * 3 + [{"lang": "ru", "x": 0.0}]
    languages, macro = average(rows, ("x",))
    assert languages == {"fi": {"x": 100, "count": 3}, "ru": {"x": 0, "count": 1}}
    assert macro == {"x": 50, "count": 4}


def test_no_rows_average_to_zero_and_json_has_the_agreed_shape():
    languages, macro = average([], ("x",))
    assert macro == {"x": 0, "count": 0}
    document = Scores(languages, macro, extras={"matrix": {}}).to_json()
    assert set(document) == {"languages", "macro", "missing", "foreign", "skipped", "matrix"}
    assert Scores(languages, macro, skipped=1).tables() == {"languages": {}, "macro": macro}
