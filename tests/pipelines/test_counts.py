"""Corpus sizes before a run: counted, estimated from a part, or assumed."""

import pytest

from clmrc_jax.files import InputError
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
