"""Questions to a finished tiny run, through the class and through the command."""

import dataclasses
import importlib.util
import io
import json

import pytest

from clmrc_jax.files import InputError, read_json, read_jsonl, write_json
from clmrc_jax.pipelines import ask, train


def _module(path):
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workdir(repository, tmp_path_factory):
    """A finished run: the smoke preset, one round of one step, one question per language."""
    config = _module(repository / "configs" / "cora.py").get_config("smoke")
    config.rounds, config.corpus.max_questions = 0, 1
    config.retriever.steps = config.generator.steps = (1,)
    config.evaluation.closed_book = False
    folder = tmp_path_factory.mktemp("ask") / "run"
    train.main(config, str(folder))
    return folder


@pytest.fixture(scope="module")
def asker(workdir):
    return ask.Asker(workdir)


@pytest.fixture(scope="module")
def command(repository):
    return _module(repository / "launch" / "ask.py")


def test_asker_finds_and_answers_what_the_run_did(workdir, asker):
    assert set(read_json(workdir / "round_0" / "answers" / "test.json"))
    generator, params = asker._generator, asker._generator_params
    rows = [row for _, row in read_jsonl(workdir / "round_0" / "retrieved" / "test.jsonl")]
    assert len(rows) > 20
    for row in rows[::6]:
        found = asker(row["question"], row["lang"])
        top = asker.settings.generator_format.passages
        assert [p["id"] for p in found.passages] == [c["id"] for c in row["ctxs"][:top]]
        assert found.passages[0]["score"] == pytest.approx(row["ctxs"][0]["score"], abs=1e-3)
        # The run's own passages in a batch of one: among many rows float sums differ in the last
        # bit, and an untrained model's near ties then fall otherwise.
        texts, *_ = generator.answer(params, [(row["question"], row["lang"], row["ctxs"][:top])])
        assert found.answer == texts[0]
        assert (found.lang, found.note) == (row["lang"], "")


def test_asker_keeps_as_many_embeddings_on_the_devices_as_the_run(workdir, monkeypatch):
    """All 43.6M rows of the paper's corpus would be 134 GB."""
    settings, opened = ask.run_settings(workdir), {}
    index = dataclasses.replace(settings.index, max_rows_on_device=77)
    changed = dataclasses.replace(settings, index=index)
    monkeypatch.setattr(ask, "run_settings", lambda _: changed)
    monkeypatch.setattr(ask, "open_index", lambda *_, **options: (opened.update(options), 1.0))
    ask.Asker(workdir)
    assert opened["max_rows_on_device"] == 77


def test_asker_reads_as_many_passages_as_asked_for(asker):
    found = asker("Mikä on Suomen rahayksikkö?", "fi", top_k=4)
    assert len(found.passages) == 4
    assert {"id", "lang", "title", "text", "score", "whole"} <= set(found.passages[0])
    whole = [passage["whole"] for passage in found.passages]
    assert whole == sorted(whole, reverse=True), "a cut comes after the whole ones"
    many = asker("Mikä on Suomen rahayksikkö?", "fi", top_k=10**6).passages
    assert len(many) == len(asker.store) and not many[-1]["whole"]


def test_asker_bad_questions_are_named(asker):
    with pytest.raises(InputError, match="empty question"):
        asker(" \n")
    with pytest.raises(InputError, match="unknown language 'xx'.*one of am, ar, bn"):
        asker("What?", "xx")
    with pytest.raises(InputError, match="top_k is -1"):
        asker("What?", "en", -1)


def test_asker_takes_the_last_finished_round(tmp_path):
    for round, stage in ((0, "scores"), (2, "scores"), (10, "scores"), (11, "mdpr")):
        (tmp_path / f"round_{round}" / stage).mkdir(parents=True)
        write_json(tmp_path / f"round_{round}" / stage / "stage.json", {})
    assert ask.last_round(tmp_path) == 10


