"""The four back-translation systems with `cat` as translator: everything else is real."""

import pytest

from clmrc_jax.data.world_facts.cldr import load_world_facts
from clmrc_jax.data.world_facts.reading import reading_examples
from clmrc_jax.files import InputError, read_json
from clmrc_jax.pipelines.back_translation import SYSTEMS
from clmrc_jax.pipelines.clmrc_settings import BACK_TRANSLATION

ALL = f"--config.systems={tuple(SYSTEMS)}"


@pytest.fixture(scope="module")
def flags(reading_run):
    """A source reader that is trained already, and its vocabulary."""
    source = reading_run / "source/model"
    return (f"--config.source_model={source}", f"--config.model.tokenizer={source}")


@pytest.fixture(scope="module")
def finished(train_reader, flags, tmp_path_factory):
    """Workdir of all four systems through `cat`."""
    workdir = tmp_path_factory.mktemp("back") / "workdir"
    translators = [f"--config.translation.{x}=command:cat" for x in ("forward", "backward")]
    status, _, err = train_reader(workdir, ALL, *flags, *translators)
    assert status == 0, err
    (workdir.parent / "stderr.txt").write_text(err)
    return workdir


@pytest.fixture(scope="module")
def examples():
    world = load_world_facts("smoke")
    return {x.id: x for x in reading_examples(world, "test", "ja", source="en")}


def test_table_of_systems_is_that_of_the_settings():
    assert set(SYSTEMS) == set(BACK_TRANSLATION)


def test_raw_answers_are_what_the_source_reader_reads(finished, examples):
    raw = read_json(finished / "bt_raw/read/test.json")
    assert raw == read_json(finished / "back_translation/test/answers.json")
    assert len(raw) == 4
    # `cat` translates nothing, so the reader's answer is a piece of the passage.
    assert all(text in examples[id].context for id, text in raw.items())
    entries = read_json(finished / "bt_raw/read/test.nbest.json")
    assert all(
        x == [{"text": raw[id], "probability": 1.0, "start": -1, "end": -1}]
        for id, x in entries.items()
    )


def test_simple_match_finds_the_same_piece_again(finished, examples):
    raw = read_json(finished / "bt_raw/read/test.json")
    for id, (entry,) in read_json(finished / "bt_match/read/test.nbest.json").items():
        assert entry["text"] == raw[id] and entry["probability"] == pytest.approx(1)
        assert examples[id].context[entry["start"] : entry["end"]] == entry["text"]


def test_aligner_and_verifier_are_trained_on_the_target_set(finished, examples):
    answers = read_json(finished / "back_translation/train/answers.json")
    assert len(answers) == 4
    for system in ("bt_aligner", "bt_verifier"):
        counts = read_json(finished / system / "train/stage.json")["counts"]
        assert counts["questions"] == 4 and counts["steps"] > 1
        for id, entries in read_json(finished / system / "read/test.nbest.json").items():
            best = entries[0]
            assert examples[id].context[best["start"] : best["end"]] == best["text"]
    report = read_json(finished / "report.json")
    assert list(report["systems"]) == list(SYSTEMS) and len(report["significance"]) == 6
    assert not (finished / "source").exists(), "the given reader was used"


def test_systems_share_what_was_translated(finished):
    assert list((finished / "translations").iterdir()), "the cache on disk"
    log = (finished.parent / "stderr.txt").read_text()
    assert log.count("back_translation/test: questions 4") == 1
    assert log.count("back_translation/test: done before") == 3


@pytest.fixture
def begin(begin_reading, reading_run):
    """begin(translator, **values): bt_raw with a translator, on the reader of the finished run."""
    source = str(reading_run / "source/model")

    def make(translator, **changes):
        both = {f"translation.{name}": translator for name in ("forward", "backward")}
        given = {"model.pretrained": source, "systems": ("bt_raw",), "data.max_evaluate": 4}
        return begin_reading(**given | both | changes)

    return make


def test_program_that_is_missing_stops_before_a_reader_trains(begin):
    clmrc = begin("command:no-such-program")
    with pytest.raises(InputError, match="no program 'no-such-program'"):
        clmrc.train()
    assert not clmrc.run.path("source").exists()


def test_file_of_translations_lists_what_it_lacks(begin, tmp_path):
    file = tmp_path / "translations.jsonl"
    file.write_text("")
    with pytest.raises(InputError, match=r"translations\.jsonl\.missing\.jsonl"):
        begin(f"file:{file}").train()
    assert len((tmp_path / "translations.jsonl.missing.jsonl").read_text().splitlines()) == 8
