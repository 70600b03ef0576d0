"""Items are worked on once, whatever the size of a part and wherever it was stopped."""

import pytest
from etils import epath

from clmrc_jax.files import InputError, JsonlRows, read_json
from clmrc_jax.pipelines.parts import MADE_BY, part_files, work_in_parts


def squares(part):
    return [{"square": n * n} for n in part]


def rows(folder):
    return [row for path in part_files(folder) for row in JsonlRows(path)]


def work(folder, count, size, call=squares, made_by=("x",)):
    work_in_parts(iter(range(count)), call, folder, size=size, made_by={"made_by": made_by})


def refuse(why):
    raise InputError(why)


@pytest.mark.parametrize("size, parts", [(1, 12), (5, 3), (12, 1), (100, 1)])
def test_parts_hold_a_row_per_item_in_order(tmp_path, size, parts):
    folder = epath.Path(tmp_path / "parts")
    work(folder, 12, size)
    assert rows(folder) == squares(range(12)) and len(part_files(folder)) == parts


@pytest.mark.parametrize("size", [5, 3, 100])
def test_what_was_done_before_a_kill_is_not_done_again(tmp_path, size):
    folder, asked = epath.Path(tmp_path / "parts"), []

    def killed_in_the_third(part):
        asked.append(part)
        return squares(part) if len(asked) < 3 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        work(folder, 12, 5, killed_in_the_third)
    again = []
    work(folder, 12, size, lambda part: again.extend(part) or squares(part))
    assert again == [10, 11] and rows(folder) == squares(range(12))
    work(folder, 12, size, lambda part: pytest.fail("all are done"))


def test_parts_of_other_settings_are_not_mixed_in(tmp_path):
    folder = epath.Path(tmp_path / "parts")
    work(folder, 5, 2)
    with pytest.raises(InputError, match="made with other settings, .*delete this folder"):
        work(folder, 12, 2, made_by=("y",))
    assert read_json(folder / MADE_BY) == {"made_by": ["x"]} and len(part_files(folder)) == 3


def test_settings_of_a_beginning_without_any_part_do_not_bind(tmp_path):
    folder = epath.Path(tmp_path / "parts")
    with pytest.raises(InputError, match="question is empty"):
        work(folder, 4, 2, lambda part: refuse("question is empty"))
    work(folder, 4, 2, made_by=("y",))
    assert read_json(folder / MADE_BY) == {"made_by": ["y"]} and rows(folder) == squares(range(4))


def test_work_that_loses_an_item_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="4 items, and 3 rows of them"):
        work(epath.Path(tmp_path / "parts"), 4, 4, lambda part: squares(part[1:]))
