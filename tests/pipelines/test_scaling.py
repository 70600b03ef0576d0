"""Scaling on paper, with numbers worked out by hand."""

import pytest

from clmrc_jax.files import InputError
from clmrc_jax.pipelines import scaling


def _report(collectives, compute=1.0, hbm=0.5, model=1):
    row = {
        "step": "train mDPR",
        "rows": 128,
        "collectives": collectives,
        "seconds": {"compute": compute, "hbm": hbm, "interconnect": 0.0},
    }
    return {"topology": "v5e-16", "mesh": {"data": 16, "model": model}, "steps": [row]}


def _collective(sent, count=1):
    return {"count": count, "bytes": 0, "sent": sent, "sent_in_part": 0}


def test_gradients_stay_and_gathered_passages_grow_with_the_chips():
    report = _report({"all-reduce": _collective(15e9), "all-gather": _collective(1.5e9)})
    rows = {row["chips"]: row for row in scaling.scaling(report)}
    assert list(rows) == [8, 16, 32, 64, 128, 256]  # the slices of this generation
    assert rows[16]["sent"] == pytest.approx(16.5e9)
    share = (255 / 256) / (15 / 16)
    assert rows[256]["sent"] == pytest.approx((15e9 + 16 * 1.5e9) * share)
    assert rows[256]["rows"] == 16 * 128 and rows[256]["topology"] == "v5e-256"
    assert rows[256]["interconnect"] == pytest.approx(rows[256]["sent"] / 200e9)


def test_shares_of_computing_are_of_the_longest_and_of_the_sum():
    report = _report({"all-reduce": _collective(300e9)})  # 1.5 s at four links of 50 GB/s
    row = next(row for row in scaling.scaling(report) if row["chips"] == 16)
    assert row["step_seconds"] == pytest.approx(1.5)
    assert row["hidden"] == pytest.approx(1 / 1.5)
    assert row["exposed"] == pytest.approx(1 / 2.5)


@pytest.mark.parametrize(
    "report", [_report({}, model=2), _report({"all-gather": _collective(1e6, count=40)})]
)
def test_other_parallelism_is_refused(report):
    with pytest.raises(InputError, match="for data parallelism alone"):
        scaling.scaling(report)


def test_one_chip_has_no_collectives_to_scale():
    with pytest.raises(InputError, match="v5e-1 has one: give a larger --topology"):
        scaling.scaling(_report({}) | {"topology": "v5e-1"})
