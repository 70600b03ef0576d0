"""Reading gold answers from every layout of SQuAD-like files."""

import gzip
import json
import zipfile

import pytest

from clmrc_jax.evaluate.golds import Gold
from clmrc_jax.evaluate.mrc_golds import language_of_file, read_mrc_golds, read_null_scores
from clmrc_jax.files import InputError

SQUAD = {"id": 7, "question": "?", "answers": [{"text": "甲", "answer_start": 0}, {"text": "乙"}]}


def _write(path, document):
    path.write_text(json.dumps(document), "utf-8")
    return path


@pytest.mark.parametrize(
    "document",
    [
        {
            "version": "1.1",
            "data": [{"title": "t", "paragraphs": [{"context": "", "qas": [SQUAD]}]}],
        },
        [
            {
                "context_id": "c",
                "qas": [{"query_id": "7", "query_text": "?", "answers": ["甲", "乙"]}],
            }
        ],
        {
            "data": [
                {"id": "7", "question": "?", "answers": {"text": ["甲", "乙"], "answer_start": []}}
            ]
        },
        [{"context": "", "qas": [SQUAD]}],
    ],
)
def test_every_layout_gives_the_same_golds(tmp_path, document):
    assert read_mrc_golds(_write(tmp_path / "d.json", document), "zh") == [
        Gold("7", "zh", ("甲", "乙"))
    ]


def test_unanswerable_questions_have_no_answers(tmp_path):
    rows = [
        {"id": "1", "answers": []},
        {"id": "2", "answers": [{"text": "x"}], "is_impossible": True},
        {"id": "3", "answers": [{"text": "x"}], "is_impossible": False},
        {"id": "4"},
    ]
    golds = read_mrc_golds(_write(tmp_path / "d.json", {"data": [{"qas": rows}]}), "en")
    assert [gold.answers for gold in golds] == [(), (), ("x",), ()]


def test_zipped_file_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("a.json", json.dumps([{"context": "", "qas": [SQUAD]}]))
        archive.writestr("b.json", json.dumps([{"context": "", "qas": [SQUAD | {"id": 8}]}]))
    assert [gold.id for gold in read_mrc_golds(tmp_path / "d.zip", "zh")] == ["7", "8"]


def test_gzipped_file_is_read(tmp_path):
    path = tmp_path / "d.json.gz"
    path.write_bytes(gzip.compress(json.dumps([SQUAD]).encode()))
    assert [gold.id for gold in read_mrc_golds(path, "zh")] == ["7"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"data": []}, "holds no question"),
        ({"version": 1}, "expected questions with an id"),
        ([SQUAD, {"question": "?"}], r"d.json\[1\]: expected questions with an id"),
        ([SQUAD, SQUAD], "id '7' belongs to 2 questions"),
        ([{"id": True, "answers": []}], "must be a string or an integer"),
        ([{"id": "7", "answers": [{"answer_start": 3}]}], "id '7': answers must be strings"),
        ([{"id": "7", "answers": "甲"}], "answers must be strings"),
    ],
)
def test_wrong_file_is_named_with_its_place(tmp_path, document, message):
    with pytest.raises(InputError, match=message):
        read_mrc_golds(_write(tmp_path / "d.json", document), "zh")


@pytest.mark.parametrize(
    ("name", "lang"),
    [
        ("xquad.zh.json.gz", "zh"),
        ("dev-v1.1-es_small.json", "es"),
        ("squad_japanese_test.json.gz", "ja"),
        ("/en.de/xquad.ro.json", "ro"),
    ],
)
def test_language_is_told_by_the_name(name, lang):
    assert language_of_file(name) == lang
    assert language_of_file(name, "th") == "th"


@pytest.mark.parametrize("name", ["dev.json", "test-context-ar-question-en.json"])
def test_name_without_one_language_is_an_error(name):
    with pytest.raises(InputError, match="--lang"):
        language_of_file(name)


def test_null_scores_must_be_numbers(tmp_path):
    assert read_null_scores(_write(tmp_path / "n.json", {"1": 0.5, "2": -3})) == {"1": 0.5, "2": -3}
    for document in ([1], {"1": "high"}, {"1": True}):
        with pytest.raises(InputError, match="number"):
            read_null_scores(_write(tmp_path / "n.json", document))


@pytest.mark.parametrize(
    ("name", "questions", "answers"),
    [
        ("cmrc2018/cmrc2018_dev", 3219, 9657),
        ("drcd/DRCD_dev", 3524, 7048),
        ("drcd/DRCD_test", 3493, 6986),
        ("xquad/xquad.ar", 1190, 1190),
        ("mlqa/mlqa_dev_de", 512, 512),
        ("squad_ja_fr_test/squad_japanese_test", 327, 981),
    ],
)
def test_real_files_hold_the_published_numbers(shared_data, name, questions, answers):
    golds = read_mrc_golds(shared_data / f"{name}.json.gz", "en")
    assert (len(golds), sum(len(gold.answers) for gold in golds)) == (questions, answers)
