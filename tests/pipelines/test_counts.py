"""Corpus sizes before a run: counted, estimated from a part, or assumed."""

import pytest

from clmrc_jax.data.datasets import prepare
from clmrc_jax.files import InputError, write_jsonl
from clmrc_jax.pipelines import counts
from clmrc_jax.pipelines.corpora import CorpusSettings


def test_corpus_counts_of_files_are_real_where_files_exist(tmp_path, monkeypatch):
    path = tmp_path / "passages.jsonl"
    path.write_text('{"id": "a", "lang": "en", "title": "t", "text": "x"}\n' * 500)
    named = CorpusSettings(kind="files", passages=str(path))
    found = counts.corpus_counts(named)
    assert (found.passages, found.train) == (500, 137_995)
    assert "counted: passages" in found.origin
    monkeypatch.setattr(counts, "EXACTLY_COUNTED", 10)
    monkeypatch.setattr(counts, "_SAMPLE_ROWS", 20)
    assert counts.corpus_counts(named).passages == 500
    with pytest.raises(InputError, match="nowhere.jsonl: no such file"):
        counts.corpus_counts(CorpusSettings(kind="files", train="nowhere.jsonl"))


def test_corpus_counts_without_files_are_assumed_and_say_so():
    assert counts.corpus_counts(CorpusSettings(kind="files")) == counts.PAPER
    assert "assumed" in counts.corpus_counts(CorpusSettings(kind="squads")).origin


def test_corpus_counts_of_pairs_sets_and_native_mkqa(tmp_path, shared_data):
    rows = [{"id": str(i), "question": "who?", "lang": "en"} for i in range(3)]
    write_jsonl(tmp_path / "q.jsonl", rows)
    folder = prepare("xor_tydi", {"dev": [tmp_path / "q.jsonl"]}, tmp_path / "data")
    mkqa = str(shared_data / "format_samples" / "mkqa_test_mkqa.jsonl.gz")
    settings = CorpusSettings(
        kind="files",
        train=((str(tmp_path / "q.jsonl"), "en"), (str(tmp_path / "q.jsonl"), "en")),
        dev=f"tfds:{folder}/dev",
        test=(mkqa, "th"),
    )
    found = counts.corpus_counts(settings)
    records = found.test
    assert (found.train, found.dev) == (6, 3) and records > 5
    assert "counted: train, dev, test" in found.origin
    several = counts.corpus_counts(CorpusSettings(kind="files", test=mkqa))
    assert several.test == 26 * records
    named = counts.corpus_counts(CorpusSettings(kind="files", test="tfds:mkqa/test"))
    assert named == counts.PAPER, "nothing is downloaded for a plan"
