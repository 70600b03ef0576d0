"""The paper's numbers as data: complete, plausible, and found by preset."""

import pytest

from clmrc_jax.evaluate.mrc_published import (
    FIGURE3,
    FIGURE3_SIZES,
    TABLES,
    by_metric,
    published,
)


def test_published_finds_every_row_by_its_preset():
    assert published("t2_12")["drcd_test"] == {"em": 85.4, "f1": 91.6}
    assert published("t3_3") == {"ja": {"em": 61.3, "f1": 73.4}, "fr": {"em": 57.6, "f1": 77.1}}
    for rows in TABLES.values():
        for row in rows:
            found = published(row.preset)
            assert {name: (x["em"], x["f1"]) for name, x in found.items()} == row.scores


@pytest.mark.parametrize("preset", ["demo", "", "f3_squad_101", "f3_klingon_100", "f3_drcd_100000"])
def test_published_is_empty_for_what_nobody_published(preset):
    assert published(preset) == {}


def test_published_points_of_figure_3_are_averages_on_cmrc_dev():
    assert published("f3_squad_100000") == {"cmrc_dev": {"average": 76.55}}
    assert published("f3_drcd_25000") == {"cmrc_dev": {"average": 75.98}}
    found = [published(f"f3_{name}_{n}") for name in FIGURE3 for n in FIGURE3_SIZES]
    assert sum(bool(x) for x in found) == sum(len(line["mean"]) for line in FIGURE3.values())


def test_by_metric_joins_set_and_metric():
    assert by_metric(published("t4_no_aux")) == {"cmrc_dev em": 67.5, "cmrc_dev f1": 87.7}
    assert by_metric({}) == {}