def test_asker_workdir_without_a_finished_run_is_refused(workdir, tmp_path):
    with pytest.raises(InputError, match="no finished run here.*tpu_train"):
        ask.Asker(tmp_path / "nothing")
    recorded = read_json(workdir / "config.json")
    write_json(tmp_path / "config.json", recorded)
    assert ask.run_settings(tmp_path) == ask.run_settings(workdir)
    with pytest.raises(InputError, match="not even its first round"):
        ask.Asker(tmp_path)
    write_json(tmp_path / "config.json", recorded | {"gone": 1})
    with pytest.raises(InputError, match="config key gone does not exist.*another version"):
        ask.Asker(tmp_path)


def test_recorded_settings_stay_once_a_model_is_trained(workdir):
    run = train.Run(workdir)
    before = ask.run_settings(workdir)
    train.record_settings(dataclasses.replace(before, seed=before.seed + 1), run)
    assert ask.run_settings(workdir) == before


@pytest.mark.parametrize(
    ("question", "lang"),
    [
        ("What is the currency of Japan?", "en"),
        ("日本の通貨は何ですか？", "ja"),
        ("일본의 통화는 무엇입니까?", "ko"),
        ("日本的货币是什么？", "zh_cn"),
        ("Какая валюта в Японии?", "ru"),
        ("జపాన్ కరెన్సీ ఏమిటి?", "te"),
        ("জাপানের মুদ্রা কী?", "bn"),
        ("ما هي عملة اليابان؟", "ar"),
        ("מהו המטבע של יפן?", "he"),
        ("สกุลเงินของญี่ปุ่นคืออะไร", "th"),
        ("តើរូបិយប័ណ្ណរបស់ជប៉ុនគឺជាអ្វី?", "km"),
        ("USD は何ですか", "ja"),
    ],
)
def test_guess_language_follows_the_script(question, lang):
    code, note = ask.guess_language(question)
    assert code == lang and f"language: {lang}" in note


def test_guess_language_names_the_alternatives_of_a_shared_script():
    assert "--lang=fi|es|" in ask.guess_language("Mikä on Japanin valuutta?")[1]
    assert "ja" in ask.guess_language("日本通貨")[1].split("--lang=")[1].split("|")
    assert "--lang" not in ask.guess_language("Какая валюта?")[1]
    for unreadable in ("1871?", "ᚠᚢᚦ"):
        with pytest.raises(InputError, match="give --lang, one of"):
            ask.guess_language(unreadable)


def test_ask_command_prints_json_and_says_the_language(command, workdir, capsys):
    flags = [f"--workdir={workdir}", "--question=日本の通貨は？", "--top_k=2", "--json"]
    assert command.main(flags) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["lang"], len(found["passages"])) == ("ja", 2)
    assert "language: ja (Japanese), by its script" in err


def test_ask_command_shows_whole_texts_without_spaces(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = "".join(chr(0x3042 + n % 80) for n in range(300))
    passage = {"score": 1.0, "lang": "ja", "title": text[:60], "text": text, "whole": True}
    command._show(ask.Answer("q", "ja", "", "a", 1.0, [passage], 0.1))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert sum(shown.count(character) for character in set(text)) == 360


def test_ask_command_of_a_reading_run_names_the_command_for_it(command, tmp_path, capsys):
    write_json(tmp_path / "config.json", {"name": "dual_bert", "data": {}})
    assert command.main([f"--workdir={tmp_path}", "--question=What?"]) == 2
    assert "and launch/read.py answers with a span reader" in capsys.readouterr().err


def test_ask_command_interactive_survives_a_bad_line(command, workdir, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is the euro?\n\n1871?\nMitä?\n"))
    assert command.main([f"--workdir={workdir}"]) == 0
    out, err = capsys.readouterr()
    assert out.count("score") == 2
    assert "ask: the language of '1871?' cannot be seen" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--question="], "empty question"),
        (["--question=What?", "--lang=xx"], "unknown language 'xx'"),
        (["--question=What?", "--workdir=nowhere"], "nowhere: no finished run here"),
    ],
)
def test_ask_command_bad_input_is_one_line_and_exit_2(command, workdir, flags, message, capsys):
    assert command.main([f"--workdir={workdir}", *flags]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and err.startswith("ask: ")
    assert out == ""
