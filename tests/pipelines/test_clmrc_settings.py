"""Configs of reading comprehension: presets that build, and mistakes found before any work."""

import dataclasses
import importlib.util
import json
import math

import jax
import pytest

from clmrc_jax.data.char_split import split_words
from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide, write_aligned, write_squad
from clmrc_jax.evaluate.mrc_published import TABLES
from clmrc_jax.files import InputError, read_json
from clmrc_jax.models import bert, dual_bert
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dual_bert import DualBertConfig
from clmrc_jax.pipelines.clmrc_settings import BACK_TRANSLATION, SYSTEMS, clmrc_settings
from clmrc_jax.pipelines.sweep_points import load_sweep
from clmrc_jax.train.pretrained import save_bert
from clmrc_jax.train.readers import load_reader


@pytest.fixture(scope="module")
def configs(repository):
    """{"dual_bert": module, "back_translation": module}"""
    found = {}
    for name in ("dual_bert", "back_translation"):
        path = repository / "configs" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"config_{name}", path)
        found[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    return found


@pytest.fixture
def settings(reading_config):
    """settings(preset, **{dotted key: value}) of configs/dual_bert.py."""
    return lambda preset="smoke", **changes: clmrc_settings(reading_config(preset, **changes))


def test_every_preset_builds_and_is_named_after_itself(configs):
    for name in configs["dual_bert"].PRESETS:
        made = clmrc_settings(configs["dual_bert"].get_config(name))
        assert made.name == f"dual_bert:{name}" and set(made.systems) <= set(SYSTEMS)
    module = configs["back_translation"]
    for name in module.APERTIUM:
        made = clmrc_settings(module.get_config(name))
        assert made.name == f"back_translation:{name}"
        assert made.systems == tuple(BACK_TRANSLATION)
    for name in module.ROWS:
        config = module.get_config(name)
        with pytest.raises(InputError, match="costs money.*consent=True"):
            clmrc_settings(config)
        config.translation.consent = True
        assert clmrc_settings(config).name == f"back_translation:{name}"
    for module in configs.values():
        with pytest.raises(ValueError, match="has no preset 'big'"):
            module.get_config("big")


def test_rows_4_and_5_read_english_with_the_encoder_of_row_2(configs):
    module = configs["back_translation"]
    read = {name: module.get_config(name) for name in ("t2_02", "t2_03", "t2_04", "t2_05")}
    for config in read.values():
        reader = config.translation.reader or config.model.pretrained
        assert reader == "google-bert/bert-large-cased"
    assert read["t2_04"].model.pretrained == "google-bert/bert-base-multilingual-cased"


def test_every_published_row_has_a_preset_and_shows_its_numbers(configs):
    wanted = {row.preset for rows in TABLES.values() for row in rows}
    ours = {name: module.PUBLISHED for name, module in configs.items()}
    assert wanted - {x for x in wanted if x.startswith("ref_")} <= set().union(*ours.values())
    assert ours["dual_bert"]["t2_08"]["drcd_dev em"] == 84.5
    assert ours["back_translation"]["t2_05"]["cmrc_test f1"] == 86.8
    for name, row, scores in (
        ("dual_bert", "t4_no_dynlambda", "cmrc_dev em 67.3, cmrc_dev f1 87.5"),
        ("back_translation", "t3_2", "ja em 37.3, ja f1 58.0, fr em 47.4"),
    ):
        text = configs[name].ROWS[row].__doc__
        assert scores in text and f"--config=configs/{name}.py:{row}" in text and "Cost: " in text


def test_rows_of_the_paper_are_scored_by_the_official_scorers(configs):
    for module in configs.values():
        assert {module.get_config(name).scorer for name in module.ROWS} == {"legacy"}


@pytest.mark.parametrize(
    "config, sweep, points",
    [
        ("dual_bert", "table2", 7 * 3),
        ("dual_bert", "table2_all", 12 * 3),
        ("dual_bert", "table3", 3),
        ("dual_bert", "table3_all", 3 * 3),
        ("dual_bert", "table4", 6 * 3),
        ("dual_bert", "figure3_squad", 12 * 5),
        ("dual_bert", "figure3_drcd", 10 * 5),
        ("dual_bert", "demo", 3),
        ("back_translation", "table2", 5 * 3),
        ("back_translation", "table3", 2 * 3),
    ],
)
def test_sweeps_load_with_published_numbers_and_a_baseline(repository, config, sweep, points):
    found = load_sweep(str(repository / "configs" / f"{config}.py"), sweep)
    assert len(found.points) == points
    assert sweep == "demo" or all(point.published for point in found.points)
    assert not found.baseline or found.baseline in {point.preset for point in found.points}


def test_ablations_change_what_they_say(settings):
    changed = {
        "t4_no_aux": ("lambda_mode", "none"),
        "t4_no_dynlambda": ("lambda_mode", "const"),
        "t4_no_saa": ("adaptive", False),
    }
    full = vars(settings("t4_full").dual_bert(BertConfig()))
    for preset, (name, value) in changed.items():
        other = vars(settings(preset).dual_bert(BertConfig()))
        assert {k: v for k, v in other.items() if full[k] != v} == {name: value}


def test_every_field_of_dual_bert_is_a_key_of_its_own_type(configs):
    kinds = {f.name: f.type for f in dataclasses.fields(DualBertConfig) if f.name != "bert"}
    dual = configs["dual_bert"].get_config("files").dual
    assert {name: dual.get_type(name) for name in dual} == {"mode": str} | kinds


def test_official_preset_is_the_released_code_throughout(settings):
    made = settings("official")
    dual = made.dual_bert(BertConfig())
    assert (dual.residual, dual.lambda_mode, dual.equal_lengths) == ("source", "official_dot", True)
    # The released sum goes over the 8 rows of one of 8 TPU cores, not over the batch of 64.
    assert (made.target_recipe.batch_size, dual.lambda_group_size) == (64, 8)
    assert (made.format.mode, made.decoding.text, made.data.locate) == ("official",) * 2 + (
        "first",
    )
    assert (made.target_recipe.optimizer, made.target_recipe.schedule) == (
        "official_adam",
        "official",
    )


def test_phases_are_the_training_sets_that_the_systems_need(settings):
    both = settings(systems=("zero_shot", "plain", "dual_squad"))
    assert both.phases() == ["source", "target", "bilingual"]
    assert settings(systems=("dual_squad",), source_model="folder").phases() == ["bilingual"]


FILE = ("f.json", "ja")


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"systems": ("plain", "magic")},
            r"systems .*magic.*choose from zero_shot, plain, .*bt_raw",
        ),
        ({"systems": ()}, "at least one"),
        ({"dual.mode": "papers"}, "dual.mode 'papers': choose one of paper, official"),
        ({"dual.residual": "both"}, "config dual: residual 'both'.*target, source"),
        ({"dual.saa_chunk": 8, "dual.saa": "explicit"}, "config dual: saa_chunk"),
        ({"dual.lambda_group_size": 3}, "lambda_group_size 3 does not divide the 8 rows"),
        ({"dual.mode": "official", "format.source_length": 64}, "128 and source_length 64 differ"),
        ({"dual.residual": "source", "format.source_length": 64}, "residual='source' need equal"),
        ({"dual.equal_lengths": True, "format.source_length": 64}, "equal_lengths=True, resid"),
        ({"scorer": "lenient"}, "scorer 'lenient': choose one of legacy, fixed"),
        ({"decoding.text": "words"}, "text 'words': choose one of offsets, official"),
        ({"decoding.text": "official"}, "needs windows of format.mode 'official', not 'paper'"),
        ({"decoding.n_best": 0}, "config decoding.n_best is 0"),
        ({"decoding.null_threshold": math.nan}, "null_threshold is nan"),
        ({"data.exclude": tuple("e.json")}, r"exclude is 'e.json', and should be .*'e.json',"),
        (
            {"format.max_length": 43, "format.max_query_length": 40},
            "format.max_length 43 leaves a passage no room behind a question of max_query_length 40",
        ),
        ({"format.mode": "own"}, "config format.mode 'own'"),
        ({"format.doc_stride": 0}, "config format.doc_stride is 0"),
        ({"target_recipe.optimizer": "sgd"}, "target_recipe: optimizer name 'sgd'"),
        ({"source_recipe.schedule": "steps"}, "source_recipe: optimizer schedule 'steps'"),
        ({"target_recipe.batch_size": 0}, "target_recipe: batch_size and epochs must be positive"),
        ({"source_recipe.batch_size": -4}, "source_recipe: batch_size and epochs must be positive"),
        ({"training.accumulate": 0}, "config training.accumulate is 0, must be >= 1"),
        (
            {"model.sizes": {"dtype": "float99"}},
            "config model.sizes.dtype 'float99': choose one of",
        ),
        ({"training.accumulate": 3}, "batch_size 8 does not divide into training.accumulate 3"),
        ({"training.lengths": 0}, "config training.lengths is 0"),
        (
            {"training.dual_heads": "old"},
            "config training.dual_heads 'old': choose one of fresh, i",
        ),
        ({"target_recipe.frozen": "("}, r"target_recipe: optimizer frozen '\(' is no regex"),
        ({"training.predict_batch": 0}, "config training.predict_batch is 0"),
        ({"data.kind": "web"}, "config data.kind 'web': choose one of world_facts, files"),
        ({"data.locate": "last"}, "config data.locate 'last'"),
        ({"data.source": "xx"}, "xx"),
        ({"data.article_share": 1.0}, r"article_share is 1.0; it must be in \[0, 1\)"),
        ({"data.max_target": -1}, "max_target is -1"),
        ({"data.source_train": ("f.json", "en")}, r"source_train has an entry 'f.json'"),
        (
            {"data.bilingual_train": (FILE,)},
            r"bilingual_train has an entry .*every entry is .path, language, so",
        ),
        ({"data.evaluate": (("dev", *FILE, "bleu"),)}, "evaluate 'dev': scorer 'bleu': choose one"),
        ({"data.evaluate": (("a", *FILE, "drcd"),) * 2}, "evaluate 'a': every set needs a name"),
        ({"data.evaluate": (("train", *FILE, "drcd"),)}, "evaluate 'train'"),
        ({"data.evaluate": (("a/b", *FILE, "drcd"),)}, "evaluate 'a/b'"),
        ({"systems": ("bt_raw",)}, "translation.forward is '', and back-translation needs a trans"),
        ({"systems": ("bt_raw",), "translation.forward": "babel:x"}, "command:'apertium"),
        ({"translation.start": "middle"}, "config translation.start 'middle'"),
        (
            {
                "systems": ("bt_aligner", "bt_raw"),
                "translation.forward": "command:cat",
                "translation.backward": "command:cat",
                "data.evaluate": (("dev", *FILE, "squad2"),),
            },
            "'dev' is scored as 'squad2', and bt_raw would answer.*decoding.null_threshold=T",
        ),
    ],
)
def test_mistakes_are_found_before_any_work_and_say_what_to_do(settings, changes, message):
    with pytest.raises(InputError, match=message):
        settings(**changes)


