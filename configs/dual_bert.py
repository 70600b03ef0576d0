"""CLMRC: reading comprehension in a language with little training data (Cui et al., EMNLP 2019).

    python launch/tpu_train.py --config=configs/dual_bert.py --workdir=runs/reading

Presets, `--config=configs/dual_bert.py:NAME`; any value can be changed on the command line
(`--config.seed=1 --config.target_recipe.batch_size=32`):

demo (default)  Japanese questions over the embedded corpus, whose articles are parallel in 13
                languages: plain reader, cascade and Dual BERT side by side. 2 CPU cores, minutes.
smoke           the same path with random weights in under a minute; for tests
files           your files at full size: one system, paths on the command line (below)
official        Dual BERT as the released code trains, reads and answers (D1-D9, docs/clmrc.md)
t2_06 .. t2_12  the rows of Table 2 that need no translator at run time
t3_3            zero-shot on the Japanese and French SQuAD (Table 3)
t4_full, t4_no_aux, t4_no_dynlambda, t4_no_saa, t4_no_source, t4_no_squad   Table 4
f3_squad_100 .. f3_squad_100000, f3_drcd_100 .. f3_drcd_25000   the points of Figure 3: pre-training
                on so many questions of data.source_train, then the target set
xq_plain, xq_cascade, xq_dual, xq_official, xq_no_saa, xq_no_aux, xq_const, xq_fresh_heads   Table 4
                on XQuAD, real bilingual data without a translator, in sizes for CPU cores
                (docs/clmrc.md)

What each row is and what the paper reports for it: docs/clmrc.md. Rows of Table 2 with
back-translation: configs/back_translation.py. A whole table, beside the published numbers:

    python launch/sweep.py --config=configs/dual_bert.py --sweep=table2 --workdir=runs/table2 \\
        --config.data.source_train="(('train-v1.1.json', 'en'),)" ...

Files are (path, language) pairs; an evaluation set named cmrc_dev, cmrc_test, cmrc_challenge,
drcd_dev, drcd_test, ja or fr is shown beside the paper's scores on it:

    --config.data.source_train="(('train-v1.1.json', 'en'),)"
    --config.data.target_train="(('cmrc2018_train.json', 'zh_cn'),)"
    --config.data.bilingual_train="(('cmrc2018_train_aligned.json', 'zh_cn', 'en'),)"
    --config.data.evaluate="(('cmrc_dev', 'cmrc2018_dev_aligned.json', 'zh_cn', 'cmrc2018'),)"

Cost of a row at full size (length 512, batch 64, 2 epochs of CMRC's 10,000 questions): about an
hour on a TPU v2-8 in the paper; Dual BERT encodes two sides and costs about twice a plain reader.
`--dry_run` prints parameters, memory and time of any preset for the machine at hand.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from clmrc_jax.evaluate.mrc_published import BASELINES, FIGURE3, FIGURE3_SIZES, by_metric, published

PAPER_RECIPE = {
    "learning_rate": 4e-5,
    "epochs": 2.0,
    "batch_size": 64,
    "warmup": 0.1,
    "optimizer": "adamw",
    "schedule": "cosine",
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    # Parameters that stay as they are, e.g. ".*word_embeddings.*".
    "frozen": "",
}


def files():
    """One system on your files, with the paper's hyper-parameters (section 4.2 of the paper)."""
    return ml_collections.ConfigDict(
        {
            "task": "clmrc",
            "name": "dual_bert:files",
            "seed": 0,
            "mesh": {"data": -1, "model": 1},
            # Parameters over the mesh, see sharding.py; FSDP is (("embed", "data"),).
            "rules": (),
            # (first, last) step of every training that jax.profiler traces, e.g. (20, 25).
            "profile": (),
            # zero_shot, plain, cascade, mixed, dual, dual_squad; see pipelines/clmrc.py
            "systems": ("dual_squad",),
            "data": {
                "kind": "files",
                "world": "full",
                "target": "",
                "source": "en",
                "source_train": (),
                "target_train": (),
                "bilingual_train": (),
                "evaluate": (),
                # Files whose questions are taken out of source_train (XQuAD lies in SQuAD dev).
                "exclude": (),
                # Share of the articles that train where the same file also evaluates; 0: all.
                "article_share": 0.0,
                "max_source": 0,
                "max_target": 0,
                "max_evaluate": 0,
                "paraphrases": 1,
                "locate": "offset",
                "seed": 0,
            },
            "model": {
                "pretrained": "google-bert/bert-base-multilingual-cased",
                "tokenizer": "",
                "vocabulary": 4000,
                "sizes": {"dtype": "bfloat16", "remat": False},
            },
            # A reader trained before (SQ-B_mul): a folder that this project wrote; "" trains it.
            "source_model": "",
            "format": {
                "max_length": 512,
                "source_length": 512,
                "doc_stride": 128,
                "max_query_length": 64,
                "mode": "paper",
            },
            # "paper" or "official", and single options of models/dual_bert.py that differ from it
            # (D1-D9 of the published code's differences, the ablations of Table 4, memory).
            "dual": {
                "mode": "paper",
                "residual": placeholder(str),
                "lambda_mode": placeholder(str),
                "lambda_value": placeholder(float),
                "lambda_group_size": placeholder(int),
                "lambda_stop_grad": placeholder(bool),
                "loss_terms": placeholder(str),
                "span_attention": placeholder(str),
                "mask_padding": placeholder(bool),
                "span_range": placeholder(str),
                "equal_lengths": placeholder(bool),
                "adaptive": placeholder(bool),
                "fusion_dropout": placeholder(float),
                "saa": placeholder(str),
                "saa_chunk": placeholder(int),
            },
            # Section 5.1 of the paper; warm-up is the released code's (train/span_recipe.py).
            # source: pre-training on SQuAD; target: everything after it.
            "source_recipe": dict(PAPER_RECIPE),
            "target_recipe": dict(PAPER_RECIPE),
            "training": {
                "accumulate": 1,
                # Padded lengths; windows of like length then share batches.
                "lengths": 1,
                # "inherited": Dual BERT's heads go on from the source reader's; not published.
                "dual_heads": "fresh",
                "save_every": 500,
                "log_every": 50,
                "predict_batch": 64,
                "read_chunk": 1000,
            },
            # null_threshold: for sets with unanswerable questions (SQuAD 2.0).
            "decoding": {
                "n_best": 20,
                "max_answer_length": 40,
                "text": "offsets",
                "null_threshold": placeholder(float),
            },
            # For the systems of configs/back_translation.py.
            "translation": {
                "start": "encoder",
                # Encoder that reads the source language, "" for model.pretrained.
                "reader": "",
                "forward": "",
                "backward": "",
                "cache": "",
                "consent": False,
                "project": "",
            },
            # "fixed", or "legacy": the official scorer to the digit.
            "scorer": "fixed",
        }
    )


