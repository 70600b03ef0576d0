import dataclasses

import numpy as np
import pytest

from clmrc_jax.data.passages import Passage, PassageStore, write_passage_store
from clmrc_jax.pipelines.gold_recall import gold_recall


@dataclasses.dataclass
class Asked:
    id: str
    lang: str


class Embeddings:
    """The reading side of an embedding store, over an array."""

    def __init__(self, vectors):
        self.vectors, self.shape = vectors, vectors.shape

    def __len__(self):
        return len(self.vectors)

    def rows(self, start, stop):
        return self.vectors[start:stop]


@pytest.fixture
def store(tmp_path):
    rows = [("a/en", "en"), ("a/ja", "ja"), ("b/en", "en"), ("b/ja", "ja"), ("c/ja", "ja")]
    passages = [Passage(i, lang, i, i, f"text {i}") for i, lang in rows]
    write_passage_store(tmp_path / "p.array_record", passages)
    return PassageStore(tmp_path / "p.array_record")


def test_gold_recall_counts_any_language_and_english_alone(store):
    vectors = np.eye(5, dtype=np.float32)
    # Asked in Japanese: the first question finds the Japanese copy first and English `b` before
    # English `a`; the second finds nothing of its own within the first place.
    queries = np.array([[0.1, 0.9, 0.5, 0, 0], [0, 0, 0.4, 0.3, 0.8]], np.float32)
    asked = [Asked("a_ja", "ja"), Asked("b_ja", "ja")]
    gold = {"a_ja": ["a/ja", "a/en"], "b_ja": ["b/ja", "b/en"]}
    scores = gold_recall(queries, asked, gold, store, Embeddings(vectors), depths=(1, 2))
    assert scores["languages"]["ja"] == {
        "r@1": 50.0,
        "r@2": 100.0,
        "count": 2,
        "r_en@1": 50.0,
        "r_en@2": 100.0,
    }
    assert scores["macro"]["r@1"] == 50.0


def test_gold_recall_without_an_english_paragraph_has_no_english_column(store):
    queries = np.eye(5, dtype=np.float32)[4:]
    scores = gold_recall(
        queries, [Asked("c", "ja")], {"c": ["c/ja"]}, store, Embeddings(np.eye(5, dtype="f")), (1,)
    )
    assert scores["languages"]["ja"] == {"r@1": 100.0, "count": 1}
    assert "r_en@1" not in scores["macro"]
