import pytest

from clmrc_jax.data.fields import (
    id_field,
    known_language,
    language_field,
    rows_field,
    strings_field,
    text_field,
)
from clmrc_jax.files import InputError

WHERE = "q.jsonl, line 3"


@pytest.mark.parametrize(
    "row, message",
    [
        ({"id": 1}, "'question' is missing .fields present: id"),
        ({"question": 5}, "'question' is 5 .int.; a string is needed"),
        ({"question": None}, "'question' is None"),
        ({"question": " \n"}, "'question' is empty"),
        ({"question": "who \ud83d"}, r"'question' has half a character, .ud83d at offset 4"),
    ],
)
def test_text_field_bad_value_names_place_and_field(row, message):
    with pytest.raises(InputError, match=f"{WHERE}: field {message}"):
        text_field(row, "question", WHERE)


def test_id_field_integer_becomes_its_digits():
    assert id_field({"id": -74491}, "id", WHERE) == "-74491"


@pytest.mark.parametrize("value", [True, 1.5, None, "", ["a"], "q\ud83d"])
def test_id_field_other_types_are_refused(value):
    with pytest.raises(InputError, match=f"{WHERE}: field 'id'"):
        id_field({"id": value}, "id", WHERE)


def test_strings_field_absent_is_empty():
    assert strings_field({}, "answers", WHERE) == ()


@pytest.mark.parametrize("value", ["yes", [1], ["a", ""], [None], {"a": 1}])
def test_strings_field_wrong_form_is_refused(value):
    with pytest.raises(InputError, match=f"{WHERE}: field 'answers'"):
        strings_field({"answers": value}, "answers", WHERE)


def test_rows_field_needs_objects():
    with pytest.raises(InputError, match="list of JSON objects"):
        rows_field({"ctxs": ["text"]}, "ctxs", WHERE)


@pytest.mark.parametrize("code, known", [("ja", "ja"), ("zh-CN", "zh_cn"), (" ar", "ar")])
def test_known_language_spellings_become_ours(code, known):
    assert known_language(code, WHERE) == known


def test_known_language_unknown_code_lists_the_known_ones():
    with pytest.raises(InputError, match=f"{WHERE}: unknown language code 'xx'; known codes: am"):
        known_language("xx", WHERE)


def test_language_field_missing_says_how_to_mend_it():
    with pytest.raises(InputError, match="passage without language; add the field 'lang'"):
        language_field({}, "lang", WHERE, of="passage")
    assert language_field({}, "lang", WHERE, "fi") == "fi"
    assert language_field({"lang": "ja"}, "lang", WHERE, "fi") == "ja"
