"""n-best answers to many questions, read part by part."""

import pytest
from etils import epath

from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.files import InputError
from clmrc_jax.pipelines.reading import read_in_parts

EXAMPLES = [MrcExample(f"q{n}", "ja", "", f"誰 {n}?", f"太郎 {n}。", ()) for n in (3, 1, 4, 0, 5)]


def answers(part):
    """Logits whose digits a rounding file would lose."""
    return {
        x.id: [{"text": x.context[:2], "start_logit": -1 / (3 + len(x.id) + int(x.id[1:]))}]
        for x in reversed(part)
    }


class Reader:
    """Remembers what it was asked, and breaks at the `broken`-th part."""

    def __init__(self, broken=0):
        self.asked, self.said, self.broken = [], [], broken

    def __call__(self, part, which):
        self.asked.append([x.id for x in part])
        self.said.append(which)
        if len(self.asked) == self.broken:
            raise KeyboardInterrupt
        return answers(part)


def read(folder, reader, size=2, seed=0):
    return read_in_parts(EXAMPLES, reader, epath.Path(folder), size=size, made_by={"seed": seed})


@pytest.mark.parametrize("size", [1, 2, 100])
def test_answers_are_those_of_all_questions_at_once_also_after_a_kill(tmp_path, size):
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path / "parts", Reader(broken=2))
    reader = Reader()
    found = read(tmp_path / "parts", reader, size)
    assert reader.asked[0][0] == "q4", "the first part is not read again"
    assert found == answers(EXAMPLES) and list(found) == [x.id for x in EXAMPLES]
    assert reader.said[-1] == {1: ", 5-5 of 5", 2: ", 5-5 of 5", 100: ", 3-5 of 5"}[size]
    again = Reader()
    assert read(tmp_path / "parts", again) == found and not again.asked


def test_one_part_is_not_numbered(tmp_path):
    reader = Reader()
    read(tmp_path / "parts", reader, size=5)
    assert reader.said == [""]


def test_parts_of_another_reader_are_not_mixed_in(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path / "parts", Reader(broken=2))
    with pytest.raises(InputError, match="parts: its parts were made with other settings"):
        read(tmp_path / "parts", Reader(), seed=1)
