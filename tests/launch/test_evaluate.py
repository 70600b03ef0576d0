"""`launch/evaluate.py`, as a person runs it."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "evaluate.py"
QUESTIONS = [
    {"id": 1, "lang": "fi", "question": "?", "answers": ["Oulu"]},
    {"id": "2_ru", "lang": "ru", "question": "?", "answers": ["Москва"]},
    {"id": "2_zh_cn", "lang": "zh_cn", "question": "?", "answers": ["美国"]},
]


@pytest.fixture(scope="module")
def evaluate_main():
    spec = importlib.util.spec_from_file_location("launch_evaluate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def files(tmp_path):
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    answers = {"1": "oulu", "2_ru": "москва.", "2_zh_cn": "美国人", "9": "x"}
    (tmp_path / "p.json").write_text(json.dumps(answers))
    return [f"--data={tmp_path / 'q.jsonl'}", f"--predictions={tmp_path / 'p.json'}"]


def test_json_has_languages_and_macro_in_percent(evaluate_main, files, capsys):
    assert evaluate_main(["--task=xor_full", "--mode=legacy", "--json", *files]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["languages"]["zh_cn"]["em"] == 100  # the counter defect
    assert document["languages"]["fi"] == {
        "f1": 100,
        "em": 100,
        "bleu": document["languages"]["fi"]["bleu"],
        "count": 1,
    }
    assert set(document["macro"]) == {"f1", "em", "bleu", "count"}
    assert "1 prediction(s) belong to no question" in captured.err


@pytest.mark.parametrize(
    ("task", "mode", "chinese_f1"),
    [
        ("xor_full", "fixed", 200 / 3),
        ("xor_full", "portable", 80),
        ("mkqa", "legacy", 100),
        ("mkqa", "fixed", 200 / 3),
        ("mkqa_official", "legacy", 80),
        ("mkqa_official", "fixed", 80),
    ],
)
def test_every_question_task_and_mode_runs(evaluate_main, files, capsys, task, mode, chinese_f1):
    assert evaluate_main([f"--task={task}", f"--mode={mode}", "--json", *files]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["languages"]["zh_cn"]["f1"] == pytest.approx(chinese_f1)
    assert document["macro"]["f1"] == pytest.approx((200 + chinese_f1) / 3)


def test_per_question_rows_and_table_are_written(evaluate_main, files, tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    assert (
        evaluate_main(["--task=xor_full", "--mode=fixed", f"--per_question={output}", *files]) == 0
    )
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["1", "2_ru", "2_zh_cn"]
    assert rows[2]["prediction"] == "美国人" and rows[2]["em"] == 0
    table = capsys.readouterr().out
    assert "zh_cn" in table and "66.7" in table and "macro" in table


def test_retrieval_prints_recall_and_language_matrix(evaluate_main, tmp_path, capsys):
    passages = [{"id": "a", "lang": "en", "title": "Oulu", "text": "a town", "score": 1}]
    row = {"q_id": "1", "lang": "fi", "question": "?", "answers": ["Oulu"], "ctxs": passages}
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps(row))
    arguments = ["--task=retrieval", f"--predictions={path}", "--top_k=1"]
    assert evaluate_main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["macro"]["r_l@1"] == document["macro"]["r_multi@1"] == 100
    assert document["matrix"] == {"fi": {"en": 100}}
    assert evaluate_main(arguments) == 0
    assert "language of the retrieved passages" in capsys.readouterr().out
    assert evaluate_main(arguments[:2]) == 2, "the default depth, which this run does not have"
    assert "Give --top_k=1" in capsys.readouterr().err


@pytest.fixture
def span_files(tmp_path):
    """A file with an answerable and an unanswerable question, and answers to one of them."""
    questions = [{"id": "1", "answers": [{"text": "Oulu"}]}, {"id": "2", "answers": []}]
    (tmp_path / "dev.json").write_text(json.dumps({"data": [{"qas": questions}]}))
    (tmp_path / "p.json").write_text(json.dumps({"1": "in Oulu", "9": "x"}))
    (tmp_path / "nulls.json").write_text(json.dumps({"1": 0.5}))
    return [f"--data={tmp_path / 'dev.json'}", f"--predictions={tmp_path / 'p.json'}"]


@pytest.mark.parametrize(
    ("task", "f1", "count"),
    [
        ("cmrc2018", 200 / 3, 1),
        ("drcd", 200 / 3, 1),
        ("squad", 200 / 3, 1),
        ("squad2", 100 / 3, 2),
        ("xquad", 200 / 3, 1),
        ("squad_ja_fr", 200 / 3, 1),
    ],
)
@pytest.mark.parametrize("mode", ["legacy", "fixed"])
def test_reading_comprehension_json_has_em_f1_and_count(
    evaluate_main, span_files, tmp_path, capsys, task, f1, count, mode
):
    output = tmp_path / "rows.jsonl"
    language = [] if task in ("cmrc2018", "drcd") else ["--lang=fi"]
    arguments = [f"--task={task}", f"--mode={mode}", *language, f"--per_question={output}"]
    assert evaluate_main([*arguments, "--json", *span_files]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert {name: document[name] for name in ("em", "f1", "count")} == {
        "em": 0,
        "f1": pytest.approx(f1),
        "count": count,
    }
    assert "1 prediction(s) belong to no question" in captured.err
    assert ("question(s) have no prediction" in captured.err) == (task == "squad2")
    assert len(output.read_text().splitlines()) == count


def test_squad2_table_shows_both_parts_and_best_threshold(
    evaluate_main, span_files, tmp_path, capsys
):
    arguments = ["--task=squad2", f"--null_scores={tmp_path / 'nulls.json'}", *span_files]
    assert evaluate_main(arguments) == 0
    table = capsys.readouterr().out
    assert "has_answer" in table and "no_answer" in table
    assert "best_f1 33.3 with silence above a null score of 0.5" in table


def test_xquad_without_language_asks_for_it(evaluate_main, span_files, capsys):
    assert evaluate_main(["--task=xquad", *span_files]) == 2
    assert "--lang=zh" in capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_code_two(evaluate_main, files, tmp_path, capsys):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": 1, "lang": "xx", "answers": []}')
    for arguments in (
        ["--task=xor_full", f"--data={broken}", files[1]],
        ["--task=xor_full", f"--data={tmp_path / 'absent'}", files[1]],
        ["--task=xor_full", "--mode=newest", *files],
        ["--task=mkqa", files[1]],
        ["--task=xor_full", "--lang=fi", *files],
        ["--task=xor_full", "--top_k=10", *files],
        ["--task=retrieval", f"--predictions={tmp_path / 'q.jsonl'}"],
        ["--task=xor_full", *files, f"--per_question={tmp_path}"],
    ):
        assert evaluate_main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("evaluate: ") and captured.err.count("\n") == 1


def test_script_runs_by_itself_and_shows_no_traceback(files):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, SCRIPT, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        )

    assert "--per_question" in run("--help").stdout
    assert run("--task=xor_full", "--mode=portable", "--json", *files).returncode == 0
    failed = run("--task=xor_full", "--data=/nowhere", "--predictions=/nowhere")
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
