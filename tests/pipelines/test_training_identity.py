"""What a half-finished training must have been begun with, to be continued."""

import dataclasses
import importlib.util

import pytest

from clmrc_jax.files import JsonlRows, write_jsonl
from clmrc_jax.pipelines.settings import cora_settings
from clmrc_jax.pipelines.training_identity import training_identity

FIELDS = ("retriever", "retriever_format", "retriever_model")


@pytest.fixture(scope="module")
def made(repository):
    """made(**{dotted key: value}) -> the identity of a training with changed settings."""
    path = repository / "configs" / "cora.py"
    spec = importlib.util.spec_from_file_location("cora_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def make(rows=((1, "a"), (2, "b")), **changes):
        config = module.get_config("smoke")
        config.update_from_flattened_dict(changes)
        return training_identity(cora_settings(config), FIELDS, rows)

    return make


@pytest.mark.parametrize(
    "key, value",
    [
        ("retriever.batch_size", 4),
        ("retriever.temperature", 0.5),
        ("retriever.positives", "first"),
        ("retriever.hard_negatives", 2),
        ("retriever_format.tag_language", False),
        ("retriever_model.vocabulary", 50),
    ],
)
def test_settings_that_the_result_depends_on_are_part_of_it(made, key, value):
    assert made(**{key: value}) != made()


@pytest.mark.parametrize(
    "key, value",
    [
        ("retriever.save_every", 7),
        ("retriever.encode_batch", 7),
        ("retriever.chunk_size", 8),
        ("generator.label_smoothing", 0.1),
        ("profile", (2, 3)),
        ("name", "other"),
    ],
)
def test_settings_of_speed_and_of_other_stages_are_not(made, key, value):
    assert made(**{key: value}) == made()


def test_rows_are_told_by_their_content(made, tmp_path):
    assert made(rows=[(1, "a"), (2, "c")]) != made()
    rows = [{"q_id": str(i)} for i in range(3)]
    for name, written in (("a", rows), ("b", rows), ("c", rows[::-1])):
        write_jsonl(tmp_path / name, written)
    first, same, other = (made(rows=JsonlRows(tmp_path / name)) for name in "abc")
    assert first == same != other, "the path says nothing, the order of the rows does"


def test_rows_may_be_dataclasses(made):
    @dataclasses.dataclass(frozen=True)
    class Row:
        text: str

    assert made(rows=[Row("a")]) == made(rows=[Row("a")]) != made(rows=[Row("b")])
