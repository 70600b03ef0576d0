"""What evaluation lacks comes to light before the training, with the key that mends it."""

import importlib.util

import pytest
from etils import epath

from clmrc_jax.evaluate import segment
from clmrc_jax.files import InputError, write_jsonl
from clmrc_jax.pipelines import train
from clmrc_jax.pipelines.corpora import Corpus, prepare
from clmrc_jax.pipelines.evaluation_checks import check_questions, check_settings, link_notes
from clmrc_jax.pipelines.settings import cora_settings

QUESTION = {"id": "q1", "question": "who?", "lang": "en", "answers": ["Ann"]}
PASSAGE = {"id": "p1", "lang": "en", "title": "Song", "text": "Ann sang"}


@pytest.fixture(scope="module")
def configs(repository):
    spec = importlib.util.spec_from_file_location("cora_config", repository / "configs" / "cora.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files_config(configs, tmp_path):
    """A tiny config of kind "files" whose corpus has no test questions."""
    config = configs.get_config("smoke")
    config.corpus.kind = "files"
    row = {"q_id": "q1", "question": "who?", "lang": "en", "answers": ["Ann"]}
    rows = {"passages": PASSAGE, "train": QUESTION, "annotated": row | {"positive_ctxs": [PASSAGE]}}
    for name, content in rows.items():
        write_jsonl(tmp_path / f"{name}.jsonl", [content])
        config.corpus[name] = str(tmp_path / f"{name}.jsonl")
    return config


def no_module(monkeypatch, *missing):
    """As on a machine without the extra [segment]."""
    real = segment.importlib.import_module

    def import_module(name):
        if name in missing:
            raise ImportError(f"No module named {name!r}")
        return real(name)

    monkeypatch.setattr(segment.importlib, "import_module", import_module)
    segment._mecab.cache_clear()
    segment._segmenter.cache_clear()


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_split_without_a_file_is_refused_before_the_corpus_is_read(
    files_config, tmp_path, dry_run
):
    message = r"evaluation.split is 'test' and corpus.test is empty.*--config.corpus.test=FILE"
    with pytest.raises(InputError, match=message):
        train.main(files_config, str(tmp_path / "w"), dry_run=dry_run)
    assert not (tmp_path / "w" / "corpus").exists()


def test_a_dry_run_without_files_names_those_that_the_run_needs(configs, tmp_path, capsys):
    planned = train.main(configs.get_config("paper"), str(tmp_path), dry_run=True)
    needed = "the run itself needs corpus.passages, corpus.train, corpus.annotated, corpus.test"
    assert needed in planned["notes"]
    assert not [
        x
        for x in train.main(configs.get_config("demo"), "w", dry_run=True)["notes"]
        if "needs" in x
    ]


def test_a_run_without_files_names_all_that_it_needs_at_once(configs, tmp_path):
    message = (
        "corpus.passages, corpus.train, corpus.annotated, corpus.test are empty: kind 'files' "
        "needs .*Give --config.corpus.passages=FILE .*--config.corpus.test=FILE$"
    )
    with pytest.raises(InputError, match=message):
        train.main(configs.get_config("paper"), str(tmp_path / "w"))
    assert not (tmp_path / "w" / "corpus").exists()


def test_one_missing_file_is_named_alone(files_config):
    files_config.corpus.train, files_config.evaluation.split = "", "train"
    with pytest.raises(InputError, match="^corpus.train is empty: kind 'files'"):
        check_settings(cora_settings(files_config))


LINK_NOTE = (
    "no mining candidates come from language links: corpus.links is empty; give "
    "--config.corpus.links=FILE, or set --config.mining.language_links=False"
)


def test_missing_links_are_said_by_plan_and_run(files_config, tmp_path, capsys):
    files_config.corpus.test = files_config.corpus.train
    files_config.corpus.keep_evaluated = True
    files_config.rounds, files_config.mining.language_links = 1, True
    planned = train.main(files_config, "w", dry_run=True)["notes"]
    assert LINK_NOTE in planned and any("as if there were links" in note for note in planned)
    prepare(cora_settings(files_config).corpus, epath.Path(tmp_path / "corpus"))
    corpus = Corpus.open(tmp_path / "corpus")
    capsys.readouterr()
    check_questions(cora_settings(files_config), corpus)
    assert capsys.readouterr().err.splitlines() == [LINK_NOTE]


@pytest.mark.parametrize(
    "changes",
    [{"corpus.links": "links.jsonl"}, {"mining.language_links": False}, {"rounds": 0}],
)
def test_links_that_nothing_asks_for_are_not_missed(files_config, changes):
    files_config.update_from_flattened_dict(changes)
    assert link_notes(cora_settings(files_config)) == []


def test_squads_have_no_links(configs):
    config = configs.get_config("squads")
    assert link_notes(cora_settings(config)) == [], "a round that mines nothing"
    config.update({"generate": True, "rounds": 1})
    (note,) = link_notes(cora_settings(config))
    assert "corpus.kind 'squads' has none; set --config.mining.language_links=False" in note


def test_a_split_that_turns_out_empty_is_refused_before_training(configs, tmp_path):
    config = configs.get_config("squads")
    write_squad(tmp_path / "f.json")
    config.corpus.squads = ((str(tmp_path / "f.json"), "en"),)
    config.corpus.update({"split_by": "first", "train_share": 0.5})
    config.evaluation.split = "dev"  # a tenth of two training questions
    config.retriever_model.update({"pretrained": "nowhere"})
    with pytest.raises(InputError, match="evaluation.split 'dev': this corpus has no question"):
        train.main(config, str(tmp_path / "w"))


def write_squad(path):
    articles = [
        {
            "title": f"T{i}",
            "paragraphs": [
                {
                    "context": f"text {i}",
                    "qas": [{"id": f"q{i}", "question": "?", "answers": [{"text": "text"}]}],
                }
            ],
        }
        for i in range(4)
    ]
    write_jsonl(path, [{"data": articles}])


@pytest.mark.parametrize(
    "scorer, missing, package",
    [("legacy", "MeCab", "MeCab"), ("fixed", "pythainlp", "pythainlp"), ("portable", "MeCab", "")],
)
def test_a_missing_segmenter_is_told_with_its_pip_command(
    configs, smoke_corpus, monkeypatch, scorer, missing, package
):
    config = configs.get_config("smoke")
    config.evaluation.scorer = scorer
    no_module(monkeypatch, missing)
    settings = cora_settings(config)
    if not package:
        check_questions(settings, smoke_corpus)
        return
    message = rf"evaluation.scorer '{scorer}': .*'{package}'.*run: pip install \"clmrc_jax\[segment"
    with pytest.raises(InputError, match=message):
        check_questions(settings, smoke_corpus)
    config.update({"generate": False, "rounds": 0})
    check_questions(cora_settings(config), smoke_corpus)


def test_only_languages_with_answers_need_a_segmenter(configs, tmp_path, monkeypatch):
    """`legacy` cuts Japanese alone; English questions need nothing."""
    config = configs.get_config("smoke")
    config.evaluation.scorer = "legacy"
    no_module(monkeypatch, "MeCab")
    for name in ("dev.jsonl", "questions.dev.jsonl"):
        (tmp_path / name).write_text("")
    write_jsonl(tmp_path / "questions.test.jsonl", [QUESTION, QUESTION | {"id": "2", "lang": "th"}])
    corpus = Corpus(epath.Path(tmp_path), None, None)
    check_questions(cora_settings(config), corpus)
    write_jsonl(tmp_path / "questions.test.jsonl", [QUESTION | {"lang": "ja"}])
    with pytest.raises(InputError, match="cutting Japanese text into words needs"):
        check_questions(cora_settings(config), corpus)


@pytest.mark.parametrize("model, name", [("retriever", "dev_annotated"), ("generator", "dev")])
def test_validation_on_the_way_needs_its_file(files_config, tmp_path, model, name):
    files_config.corpus.test = files_config.corpus.train
    files_config[model].validate_every = 2
    message = rf"{model}.validate_every is set and corpus.{name} is empty.*--config.corpus.{name}="
    with pytest.raises(InputError, match=message):
        train.main(files_config, str(tmp_path / "w"), dry_run=True)


@pytest.mark.parametrize("model", ["retriever", "generator"])
def test_validation_on_the_way_needs_dev_questions(configs, tmp_path, model):
    config = configs.get_config("smoke")
    config[model].validate_every = 2
    write_jsonl(tmp_path / "questions.test.jsonl", [QUESTION])
    for name in ("dev.jsonl", "questions.dev.jsonl"):
        (tmp_path / name).write_text("")
    corpus = Corpus(epath.Path(tmp_path), None, None)
    with pytest.raises(InputError, match=f"{model}.validate_every is set, but this corpus has no"):
        check_questions(cora_settings(config), corpus)
