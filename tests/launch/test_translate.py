"""`launch/translate.py`, as a person runs it."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from clmrc_jax.data.mrc_examples import read_mrc

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "translate.py"


def run(*flags, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, SCRIPT, "--lang=es", *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def squad(tmp_path, questions):
    rows = [{"id": str(i), "question": f"q {i}", "answers": []} for i in range(questions)]
    document = {"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": rows}]}]}
    (tmp_path / "data.json").write_text(json.dumps(document))
    return f"--data={tmp_path / 'data.json'}"


def test_translate_bad_input_is_one_line_and_exit_code_2(tmp_path):
    output = f"--output={tmp_path / 'out.json'}"
    done = run(squad(tmp_path, 3), output, "--translator=command:head -n 2")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [x for x in done.stderr.splitlines() if "exactly one line" in x]
    assert line.startswith("translate: command:head -n 2: wrote 2 lines for 4")
    done = run(squad(tmp_path, 3), output, "--translator=google")
    assert done.returncode == 2
    assert "would be sent 4 texts with 10 characters" in done.stderr
    assert "--consent_to_pay" in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_translate_killed_continues_and_sends_no_finished_line_twice(tmp_path):
    """A real kill in the third batch: the first two are in the cache."""
    log, hang = tmp_path / "log", tmp_path / "hang"
    hang.write_text("")
    body = f"""
import os, sys, time
lines = sys.stdin.read().splitlines()
open({str(log)!r}, 'a').write(''.join(line + '\\n' for line in lines))
while 'q 300' in lines and os.path.exists({str(hang)!r}):
    time.sleep(0.1)
print(*lines, sep='\\n')
"""
    (tmp_path / "program.py").write_text(body)
    flags = [
        squad(tmp_path, 400),
        "--source_lang=en",
        f"--translator=command:{sys.executable} {tmp_path / 'program.py'}",
        f"--output={tmp_path / 'out.json'}",
        f"--cache={tmp_path / 'cache'}",
        "--json",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, SCRIPT, "--lang=es", *flags], env=environment)
    for _ in range(600):
        if log.exists() and "q 300\n" in log.read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = log.read_text().splitlines()
    hang.unlink()
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["texts"] == 401
    again = log.read_text().splitlines()[len(before) :]
    assert len(set(before) & set(again)) <= 128  # the batch that was killed
    assert set(before) | set(again) == {"c", *(f"q {i}" for i in range(400))}


@pytest.mark.skipif(shutil.which("apertium") is None, reason="Apertium is not installed")
def test_translate_real_paragraphs_with_apertium(tmp_path, shared_data):
    output = tmp_path / "out.json"
    done = run(
        f"--data={shared_data / 'xquad' / 'xquad.es.json.gz'}",
        "--to=en",
        "--translator=command:apertium -u spa-eng",
        f"--output={output}",
        "--paragraphs=2",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    examples = read_mrc(output, "es")
    assert len(examples) == summary["questions"] >= 10
    assert summary["aligned"] == summary["answers"] and summary["mean_score"] > 0.9
    for example in examples:
        answer = example.source.answer
        assert example.source.context[answer.start :].startswith(answer.text)
