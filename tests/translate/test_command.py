import contextlib
import fcntl
import gzip
import json
import logging
import shutil
import time

import pytest

from clmrc_jax.files import InputError
from clmrc_jax.translate.cache import CachedTranslator
from clmrc_jax.translate.command import CommandTranslator
from clmrc_jax.translate.translator import Batch, TranslationError

needs_apertium = pytest.mark.skipif(
    shutil.which("apertium") is None, reason="Apertium (package apertium-eng-spa) is not installed"
)
SHOUT = "print(*[line.upper() for line in lines], sep='\\n')"


def test_command_one_process_per_call_and_one_line_per_text(program, tmp_path):
    counter = tmp_path / "starts"
    shout = program(f"open({str(counter)!r}, 'a').write('x')\n{SHOUT}")
    translator = CommandTranslator(shout)
    assert translator.translate(["uno", "dos", "tres"], "es", "en") == ["UNO", "DOS", "TRES"]
    assert counter.read_text() == "x"


def test_command_line_breaks_and_outer_blanks_stay_and_are_never_sent(program, tmp_path):
    sent = tmp_path / "sent"
    shout = program(f"open({str(sent)!r}, 'w').write(repr(lines))\n{SHOUT}")
    texts = ["  a\n\n b \r\nc\x0bd\u2028e\x85f\x00g", "\n", "", " \t", "x y "]
    expected = ["  A\n\n B \r\nC\x0bD\u2028E\x85F\x00G", "\n", "", " \t", "X Y "]
    assert CommandTranslator(shout).translate(texts, "es", "en") == expected
    assert sent.read_text() == repr(["a", "b", "c", "d", "e", "f", "g", "x y"])


def test_command_only_blank_texts_starts_no_process():
    assert CommandTranslator("no-such-program").translate(["", "\n"], "es", "en") == ["", "\n"]


def test_command_languages_fill_in_the_command_line(program):
    translator = CommandTranslator(program("print(sys.argv[1:])") + " {source}-{target} '{x} y'")
    assert translator.translate(["a"], "zh_cn", "en") == ["['zh_cn-en', '{x} y']"]


def test_command_last_line_break_may_be_missing():
    translator = CommandTranslator('sh -c \'printf "%s" "$(cat)"\'')
    assert translator.translate(["a", "b"], "es", "en") == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('\\n'.join(lines[1:]))", "wrote 2 lines for 3; .*exactly one line for each"),
        ("print('\\n'.join(lines + ['x']))", "wrote 4 lines for 3"),
        ("", "wrote 0 lines for 3"),
        ("sys.stdout.buffer.write(b'\\xff\\n' * 3)", "output is not UTF-8"),
        ("sys.exit('no dictionary\\nat all')", "ended with exit code 1; it said: at all"),
        ("os.kill(os.getpid(), 9)", "ended with exit code -9"),
    ],
)
def test_command_that_breaks_the_rule_is_an_error_and_nothing_is_taken(program, body, message):
    with pytest.raises(TranslationError, match=message) as caught:
        CommandTranslator(program(body)).translate(["a", "b", "c"], "es", "en")
    assert caught.value.finished == ()


def test_command_failing_half_way_keeps_finished_texts_through_the_cache(program, tmp_path):
    body = "print('A\\nB\\nC\\nhalf a li', end='', flush=True); sys.exit(3)"
    failing = CommandTranslator(program(body), batch=Batch(texts=4))
    texts = ["a", "b\nb", "d", "e"]  # the second text needs two lines, the third has no whole one
    with pytest.raises(TranslationError, match="exit code 3") as caught:
        failing.translate(texts, "es", "en")
    assert caught.value.finished == ("A", "B\nC")
    cached = CachedTranslator(failing, tmp_path / "cache")
    with pytest.raises(TranslationError, match="2 finished translations are kept"):
        cached.translate(texts, "es", "en")
    assert cached.missing(texts, "es", "en") == ["d", "e"]


def test_command_that_hangs_is_ended_with_all_its_processes(program, tmp_path):
    # The lock is held as long as the program or its child lives.
    body = f"""
        import fcntl
        lock = open({str(tmp_path / "lock")!r}, 'w')
        fcntl.flock(lock, fcntl.LOCK_EX)
        print('A', flush=True)
        os.fork()
        time.sleep(60)
    """
    translator = CommandTranslator(program(body), timeout=1)
    with pytest.raises(TranslationError, match="did not finish within 1 s"):
        translator.translate(["a", "b"], "es", "en")
    with open(tmp_path / "lock", "w") as lock:
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.05)
    pytest.fail("a process of the command survived")


def test_command_large_input_to_a_program_that_answers_as_it_reads():
    texts = ["x" * 200 + str(i) for i in range(5000)]  # more than both pipes hold
    assert CommandTranslator("cat").translate(texts, "es", "en") == texts


@pytest.mark.parametrize(
    ("command", "message"),
    [(" ", "an empty command"), ("a 'b", "No closing quotation; mind the quotes")],
)
def test_command_line_that_cannot_be_read_is_refused(command, message):
    with pytest.raises(InputError, match=message):
        CommandTranslator(command)


def test_command_missing_program_is_found_before_anything_starts():
    translator = CommandTranslator("no-such-program x")
    with pytest.raises(InputError, match="there is no program 'no-such-program' here; install it"):
        translator.prepare(["a"], "es", "en")
    with pytest.raises(InputError, match="there is no program"):
        translator.translate(["a"], "es", "en")


def test_command_file_that_is_no_program_is_an_input_error(tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fno program")
    broken.chmod(0o755)
    with pytest.raises(InputError, match="broken: cannot be started"):
        CommandTranslator(str(broken)).translate(["a"], "es", "en")


@needs_apertium
def test_apertium_translates_and_neighbours_do_not_mix(caplog):
    translator = CommandTranslator("apertium -u spa-eng")
    texts = ["mesa", "roja", "La casa es roja.\n¿Dónde está el gato?", "", "17 segundos"]
    together = translator.translate(texts, "es", "en")
    assert together == [translator.translate([text], "es", "en")[0] for text in texts]
    # As neighbouring lines Apertium makes "Red", "table" of the first two.
    assert together[0].lower() == "table"
    assert together[2].startswith("The house is red.\n")
    translator.prepare(texts, "es", "en")
    assert not caplog.records


@needs_apertium
def test_apertium_marks_of_unknown_words_are_pointed_out(caplog):
    translator = CommandTranslator("apertium spa-eng")
    with caplog.at_level(logging.WARNING):
        translator.prepare(["a"], "es", "en")
    assert "`apertium -u` leaves the mark out" in caplog.text
    with pytest.raises(TranslationError, match="exit code 1; it said"):
        CommandTranslator("apertium xxx-yyy").translate(["a"], "es", "en")


@needs_apertium
def test_apertium_real_paragraph_is_translated_as_it_is_alone(shared_data):
    path = shared_data / "xquad" / "xquad.es.json.gz"
    paragraph = json.loads(gzip.open(path).read())["data"][0]["paragraphs"][0]
    texts = [paragraph["context"], *(row["question"] for row in paragraph["qas"][:4])]
    translator = CommandTranslator("apertium -u spa-eng")
    together = translator.translate(texts, "es", "en")
    assert together == [translator.translate([text], "es", "en")[0] for text in texts]