# The `official` preset from files to scores, with a WordPiece encoder as mBERT is one.
CITIES = ("北京", "上海", "香港", "東京", "柏林", "巴黎", "羅馬", "首爾")
NAMES = ("Beijing", "Shanghai", "Hong Kong", "Tokyo", "Berlin", "Paris", "Rome", "Seoul")
MEASURES = {"f1", "em", "average"}


def meeting(number: int) -> MrcExample:
    """A question in Chinese, its answer beside a Latin word, with its English translation."""
    city, name = CITIES[number % len(CITIES)], NAMES[number % len(NAMES)]
    context = f"第{number}屆會議在{city}(Meeting{number})舉行,共有{number + 20}人參加。"
    text = f"{city}(Meeting{number})"
    english = f"Meeting number {number} was held in {name}, with {number + 20} people."
    return MrcExample(
        id=f"zh{number}",
        lang="zh_tw",
        title="會議",
        question=f"第{number}屆會議在哪裡舉行?",
        context=context,
        answers=(Answer(text, context.index(text)),),
        source=SourceSide(
            "en", f"Where was meeting {number} held?", english, Answer(name, english.index(name))
        ),
    )


MEETINGS = [meeting(number) for number in range(10)]


@pytest.fixture(scope="module")
def meeting_files(tmp_path_factory):
    """Flags of a run: en.json for the source phase, aligned.json to train and to be scored."""
    folder = tmp_path_factory.mktemp("files")
    source = [
        MrcExample(f"en{x.id}", "en", "meetings", side.question, side.context, (side.answer,))
        for x in MEETINGS
        for side in [x.source]
    ]
    write_squad(folder / "en.json", source)
    write_aligned(folder / "aligned.json", MEETINGS)
    aligned = str(folder / "aligned.json")
    return (
        f"--config.data.source_train=(('{folder / 'en.json'}', 'en'),)",
        f"--config.data.bilingual_train=(('{aligned}', 'zh_tw', 'en'),)",
        f"--config.data.evaluate=(('drcd_dev', '{aligned}', 'zh_tw', 'drcd'),)",
    )


