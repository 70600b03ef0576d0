"""Names of TPU slices."""

import pytest

from clmrc_jax.cloud.slices import Accelerator, Slice, accelerator
from clmrc_jax.files import InputError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v4-32", Accelerator("v4-32", "tpu-ubuntu2204-base", 16)),
        ("v5e-16", Accelerator("v5litepod-16", "v2-alpha-tpuv5-lite", 16)),
        ("v5litepod-256", Accelerator("v5litepod-256", "v2-alpha-tpuv5-lite", 256)),
        ("v5p-384", Accelerator("v5p-384", "v2-alpha-tpuv5", 192)),
        ("v6e-8", Accelerator("v6e-8", "v2-alpha-tpuv6e", 8)),
    ],
)
def test_accelerator_has_gclouds_name_and_its_chips(name, expected):
    assert accelerator(name) == expected


def test_accelerator_unknown_size_lists_those_that_exist():
    with pytest.raises(InputError, match="v5e has the sizes 1, 4, 8, 16, 32, 64, 128, 256"):
        accelerator("v5e-12")
    with pytest.raises(InputError, match="v4 has the sizes .* multiples of 128 up to 4096"):
        accelerator("v4-8192")


@pytest.mark.parametrize("name", ["v9-8", "a100", "v4", "v4-x", ""])
def test_accelerator_unknown_generation_lists_all(name):
    with pytest.raises(InputError, match="does not exist; known are v2-N.*v6e-N"):
        accelerator(name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "My_Slice"}, "slice name"),
        ({"name": "a" * 64}, "63 characters"),
        ({"zone": "us-central2"}, "expected one like us-central2-b"),
        ({"accelerator": "v4-9"}, "v4 has the sizes"),
    ],
)
def test_slice_bad_values_are_named(values, message):
    with pytest.raises(InputError, match=message):
        Slice(**{"name": "s", "zone": "us-central2-b"} | values)
