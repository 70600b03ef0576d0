"""Ranges of settings, named with the key and with what it takes."""

import types

import pytest

from clmrc_jax.data import setting_checks as checks
from clmrc_jax.files import InputError


def check(function, value, *args, **options):
    function(types.SimpleNamespace(key=value), *args, "key", **options)


@pytest.mark.parametrize(
    "function, good, bad, message",
    [
        (checks.share, (0, 0.5, 1), (-0.1, 1.1), "key is .*; it is a share, 0 to 1"),
        (checks.positive, (0.01, 3), (0, -1, float("nan")), "key is .*; it must be above 0"),
        (checks.counts, ((1,), (3, 3)), ((), (0,), (1.5,), (True,)), "one positive integer"),
        (checks.buckets, ((8,), (8, 9)), ((), (9, 8), (8, 8), (0, 8), ("a",)), "ascending"),
    ],
)
def test_good_values_pass_and_bad_ones_are_named(function, good, bad, message):
    for value in good:
        check(function, value)
    for value in bad:
        with pytest.raises(InputError, match=message):
            check(function, value)


def test_lower_limit_whole_share_and_choice():
    check(checks.at_least, 2, 2)
    with pytest.raises(InputError, match="^mining.key is 1; it must be at least 2"):
        check(checks.at_least, 1, 2, prefix="mining.")
    with pytest.raises(InputError, match="key is 1; it is a share, 0 to below 1"):
        check(checks.share, 1, whole=False)
    checks.choice("kind", "a", ("a", "b"))
    with pytest.raises(InputError, match="kind 'c': choose one of a, b"):
        checks.choice("kind", "c", ("a", "b"))
