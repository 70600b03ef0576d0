"""Candidates are labelled in parts: the same rows whatever their size, and no part twice."""

import dataclasses
import random

import pytest
from etils import epath

from clmrc_jax.data.passage_names import by_id
from clmrc_jax.files import InputError, read_jsonl
from clmrc_jax.pipelines import labelling, mining
from clmrc_jax.pipelines.generator import GeneratorTraining
from clmrc_jax.pipelines.mining import Candidate, MiningRules

RULES = MiningRules(max_positives=3, max_negatives=4)


@pytest.fixture(scope="module")
def candidates():
    """Of 40 questions, whose candidates come in two places, as those of linked questions do."""
    rng, found = random.Random(0), []
    for origin in ("retrieved", "language_link"):
        for q in rng.sample(range(40), 30):
            for p in rng.sample(range(9), 5):
                ctx = {
                    "id": f"p{p}",
                    "lang": "ja",
                    "title": "題",
                    "text": f"文 {p}",
                    "score": q / 7,
                }
                found.append(Candidate(f"q{q}>ja", "où?", "en", ("a", "b"), "ja", ctx, origin))
    return found


def predict(part):
    return ["a" if (int(c.ctx["id"][1:]) * int(c.q_id[1:-3])) % 3 == 0 else "c" for c in part]


def label(candidates, folder, size, predict=predict, made_by=("x",)):
    made_by = {"made_by": made_by}
    return labelling.label_candidates(candidates, predict, folder, size=size, made_by=made_by)


@pytest.mark.parametrize("size", [1, 7, 300, 1000])
def test_rows_and_counts_are_those_of_all_candidates_at_once(candidates, tmp_path, size):
    folder, asked = epath.Path(tmp_path / "labels"), []

    def noted(part):
        asked.append(part)
        return predict(part)

    labelled = label(iter(candidates), folder, size, noted)
    assert [c for part in asked for c in part] == candidates
    assert {len(part) for part in asked[:-1]} <= {size} and len(asked[-1]) <= size
    assert [labelled[i] for i in range(len(labelled))] == list(zip(candidates, predict(candidates)))
    counts, count = labelled.write_mined(folder / "mined.jsonl", RULES, 1, by_id)
    rows = [row for _, row in read_jsonl(folder / "mined.jsonl")]
    expected = list(mining.mined_rows(candidates, predict(candidates), RULES, 1))
    assert rows == expected and count == len(expected) > 20
    assert [row["q_id"] for row in rows] != sorted(row["q_id"] for row in rows)
    labels = [mining.label(*pair, RULES) for pair in zip(candidates, predict(candidates))]
    positives = labels.count(mining.POSITIVE)
    assert counts == {"candidates": 300, "linked": 150, "positives": positives}


@pytest.mark.parametrize("size", [50, 33])
def test_what_was_labelled_before_a_kill_is_not_labelled_again(candidates, tmp_path, size):
    folder, asked = epath.Path(tmp_path / "labels"), []

    def killed_in_the_third(part):
        asked.append(part)
        return predict(part) if len(asked) < 3 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        label(candidates, folder, 50, killed_in_the_third)
    assert len(list(folder.glob("part-*"))) == 2
    again = []
    labelled = label(candidates, folder, size, lambda part: again.extend(part) or predict(part))
    assert again == candidates[100:]
    assert [labelled[i] for i in range(300)] == list(zip(candidates, predict(candidates)))
    finished = label(candidates, folder, size, lambda part: pytest.fail("all are labelled"))
    assert len(finished) == 300 and finished[299] == labelled[299]


def test_part_of_no_candidate_is_refused():
    with pytest.raises(InputError, match="label_chunk"):
        GeneratorTraining(label_chunk=0)


def test_no_candidate_gives_no_row(tmp_path):
    labelled = label([], epath.Path(tmp_path / "labels"), 2)
    counts, count = labelled.write_mined(tmp_path / "mined.jsonl", RULES, 0, by_id)
    assert len(labelled) == count == sum(counts.values()) == 0


def test_questions_whose_keys_collide_stay_apart(candidates, tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "_key", lambda q_id: 1)
    labelled = label(candidates, epath.Path(tmp_path / "labels"), 100)
    labelled.write_mined(tmp_path / "mined.jsonl", RULES, 1, by_id)
    rows = [row for _, row in read_jsonl(tmp_path / "mined.jsonl")]
    assert rows == list(mining.mined_rows(candidates, predict(candidates), RULES, 1))


def test_labelled_candidates_are_read_back_as_they_were(candidates, tmp_path):
    odd = dataclasses.replace(candidates[0], question='"\n\u2028', answers=(), answer_lang="")
    assert label([odd], epath.Path(tmp_path / "labels"), 2)[0] == (odd, predict([odd])[0])
