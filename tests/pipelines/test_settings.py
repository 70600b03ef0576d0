"""Where a config becomes settings: every key and every choice is checked before any work."""

import importlib.util

import ml_collections
import pytest

from clmrc_jax.files import InputError
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.pipelines.settings import EvaluationSettings, build, cora_settings, plain


@pytest.fixture(scope="module")
def configs(repository):
    """The module configs/cora.py."""
    spec = importlib.util.spec_from_file_location("cora_config", repository / "configs/cora.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("preset", ["demo", "smoke", "facts", "paper", "squads"])
def test_every_preset_becomes_settings(configs, preset):
    config = configs.get_config(preset)
    settings = cora_settings(config)
    assert settings.name == f"cora:{preset}"
    assert hash(settings.retriever) and hash(settings.generator_format), "lists became tuples"
    assert settings.retriever.steps == tuple(config.retriever.steps)
    assert cora_settings(plain(settings)) == settings, "a workdir's config.json reads back"


def test_paper_preset_has_the_published_numbers(configs):
    settings = cora_settings(configs.get_config("paper"))
    assert settings.rounds == 2 and settings.index.top_k == 20
    assert settings.retriever.batch_size == 128 and settings.retriever.hard_negatives == 1
    assert settings.retriever_optimizer.learning_rate == 2e-5
    assert settings.retriever_optimizer.clip_norm == 16, "2.0 on gradients averaged over 8 devices"
    assert settings.generator.batch_size == 32 and settings.generator_format.passages == 15
    assert settings.generator_format.source_length == 1000
    assert (settings.generator.beams, settings.generator.max_length) == (4, 20)
    assert settings.generator.answer_passages == settings.generator.synthetic_after_epoch == 3


def test_demo_differs_from_the_paper_in_sizes_and_data_alone(configs):
    """No rule of the method may be switched off to make the demo run."""
    paper, demo = (cora_settings(configs.get_config(x)) for x in ("paper", "demo"))
    assert demo.rounds == paper.rounds and demo.retriever_head == paper.retriever_head
    for name in ("positives", "mask_duplicates", "mask_articles", "hard_negatives", "temperature"):
        assert getattr(demo.retriever, name) == getattr(paper.retriever, name), name
    for name in ("synthetic_after_epoch", "beams", "answer_passages"):
        assert getattr(demo.generator, name) == getattr(paper.generator, name), name
    assert demo.generator.synthetic_share >= paper.generator.synthetic_share
    for name in ("language_links", "link_languages", "copy_numbers", "match", "unsure"):
        assert getattr(demo.mining, name) == getattr(paper.mining, name), name
    assert paper.mining.strip_disambiguation and not demo.mining.strip_disambiguation, (
        "data: no wiki"
    )
    assert demo.synthetic_languages == paper.synthetic_languages
    assert demo.generator_format.tag == paper.generator_format.tag == "single"


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("sead", 1, "config key sead does not exist; known here: name, seed, rounds"),
        ("retriever.batch", 8, "config key retriever.batch does not exist; known.*batch_size"),
        ("index.scann.leafs", 8, "config key index.scann.leafs does not exist; known.*leaves"),
        ("retriever_head.width", 8, "config key retriever_head.width does not exist.*pooling"),
        ("corpus.kind", "wiki", "corpus.kind 'wiki': choose one of world_facts, squads, files"),
        ("generator_format.tag", "two", "config generator_format.tag must be one of single"),
        ("mining.match", "fuzzy", "mining.match must be one of .*got 'fuzzy'"),
        ("mining.unsure", "kept", "mining.unsure must be one of .*got 'kept'"),
        ("retriever.positives", "all", "config retriever.positives 'all': choose one of uniform"),
        ("retriever_head.pooling", "max", "retriever_head.* must be 'cls' or 'mean', got 'max'"),
        ("index.kind", "faiss", "config index.kind 'faiss': choose one of exact, scann, numpy"),
        ("evaluation.split", "valid", "evaluation.split 'valid': choose one of train, dev, test"),
        ("rules", (("width", "data"),), "rules: 'width' is no logical axis; known: batch, heads"),
        ("profile", (20,), r"profile is \(20,\); give \(first step, last step\)"),
        ("evaluation.scorer", "best", "evaluation.scorer 'best': choose one of legacy, fixed"),
        ("corpus.squads", ("f.json",), r"config corpus.squads: f.json .*--config.corpus.squads="),
        (
            "corpus.squads",
            (("f.json", "en", "x"),),
            r"config corpus.squads: .* is not \(path, lang",
        ),
        ("corpus.test", "('f.jsonl', 'xx')", "config corpus.test, f.jsonl: unknown language code"),
        ("corpus.split_by", "title", "config corpus.split_by 'title': choose one of hash, first"),
        ("corpus.train_share", 1.0, "config corpus.train_share is 1.0; it must be between 0 and 1"),
        ("corpus.max_questions", -1, "config corpus.max_questions is -1; it must be at least 0"),
        ("retriever.steps", (), r"config retriever.steps is \(\); give one positive integer"),
        ("generator.steps", (4, 0), r"config generator.steps is \(4, 0\); give one positive"),
        ("rounds", -1, "rounds is -1; it must be at least 0"),
        ("synthetic_languages", ("ja", "xx"), "synthetic_languages: unknown language code 'xx'"),
        ("mining.link_languages", ("xx",), "mining.link_languages: unknown language code 'xx'"),
        ("mining.retrieved", -1, "mining.retrieved is -1; it must be at least 0"),
        ("generator.max_length", 1, "config generator.max_length is 1; it must be at least 2"),
        ("generator.min_length", 17, "config generator.min_length is 17, above max_length 16"),
        ("generator.beams", 0, "config generator.beams is 0; it must be at least 1"),
        ("generator.synthetic_share", 1.5, "config generator.synthetic_share is 1.5; .* 0 to 1"),
        ("generator.label_smoothing", 1.0, "config generator.label_smoothing is 1.0; .* below 1"),
        ("generator.batch_size", -4, "config generator.batch_size is -4; it must be at least 1"),
        ("generator.accumulate", 0, "config generator.accumulate is 0; it must be at least 1"),
        ("retriever.batch_size", 0, "config retriever.batch_size is 0; it must be at least 1"),
        ("retriever.accumulate", -1, "config retriever.accumulate is -1; it must be at least 1"),
        ("retriever_head.projection", -8, "retriever_head.* projection is -8; .* at least 0"),
        ("retriever_model.vocabulary", 0, "config retriever_model.vocabulary is 0; .* at least 1"),
        ("retriever_model.sizes.dtype", "float99", "retriever_model.sizes.dtype 'float99': choose"),
        ("generator_model.sizes.dtype", "int8", "sizes.dtype 'int8': choose one of float32, bfl"),
        ("index.scann.dimensions_per_block", 0, "index.scann.dimensions_per_block is 0; it must"),
        ("retriever.embeddings", "float8", "config retriever.embeddings 'float8': choose one of"),
        ("retriever.temperature", 0.0, "config retriever.temperature is 0.0; it must be above 0"),
        ("retriever.english_first", 1.0, "config retriever.english_first is 1.0; .* below 1"),
        ("retriever.encode_batch", 0, "config retriever.encode_batch is 0; it must be at least 1"),
        ("retriever.best", True, "config retriever.best=True .*: set validate_every"),
        ("retriever_format.passage_buckets", (), r"passage_buckets is \(\); give one padded"),
        ("retriever_format.question_buckets", (64, 32), r"question_buckets is \(64, 32\); .*asc"),
        ("generator_format.source_buckets", (64, 64), r"generator_format.source_buckets is \(64"),
        ("generator_format.passages", -1, "config generator_format.passages is -1; .* at least 0"),
        ("index.top_k", 0, "config index.top_k is 0; it must be at least 1"),
        ("index.max_rows_on_device", 0, "config index.max_rows_on_device is 0; .* at least 1"),
        ("evaluation.recall_at", 50, "evaluation.recall_at is 50, but only index.top_k = 20"),
    ],
)
def test_wrong_key_or_value_is_named_with_what_is_known(configs, key, value, message):
    values = configs.get_config("smoke").to_dict()
    *path, last = key.split(".")
    inner = values
    for name in path:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(InputError, match=message):
        cora_settings(values)


def test_rules_are_pairs_on_the_command_line_and_a_mapping_in_config_json(configs):
    config = configs.get_config("smoke")
    assert cora_settings(config).rules == {}
    config.rules = (("embed", "data"),)
    settings = cora_settings(config)
    assert settings.rules == {"embed": "data"}
    assert cora_settings(plain(settings)) == settings


def test_missing_key_is_named(configs):
    values = configs.get_config("smoke").to_dict()
    del values["mining"]
    with pytest.raises(InputError, match="config key mining is missing"):
        cora_settings(values)


def test_build_takes_made_dataclasses_and_config_dicts():
    assert build(EvaluationSettings, {"split": "dev"}, "").split == "dev"
    config = ml_collections.ConfigDict({"hidden_size": 8, "num_attention_heads": 2})
    assert build(BertConfig, config.to_dict(), "x.").hidden_size == 8


def test_language_codes_are_spelt_as_in_the_table(configs):
    config = configs.get_config("smoke")
    config.synthetic_languages = ("zh-CN", "ja")
    config.mining.link_languages = ("zh-TW",)
    settings = cora_settings(config)
    assert settings.synthetic_languages == ("zh_cn", "ja")
    assert settings.mining.link_languages == ("zh_tw",)
