"""Slices by name: what exists, what is published of them, and what the compiler says of them."""

import pytest

from clmrc_jax.files import InputError
from clmrc_jax.pipelines import topology

needs_libtpu = pytest.mark.skipif(
    not topology.can_compile(), reason="libtpu is not installed: pip install 'jax[tpu]'"
)


@pytest.mark.parametrize(
    ("name", "chips", "shape"),
    [
        ("v4-8", 4, (2, 2, 1)),
        ("v4-32", 16, (2, 2, 4)),
        ("v5e-16", 16, (4, 4)),
        ("v5litepod-16", 16, (4, 4)),
        ("v5e-256", 256, (16, 16)),
        ("V5P-8", 4, (2, 2, 1)),
        ("v5p-2048", 1024, (8, 8, 16)),
        ("v6e-8", 8, (2, 4)),
    ],
)
def test_names_count_cores_or_chips_as_google_does(name, chips, shape):
    found = topology.slice_of(name)
    assert (found.chips, found.shape) == (chips, shape)


@pytest.mark.parametrize("name", ["v4-7", "v5e-17", "v9-8", "v4", "", "v5p-4"])
def test_unknown_slice_lists_those_that_exist(name):
    with pytest.raises(InputError, match="no such slice") as caught:
        topology.slice_of(name)
    for known in ("v4-8", "v4-32", "v5e-256", "v5p-8", "v6e-8"):
        assert known in str(caught.value)


def test_interconnect_counts_the_links_that_end_in_the_slice():
    assert topology.slice_of("v4-8").ici_bandwidth == 2 * 50e9  # two neighbours
    assert topology.slice_of("v5e-16").ici_bandwidth == 4 * 50e9
    assert topology.slice_of("v4-128").ici_bandwidth == 6 * 50e9
    assert topology.slice_of("v5p-128").axis_bandwidth == 2 * 100e9


def test_every_chip_has_a_published_peak():
    assert {name: chip.peak_flops / 1e12 for name, chip in topology.CHIPS.items()} == {
        "v4": 275,
        "v5e": 197,
        "v5p": 459,
        "v6e": 918,
    }


@needs_libtpu
@pytest.mark.parametrize("name", ["v4-8", "v4-2048", "v5e-4", "v5e-256", "v5p-8", "v6e-8"])
def test_compiler_describes_the_slice_as_the_table_does(name):
    wanted = topology.slice_of(name)
    devices = topology.slice_devices(wanted)
    assert len(devices) == wanted.chips
    assert {device.device_kind for device in devices} == {wanted.chip.kind}
