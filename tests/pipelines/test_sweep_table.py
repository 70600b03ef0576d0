import csv
import statistics

import pytest

from clmrc_jax.evaluate.significance import approximate_randomization, paired_bootstrap
from clmrc_jax.files import InputError, write_json, write_jsonl
from clmrc_jax.pipelines import sweep_table
from clmrc_jax.pipelines.sweep_points import load_sweep

CONFIG = """
import ml_collections

PUBLISHED = {"dual": {"f1": 90.2}, "plain": {"f1": 87.4, "em": 66.0}}


def get_config(preset="plain"):
    return ml_collections.ConfigDict({"seed": 0, "rate": 1e-4, "data": {"seed": 0}})
"""
SCORES = {"plain": (70.0, 72.0, 74.0), "dual": (80.0, 80.5, 84.0)}
TWO = '{"preset": ["plain", "dual"], "seed": [0, 1, 2]}'


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(CONFIG)
    return str(path)


def f1_of(point):
    return SCORES[point.preset][point.config["seed"]]


def write_runs(sweep, folder, skip=()):
    """What finished runs leave."""
    for point in sweep.points:
        if point.name not in skip:
            summary = {"em": f1_of(point) / 2, "f1": f1_of(point)}
            write_json(folder / point.name / "report.json", {"seed": 5, "summary": summary})


def write_scores(sweep, folder, questions=40):
    """Question i is right where its place is below the run's score, so systems are nested."""
    for point in sweep.points:
        hits = [100.0 * (100 * i / questions < f1_of(point)) for i in range(questions)]
        rows = [{"id": f"q{i}", "em": 0.0, "f1": x} for i, x in enumerate(hits)]
        write_jsonl(folder / point.name / "scores.jsonl", rows)


def test_collect_means_and_deviations_over_seeds(config, tmp_path):
    sweep = load_sweep(config, TWO)
    write_runs(sweep, tmp_path)
    table = sweep_table.collect(sweep, tmp_path)
    assert table.metrics == ("em", "f1") and table.baseline == ""
    plain, dual = table.rows
    assert plain.labels == {"system": "plain"} and len(plain.runs) == plain.wanted == 3
    assert plain.mean("f1") == 72.0 and plain.deviation("f1") == 2.0
    assert dual.deviation("em") == pytest.approx(statistics.stdev(x / 2 for x in SCORES["dual"]))
    assert dual.published == {"f1": 90.2} and dual.p == {}


def test_collect_keeps_the_sweeps_order_or_sorts_by_a_metric(config, tmp_path):
    sweep = load_sweep(config, TWO)
    write_runs(sweep, tmp_path)
    order = [row.labels["system"] for row in sweep_table.collect(sweep, tmp_path, sort="f1").rows]
    assert order == ["dual", "plain"]
    with pytest.raises(InputError, match="--sort=loss: not a column; choose one of em, f1"):
        sweep_table.collect(sweep, tmp_path, sort="loss")


def test_collect_unfinished_runs_count_as_wanted(config, tmp_path):
    sweep = load_sweep(config, TWO)
    skipped = {"plain,seed=1", *(p.name for p in sweep.points if p.preset == "dual")}
    write_runs(sweep, tmp_path, skip=skipped)
    table = sweep_table.collect(sweep, tmp_path, sort="f1")
    plain, dual = table.rows
    assert plain.runs == ("plain,seed=0", "plain,seed=2") and plain.mean("f1") == 72.0
    assert dual.runs == () and dual.mean("f1") is None
    text = sweep_table.markdown(table)
    assert "2 of 3" in text and "0 of 3" in text and "–" in text


def test_collect_rows_differ_in_everything_but_seeds(config, tmp_path):
    sweep = load_sweep(config, '{"rate": [1e-4, 2e-5], "data.seed": [0, 1], "seed": [0, 1]}')
    write_runs(sweep, tmp_path)
    table = sweep_table.collect(sweep, tmp_path)
    assert [(row.labels["rate"], row.wanted) for row in table.rows] == [("0.0001", 4), ("2e-5", 4)]
    assert "| plain  | 2e-5   | 4" in sweep_table.markdown(table)


def test_collect_pairs_questions_against_the_baseline(config, tmp_path):
    sweep = load_sweep(config, TWO)
    write_runs(sweep, tmp_path)
    write_scores(sweep, tmp_path)
    table = sweep_table.collect(sweep, tmp_path)
    plain, dual = table.rows
    assert table.baseline == "plain" and plain.p == {}
    means = [
        [statistics.fmean(100.0 * (2.5 * i < x) for x in SCORES[name]) for i in range(40)]
        for name in ("dual", "plain")
    ]
    assert dual.p["f1"] == {
        "bootstrap": paired_bootstrap(*means).p_value,
        "randomization": approximate_randomization(*means).p_value,
    }
    assert 0 < dual.p["f1"]["bootstrap"] < 0.2 and dual.p["em"]["randomization"] == 1.0
    turned = sweep_table.collect(sweep, tmp_path, baseline="dual")
    assert turned.baseline == "dual" and set(turned.rows[0].p) == {"em", "f1"}
    with pytest.raises(InputError, match="baseline 'cascade' is no row; choose one of plain, dual"):
        sweep_table.collect(sweep, tmp_path, baseline="cascade")


