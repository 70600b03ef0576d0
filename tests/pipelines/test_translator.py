"""From parallel text to a folder that translates: a small language, learned in seconds."""

import contextlib
import dataclasses
import io
import json
import random

import pytest

from clmrc_jax.files import InputError
from clmrc_jax.pipelines import translator
from clmrc_jax.pipelines.stages import Run
from clmrc_jax.pipelines.translator_settings import translator_settings
from clmrc_jax.translate.marian_translator import MarianTranslator

WORDS = {"red": "rojo", "blue": "azul", "big": "grande", "small": "chico", "old": "viejo",
         "dog": "perro", "cat": "gato", "house": "casa", "tree": "nogal", "boat": "barco"}  # fmt: skip
ADJECTIVES, NOUNS = tuple(WORDS)[:5], tuple(WORDS)[5:]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Phrases whose words change places: "big red dog" is "perro rojo grande"."""
    rng, rows = random.Random(0), set()
    while len(rows) < 500:
        phrase = [*rng.choices(ADJECTIVES, k=rng.randint(0, 2)), rng.choice(NOUNS)]
        phrase += ["and", rng.choice(ADJECTIVES), rng.choice(NOUNS)]
        turned = phrase.index("and")
        sides = (phrase[:turned][::-1], phrase[turned + 1 :][::-1])
        spanish = " y ".join(" ".join(WORDS[word] for word in side) for side in sides)
        rows.add(f"{' '.join(phrase)}\t{spanish}\n")
    path = tmp_path_factory.mktemp("text") / "en-es.tsv"
    path.write_text("".join(sorted(rows)))
    return path


def config(corpus):
    return {
        "task": "translator",
        "name": "translator:toy",
        "seed": 0,
        "directions": ("en-es",),
        "train": (("en-es", str(corpus)),),
        "held_out": 40,
        "vocabulary": 300,
        "sizes": {
            "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
            "dropout": 0.0, "init_std": 0.1,
        },
        "buckets": (24,),
        "steps": 200,
        "batch_tokens": 768,
        "valid_rows": 16,
        "log_every": 25,
        "save_every": 1000,
        "label_smoothing": 0.0,
        "search": {"num_beams": 2, "max_length": 24},
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 20, "b2": 0.98},
    }  # fmt: skip


def train(settings, workdir):
    made = translator.Translation(settings, Run(workdir, quiet=True))
    made.train()
    return made


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """(workdir, trained Translation). A trace was asked for, of steps that it has not."""
    workdir = tmp_path_factory.mktemp("translator")
    settings = translator_settings({**config(corpus), "profile": (900, 901)})
    with contextlib.redirect_stderr(io.StringIO()) as told:
        made = train(settings, workdir)
    assert "translator: its steps 1..200 lie outside profile=(900, 901)" in told.getvalue()
    return workdir, made


def test_trained_translator_translates_unseen_phrases(run):
    workdir, made = run
    scores = made.scores["en-es"]
    assert scores["count"] > 20 and scores["chrf"] > 80, scores
    found = MarianTranslator(workdir / "export").translate(
        ["big blue cat and old boat"], "en", "es"
    )
    assert set(found[0].split()) >= {"gato", "barco", "y"}, found
    rows = [json.loads(line) for line in (workdir / "test/en-es.jsonl").read_text().splitlines()]
    assert len(rows) == scores["count"] and set(rows[0]) == {"source", "reference", "translation"}


def test_validation_scores_are_logged(run):
    workdir, _ = run
    lines = (workdir / "model/translator/metrics.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert last["loss"] < 0.5 * first["loss"]
    assert last["valid/chrf"] > 80 and 0 <= last["valid/bleu"] < 100.01


def test_half_trained_translator_goes_on_with_its_own_settings_alone(run):
    workdir, made = run
    settings = dataclasses.replace(made.settings, batch_tokens=512)
    changed = translator.Translation(settings, Run(workdir, quiet=True))
    changed.tokenizer = made.tokenizer
    with pytest.raises(InputError, match="made with batch_tokens=768, now batch_tokens=512"):
        changed._train_model(workdir / "model")


def test_finished_run_is_not_repeated_and_reports_as_json(run, corpus, capsys):
    workdir, made = run
    before = (workdir / "export/model.safetensors").stat().st_mtime_ns
    settings = dataclasses.replace(made.settings, profile=())  # no part of the result
    again = translator.Translation(settings, Run(workdir, quiet=True))
    again.train()
    assert again.scores == made.scores
    assert (workdir / "export/model.safetensors").stat().st_mtime_ns == before
    report = translator.finish(again, 1.0, as_json=True)
    assert json.loads(capsys.readouterr().out) == report
    translator.finish(again, 1.0)
    assert "chrF" in capsys.readouterr().out


def test_exported_folder_loads_in_transformers(run):
    torch = pytest.importorskip("torch", reason="PyTorch is needed to read the folder back")
    import transformers

    workdir, _ = run
    folder = workdir / "export"
    model = transformers.MarianMTModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["red dog and big tree", "small old house and blue boat"]
    with torch.inference_mode():
        out = model.generate(**tokenizer(texts, return_tensors="pt", padding=True))
    theirs = tokenizer.batch_decode(out, skip_special_tokens=True)
    assert MarianTranslator(folder).translate(texts, "en", "es") == theirs


def test_dry_run_counts_without_training(corpus, capsys):
    settings = translator_settings(config(corpus))
    plan = translator.print_plan(settings, as_json=True)
    assert json.loads(capsys.readouterr().out) == plan
    attention, mlp, norm = 4 * (32 * 32 + 32), 2 * 32 * 64 + 64 + 32, 2 * 32
    layers = 3 * attention + 2 * mlp + 5 * norm
    assert plan["parameters"] == 300 * 32 + 300 + layers
    assert plan["state_bytes"] == 12 * plan["parameters"] and plan["pairs"]["en-es"] > 300
    with pytest.raises(InputError, match="config.sizes: d_model 30 is not divisible"):
        translator.print_plan(dataclasses.replace(settings, sizes={"d_model": 30}))
    bigger = dataclasses.replace(settings, steps=400)
    assert (
        translator.print_plan(bigger)["training_flops_at_most"]
        == 2 * plan["training_flops_at_most"]
    )
