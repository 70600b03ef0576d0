import json
import logging

import pytest

from clmrc_jax.data.mrc_examples import read_mrc
from clmrc_jax.files import InputError, read_json, write_json, write_jsonl
from clmrc_jax.translate.aligned_file import TranslateOptions, translate_file
from clmrc_jax.translate.translator import TranslationError

CONTEXT = "La casa roja está en Lima."
TRANSLATIONS = {
    CONTEXT: "The red house is in Lima.",
    "¿Qué?": "What?",
    "¿Dónde?": "Where?",
    "La casa roja": "The house red",
    "en Lima": "at Lima",
    "Lima": "Lime",
}
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "San_Lima",
            "id": "article",
            "paragraphs": [
                {
                    "id": "paragraph",
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "1",
                            "question": "¿Qué?",
                            "answers": [{"id": "7", "text": "La casa roja", "answer_start": 0}],
                        },
                        {
                            "id": 2,
                            "question": "¿Dónde?",
                            "answers": [
                                {"text": "en Lima", "answer_start": 18},
                                {"text": "Lima", "answer_start": 21},
                            ],
                        },
                    ],
                }
            ],
        }
    ],
}


@pytest.fixture
def options(tmp_path):
    def make(document=SQUAD, translator=None, **flags):
        write_json(tmp_path / "data.json", document)
        rows = [{"text": text, "translation": into} for text, into in TRANSLATIONS.items()]
        write_jsonl(tmp_path / "t.jsonl", rows)
        translator = translator or f"file:{tmp_path / 't.jsonl'}"
        output = str(tmp_path / "out" / "aligned.json")
        return TranslateOptions(str(tmp_path / "data.json"), "es", translator, output, **flags)

    return make


def test_translate_file_writes_the_authors_fields_and_keeps_the_files_own(options):
    chosen = options()
    summary = translate_file(chosen)
    (article,) = read_json(chosen.output)["data"]
    (paragraph,) = article["paragraphs"]
    assert (article["title"], article["id"]) == ("San_Lima", "article")
    assert (paragraph["id"], paragraph["context"]) == ("paragraph", CONTEXT)
    assert (paragraph["trans_context"], paragraph["trans_lang"]) == (
        "The red house is in Lima.",
        "en",
    )
    first, second = paragraph["qas"]
    assert first == {
        "id": "1",
        "question": "¿Qué?",
        "trans_question": "What?",
        "answers": [
            {
                "id": "7",
                "text": "La casa roja",
                "answer_start": 0,
                "trans_text": "The house red",
                "trans_aligned_text": "The red house",
                "trans_aligned_start": 0,
                "trans_aligned_score": 1.0,
            }
        ],
    }
    found = [(x["trans_aligned_text"], x["trans_aligned_score"]) for x in second["answers"]]
    assert found == [("Lima", 0.6667), ("", 0.0)]
    assert second["answers"][1]["trans_aligned_start"] == -1
    expected = {"questions": 2, "texts": 6, "answers": 3, "aligned": 2, "exact": 1, "unaligned": 0}
    assert expected.items() <= summary.items()
    assert summary["mean_score"] == pytest.approx(5 / 9, abs=1e-4)


def test_translate_file_result_is_read_back_as_source_sides(options):
    chosen = options()
    translate_file(chosen)
    examples = read_mrc(chosen.output, "es")
    assert [x.source.question for x in examples] == ["What?", "Where?"]
    assert [x.source.answer.text for x in examples] == ["The red house", "Lima"]
    assert [x.source.answer.start for x in examples] == [0, 20]
    assert [x.id for x in examples] == ["1", "2"]


def test_translate_file_reads_other_forms(options):
    cmrc = [
        {
            "context_id": "c",
            "context_text": CONTEXT,
            "title": "Lima",
            "qas": [{"query_id": "q", "query_text": "¿Qué?", "answers": ["La casa roja"]}],
        }
    ]
    chosen = options(cmrc)
    translate_file(chosen)
    (paragraph,) = read_json(chosen.output)["data"][0]["paragraphs"]
    assert paragraph["context_id"] == "c" and "context_text" not in paragraph
    assert paragraph["qas"][0].keys() == {"id", "question", "trans_question", "answers"}
    assert paragraph["qas"][0]["answers"][0]["answer_start"] == 0
    flat = [{"id": "f", "question": "¿Qué?", "context": CONTEXT, "answers": {"text": ["Lima"]}}]
    translate_file(options(flat))
    (example,) = read_mrc(chosen.output, "es")
    assert (example.id, example.source.question) == ("f", "What?")