@pytest.fixture(scope="module")
def wordpiece_encoder(tmp_path_factory):
    """A folder as the hub has mBERT's: vocab.txt, config.json, weights; random and tiny."""
    folder = tmp_path_factory.mktemp("encoder")
    texts = [t for x in MEETINGS for t in (x.context, x.question)]
    texts += [t for x in MEETINGS for t in (x.source.context, x.source.question)]
    words = [word for text in texts for word in split_words(text)]
    letters = sorted({char for word in words for char in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters)]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    )
    config = bert.BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    names = ("vocab.txt", "tokenizer_config.json")
    params = bert.init(config, jax.random.key(0))
    save_bert(folder / "mbert", config, params, [folder / name for name in names])
    return folder / "mbert"


def test_official_preset_runs_from_files_to_scores(
    train_reader, meeting_files, wordpiece_encoder, tmp_path
):
    flags = (
        *meeting_files,
        f"--config.model.pretrained={wordpiece_encoder}",
        "--config.model.vocabulary=0",
    )
    flags += ("--config.model.sizes.dtype=float32", "--config.target_recipe.batch_size=8")
    flags += ("--config.source_recipe.batch_size=4", "--config.training.predict_batch=4")
    status, out, err = train_reader(tmp_path / "w", *flags, config="configs/dual_bert.py:official")
    assert status == 0, err
    reader = load_reader(tmp_path / "w/dual_squad/train/model")
    assert reader.kind == "dual" and reader.reading["format"]["mode"] == "official"
    assert reader.dual == dual_bert.official(reader.dual.bert, lambda_group_size=8)
    answers = read_json(tmp_path / "w/dual_squad/read/drcd_dev.json")
    contexts = {x.id: x.context for x in MEETINGS}
    assert answers and set(answers) <= set(contexts)
    # The released code joins pieces and takes spaces out: what is left is text of the passage.
    for name, answer in answers.items():
        assert answer.replace(" ", "") in contexts[name].replace(" ", "")
    report = read_json(tmp_path / "w/report.json")
    assert report["scorer"] == "legacy" and report["training"]["bilingual"] == 4
    scores = report["systems"]["dual_squad"]["drcd_dev"]
    assert scores["count"] == len(answers) and MEASURES < set(scores)
