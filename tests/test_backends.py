import os
import subprocess
import sys

import pytest

from clmrc_jax import backends
from clmrc_jax.backends import DEVICES, chip_files, no_tpu

VIRTIO, GOOGLE = "0x1af4\n", "0x1ae0\n"


@pytest.fixture
def machine(tmp_path):
    """machine(*vendors): a folder of PCI devices."""

    def make(*vendors):
        for number, vendor in enumerate(vendors):
            device = tmp_path / f"0000:00:0{number}.0"
            device.mkdir()
            (device / "vendor").write_text(vendor)
        return tmp_path

    return make


def test_no_tpu_where_no_device_is_googles(machine):
    assert no_tpu({"HOME": "/"}, machine(VIRTIO, VIRTIO))


def test_no_tpu_leaves_chips_wishes_and_the_unknown_alone(machine, tmp_path):
    assert not no_tpu({}, tmp_path / "missing")
    folder = machine(VIRTIO, GOOGLE)
    assert not no_tpu({}, folder)
    (folder / "0000:00:01.0" / "vendor").write_text(VIRTIO)
    assert not no_tpu({"JAX_PLATFORMS": "tpu"}, folder)


def test_chip_files_are_those_of_both_drivers(tmp_path):
    assert chip_files(tmp_path) == []
    (tmp_path / "vfio").mkdir()
    for name in ("accel0", "accelerometer", "vfio/1", "vfio/vfio"):
        (tmp_path / name).touch()
    assert chip_files(tmp_path) == [str(tmp_path / "accel0"), str(tmp_path / "vfio/1")]


def test_skip_absent_tpu_leaves_a_machine_with_chips_alone(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(backends, "no_tpu", lambda *_: True)  # a container that shows no devices
    monkeypatch.setattr(backends, "chip_files", lambda: ["/dev/vfio/0"])
    backends.skip_absent_tpu()
    assert "JAX_PLATFORMS" not in os.environ


def test_skip_absent_tpu_leaves_stderr_empty(repository):
    pytest.importorskip("libtpu", reason="libtpu is not installed: pip install 'jax[tpu]'")
    if not no_tpu({}, DEVICES):
        pytest.skip("this machine may have a TPU")
    code = "import clmrc_jax.backends as b; b.skip_absent_tpu(); import jax; print(jax.devices())"
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=True
    )
    assert "Cpu" in done.stdout.title() and done.stderr == ""
