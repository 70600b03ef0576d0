import pytest

from clmrc_jax.data.builders.reading import Cmrc2018, Drcd, example_of
from clmrc_jax.data.mrc_examples import Answer, MrcExample, read_mrc, write_squad
from clmrc_jax.files import InputError, write_json


def prepared(builder):
    builder.download_and_prepare()
    return list(builder.as_data_source(split="dev"))


def test_prepared_questions_come_back_as_read(tmp_path):
    answers = (Answer("甲", 0), Answer("丙", -1))
    examples = [
        MrcExample("1", "zh_tw", "題 目", "誰？", "甲乙", answers, article="題 目"),
        MrcExample("2", "zh_tw", "題 目", "何？", "甲乙", (Answer("乙", 1),), article="題 目"),
    ]
    write_squad(tmp_path / "d.json", examples)
    files = {"dev": [(str(tmp_path / "d.json"), None)]}
    assert [example_of(row) for row in prepared(Drcd(files=files, data_dir=tmp_path))] == examples


def test_cmrc_own_form_gets_its_language_and_options_reach_the_reader(tmp_path):
    rows = [{"query_id": "1", "query_text": "谁？", "answers": ["乙"]}]
    write_json(tmp_path / "c.json", [{"context_text": "甲乙", "title": "题", "qas": rows}])
    files = {"dev": [(str(tmp_path / "c.json"), None)]}
    (row,) = prepared(Cmrc2018(files=files, data_dir=tmp_path))
    assert row["lang"] == b"zh_cn" and example_of(row).answers == (Answer("乙", 1),)
    (row,) = prepared(Cmrc2018(files=files, data_dir=tmp_path, labelled=False))
    assert example_of(row).answers == ()


def test_rows_of_the_standard_sets_are_read(tmp_path):
    row = {"id": b"1", "title": b"A_b", "context": b"c a", "question": b"q"}
    row["answers"] = {"text": [b"a"], "answer_start": [2]}
    expected = MrcExample("1", "en", "A b", "q", "c a", (Answer("a", 2),), article="A b")
    assert example_of(row, "en") == expected


def test_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="nowhere.json: no such file"):
        Cmrc2018(files={"dev": [("nowhere.json", None)]}, data_dir=tmp_path)


def test_published_set_is_prepared_whole(shared_data, tmp_path):
    path = str(shared_data / "drcd" / "DRCD_test.json.gz")
    rows = prepared(Drcd(files={"dev": [(path, None)]}, data_dir=tmp_path))
    assert [example_of(row) for row in rows] == read_mrc(path, "zh_tw")
