"""Reports of small runs: numbers read back from report.md, figures, atomicity, the terminal."""

import io
import json
import math
import os
import re

import pytest
from matplotlib import image
from rich.console import Console

from clmrc_jax.evaluate.report import print_summary, write_report
from clmrc_jax.evaluate.report_data import by_category
from clmrc_jax.evaluate.report_markdown import escape

# Two languages per category, the order of files, not of categories.
LANGUAGES = ["zh_cn", "ja", "de", "es", "en", "sv", "fr", "vi"]
GROUPS = {
    "seen": ["ja", "en"],
    "mDPR-seen": ["es", "sv"],
    "mGEN-seen": ["de", "fr"],
    "unseen": ["zh_cn", "vi"],
}


def _section(metrics, base, languages=LANGUAGES):
    """Numbers that differ in every language and metric, with their macro averages."""
    rows = {
        code: {name: base + 3.1 * i + 0.7 * j for j, name in enumerate(metrics)} | {"count": 4 + i}
        for i, code in enumerate(languages)
    }
    macro = {name: math.fsum(x[name] for x in rows.values()) / len(rows) for name in metrics}
    return {"languages": rows, "macro": macro | {"count": sum(x["count"] for x in rows.values())}}


def _round(number, k=10):
    retrieval = (f"r_l@{k}", f"r_multi@{k}", f"mrr_l@{k}", f"mrr_multi@{k}")
    return {
        "round": number,
        "training_rows": 1200 + number,
        "answers": _section(("f1", "em", "bleu"), 20 + 9 * number),
        "closed_book": _section(("f1", "em", "bleu"), 5 + number),
        "retrieval": _section(retrieval, 50 + 7 * number),
        "language_rate": _section(("correct_language",), 70 + number),
        "matrix": {code: {"en": 60.0, "ja": 25.0, "sv": 15.0} for code in LANGUAGES},
        "mining": {"candidates": 4321, "positives": 99, "by_rule": {"links": 12}, "rate": 0.25},
        "survived": 7.5,
        "index_recall": 0.987,
    }


def _report(rounds=2, **changes):
    example = {
        "question": "日本の通貨は何ですか？",
        "lang": "ja",
        "answers": ["円", "日本円"],
        "prediction": "円",
        "closed_book": "ユーロ|[x]",
        "ctxs": [
            {"lang": "ja", "title": "日本", "text": "通貨は円。", "score": 81.234},
            {
                "lang": "en",
                "title": "Japan_(land)",
                "text": "<b>yen</b>\nis | money",
                "score": 80.0,
            },
        ],
    }
    report = {
        "title": "CORA on world facts",
        "config": "configs/cora.py",
        "seed": 7,
        "scorer": "xor_full (portable)",
        "split": "test",
        "notes": ["the generator starts from *our* weights"],
        "corpus": {
            "passages": 2600,
            "articles": 1300,
            "questions": {"train": 1000, "test": 200},
            "languages": {"sv": 600, "en": 2000},
        },
        "rounds": [_round(number) for number in range(rounds)],
        "seconds": {"train retriever": 30.25, "train generator": 89.75},
        "parameters": {"retriever": 1234567, "generator": 890},
        "examples": [example],
    }
    return report | changes


