"""Category means, checks and formats that the parts of a report share."""

import pytest

from clmrc_jax.evaluate.report_data import by_category, clock, complete, mark, number

BARE = {"title": "t", "config": "c", "seed": 1, "scorer": "s", "split": "test"}


def _section(languages, **macro):
    return {"languages": languages, "macro": macro}


def test_by_category_leaves_out_languages_without_questions():
    languages = {
        "ja": {"f1": 30.0, "count": 2},
        "en": {"f1": 0.0, "count": 0},
        "ru": {"f1": 50.0, "count": 9},
        "de": {"em": 1.0, "count": 3},
        "vi": {"f1": 12.0, "count": 1},
    }
    assert by_category(languages, "f1") == {"seen": 40.0, "unseen": 12.0}
    assert by_category({}, "f1") == {}


def test_by_category_of_unknown_language_names_it():
    with pytest.raises(ValueError, match="unknown language code 'xx'"):
        by_category({"xx": {"f1": 1.0, "count": 1}}, "f1")


def test_clock_reads_like_a_clock():
    assert [clock(x) for x in (3.21, 61.4, 7325)] == ["3.2 s", "0:01:01", "2:02:05"]


def test_number_that_is_absent_is_a_dash_and_zero_is_zero():
    assert [number(None), number(0.0), number(41.25, 2)] == ["–", "0.0", "41.25"]


def test_mark_compares_after_normalisation_in_the_language():
    example = {"lang": "en", "answers": ["Euro"], "prediction": "EURO."}
    assert mark(example) == "✓"
    assert mark(example | {"prediction": "yen"}) == "✗"
    assert mark(example | {"prediction": ""}) == "✗"


@pytest.mark.parametrize("field", [*BARE, "rounds"])
def test_missing_field_is_named(field):
    report = BARE | {"rounds": [{"round": 0}]}
    del report[field]
    with pytest.raises(ValueError, match=field):
        complete(report)


def test_complete_adds_means_to_a_copy_and_leaves_the_report_alone():
    languages = {"ja": {"f1": 10.0, "count": 3}, "en": {"f1": 20.0, "count": 4}}
    report = BARE | {"rounds": [{"round": 0, "answers": _section(languages, f1=15.0)}]}
    means = complete(report)["rounds"][0]["categories"]
    assert means == {"answers": {"seen": {"f1": 15.0, "count": 7, "languages": 2}}}
    assert "categories" not in report["rounds"][0]
    assert complete(complete(report)) == complete(report)


def test_complete_accepts_question_languages_without_passages():
    report = BARE | {"rounds": [{"round": 0, "matrix": {"ja": {}, "fi": {"en": 100.0}}}]}
    assert complete(report)["rounds"][0]["matrix"]["ja"] == {}
