"""The report of a reading run, from scores that were written by hand."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from clmrc_jax.data.mrc_examples import Answer, MrcExample
from clmrc_jax.files import read_json, read_jsonl, write_json, write_jsonl
from clmrc_jax.pipelines.clmrc_data import EvaluationSet, ReadingSets
from clmrc_jax.pipelines.clmrc_report import build_report, finish, markdown, print_summary
from clmrc_jax.pipelines.stages import Run

SETS = ("cmrc_dev", "own")
EXAMPLES = [
    MrcExample(f"q{i}", "zh_cn", "", f"question | {i}?", "passage", (Answer("pass", 0),))
    for i in range(4)
]


@pytest.fixture
def made(tmp_path):
    """made(system -> F1 of the four questions, preset): a finished run, as `finish` takes it."""

    def make(systems, preset="t2_12"):
        run, scores = Run(tmp_path / "w", quiet=True), {}
        for system, f1 in systems.items():
            for name in SETS:
                folder = run.path(system, "read")
                rows = [{"id": x.id, "em": float(f > 0.9), "f1": f} for x, f in zip(EXAMPLES, f1)]
                write_jsonl(folder / f"{name}.scores.jsonl", rows)
                write_json(folder / f"{name}.json", {x.id: f"{system} *{x.id}*" for x in EXAMPLES})
            em, mean = 25 * sum(f > 0.9 for f in f1), 25 * sum(f1)
            row = {"em": em, "f1": mean, "average": (em + mean) / 2, "count": 4}
            scores[system] = {name: row for name in SETS}
        run.seconds["source"] = 2.5
        sets = [EvaluationSet(name, "cmrc2018", EXAMPLES) for name in SETS]
        settings = SimpleNamespace(name=f"dual_bert:{preset}", seed=3, scorer="legacy")
        return SimpleNamespace(
            run=run,
            settings=settings,
            sets=ReadingSets([], EXAMPLES[:2], [], sets),
            scores=lambda: scores,
        )

    return make


ONE = {"dual_squad": (1.0, 0.5, 0.0, 1.0)}
TWO = {"plain": (0.0, 0.5, 0.0, 0.2)} | ONE


def test_one_system_is_summed_up_by_set_as_a_sweep_wants_it(made):
    report = build_report(made(ONE), 7.0)
    assert report["summary"] == {
        f"{name} {metric}": value
        for name in SETS
        for metric, value in (("em", 50.0), ("f1", 62.5), ("average", 56.25))
    }
    assert report["published"]["cmrc_dev"] == {"em": 68.0, "f1": 88.1}
    assert report["significance"] == [] and report["seconds"] == {"source": 2.5, "total": 7.0}
    assert report["training"] == {"source": 0, "target": 2, "bilingual": 0}


def test_several_systems_are_summed_up_by_name_and_tested(made):
    report = build_report(made(TWO, "files"), 7.0)
    assert report["summary"]["plain own f1"] == pytest.approx(17.5)
    assert report["summary"]["dual_squad own f1"] == 62.5
    assert [row["set"] for row in report["significance"]] == list(SETS)
    row = report["significance"][0]
    assert row["systems"] == ["plain", "dual_squad"]
    assert row["f1 difference"] == pytest.approx(-45.0)
    assert report["published"] == {}


def test_finish_writes_all_files_and_prints_the_table(made, capsys):
    run = made(ONE)
    report = finish(run, 7.0)
    assert read_json(run.run.path("report.json")) == report
    rows = [row for _, row in read_jsonl(run.run.path("scores.jsonl"))]
    assert [row["set"] for row in rows] == ["cmrc_dev"] * 4 + ["own"] * 4, "tested set by set"
    assert rows[4] == {"id": "own/q0", "em": 1.0, "f1": 1.0, "set": "own"}
    assert "dual_bert:t2_12" in capsys.readouterr().out
    finish(made(TWO), 7.0, as_json=True)
    assert capsys.readouterr().out.startswith('{"plain": {"cmrc_dev": {"em": 0')
    assert not run.run.path("scores.jsonl").exists(), "with two systems the report tests them"


def test_scores_of_a_single_set_name_none(made):
    run = made(ONE)
    del run.sets.evaluation[1:]
    finish(run, 7.0)
    rows = [row for _, row in read_jsonl(run.run.path("scores.jsonl"))]
    assert len(rows) == 4 and "set" not in rows[0]


def test_page_shows_published_scores_where_the_paper_has_them(made):
    page = markdown(build_report(made(TWO), 7.0))
    lines = page.splitlines()
    assert "| system | set | questions | EM | F1 | published EM | published F1 |" in lines
    assert r"| dual\_squad | cmrc\_dev | 4 | 50.0 | 62.5 | 68.0 | 88.1 |" in lines
    assert r"| dual\_squad | own | 4 | 50.0 | 62.5 | – | – |" in lines
    assert any(line.startswith(r"| own | plain - dual\_squad | -45.0 | -") for line in lines)
    assert r"* plain: plain \*q0\*" in page and r"**question \| 0?** (zh_cn): pass" in page
    assert "published" not in markdown(build_report(made(TWO, "files"), 7.0))


def test_table_on_the_terminal_marks_the_best_of_each_set(made):
    out = io.StringIO()
    report = build_report(made(TWO), 7.0)
    print_summary(
        report, Console(file=out, width=100, force_terminal=True, color_system="standard")
    )
    bold = [line for line in out.getvalue().splitlines() if "\x1b[1;36m" in line]
    assert len(bold) == 2 and all("dual_squad" in line for line in bold)
