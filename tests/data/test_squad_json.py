import gzip
import json
import zipfile

import pytest

from clmrc_jax.data.squad_json import AnswerRow, read_paragraphs
from clmrc_jax.files import InputError

QUESTION = {"id": "1", "question": "q?", "answers": [{"text": "a", "answer_start": 3}]}


def save(path, document):
    path.write_text(json.dumps(document, ensure_ascii=False))
    return path


def squad(*qas, **paragraph):
    return {
        "data": [{"title": "A_b", "paragraphs": [{"context": "c a", "qas": [*qas]} | paragraph]}]
    }


def read_one(path, **options):
    (paragraph,) = read_paragraphs(path, **options)
    return paragraph


def test_paragraph_keeps_place_answers_and_further_fields(tmp_path):
    document = squad(QUESTION | {"trans_question": "Q?"}, trans_context="C A")
    paragraph = read_one(save(tmp_path / "f.json", document))
    assert (paragraph.article, paragraph.title, paragraph.context) == (0, "A b", "c a")
    assert paragraph.fields["trans_context"] == "C A"
    (question,) = paragraph.questions
    assert question.place.endswith("f.json, data[0].paragraphs[0].qas[0]")
    assert (question.id, question.question, question.impossible) == ("1", "q?", False)
    assert question.answers == (AnswerRow("a", 3, QUESTION["answers"][0]),)
    assert question.fields["trans_question"] == "Q?"


def test_every_form_gives_the_same_answers(tmp_path):
    own = [{"context_text": "c a", "qas": [{"query_id": 1, "query_text": "q?", "answers": ["a"]}]}]
    columns = {"id": 1, "context": "c a", "question": "q?"}
    columns["answers"] = {"text": ["a"], "answer_start": [2]}
    forms = {"squad": squad(QUESTION), "cmrc": own, "flat": [columns]}
    starts = {}
    for name, document in forms.items():
        (question,) = read_one(save(tmp_path / f"{name}.json", document)).questions
        (answer,) = question.answers
        assert (question.id, question.question, answer.text) == ("1", "q?", "a")
        starts[name] = answer.start
    assert starts == {"squad": 3, "cmrc": None, "flat": 2}


def test_compressed_files_are_read(tmp_path):
    text = json.dumps(squad(QUESTION))
    (tmp_path / "f.json.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("a.json", text)
        archive.writestr("b.json", text)
    assert read_one(tmp_path / "f.json.gz").questions[0].id == "1"
    assert len(list(read_paragraphs(tmp_path / "f.zip"))) == 2


def test_unanswerable_and_blank_answers_are_told_apart(tmp_path):
    rows = [
        QUESTION | {"answers": []},
        QUESTION | {"is_impossible": True},
        QUESTION | {"answers": [{"text": " "}]},
    ]
    questions = read_one(save(tmp_path / "f.json", squad(*rows))).questions
    assert [question.answers for question in questions] == [(), (), ()]
    assert [question.impossible for question in questions] == [True, True, False]


@pytest.mark.parametrize("answers", [None, [], "anything", [{"no": "text"}]])
def test_unlabelled_reading_looks_at_no_answer(tmp_path, answers):
    path = save(tmp_path / "f.json", squad(QUESTION | {"answers": answers}))
    (question,) = read_one(path, labelled=False).questions
    assert question.answers == () and not question.impossible


@pytest.mark.parametrize(
    "document, message",
    [
        (squad(QUESTION | {"answers": [{"text": "a", "answer_start": "3"}]}), "character offset"),
        (squad(QUESTION | {"answers": [{"text": "a", "answer_start": 1.5}]}), "character offset"),
        (squad(QUESTION | {"answers": {"text": ["a"], "answer_start": []}}), "1 answers have 0"),
        (squad(QUESTION, context=" "), "field 'context' is empty"),
        (squad(QUESTION | {"question": ""}), "field 'question' is empty"),
        (squad(QUESTION | {"id": " "}), "field 'id' is empty"),
    ],
)
def test_bad_field_names_its_place(tmp_path, document, message):
    with pytest.raises(InputError, match=rf"f.json, data\[0\].paragraphs\[0\].*{message}"):
        read_one(save(tmp_path / "f.json", document))


def test_damaged_zip_is_an_input_error(tmp_path):
    (tmp_path / "f.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="f.zip: not a whole zip file"):
        list(read_paragraphs(tmp_path / "f.zip"))