def _tables(text):
    """{heading: rows as {column: cell}} of the Markdown tables."""
    tables = {}
    for part in re.split(r"^#+ ", text, flags=re.M)[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        if lines:
            header, _, *rows = [[x.strip() for x in line.strip("|").split("|")] for line in lines]
            assert all(len(row) == len(header) for row in rows)
            tables[part.splitlines()[0]] = [dict(zip(header, row)) for row in rows]
    return tables


def _mean(section, group, metric):
    values = [section["languages"][code][metric] for code in GROUPS[group]]
    return f"{sum(values) / len(values):.1f}"


def test_headline_table_has_the_numbers_of_every_round(tmp_path):
    report = _report(3)
    write_report(tmp_path, report)
    rows = _tables((tmp_path / "report.md").read_text("utf-8"))["Rounds"]
    assert [row["round"] for row in rows] == ["0", "1", "2"]
    for row, given in zip(rows, report["rounds"]):
        assert row["F1"] == f"{given['answers']['macro']['f1']:.1f}"
        assert row["closed-book F1"] == f"{given['closed_book']['macro']['f1']:.1f}"
        assert row["R^L@10"] == f"{given['retrieval']['macro']['r_l@10']:.1f}"
        assert row["R^multi@10"] == f"{given['retrieval']['macro']['r_multi@10']:.1f}"
        rate = given["language_rate"]["macro"]["correct_language"]
        assert row["correct language"] == f"{rate:.1f}"
        for group in GROUPS:
            assert row[group] == _mean(given["answers"], group, "f1")


def test_category_table_has_every_metric_of_every_category(tmp_path):
    report = _report(2)
    write_report(tmp_path, report)
    rows = _tables((tmp_path / "report.md").read_text("utf-8"))["Categories of languages"]
    assert len(rows) == 2 * (1 + len(GROUPS))
    for row in rows:
        given = report["rounds"][int(row["round"])]
        if row["category"] == "all":
            assert row["BLEU"] == f"{given['answers']['macro']['bleu']:.1f}"
        else:
            assert row["EM"] == _mean(given["answers"], row["category"], "em")
            assert row["MRR^L@10"] == _mean(given["retrieval"], row["category"], "mrr_l@10")


def test_language_table_compares_the_last_round_with_the_first(tmp_path):
    report = _report(3)
    write_report(tmp_path, report)
    rows = _tables((tmp_path / "report.md").read_text("utf-8"))["Languages, round 2"]
    assert [x["language"] for x in rows] == ["en", "ja", "es", "sv", "de", "fr", "vi", "zh_cn"]
    first, last = report["rounds"][0], report["rounds"][2]
    for row in rows:
        code = row["language"]
        assert row["F1, round 0"] == f"{first['answers']['languages'][code]['f1']:.1f}"
        assert row["F1, round 2"] == f"{last['answers']['languages'][code]['f1']:.1f}"
        found = last["retrieval"]["languages"][code]["r_multi@10"]
        assert row["R^multi@10, round 2"] == f"{found:.1f}"
        assert row["questions"] == str(last["answers"]["languages"][code]["count"])


def test_report_names_split_and_scorers_with_every_table_of_scores(tmp_path):
    write_report(tmp_path, _report())
    text = (tmp_path / "report.md").read_text("utf-8")
    for heading in ("## Rounds", "## Categories of languages", "## Languages, round 1"):
        part = text.split(heading + "\n")[1].split("\n## ")[0]
        assert "test split · answers: xor_full (portable) · recall: retrieval (fixed)" in part


def test_mining_and_time_tables_hold_what_was_given(tmp_path):
    write_report(tmp_path, _report())
    tables = _tables((tmp_path / "report.md").read_text("utf-8"))
    mining = {row[""]: row for row in tables["Training rows and mining"]}
    assert mining["training rows"]["round 1"] == "1,201"
    assert mining["mined: candidates"]["round 0"] == "4,321"
    assert mining[escape("mined: by_rule.links")]["round 1"] == "12"
    assert mining["mined: rate"]["round 0"] == "0.250"
    time = {row["stage"]: row for row in tables["Time"]}
    assert time["train generator"]["percent"] == f"{100 * 89.75 / 120:.1f}"
    assert time["total"]["seconds"] == "120.0"


def test_examples_show_evidence_in_several_languages_with_nothing_to_interpret(tmp_path):
    write_report(tmp_path, _report())
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "* answer: **円** ✓" in text
    assert "* without passages: ユーロ\\|\\[x\\]" in text
    assert "* `ja` 81.23 *日本*: 通貨は円。" in text
    assert "\\<b\\>yen\\</b\\> is \\| money" in text


def test_long_passage_is_cut_round_its_answer(tmp_path):
    report = _report()
    report["examples"][0]["ctxs"][0]["text"] = "あ" * 900 + "円" + "い" * 900
    write_report(tmp_path, report)
    [line] = [x for x in (tmp_path / "report.md").read_text("utf-8").splitlines() if "あ" in x]
    assert "円" in line and len(line) < 350
    assert line.count("…") == 2


def test_report_json_round_trips_and_holds_the_category_means(tmp_path):
    report = _report()
    write_report(tmp_path / "a", report)
    written = json.loads((tmp_path / "a" / "report.json").read_text("utf-8"))
    for row, given in zip(written["rounds"], report["rounds"]):
        means = row.pop("categories")
        expected = by_category(given["answers"]["languages"], "f1")
        assert {name: x["f1"] for name, x in means["answers"].items()} == expected
        assert means["retrieval"]["seen"]["languages"] == 2
    assert written == report
    write_report(tmp_path / "b", json.loads((tmp_path / "a" / "report.json").read_text("utf-8")))
    for name in ("report.json", "report.md", "figures/metrics_over_rounds.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_figures_are_linked_and_open(tmp_path):
    write_report(tmp_path, _report(3))
    linked = re.findall(r"\]\((figures/.+?)\)", (tmp_path / "report.md").read_text("utf-8"))
    assert linked == [
        "figures/metrics_over_rounds.png",
        "figures/language_matrix_round_0.png",
        "figures/language_matrix_round_2.png",
    ]
    for name in linked:
        height, width, _ = image.imread(tmp_path / name).shape
        assert height > 300 and width > 300


def test_single_round_without_closed_book_and_mining_leaves_their_columns_out(tmp_path):
    row = _round(0)
    row |= {"closed_book": None, "mining": {}, "language_rate": {}}
    write_report(tmp_path, _report(rounds=1, examples=[], notes=[]) | {"rounds": [row]})
    text = (tmp_path / "report.md").read_text("utf-8")
    tables = _tables(text)
    assert "closed-book F1" not in tables["Rounds"][0]
    assert "Not measured in this run: closed-book F1, correct language." in text
    assert "F1" in tables["Languages, round 0"][0]
    assert "mined" not in text and "## Examples" not in text and "## Notes" not in text


def test_absent_category_and_other_languages_get_their_own_columns(tmp_path):
    row = {"round": 0, "answers": _section(("f1", "em", "bleu"), 10, ["el", "hi", "de"])}
    write_report(tmp_path, _report() | {"rounds": [row]})
    text = (tmp_path / "report.md").read_text("utf-8")
    [cells] = _tables(text)["Rounds"]
    assert cells["mGEN-seen"] == f"{row['answers']['languages']['de']['f1']:.1f}"
    assert cells["other"] == f"{10 + 3.1 / 2:.1f}"
    assert "seen" not in cells and "Not measured in this run: seen, mDPR-seen, unseen" in text


def test_retrieval_only_run_reports_recall_at_its_own_depth(tmp_path):
    row = {key: _round(0, k=5)[key] for key in ("round", "retrieval", "matrix")}
    write_report(tmp_path, _report() | {"rounds": [row], "examples": []})
    text = (tmp_path / "report.md").read_text("utf-8")
    [cells] = _tables(text)["Rounds"]
    assert cells["R^L@5"] == f"{row['retrieval']['macro']['r_l@5']:.1f}"
    assert "F1" not in cells and "xor_full" not in text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rounds": []}, "at least one round"),
        ({"seed": float("nan")}, "finite JSON"),
        ({"notes": [object()]}, "finite JSON"),
        ({"rounds": [{"round": 3, "matrix": {"ja": {"en": 0.4, "ja": 0.6}}}]}, "round 3, row 'ja'"),
    ],
)
def test_bad_report_is_refused_and_writes_nothing(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path, _report(1) | change)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_report_whole(tmp_path):
    write_report(tmp_path, _report(1))
    before = {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()}
    blocked = _report(3)  # its second matrix cannot be opened: a folder has its temporary name
    (tmp_path / "figures" / f"language_matrix_round_2.png.tmp-{os.getpid()}").mkdir()
    with pytest.raises(OSError):
        write_report(tmp_path, blocked)
    assert {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()} == before


def test_summary_fits_eighty_columns_and_shows_rounds_gain_languages_answers():
    console = Console(width=80, record=True, file=io.StringIO())
    report = _report(2)
    print_summary(report, console)
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    gain = next(line for line in text.splitlines() if "gain" in line).split()
    assert gain[1] == "+9.0"
    assert any("zh_cn Chinese" in line and "█" in line for line in text.splitlines())
    assert "evidence in ja en" in text and "total 0:02:00" in text


def test_summary_of_bare_round_prints():
    console = Console(width=80, record=True, file=io.StringIO())
    bare = {key: _report()[key] for key in ("title", "config", "seed", "scorer", "split")}
    print_summary(
        bare | {"rounds": [{"round": 0, "answers": _section(("f1",), 1, ["ja"])}]}, console
    )
    assert "ja" in console.export_text()
