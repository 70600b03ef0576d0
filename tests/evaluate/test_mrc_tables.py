"""The paper's numbers as data, and ours beside them."""

import pytest

from clmrc_jax.evaluate.golds import Gold
from clmrc_jax.evaluate.mrc import score_cmrc
from clmrc_jax.evaluate.mrc_tables import (
    BASELINES,
    FIGURE3,
    FIGURE3_SIZES,
    TABLES,
    Published,
    Run,
    comparison,
    figure3,
    report,
    spread,
)
from clmrc_jax.files import InputError


def _rows(name):
    return {row.preset: row for row in TABLES[name]}


def _run(right, total=200):
    rows = [{"id": str(i), "em": float(i < right), "f1": float(i < right)} for i in range(total)]
    return Run(100 * right / total, 100 * right / total, rows)


def test_published_rows_agree_where_the_paper_repeats_them():
    two, four = _rows("table2"), _rows("table4")
    for ablation, system in (("full", "12"), ("no_source", "10"), ("no_squad", "08")):
        assert four[f"t4_{ablation}"].scores["cmrc_dev"] == two[f"t2_{system}"].scores["cmrc_dev"]
    assert two["t2_12"].scores["drcd_test"] == (85.4, 91.6)
    assert two["t2_11"].scores["cmrc_challenge"] == (26.7, 53.4)
    assert _rows("table3")["t3_3"].scores == {"ja": (61.3, 73.4), "fr": (57.6, 77.1)}


def test_published_rows_are_complete_and_plausible():
    systems = [row for row in TABLES["table2"] if row.preset.startswith("t2_")]
    assert [row.preset for row in systems] == [f"t2_{i:02}" for i in range(1, 13)]
    assert [row.preset for row in systems if row.zero_shot] == ["t2_01", "t2_02", "t2_03", "t2_09"]
    assert all(len(row.scores) == 5 for row in systems)
    for name, rows in TABLES.items():
        assert BASELINES[name] in {row.preset for row in rows}
        assert all(0 < em <= f1 < 100 for row in rows for em, f1 in row.scores.values())


def test_figure3_has_a_point_per_size_and_the_scale_of_table2():
    for points in FIGURE3.values():
        assert len(points["mean"]) == len(points["median"]) <= len(FIGURE3_SIZES)
        assert all(74 < x < 78 for line in points.values() for x in line)
    table = figure3({"squad": {100: [74.0, 75.0], 300: [70.0]}})
    assert "| 100 | 74.50 ± 0.71 | 2 | 74.81 | – | – | 74.50 |" in table
    assert "| 300 | 70.00 | 1 | – | – | – | – |" in table
    assert "| 100,000 | – | – | 76.55 | – | – | – |" in table


def test_comparison_shows_ours_beside_published_with_tests():
    runs = {"t4_full": [_run(150), _run(160)], "t4_no_saa": [_run(100)]}
    lines = comparison(TABLES["table4"], runs, "cmrc_dev", "t4_full", samples=2_000).splitlines()
    assert lines[2].startswith(
        "| `t4_full` | Dual BERT (w/ SQuAD) | 2 | 77.5 ± 3.5 | 77.5 ± 3.5 | 68.0 | 88.1 | – |"
    )
    saa = next(line for line in lines if "t4_no_saa" in line)
    assert "| 50.0 | 50.0 | 67.2 | 87.5 | -27.5 [-3" in saa and "<0.001 / <0.001" in saa
    aux = next(line for line in lines if "t4_no_aux" in line)
    assert aux.endswith("| – | – | – | 67.5 | 87.7 | – | – |")


def test_comparison_without_question_rows_leaves_the_test_out():
    runs = {"t2_07": [Run(60, 80)], "t2_08": [Run(61, 81)]}
    lines = comparison(TABLES["table2"], runs, "drcd_test", "t2_07").splitlines()
    assert "Δ" not in lines[0]
    assert any("r-net" in line and "29.1 | 44.4" in line for line in lines)
    assert not any("RCEN" in line for line in lines)  # nothing printed there, nothing run


def test_rows_that_nobody_published_stand_beside_dashes():
    rows = [Published("plain", "Plain_reader", {}), Published("dual", "Dual BERT", {})]
    text = comparison(rows, {"plain": [_run(10)], "dual": [_run(10)]}, "xquad_zh", "plain")
    assert r"| `plain` | Plain\_reader | 1 | 5.0 | 5.0 | – | – | – | – |" in text
    assert "+0.0 [+0.0, +0.0], 1.000 / 1.000" in text


def test_report_has_a_part_per_data_set_and_says_what_the_signs_mean():
    runs = {"ja": {"t3_1": [_run(10)], "t3_3": [_run(20)]}, "fr": {"t3_3": [_run(20)]}}
    text = report("table3", runs, samples=500)
    assert "### Japanese SQuAD" in text and "### French SQuAD" in text
    assert "difference to `t3_1`" in text and "mBERT (SQuAD) ♠" in text
    assert "difference to" not in report("table3", {"fr": runs["fr"]})


def test_systems_on_other_questions_are_refused():
    runs = {"t4_full": [_run(5, 10)], "t4_no_aux": [_run(5, 11)]}
    with pytest.raises(InputError, match="other questions"):
        comparison(TABLES["table4"], runs, "cmrc_dev", "t4_full")


def test_run_takes_over_the_scores_of_a_file():
    golds = [Gold("1", "zh", ("北京",)), Gold("2", "zh", ("上海",))]
    run = Run.of(score_cmrc(golds, {"1": "北京", "2": "上"}))
    assert (run.em, run.f1) == pytest.approx((50, 100 * 5 / 6))
    assert [row["em"] for row in run.questions] == [1, 0]


def test_spread_is_mean_and_sample_deviation():
    assert spread([1.0, 2.0, 3.0]) == "2.0 ± 1.0"
    assert spread([2.0]) == "2.0" and spread([]) == "–"