def demo():
    """Japanese with English as source, on the embedded corpus, from the package's tiny BERT."""
    config = files()
    config.name = "dual_bert:demo"
    config.systems = ("zero_shot", "plain", "cascade", "dual_squad")
    config.data.update({"kind": "world_facts", "target": "ja", "paraphrases": 3})
    # bfloat16 is for accelerators; CPU cores emulate it at a loss.
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    config.model.update({"pretrained": "builtin", "sizes": {"dtype": "float32"} | dropout})
    config.format.update(
        {"max_length": 128, "source_length": 128, "doc_stride": 48, "max_query_length": 40}
    )
    config.source_recipe.update({"batch_size": 16, "epochs": 5.0, "learning_rate": 1e-3})
    config.target_recipe.update({"batch_size": 16, "epochs": 8.0, "learning_rate": 1e-3})
    config.training.update({"save_every": 100, "log_every": 20, "predict_batch": 32})
    return config


def smoke():
    """Every stage in under a minute, from random weights: for tests, the answers are bad."""
    config = demo()
    config.name = "dual_bert:smoke"
    config.data.update({"world": "smoke", "paraphrases": 1})
    config.model.update(
        {
            "pretrained": "",
            "vocabulary": 1000,
            "sizes": {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "max_position_embeddings": 128,
            },
        }
    )
    config.source_recipe.update({"batch_size": 8, "epochs": 0.2})
    config.target_recipe.update({"batch_size": 8, "epochs": 0.5})
    return config


