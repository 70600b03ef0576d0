import gzip

import pytest

from clmrc_jax.files import InputError, read_jsonl, write_jsonl
from clmrc_jax.translate.cached_file import FileTranslator
from clmrc_jax.translate.translator import TranslationError


def test_file_tsv_escapes_and_blank_texts(tmp_path):
    path = tmp_path / "t.tsv.gz"
    path.write_bytes(gzip.compress(b"uno\\ndos\tone\\ntwo\\\\n\\t3\r\n\nadi\xc3\xb3s\tbye\n"))
    translator = FileTranslator(path)
    texts = ["adiós", "uno\ndos", " ", ""]
    assert translator.translate(texts, "es", "en") == ["bye", "one\ntwo\\n\t3", " ", ""]


def test_file_jsonl_directions_are_told_apart(tmp_path):
    rows = [
        {"source": "es", "target": "en", "text": "once", "translation": "eleven"},
        {"source": "en", "target": "es", "text": "once", "translation": "una vez"},
        {"text": "once", "translation": "whatever else"},
    ]
    write_jsonl(tmp_path / "t.jsonl", rows)
    translator = FileTranslator(tmp_path / "t.jsonl")
    assert translator.translate(["once"], "es", "en") == ["eleven"]
    assert translator.translate(["once"], "en", "es") == ["una vez"]
    assert translator.translate(["once"], "fr", "en") == ["whatever else"]


def test_file_missing_translations_are_all_listed_and_the_list_can_be_filled_in(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [{"text": "a", "translation": "A"}, {"text": "b", "translation": " "}]
    write_jsonl(path, rows)
    translator = FileTranslator(path)
    texts = ["a", *"bcdefghb", ""]
    message = (
        r"no translation of 7 of the 10 texts: 'b', 'c', 'd', 'e', 'f' and 2 more; all are "
        r"listed in .*missing.jsonl: fill in"
    )
    with pytest.raises(InputError, match=message):
        translator.prepare(texts, "es", "en")
    with pytest.raises(TranslationError, match="7 of the 10 texts") as caught:
        translator.translate(texts, "es", "en")
    assert caught.value.finished == ("A",)
    listed = [row for _, row in read_jsonl(f"{path}.missing.jsonl")]
    assert [row["text"] for row in listed] == list("bcdefgh")
    write_jsonl(path, rows + [row | {"translation": row["text"].upper()} for row in listed])
    FileTranslator(path).prepare(texts, "es", "en")
    assert FileTranslator(path).translate(texts, "es", "en") == ["A", *"BCDEFGHB", ""]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.tsv", "a\tA\nb\n", r"t.tsv, line 2: expected text, tab, translation; found 1 fields"),
        ("t.tsv", "a\tA\na\tB\n", "line 2: 'a' was translated differently further up"),
        ("t.jsonl", '{"text": "a"}\n', "line 1: field 'translation'"),
        ("t.jsonl", '{"text": "a", "translation": "b", "source": "es"}\n', "both 'source' and"),
        ("t.csv", "", r"must be a .jsonl or a .tsv file"),
    ],
)
def test_file_of_another_form_names_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        FileTranslator(tmp_path / name)


def test_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="none.tsv: no such file"):
        FileTranslator(tmp_path / "none.tsv")
