from clmrc_jax.data.builders.questions import Mkqa, XorTydi
from clmrc_jax.files import write_jsonl

ANSWERS = {
    "en": [{"type": "entity", "text": "Rome"}],
    "it": [{"type": "long_answer", "text": None}],
}
RECORD = {"example_id": 5, "query": "where", "queries": {"it": "dove"}, "answers": ANSWERS}


def rows(builder):
    builder.download_and_prepare()
    return list(builder.as_data_source(split="dev"))


def test_mkqa_options_reach_the_reader(tmp_path):
    write_jsonl(tmp_path / "m.jsonl", [RECORD])
    files = {"dev": [(str(tmp_path / "m.jsonl"), None)]}
    assert [row["id"] for row in rows(Mkqa(files=files, data_dir=tmp_path))] == [b"5_en"]
    kept = rows(Mkqa(files=files, data_dir=tmp_path, langs=("it",), keep_unanswerable=True))
    assert [(row["id"], row["answers"]) for row in kept] == [(b"5_it", [b"NoAns"])]


def test_questions_of_several_files_keep_their_order(tmp_path):
    for name in ("b", "a"):
        question = {"id": name, "question": f"{name}?", "answers": [], "lang": "te"}
        write_jsonl(tmp_path / f"{name}.jsonl", [question])
    files = {"dev": [(str(tmp_path / f"{name}.jsonl"), None) for name in ("b", "a")]}
    found = rows(XorTydi(files=files, data_dir=tmp_path))
    assert [row["question"] for row in found] == [b"b?", b"a?"]
    assert found[0]["answer_lang"] == b"te" and found[0]["answers"] == []