def official():
    """Dual BERT (t2_12) as the released code has it: model, tokenisation, labels, pairing, answers,
    optimiser and schedule. For DRCD the README trains 3 epochs."""
    config = files()
    config.dual.mode = "official"
    # Lambda is summed over one replica: 64 rows on the 8 cores of a TPU v2-8 (spec 3.7).
    config.dual.lambda_group_size = 8
    config.format.mode = "official"
    config.decoding.text = "official"
    config.data.locate = "first"
    recipe = {"learning_rate": 2e-5, "optimizer": "official_adam", "schedule": "official"}
    config.target_recipe.update(recipe)
    # The README pre-trains with Google's script: 3e-5, 3 epochs, linear decay.
    recipe |= {"learning_rate": 3e-5, "schedule": "linear", "epochs": 3.0}
    config.source_recipe.update(recipe)
    config.scorer = "legacy"
    return config


def _row(preset: str, system: str, text: str, values: dict | None = None):
    """A preset of the paper: one system at full size, with some values changed."""

    def make():
        config = files()
        config.systems, config.scorer = (system,), "legacy"  # as the published numbers
        config.update_from_flattened_dict(values or {})
        return config

    make.__doc__ = describe(preset, text, "dual_bert", COSTS[system])
    return make


def describe(preset: str, text: str, file: str, cost: str) -> str:
    """The docstring of a row: what it is, command, cost, published scores."""
    printed = ", ".join(f"{name} {x:.1f}" for name, x in by_metric(published(preset)).items())
    command = f"launch/tpu_train.py --config=configs/{file}.py:{preset} --workdir=runs/{preset}"
    return f"""{text}

    python {command} FILES

    FILES: the module's --config.data flags. Cost: {cost}. Published: {printed}."""


# Dual BERT's hour is the paper's; the others have half its windows per question.
SQUAD_COST = "two epochs of SQuAD, about four hours on a TPU v2-8 unless source_model= has them"
_TARGET = "two epochs of 10,000 questions, half an hour on a TPU v2-8"
_DUAL = "two epochs of 10,000 questions on both sides, an hour on a TPU v2-8"
COSTS = {
    "plain": _TARGET,
    "zero_shot": SQUAD_COST,
    "cascade": f"{SQUAD_COST}; {_TARGET}",
    "mixed": f"{SQUAD_COST}; {_TARGET}",
    "dual": _DUAL,
    "dual_squad": f"{SQUAD_COST}; {_DUAL}",
}

_FIGURE3 = {"squad": ("English", "en"), "drcd": ("Traditional Chinese (DRCD)", "zh_tw")}
_ROWS = [
    (
        *("t2_06", "plain", "Chinese BERT-base on the target set."),
        {"model.pretrained": "google-bert/bert-base-chinese"},
    ),
    ("t2_07", "plain", "mBERT on the target set."),
    ("t2_08", "dual", "Dual BERT from mBERT."),
    ("t2_09", "zero_shot", "mBERT on SQuAD, no target data."),
    ("t2_10", "cascade", "mBERT on SQuAD, then on the target set."),
    ("t2_11", "mixed", "mBERT on SQuAD and target set together."),
    ("t2_12", "dual_squad", "Dual BERT from mBERT on SQuAD."),
    (
        *("t3_3", "zero_shot", "mBERT on SQuAD reads Japanese and French."),
        {"decoding.max_answer_length": 30},
    ),
    ("t4_full", "dual_squad", "Nothing left out (t2_12)."),
    ("t4_no_aux", "dual_squad", "Without the auxiliary loss.", {"dual.lambda_mode": "none"}),
    (
        *("t4_no_dynlambda", "dual_squad", "Lambda constant; the paper does not say which."),
        {"dual.lambda_mode": "const"},
    ),
    (
        *("t4_no_saa", "dual_squad", "Plain attention between the languages, no SAA."),
        {"dual.adaptive": False},
    ),
    ("t4_no_source", "cascade", "Without the source side: cascade training (t2_10)."),
    ("t4_no_squad", "dual", "Without SQuAD (t2_08)."),
]
_ROWS += [
    (
        *(f"f3_{name}_{size}", "cascade", f"Pre-training on {size} questions in {language}."),
        {"data.max_source": size, "data.source": code},
    )
    for name, (language, code) in _FIGURE3.items()
    for size, _ in zip(FIGURE3_SIZES, FIGURE3[name]["mean"])
]
ROWS = {row[0]: _row(*row) for row in _ROWS}
# What a sweep's table shows beside our scores.
PUBLISHED = {preset: by_metric(published(preset)) for preset in ROWS}


