import contextlib
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clmrc_jax.files import InputError
from clmrc_jax.train import checkpoints

CONFIG = {"optimizer": {"name": "adamw"}, "steps": 3}


def state(step, size=8):
    return {"params": {"kernel": jnp.full((size, 4), float(step))}, "step": jnp.int32(step)}


def abstract(size=8):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state(0, size)
    )


@contextlib.contextmanager
def opened(folder, **options):
    folder = checkpoints.open(folder, **options)
    yield folder
    checkpoints.close(folder)


def save_steps(folder, *steps, **options):
    with opened(folder, **options) as to:
        for step in steps:
            checkpoints.save(to, step, state(step), {"next_index": step}, CONFIG)


def restore(folder, config=CONFIG, size=8):
    with opened(folder) as found:
        return checkpoints.restore_latest(found, abstract(size), config)


@pytest.mark.parametrize("background", [False, True])
def test_save_keeps_the_newest_and_restores_everything(tmp_path, background):
    save_steps(tmp_path / "c", 1, 2, 3, background=background)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["2", "3"]
    found = restore(tmp_path / "c")
    assert (found.step, found.data, found.config) == (3, {"next_index": 3}, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, found.state, state(3))


def test_restore_latest_empty_folder_is_none(tmp_path):
    assert restore(tmp_path / "c") is None


def test_restore_latest_passes_over_an_interrupted_save(tmp_path, capsys):
    save_steps(tmp_path / "c", 1, 2)
    (tmp_path / "c" / "2" / "checksums.json").unlink()
    assert restore(tmp_path / "c").step == 1
    assert "c/2: interrupted while it was written" in capsys.readouterr().err
    assert not (tmp_path / "c" / "2").exists()


def test_restore_latest_only_an_interrupted_save_starts_anew(tmp_path):
    save_steps(tmp_path / "c", 1)
    (tmp_path / "c" / "1" / "checksums.json").unlink()
    assert restore(tmp_path / "c") is None


def test_save_again_after_an_interrupted_save_of_the_same_step_replaces_it(tmp_path):
    save_steps(tmp_path / "c", 1)
    (tmp_path / "c" / "1" / "checksums.json").unlink()
    save_steps(tmp_path / "c", 1)
    assert restore(tmp_path / "c").step == 1


@pytest.mark.parametrize("gone", [["config"], ["state", "data"], ["config", "state", "data"]])
def test_restore_latest_after_a_removal_that_was_killed_goes_on_with_it(tmp_path, capsys, gone):
    save_steps(tmp_path / "c", 1, 2)
    (tmp_path / "c" / "2" / "checksums.json").unlink()
    for item in gone:
        shutil.rmtree(tmp_path / "c" / "2" / item)
    if len(gone) == 3:
        for rest in (tmp_path / "c" / "2").iterdir():
            rest.unlink()
    assert restore(tmp_path / "c").step == 1
    assert "c/2: interrupted while it was written; removing it" in capsys.readouterr().err


def test_restore_latest_of_other_processes_takes_the_first_ones_word(tmp_path, monkeypatch):
    """They may come when process 0 has begun to remove what it rejected."""
    save_steps(tmp_path / "c", 1, 2)
    shutil.rmtree(tmp_path / "c" / "2" / "config")
    (tmp_path / "c" / "2" / "foreign").write_text("")
    words = [1, [[2, "interrupted while it was written"]]]
    monkeypatch.setattr(checkpoints.hosts, "on_first", lambda name, work: words)
    assert restore(tmp_path / "c").step == 1


def test_restore_latest_folder_of_another_program_raises_and_stays(tmp_path):
    (tmp_path / "c" / "7").mkdir(parents=True)
    (tmp_path / "c" / "7" / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(InputError, match="c/7 is not a checkpoint of this program"):
        restore(tmp_path / "c")
    assert (tmp_path / "c" / "7").exists()


def test_restore_latest_other_arrays_or_config_raise(tmp_path):
    save_steps(tmp_path / "c", 1)
    with pytest.raises(InputError, match=r"params/kernel is float32\[8, 4\].*float32\[6, 4\]"):
        restore(tmp_path / "c", size=6)
    with pytest.raises(InputError, match="made with steps=3, now steps=4"):
        restore(tmp_path / "c", config=CONFIG | {"steps": 4})


def test_open_newest_removes_later_steps(tmp_path):
    save_steps(tmp_path / "c", 1, 2)
    with opened(tmp_path / "c", newest=1):
        pass
    assert restore(tmp_path / "c").step == 1


def test_open_keep_one_raises(tmp_path):
    with pytest.raises(InputError, match="keep=1"):
        checkpoints.open(tmp_path / "c", keep=1)


def test_save_full_disk_names_the_remedy_and_leaves_nothing(tmp_path):
    save_steps(tmp_path / "c", 1)
    big = {"noise": jax.random.normal(jax.random.key(0), (512, 1024))}  # 2 MB
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(tmp_path / "c") as to:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(InputError, match="step 2 was not saved; free space"):
                checkpoints.save(to, 2, big, {}, CONFIG)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["1"]
    assert restore(tmp_path / "c").step == 1
