"""The four back-translation systems with `cat` as translator: everything else is real."""

import sys

import pytest

from clmrc_jax.data.world_facts.cldr import load_world_facts
from clmrc_jax.data.world_facts.reading import reading_examples
from clmrc_jax.files import InputError, read_json
from clmrc_jax.pipelines.back_translation import SYSTEMS
from clmrc_jax.pipelines.clmrc import Clmrc
from clmrc_jax.pipelines.clmrc_settings import BACK_TRANSLATION, clmrc_settings
from clmrc_jax.pipelines.models import builtin_folder
from clmrc_jax.pipelines.stages import Run
from clmrc_jax.pipelines.sweep_points import load_sweep, share_translations
from clmrc_jax.train.pretrained import load_bert
from clmrc_jax.train.readers import load_reader

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


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_program_that_is_missing_stops_before_a_reader_trains(begin, direction):
    missing = {f"translation.{direction}": "command:no-such-program"}
    clmrc = begin("command:cat", systems=("zero_shot", "bt_raw"), **missing)
    with pytest.raises(InputError, match="no program 'no-such-program'"):
        clmrc.train()
    assert not clmrc.run.path("source").exists()


def test_seeds_of_a_sweep_translate_nothing_twice(
    repository, reading_config, reading_run, tmp_path
):
    program, log = tmp_path / "count.py", tmp_path / "lines.txt"
    program.write_text(
        f"import sys\nlog = open({str(log)!r}, 'a')\n"
        "for line in sys.stdin:\n    log.write(line)\n    sys.stdout.write(line)\n"
    )
    source, spec = str(reading_run / "source/model"), f"command:{sys.executable} {program}"
    given = {
        "systems": "('bt_raw',)",
        "data.max_evaluate": "4",
        "model.pretrained": source,
        "source_model": source,
        "translation.forward": spec,
        "translation.backward": spec,
    }
    config = str(repository / "configs/dual_bert.py:smoke")
    plan = load_sweep(config, '{"seed": [0, 1]}', list(given.items()))
    sent = []
    for point in share_translations(plan, tmp_path / "sweep").points:
        config = reading_config("smoke", **{"model.sizes": {}}, **point.fixed, **point.values)
        run = Run(tmp_path / "sweep" / point.name, quiet=True)
        Clmrc(clmrc_settings(config), run).train()
        assert len(read_json(run.path("back_translation/test/answers.json"))) == 4
        sent.append(log.read_text().splitlines())
    assert len(sent[0]) > 8, "passages, questions and answers"
    assert sent[1] == sent[0], "the second seed found all in the sweep's cache"
    assert (tmp_path / "sweep/translations").is_dir()


def test_cache_in_a_bucket_is_refused_with_the_flag_that_names_another(begin):
    with pytest.raises(InputError, match="must be on a local disk.*translation.cache=FOLDER"):
        begin("command:cat", **{"translation.cache": "gs://bucket/w"}).train()


def test_aligner_reads_with_an_encoder_of_its_own(begin):
    tiny = {"format.max_length": 64, "format.source_length": 64, "format.max_query_length": 24}
    tiny |= {"data.max_source": 4, "format.doc_stride": 32, "source_recipe.epochs": 0.1}
    clmrc = begin(
        "command:cat", systems=("bt_aligner",), **tiny, **{"translation.reader": "builtin"}
    )
    reader, model, _ = clmrc.source_reader
    builtin, _ = load_bert(builtin_folder("bert"))
    assert model.hidden_size == builtin.hidden_size > clmrc.reader.bert.hidden_size == 16
    assert reader.tokenizer_folder == builtin_folder("bert")
    assert load_reader(clmrc.run.path("source_reader/model")).bert == model
    assert not clmrc.run.path("source").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.pretrained": "builtin"}, "hidden_size 16, not .* than model.pretrained: give"),
        ({"translation.reader": "builtin"}, "hidden_size 16, not .* than translation.reader: give"),
        (
            {"translation.reader": "builtin", "systems": ("bt_verifier",)},
            "other sizes .* than translation.reader",
        ),
    ],
)
def test_source_model_of_another_size_than_the_named_encoder_is_refused(
    begin, reading_run, changes, message
):
    clmrc = begin("command:cat", source_model=str(reading_run / "source/model"), **changes)
    with pytest.raises(InputError, match=message):
        clmrc.train()
    assert not clmrc.run.path("back_translation").exists()


def test_file_of_translations_lists_what_it_lacks(begin, tmp_path):
    file = tmp_path / "translations.jsonl"
    file.write_text("")
    with pytest.raises(InputError, match=r"translations\.jsonl\.missing\.jsonl"):
        begin(f"file:{file}").train()
    assert len((tmp_path / "translations.jsonl.missing.jsonl").read_text().splitlines()) == 8