def xquad_sizes(config):
    """Sizes for two CPU cores, and XQuAD's 48 articles split into 36 that train and 12."""
    config.data.update({"article_share": 0.75, "max_source": 5000, "max_target": 400})
    config.model.sizes = {"dtype": "float32", "remat": False}
    config.format.update({"max_length": 384, "source_length": 384})
    # Few updates, so larger ones than the paper's.
    config.source_recipe.update({"batch_size": 16, "epochs": 1.0, "learning_rate": 3e-4})
    config.target_recipe.update({"batch_size": 8, "epochs": 1.0, "learning_rate": 2e-4})
    # Of multilingual-E5-small's 118M parameters these are 96M; Adam reads each six times.
    for recipe in (config.source_recipe, config.target_recipe):
        recipe.frozen = ".*word_embeddings.*"
    # Fresh heads learn little in 50 updates.
    config.training.update({"lengths": 6, "dual_heads": "inherited", "save_every": 100})
    config.training.update({"log_every": 10, "predict_batch": 16})


def _xquad(name: str, system: str, values: dict | None = None):
    """A system on XQuAD, six minutes on two CPU cores beside the source reader's 22."""

    def make():
        config = files()
        config.systems = (system,)
        xquad_sizes(config)
        config.update_from_flattened_dict(values or {})
        return config

    changes = "".join(f", {key}={value}" for key, value in (values or {}).items())
    make.__doc__ = f"XQuAD: {system}{changes}. Command, cost and scores: docs/clmrc.md, Real data."
    return make


_XQUAD_ROWS = {
    "plain": ("plain", {}),
    "cascade": ("cascade", {}),
    "dual": ("dual_squad", {}),
    "official": ("dual_squad", {"dual.mode": "official"}),
    "no_saa": ("dual_squad", {"dual.adaptive": False}),
    "no_aux": ("dual_squad", {"dual.lambda_mode": "none"}),
    "const": ("dual_squad", {"dual.lambda_mode": "const"}),
    "fresh_heads": ("dual_squad", {"training.dual_heads": "fresh"}),
}
XQUAD = {f"xq_{name}": _xquad(f"xq_{name}", *row) for name, row in _XQUAD_ROWS.items()}

SEEDS = [0, 1, 2]
SWEEPS = {
    "table2": {
        "points": {"preset": [f"t2_{i:02}" for i in range(6, 13)], "seed": SEEDS},
        "baseline": BASELINES["table2"],
    },
    # With the rows that Google translates for money, see configs/back_translation.py.
    "table2_all": {
        "points": {
            "preset": [f"back_translation.py:t2_{i:02}" for i in range(1, 6)]
            + [f"t2_{i:02}" for i in range(6, 13)],
            "seed": SEEDS,
        },
        "baseline": BASELINES["table2"],
    },
    "table3": {"preset": ["t3_3"], "seed": SEEDS},
    "table3_all": {
        "points": {
            "preset": ["back_translation.py:t3_1", "back_translation.py:t3_2", "t3_3"],
            "seed": SEEDS,
        },
        "baseline": "back_translation." + BASELINES["table3"],
    },
    "table4": {
        "points": {"preset": [name for name in ROWS if name.startswith("t4")], "seed": SEEDS},
        "baseline": BASELINES["table4"],
    },
    **{
        f"figure3_{name}": {
            "points": {
                "preset": [x for x in ROWS if x.startswith(f"f3_{name}_")],
                "seed": [*SEEDS, 3, 4],  # the paper ran each point five times
            },
            "metrics": ["cmrc_dev average"],
        }
        for name in FIGURE3
    },
    "demo": {"preset": ["demo"], "seed": SEEDS},
    "xquad": {"points": {"preset": list(XQUAD), "seed": SEEDS}, "baseline": "xq_cascade"},
}

PRESETS = {f.__name__: f for f in (demo, smoke, files, official)} | ROWS | XQUAD


def get_config(preset: str = "demo"):
    """The configuration of a preset; see the module."""
    if preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise ValueError(f"configs/dual_bert.py has no preset {preset!r}; choose {known}")
    config = PRESETS[preset]()
    config.name = f"dual_bert:{preset}"
    return config
