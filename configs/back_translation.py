"""CLMRC's back-translation systems, which translate at run time (Cui et al., 2019, Table 2).

    python launch/tpu_train.py --config=configs/back_translation.py --workdir=runs/back \\
        --config.data.evaluate="(('test', 'xquad.es.json', 'es', 'xquad'),)" \\
        --config.data.source_train="(('train-v1.1.json', 'en'),)"

Presets, `--config=configs/back_translation.py:NAME`:

apertium (default)  Spanish through Apertium (Debian: `apt install apertium-eng-spa`), all four
                    ways to bring the answer back, side by side
xq_apertium         the same on XQuAD in sizes for CPU cores; Aligner and Verifier start from the
                    reader, as fresh heads learn little in 50 updates (docs/clmrc.md)
t2_01 .. t2_05      rows 1-5 of Table 2 through Google Cloud Translation, which costs money: see
                    --config.translation.consent=True and launch/translate.py for an estimate
t3_1, t3_2          Japanese and French SQuAD (Table 3)

The reader of the source language is trained on data.source_train, or taken from
--config.source_model=FOLDER. Rows 4 and 5 read with the English BERT of row 2
(`translation.reader`) and bring the answer back with mBERT. Rows 2 to 5 can share a reader, which is
that much cheaper; row 1 is of another size and refuses it:

    python launch/sweep.py --config=configs/back_translation.py --workdir=runs/back \\
        --sweep='{"preset": ["t2_01", "t2_02"], "seed": [0, 1, 2]}' ...
    python launch/sweep.py --config=configs/back_translation.py --workdir=runs/back \\
        --sweep='{"preset": ["t2_03", "t2_04", "t2_05"], "seed": [0, 1, 2]}' \\
        --config.source_model=runs/back/t2_02,seed=0/source/model ...

Files as in configs/dual_bert.py. Cost: a reader's training (an hour on a TPU v2-8 at full size), and
one translation of every passage, question and answer: all runs of a sweep share the folder
WORKDIR/translations.
"""

import importlib.util
import pathlib

from clmrc_jax.evaluate.mrc_published import by_metric, published

BASE = pathlib.Path(__file__).with_name("dual_bert.py")


def _base():
    """configs/dual_bert.py as a module: config files are loaded by path, not imported."""
    spec = importlib.util.spec_from_file_location("dual_bert_config", BASE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apertium():
    """Raw answer, SimpleMatch, Aligner and Verifier on Spanish questions through Apertium."""
    config = _base().files()
    config.systems = ("bt_raw", "bt_match", "bt_aligner", "bt_verifier")
    config.translation.update(
        {"forward": "command:apertium -u spa-eng", "backward": "command:apertium -u eng-spa"}
    )
    return config


def xq_apertium():
    """The same in the sizes of `configs/dual_bert.py:xq_*`."""
    config = apertium()
    _base().xquad_sizes(config)
    config.translation.start = "source"
    return config


BERT_BASE, BERT_LARGE = "google-bert/bert-base-cased", "google-bert/bert-large-cased"
MBERT = "google-bert/bert-base-multilingual-cased"
_BRINGS_BACK = {
    "bt_raw": "the answer translated back as it is",
    "bt_match": "SimpleMatch",
    "bt_aligner": "the Answer Aligner",
    "bt_verifier": "the Answer Verifier",
}


def _google(preset: str, system: str, encoder: str, reader: str = ""):
    """A row of the paper: one system through Google.

    reader: encoder that reads English, where it is another one than `encoder`.
    """
    base = _base()

    def make():
        config = base.files()
        config.systems = (system,)
        config.scorer = "legacy"  # the published numbers are the official scorers'
        config.model.pretrained = encoder
        config.translation.update({"forward": "google", "backward": "google", "reader": reader})
        return config

    text = f"{reader or encoder} on SQuAD reads Google's English; {_BRINGS_BACK[system]}."
    cost = (
        f"{base.SQUAD_COST}; every text translated once at Google's price, see launch/translate.py"
    )
    make.__doc__ = base.describe(preset, text, "back_translation", cost)
    return make


APERTIUM = {f.__name__: f for f in (apertium, xq_apertium)}
_ROWS = (
    ("t2_01", "bt_raw", BERT_BASE),
    ("t2_02", "bt_raw", BERT_LARGE),
    ("t2_03", "bt_match", BERT_LARGE),
    ("t2_04", "bt_aligner", MBERT, BERT_LARGE),
    ("t2_05", "bt_verifier", MBERT, BERT_LARGE),
    ("t3_1", "bt_raw", BERT_LARGE),
    ("t3_2", "bt_match", BERT_LARGE),
)
ROWS = {row[0]: _google(*row) for row in _ROWS}
PUBLISHED = {preset: by_metric(published(preset)) for preset in ROWS}
SEEDS = [0, 1, 2]
SWEEPS = {
    "table2": {"preset": ["t2_01", "t2_02", "t2_03", "t2_04", "t2_05"], "seed": SEEDS},
    "table3": {"preset": ["t3_1", "t3_2"], "seed": SEEDS},
}


def get_config(preset: str = "apertium"):
    """The configuration of a preset; see the module."""
    presets = APERTIUM | ROWS
    if preset not in presets:
        known = ", ".join(presets)
        raise ValueError(f"configs/back_translation.py has no preset {preset!r}; choose {known}")
    config = presets[preset]()
    config.name = f"back_translation:{preset}"
    return config
