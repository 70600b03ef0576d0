"""Markdown of reports: escaping, tables, and texts without numbers."""

from clmrc_jax.evaluate.report_data import complete
from clmrc_jax.evaluate.report_markdown import escape, markdown, table

BARE = {"title": "a_b", "config": "c.py", "seed": 1, "scorer": "s", "split": "dev"}


def test_escape_leaves_one_line_that_means_itself():
    assert escape("a|b\n*c*  <i>") == "a\\|b \\*c\\* \\<i\\>"
    assert escape("東京 (Tokyo)") == "東京 (Tokyo)"


def test_table_has_one_rule_and_as_many_cells_in_every_row():
    lines = table(["a", "b", "c"], [["1", "2", "3"]], left=2).splitlines()
    assert lines == ["| a | b | c |", "| --- | --- | ---: |", "| 1 | 2 | 3 |"]


def test_report_without_any_measurement_says_so():
    text = markdown(complete(BARE | {"rounds": [{"round": 0}], "corpus": {"passages": 12}}))
    assert text.startswith("# a\\_b\n")
    assert "* corpus: 12 passages\n" in text
    assert "Not measured in this run: F1, seen," in text
    assert "Mining" not in text and "## Time" not in text and "!" not in text
    assert "None" not in text and "nan" not in text


def test_empty_prediction_and_passage_free_example_are_shown():
    example = {"question": "q?", "lang": "en", "answers": ["x"], "prediction": "", "ctxs": []}
    text = markdown(complete(BARE | {"rounds": [{"round": 0}], "examples": [example]}))
    assert "### q?\n\n* `en` expected: x\n* answer: **–** ✗\n" in text
    assert "without passages" not in text
