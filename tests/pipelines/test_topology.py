"""Slices by name: what exists, what is published of them, and what the compiler says of them."""

import pytest

from clmrc_jax.cloud.slices import GENERATIONS, accelerator
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
        ("v5e-1", 1, (1, 1)),
        ("v5e-32", 32, (4, 8)),
        # Cloud TPU documentation, "TPU v4": the shapes of 192 and 384 chips.
        ("v4-384", 192, (4, 4, 12)),
        ("v4-768", 384, (4, 8, 12)),
        ("v4-4096", 2048, (8, 16, 16)),
        ("v5p-12288", 6144, (16, 16, 24)),
    ],
)
def test_names_count_cores_or_chips_as_google_does(name, chips, shape):
    found = topology.slice_of(name)
    assert (found.chips, found.shape) == (chips, shape)


@pytest.mark.parametrize("name", ["v4-7", "v5e-17", "v9-8", "v4", "", "v5p-4", "v3-8", "v4-8192"])
def test_unknown_slice_lists_those_that_exist(name):
    with pytest.raises(InputError, match="no such slice") as caught:
        topology.slice_of(name)
    assert "v4-N, N = 8, 16, 32, 64, multiples of 128 up to 4096; v5e-N, N = 1," in str(
        caught.value
    )
    assert "v3" not in str(caught.value).split("Known: ")[1]


def test_the_launcher_and_the_compiler_know_the_same_slices():
    for generation in topology.CHIPS:
        for size in filter(GENERATIONS[generation].has, range(1, 12289)):
            found = topology.slice_of(f"{generation}-{size}")
            assert found.chips == accelerator(found.name).chips
            assert len(found.shape) == found.chip.axes


def test_host_of_a_slice_has_four_chips_or_all():
    hosts = {name: topology.slice_of(name).host.name for name in ("v4-384", "v5e-256", "v5e-8")}
    assert hosts == {"v4-384": "v4-8", "v5e-256": "v5e-4", "v5e-8": "v5e-8"}
    assert topology.slice_of("v5e-1").host.chips == 1


def test_doublings_are_what_exists_between_two_numbers_of_chips():
    found = topology.doublings(topology.slice_of("v5e-16"), 8, 1024)
    assert [x.chips for x in found] == [8, 16, 32, 64, 128, 256]
    found = topology.doublings(topology.slice_of("v4-384"), 8, 1024)
    assert [x.name for x in found][:4] == ["v4-16", "v4-32", "v4-64", "v4-128"]
    assert found[-1].chips == 1024


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
@pytest.mark.parametrize(
    "name", ["v4-8", "v4-384", "v4-2048", "v5e-1", "v5e-256", "v5p-8", "v6e-8"]
)
def test_compiler_describes_the_slice_as_the_table_does(name):
    wanted = topology.slice_of(name)
    devices = topology.slice_devices(wanted)
    assert len(devices) == wanted.chips
    assert {device.device_kind for device in devices} == {wanted.chip.kind}
