import pytest

from clmrc_jax.data.builders.passages import Passages
from clmrc_jax.data.builders.questions import XorTydi
from clmrc_jax.files import InputError


def test_config_name_follows_files_languages_and_options(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text("{}\n")

    def name(split="dev", lang=None, **options):
        files = {split: [(str(file), lang)]}
        return XorTydi(files=files, data_dir=tmp_path, **options).builder_config.name

    names = {name(), name(split="test"), name(lang="ja"), name(langs=("ja",))}
    assert len(names) == 4
    assert name() in names
    file.write_text("{}\n{}\n")
    assert name() not in names


@pytest.mark.parametrize("files", [{}, {"dev": []}, {"dev": [("nowhere.jsonl", None)]}])
def test_builder_without_files_is_refused(tmp_path, files):
    with pytest.raises(InputError, match="no file to prepare|nowhere.jsonl: no such file"):
        Passages(files=files, data_dir=tmp_path)


def test_our_builders_do_not_take_names_in_the_public_registry():
    import tensorflow_datasets as tfds

    with pytest.raises(ValueError, match="not found"):
        tfds.builder_cls("xor_tydi")