def test_translate_file_unanswerable_and_unlabelled_questions_have_a_question_only(options):
    rows = {"id": "n", "question": "¿Qué?", "answers": [], "is_impossible": True}
    document = {"data": [{"title": "", "paragraphs": [{"context": CONTEXT, "qas": [rows]}]}]}
    chosen = options(document)
    assert translate_file(chosen)["answers"] == 0
    (example,) = read_mrc(chosen.output, "es")
    assert example.impossible and example.source.question == "What?"
    del rows["answers"], rows["is_impossible"]
    assert translate_file(options(document, unlabelled=True))["questions"] == 1


def test_translate_file_continues_where_it_was_stopped(options, program, tmp_path):
    log = tmp_path / "log"
    texts = [f"línea {i}" for i in range(300)]  # three batches
    document = {
        "data": [{"paragraphs": [{"context": text, "qas": []} for text in texts]}],
    }
    document["data"][0]["paragraphs"][0]["qas"] = [{"id": "1", "question": "¿?", "answers": []}]
    body = f"""
        if 'línea 200' in lines and os.path.exists({str(tmp_path / "broken")!r}):
            sys.exit('out of memory')
        open({str(log)!r}, 'a').write('\\n'.join(lines) + '\\n')
        print(*lines, sep='\\n')
    """
    (tmp_path / "broken").write_text("")
    chosen = options(document, translator=f"command:{program(body)}")
    message = r"out of memory \(128 finished translations are kept in .*continues there\)"
    with pytest.raises(TranslationError, match=message):
        translate_file(chosen)
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "translations"]
    (tmp_path / "broken").unlink()
    assert translate_file(chosen)["texts"] == 301
    sent = log.read_text().splitlines()
    assert len(sent) == len(set(sent)) == 301
    translate_file(chosen)
    assert len(log.read_text().splitlines()) == 301


def test_translate_file_missing_translations_are_listed_before_anything_is_done(options, tmp_path):
    document = json.loads(json.dumps(SQUAD).replace("Lima", "Quito"))
    chosen = options(document)
    with pytest.raises(InputError, match="no translation of 3 of the 6 texts.*missing.jsonl"):
        translate_file(chosen)
    assert not (tmp_path / "out" / "aligned.json").exists()


def test_translate_file_blank_translations_are_counted(options, program, caplog):
    silent = program("print('\\n' * (len(lines) - 1))")
    chosen = options(translator=f"command:{silent}")
    with caplog.at_level(logging.WARNING):
        summary = translate_file(chosen)
    assert (summary["untranslated"], summary["unaligned"], summary["aligned"]) == (2, 2, 0)
    assert "2 of 2 questions have a blank translation" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"to": "es"}, "--lang and --to are both 'es'"),
        ({"to": "xx"}, "--to: .*xx"),
        ({"delta": -1}, "must not be negative"),
        ({"translator": "nothing"}, "names no translator"),
    ],
)
def test_translate_file_wrong_flags_are_refused(options, flags, message):
    with pytest.raises(InputError, match=message):
        translate_file(options(**flags))


def test_translate_file_wrong_data_names_the_place(options):
    twice = json.loads(json.dumps(SQUAD))
    twice["data"][0]["paragraphs"][0]["qas"][1]["id"] = "1"
    with pytest.raises(InputError, match=r"qas\[1\]: id '1' came before, at .*qas\[0\]"):
        translate_file(options(twice))
    with pytest.raises(InputError, match="no question in the file"):
        translate_file(options({"data": [{"paragraphs": [{"context": "a", "qas": []}]}]}))
    chosen = options()
    with pytest.raises(InputError, match="aligned.json.gz: is written as plain"):
        TranslateOptions(chosen.data, "es", chosen.translator, chosen.output + ".gz")
