"""Answers of a split are written from parts, each answered once."""

import pytest
from etils import epath

from clmrc_jax.files import InputError, read_json
from clmrc_jax.pipelines.answering import answer_in_parts, write_answers

ROWS = [
    {"q_id": f"q{n}", "question": f"who {n}?", "lang": "ja", "ctxs": [{"id": "p"}] * (n % 3)}
    for n in range(7)
]


class Generator:
    """Answers with what it was asked, and breaks at the `broken`-th call."""

    def __init__(self, broken=0):
        self.asked, self.broken = [], broken

    def answer(self, params, items, description="generate answers"):
        self.asked.append([question for question, _, _ in items])
        if len(self.asked) == self.broken:
            raise KeyboardInterrupt
        texts = [f"{params} {question} {lang} {len(ctxs)}" for question, lang, ctxs in items]
        return texts, [-len(text) / 7 for text in texts], [len(ctxs) for _, _, ctxs in items]


def answer(folder, generator, closed_book=True, size=3):
    made_by = {"seed": 0}
    options = {"closed_book": closed_book, "size": size, "made_by": made_by}
    answer_in_parts(iter(ROWS), generator, "mGEN", folder, **options)


@pytest.mark.parametrize("size", [2, 3, 100])
def test_files_are_those_of_all_questions_at_once_also_after_a_kill(tmp_path, size):
    folder, parts = epath.Path(tmp_path), epath.Path(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        answer(parts, Generator(broken=4))  # closed book of the second part
    generator = Generator()
    answer(parts, generator, size=size)
    assert generator.asked[0][0] == "who 3?", "the first part is not answered again"
    assert write_answers(parts, folder, "test") == {"answers": 7, "survived": 6 / 7}
    expected = [f"mGEN who {n}? ja {n % 3}" for n in range(7)]
    assert list(read_json(folder / "test.json").items()) == [
        (f"q{n}", text) for n, text in enumerate(expected)
    ]
    assert read_json(folder / "test.scores.json")["q6"] == -len(expected[6]) / 7
    assert read_json(folder / "test.closed_book.json")["q5"] == "mGEN who 5? ja 0"


def test_without_closed_book_there_is_no_such_file_and_parts_are_of_one_kind(tmp_path):
    folder, parts = epath.Path(tmp_path), epath.Path(tmp_path / "parts")
    answer(parts, Generator(), closed_book=False)
    write_answers(parts, folder, "dev")
    assert sorted(path.name for path in folder.glob("*.json")) == ["dev.json", "dev.scores.json"]
    with pytest.raises(InputError, match="made with other settings"):
        answer(parts, Generator())