def test_collect_tests_every_set_that_both_systems_answered(config, tmp_path):
    sweep = load_sweep(config, '{"preset": ["plain", "dual"], "seed": 0}')
    write_runs(sweep, tmp_path)
    for point in sweep.points:
        own = "drcd" if point.preset == "dual" else "xquad"
        rows = [{"id": "q", "set": name, "f1": f1_of(point)} for name in ("cmrc", own)]
        write_jsonl(tmp_path / point.name / "scores.jsonl", rows)
    table = sweep_table.collect(sweep, tmp_path)
    assert list(table.rows[1].p) == ["cmrc f1"]
    assert "| p cmrc f1" in sweep_table.markdown(table)


def test_collect_scores_of_other_questions_raise(config, tmp_path):
    sweep = load_sweep(config, TWO)
    write_runs(sweep, tmp_path)
    write_scores(sweep, tmp_path)
    write_jsonl(tmp_path / "dual,seed=1" / "scores.jsonl", [{"id": "other", "em": 0, "f1": 0}])
    with pytest.raises(InputError, match="scores.jsonl of dual and plain: .*other questions"):
        sweep_table.collect(sweep, tmp_path)


def test_collect_asked_metric_that_is_missing_names_run_and_known_ones(config, tmp_path):
    sweep = load_sweep(config, TWO)
    write_runs(sweep, tmp_path)
    assert sweep_table.collect(sweep, tmp_path, metrics=["f1"]).metrics == ("f1",)
    with pytest.raises(InputError, match="seed=0/report.json: no number 'bleu'; known: em, f1"):
        sweep_table.collect(sweep, tmp_path, metrics=["bleu"])


def test_run_metrics_takes_the_summary_or_the_last_round_or_all_numbers():
    summary = {"em": 1, "zh": {"f1": 2.5}, "passed": True}
    assert sweep_table.run_metrics({"summary": summary, "loss": 3.0}) == {"em": 1.0, "zh.f1": 2.5}
    section = {"languages": {"en": {"f1": 9.0}}, "macro": {"f1": 7.0, "count": 30}}
    rounds = [{"round": 0}, {"round": 1, "index_recall": 0.9, "answers": section}]
    found = sweep_table.run_metrics({"rounds": rounds, "seed": 4})
    assert found == {"answers.f1": 7.0, "index_recall": 0.9}
    assert sweep_table.run_metrics({"seed": 1, "a": {"b": 2}, "c": "x"}) == {"a.b": 2.0}


def test_collect_metric_may_be_any_path_of_the_report(config, tmp_path):
    sweep = load_sweep(config, "{}")
    section = {"languages": {"en": {"f1": 9.0}}, "macro": {"f1": 7.0}}
    report = {"rounds": [{"answers": section}]}
    write_json(tmp_path / sweep.points[0].name / "report.json", report)
    name = "rounds.-1.answers.languages.en.f1"
    table = sweep_table.collect(sweep, tmp_path, metrics=[name, "answers.f1"])
    assert table.rows[0].mean(name) == 9.0 and table.rows[0].mean("answers.f1") == 7.0


def test_write_table_csv_and_markdown_agree(config, tmp_path):
    sweep = load_sweep(config, TWO)
    write_runs(sweep, tmp_path)
    write_scores(sweep, tmp_path)
    table = sweep_table.collect(sweep, tmp_path)
    text = sweep_table.write_table(tmp_path, table, "launch/sweep.py --sweep=x")
    assert (tmp_path / "table.md").read_text() == text and "--sweep=x" in text
    lines = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    header = [cell.strip() for cell in lines[0][1:-1]]
    assert header[:6] == ["system", "n", "em", "em published", "f1", "f1 published"]
    assert [x.strip() for x in lines[3][1:-1]][:6] == ["dual", "3", "40.75 ± 1.09", "–", "81.50 ± 2.18", "90.20"]  # fmt: skip
    with open(tmp_path / "table.csv") as file:
        plain, dual = csv.DictReader(file)
    assert float(plain["f1 mean"]) == 72.0 and plain["p f1 bootstrap"] == ""
    assert float(dual["p f1 bootstrap"]) == table.rows[1].p["f1"]["bootstrap"]
    assert dual["em published"] == "" and float(dual["f1 published"]) == 90.2
    assert table.to_json()["rows"][1]["metrics"]["f1"]["mean"] == pytest.approx(81.5)
