"""Model folders: found, read, written; the models in them are tested in test_pretrained.py."""

import json
import os

import numpy as np
import pytest
import safetensors.numpy

from clmrc_jax.files import InputError
from clmrc_jax.train import model_folders

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)}


def write(folder, raw=None, side_files=(), tensors=TENSORS, limit=10**6):
    files = model_folders.weight_files([], tensors, "safetensors", limit)
    model_folders.write_folder(folder, raw or {"model_type": "x"}, files, side_files)


@pytest.mark.parametrize("limit, files", [(10**6, 1), (20, 2)])
def test_written_tensors_come_back_from_one_file_or_shards(tmp_path, limit, files):
    write(tmp_path / "model", limit=limit)
    assert len(list((tmp_path / "model").glob("*.safetensors"))) == files
    found = model_folders.read_tensors(tmp_path / "model")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_half_precision_is_written_small_and_read_as_float32(tmp_path):
    write(tmp_path / "model", tensors=model_folders.stored_as("float16", TENSORS))
    stored = safetensors.numpy.load_file(tmp_path / "model/model.safetensors")
    assert stored["b"].dtype == np.float16
    assert model_folders.read_tensors(tmp_path / "model")["b"].dtype == np.float32
    with pytest.raises(ValueError, match="stored 'int8'"):
        model_folders.stored_as("int8", TENSORS)


def test_config_is_checked_for_kind_sizes_and_fixed_values(tmp_path):
    write(tmp_path / "model", {"model_type": "x", "size": 3, "act": "relu"})
    raw = model_folders.read_config(tmp_path / "model", ("x", "y"), ("size",))
    assert raw == json.loads((tmp_path / "model/config.json").read_text())
    with pytest.raises(InputError, match="expected y or z"):
        model_folders.read_config(tmp_path / "model", ("y", "z"), ())
    with pytest.raises(InputError, match="width is missing"):
        model_folders.read_config(tmp_path / "model", ("x",), ("width",))
    model_folders.require(tmp_path / "model", raw, "other", 1, default=1)
    with pytest.raises(InputError, match="act is 'relu'; only 'gelu' is implemented"):
        model_folders.require(tmp_path / "model", raw, "act", "gelu", default="gelu")


def test_pickles_are_refused_and_missing_weights_named(tmp_path):
    with pytest.raises(InputError, match="holds no model.safetensors.*save_pretrained"):
        model_folders.read_tensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="is a pickle"):
        model_folders.read_tensors(tmp_path)


def test_path_that_is_no_folder_is_named(tmp_path):
    assert model_folders.resolve_folder(tmp_path) == tmp_path
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give the folder"):
        model_folders.resolve_folder(tmp_path / "file")
    with pytest.raises(InputError, match="no such folder"):
        model_folders.resolve_folder("./nowhere")
    assert model_folders.given_folder(tmp_path) == tmp_path
    assert model_folders.given_folder("google/mt5-base") is None, "a hub id"


def test_errors_of_the_weight_maps_name_the_folder(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: wrong"), model_folders.named(tmp_path):
        raise ValueError("wrong")


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="no such tokenizer file"):
        write(tmp_path / "model", side_files=[tmp_path / "missing.model"])
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_process_with_the_same_number_are_no_obstacle(tmp_path):
    write(tmp_path / "model")
    left = tmp_path / f"model.tmp-{os.getpid()}"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    write(tmp_path / "model", {"model_type": "y"})
    assert json.loads((tmp_path / "model/config.json").read_text()) == {"model_type": "y"}
    assert model_folders.read_tensors(tmp_path / "model").keys() == TENSORS.keys()
    assert not left.exists()
