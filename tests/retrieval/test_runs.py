"""Run files: the join with passages, order, and errors that name file and line."""

import dataclasses
import json

import numpy as np
import pytest

from clmrc_jax.data.passages import Passage
from clmrc_jax.data.qa_examples import Question
from clmrc_jax.files import InputError
from clmrc_jax.retrieval.runs import read_run, write_run, write_trec


@dataclasses.dataclass
class _Store:
    """Ten passages; counts how many are read."""

    read: int = 0

    def get_many(self, rows):
        self.read += len(rows)
        return [Passage(f"p{r}", "ja", f"a{r}", f"題{r}", f"本文{r}\u2028x") for r in rows]


def _questions(count):
    return [Question(f"q{i}", f"質問{i}？", "ja", (f"答{i}",)) for i in range(count)]


def _write(path, store=None):
    scores = np.array([[0.5, 0.25, -1.0], [3.0, 2.0, -np.inf]], np.float32)
    rows = np.array([[7, 2, 0], [2, 7, -1]])
    return write_run(path, _questions(2), scores, rows, store or _Store())


def test_run_round_trip_keeps_order_texts_and_scores(tmp_path):
    store = _Store()
    assert _write(tmp_path / "run.jsonl", store) == 2
    assert store.read == 3, "a passage found twice is read once"
    first, second = read_run(tmp_path / "run.jsonl")
    assert (first["q_id"], first["question"], first["lang"]) == ("q0", "質問0？", "ja")
    assert first["answers"] == ["答0"]
    assert [(c["id"], c["score"]) for c in first["ctxs"]] == [
        ("p7", 0.5),
        ("p2", 0.25),
        ("p0", -1.0),
    ]
    assert first["ctxs"][0]["text"] == "本文7\u2028x"
    assert [c["id"] for c in second["ctxs"]] == ["p2", "p7"], "row -1 is no passage"


def test_run_over_many_questions_keeps_their_order(tmp_path):
    rows = np.arange(600)[:, None] % 10
    write_run(tmp_path / "r.jsonl", _questions(600), np.ones((600, 1), np.float32), rows, _Store())
    run = list(read_run(tmp_path / "r.jsonl"))
    assert [row["q_id"] for row in run] == [f"q{i}" for i in range(600)]
    assert [row["ctxs"][0]["id"] for row in run] == [f"p{i % 10}" for i in range(600)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"ctxs": []}, "line 2: field q_id"),
        ({"q_id": "a", "ctxs": None}, "line 2: field ctxs"),
        (
            {"q_id": "a", "ctxs": [{"id": "x", "lang": "en"}]},
            "line 2: passage 1 .* title, text, score",
        ),
        ({"q_id": "a", "ctxs": ["x"]}, "line 2: passage 1"),
    ],
)
def test_read_run_bad_row_names_file_and_line(tmp_path, row, message):
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"q_id": "ok", "ctxs": []}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=f"run.jsonl, {message}"):
        list(read_run(path))


def test_trec_file_has_a_line_per_passage(tmp_path):
    _write(tmp_path / "run.jsonl")
    path = tmp_path / "run.trec"
    assert write_trec(path, read_run(tmp_path / "run.jsonl"), tag="mdpr") == 2
    assert path.read_text().splitlines() == [
        "q0 Q0 p7 1 0.5 mdpr",
        "q0 Q0 p2 2 0.25 mdpr",
        "q0 Q0 p0 3 -1.0 mdpr",
        "q1 Q0 p2 1 3.0 mdpr",
        "q1 Q0 p7 2 2.0 mdpr",
    ]
    _write(tmp_path / "again.trec")
    assert (tmp_path / "again.trec").read_text() == path.read_text().replace("mdpr", "clmrc_jax")


def test_trec_id_with_white_space_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(InputError, match="'a b' cannot stand"):
        write_trec(tmp_path / "new.trec", [{"q_id": "a b", "ctxs": [{"id": "p", "score": 1}]}])
    assert not (tmp_path / "new.trec").exists()
