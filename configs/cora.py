"""CORA: mDPR + mGEN, trained in rounds that mine their own data (Asai et al., NeurIPS 2021).

    python launch/tpu_train.py --config=configs/cora.py --workdir=runs/demo

Presets, `--config=configs/cora.py:NAME`; any value can be changed on the command line
(`--config.seed=1 --config.retriever.batch_size=256`):

demo (default)  embedded "world facts", tiny pretrained models; minutes on two CPU cores
smoke           the same path on a few facts, random weights and an own vocabulary; for tests
facts           all world facts and longer training with the same tiny models
paper           the published hyper-parameters: mBERT towers, mT5-base, your Wikipedia passages:
                --config.corpus.passages="('psgs_w100.tsv', 'en')" and .train, .test, .annotated
                alike (README, File formats)
squads          SQuAD-style files of several languages as passages and questions:
                --config.corpus.squads="(('xquad.en.json', 'en'), ('xquad.ar.json', 'ar'))"
                --config.retriever_model.pretrained=FOLDER_OR_ID
                mGEN is left out; --config.generate=True trains it from random weights, or from
                --config.generator_model.pretrained=FOLDER_OR_ID
"""

import ml_collections

CORPUS = ("ar", "bn", "en", "fi", "ja", "ko", "ru", "te", "es", "he", "id", "sv", "th")
CPU_SIZES = {"dtype": "float32", "remat": False}
# Questions alone, with one passage, with three.
DEMO_BUCKETS = (48, 80, 96, 112, 144, 192, 224, 288)
MGEN_SEEN = ("da", "de", "fr", "it", "nl", "pl", "pt")


def paper():
    """The published system; what the paper leaves open is marked in docs/cora.md."""
    return ml_collections.ConfigDict(
        {
            "name": "cora:paper",
            "seed": 0,
            # Two iterations after the initial training (section 3).
            "rounds": 2,
            "mesh": {"data": -1, "model": 1},
            # Parameters over the mesh, see sharding.py; FSDP is (("embed", "data"),).
            "rules": (),
            # (first, last) step of every training that jax.profiler traces, e.g. (20, 25).
            "profile": (),
            "corpus": {
                "kind": "files",
                "size": "full",
                "squads": (),
                "train_share": 2 / 3,
                "split_by": "hash",
                "passages": "",
                "train": "",
                "dev": "",
                "test": "",
                "annotated": "",
                "dev_annotated": "",
                "links": "",
                "english_answers": "",
                "keep_evaluated": False,
                "max_questions": 0,
                "seed": 0,
            },
            "retriever_model": {
                "pretrained": "google-bert/bert-base-multilingual-uncased",
                "tokenizer": "",
                "vocabulary": 4000,
                "sizes": {"dtype": "bfloat16", "remat": False},
            },
            "retriever_head": {
                "pooling": "cls",
                "tied": False,
                "projection": 0,
                "normalize": False,
            },
            "retriever_format": {
                "tag_language": True,
                "strip_question_mark": False,
                "query_prefix": "",
                "passage_prefix": "",
                "question_buckets": (64, 256),
                "passage_buckets": (128, 192, 256),
            },
            "retriever": {
                # 40 epochs of 58,880 NQ rows at batch 128; later rounds warm-start.
                "steps": (18400, 9200, 9200),
                "batch_size": 128,
                "hard_negatives": 1,
                # First English (Natural Questions), then all languages (section 3).
                "english_first": 0.5,
                "positives": "uniform",
                "mask_duplicates": True,
                "mask_articles": False,
                "temperature": 1.0,
                "chunk_size": 0,
                "freeze_passages": False,
                "accumulate": 1,
                "validation_rows": 1024,
                # Updates between validations (0: after the last only); keep the best parameters.
                "validate_every": 0,
                "best": False,
                "save_every": 500,
                "log_every": 50,
                "encode_batch": 512,
                "embeddings": "float16",
                "shard_rows": 1 << 18,
                "tokenizer_workers": 8,
            },
            "retriever_optimizer": {
                "name": "adamw",
                "learning_rate": 2e-5,
                "warmup_steps": 300,
                "schedule": "linear",
                "weight_decay": 0.0,
                "eps": 1e-8,
                # 2.0 on device-averaged gradients of 8 GPUs is 16 on the true global gradient.
                "clip_norm": 16.0,
                # Parameters that stay as they are, e.g. ".*word_embeddings.*".
                "frozen": "",
            },
            "index": {
                "kind": "scann",
                "top_k": 20,
                # Exact search (the reference that recall is measured against) holds so many rows.
                "max_rows_on_device": 1 << 22,
                # 0: chosen from the number of rows, see retrieval/scann_index.py.
                "scann": {
                    "storage": "bfloat16",
                    "leaves": 0,
                    "leaves_to_search": 0,
                    "reorder": 0,
                    "dimensions_per_block": 2,
                    "anisotropic_threshold": 0.2,
                    "training_sample": 250_000,
                },
            },
            "generate": True,
            "generator_model": {
                "pretrained": "google/mt5-base",
                "tokenizer": "",
                "vocabulary": 4000,
                "sizes": {"dtype": "bfloat16", "remat": True},
            },
            "generator_format": {
                "tag": "single",
                "passages": 15,
                "source_buckets": (256, 1000),
                "target_length": 25,
                "fusion": False,
            },
            "generator": {
                "steps": (40000, 20000, 20000),
                "batch_size": 32,
                "accumulate": 1,
                "answer_passages": 3,
                "synthetic_after_epoch": 3,
                "synthetic_share": 0.5,
                "label_smoothing": 0.0,
                "validation_rows": 1024,
                "validate_every": 0,
                "best": False,
                "group_by_length": False,
                "save_every": 500,
                "log_every": 50,
                "generate_batch": 128,
                "label_chunk": 100_000,
                "answer_chunk": 10_000,
                "beams": 4,
                "length_penalty": 1.0,
                "early_stopping": False,
                "max_length": 20,
                "min_length": 1,
            },
            "generator_optimizer": {
                "name": "adamw",
                "learning_rate": 3e-5,
                "warmup_steps": 500,
                "schedule": "linear",
                "weight_decay": 0.001,
                "eps": 1e-8,
                "clip_norm": 0.1,
                "frozen": "",
            },
            # Languages of the synthetic answers (footnote 2): the corpus and mGEN-seen ones.
            "synthetic_languages": tuple(x for x in CORPUS if x != "en") + MGEN_SEEN,
            "mining": {
                "retrieved": 20,
                "language_links": True,
                "link_languages": (),
                "passages_per_article": 50,
                "strip_disambiguation": True,
                "copy_numbers": True,
                "match": "normalized",
                "unsure": "negative",
                "max_positives": 10,
                "max_negatives": 30,
            },
            "evaluation": {
                "split": "test",
                "scorer": "legacy",
                "recall_at": 10,
                "closed_book": True,
                "examples": 12,
            },
        }
    )


def demo():
    """The same system: sizes, lengths, steps and learning rates fit two CPU cores."""
    config = paper()
    config.name = "cora:demo"
    config.corpus.kind = "world_facts"
    config.corpus.size = "demo"
    # bfloat16 and recomputation are for accelerators; CPU cores emulate the one at a loss.
    config.retriever_model.update({"pretrained": "builtin", "sizes": CPU_SIZES})
    config.retriever_format.update({"question_buckets": (48,), "passage_buckets": (80, 112)})
    config.retriever.update(
        {
            "steps": (80, 60, 60),
            "batch_size": 48,
            "english_first": 0.25,
            "validation_rows": 192,
            "save_every": 60,
            "log_every": 20,
            "encode_batch": 16,
            "tokenizer_workers": 0,
        }
    )
    config.retriever_optimizer.update({"learning_rate": 5e-4, "warmup_steps": 20, "clip_norm": 2.0})
    config.generator_model.update({"pretrained": "builtin", "sizes": CPU_SIZES})
    config.generator_format.update(
        {"passages": 3, "source_buckets": DEMO_BUCKETS, "target_length": 16}
    )
    config.generator.update(
        {
            "steps": (80, 200, 200),
            "batch_size": 16,
            "synthetic_share": 0.6,
            "answer_passages": 3,
            "validation_rows": 192,
            "group_by_length": True,
            "save_every": 50,
            "log_every": 20,
            "generate_batch": 32,
            "max_length": 16,
        }
    )
    # As in its pretraining: steps relative to a parameter's size.
    config.generator_optimizer.update(
        {
            "name": "adafactor",
            "learning_rate": 4e-3,
            "warmup_steps": 10,
            "clip_norm": 1.0,
            "weight_decay": 0.0,
        }
    )
    # No Wikipedia titles: brackets in CLDR's names are part of them, "norvég (bokmål)".
    config.mining.strip_disambiguation = False
    config.mining.update({"retrieved": 6, "passages_per_article": 3, "max_negatives": 8})
    config.evaluation.update({"scorer": "portable", "examples": 8})
    return config


def facts():
    """All world facts, longer training; about half an hour on two CPU cores."""
    config = demo()
    config.name = "cora:facts"
    config.corpus.size = "full"
    # Longer or faster, mDPR forgets the languages that it is not trained on (docs/cora.md).
    config.retriever.steps = (150, 150, 150)
    config.retriever_optimizer.learning_rate = 3e-4
    config.generator.update({"steps": (600, 600, 600), "batch_size": 32, "group_by_length": False})
    config.generator_optimizer.learning_rate = 5e-3
    config.mining.retrieved = 8
    return config


def smoke():
    """Every stage in under a minute, from random weights: for tests, the answers are bad."""
    config = demo()
    config.name = "cora:smoke"
    config.corpus.update({"size": "smoke", "max_questions": 8})
    bert = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    }
    mt5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    config.retriever_model.update({"pretrained": "", "vocabulary": 3000, "sizes": bert})
    config.generator_model.update(
        {"pretrained": "", "vocabulary": 3000, "sizes": mt5 | {"num_decoder_layers": 1}}
    )
    config.retriever_format.update({"question_buckets": (64,), "passage_buckets": (128,)})
    config.rounds = 1
    config.retriever.update({"steps": (4, 4), "batch_size": 16, "save_every": 2})
    config.generator.update({"steps": (4, 4), "batch_size": 16, "save_every": 2, "beams": 2})
    config.generator_format.update({"passages": 1, "source_buckets": (160,)})
    config.mining.update({"retrieved": 1, "passages_per_article": 1})
    config.generator.validation_rows = config.retriever.validation_rows = 16
    return config


def squads():
    """Retrieval over SQuAD-style files with a pretrained encoder such as multilingual-E5."""
    config = paper()
    config.name = "cora:squads"
    config.rounds = 0
    config.corpus.kind = "squads"
    config.retriever_model.update(
        {"pretrained": "intfloat/multilingual-e5-small", "sizes": {"dtype": "float32"}}
    )
    config.retriever_head.update({"pooling": "mean", "tied": True, "normalize": True})
    config.retriever_format.update(
        {
            "tag_language": False,
            "query_prefix": "query: ",
            "passage_prefix": "passage: ",
            "question_buckets": (32, 64),
            "passage_buckets": (128, 192, 256),
        }
    )
    config.retriever.update(
        {
            "steps": (200,),
            "batch_size": 32,
            "hard_negatives": 0,
            "english_first": 0.0,
            "mask_articles": False,
            "temperature": 0.02,
            "chunk_size": 0,
            "validation_rows": 256,
            "save_every": 50,
            "log_every": 10,
            "encode_batch": 16,
            "tokenizer_workers": 0,
        }
    )
    config.retriever_optimizer.update({"warmup_steps": 20, "clip_norm": 1.0})
    config.index.kind = "exact"
    # Retrieval alone. --config.generate=True trains mGEN too, on a vocabulary of the corpus.
    config.generate = False
    config.generator_model.update({"pretrained": "", "vocabulary": 16000})
    config.evaluation.scorer = "portable"
    return config


PRESETS = {f.__name__: f for f in (demo, smoke, facts, paper, squads)}


def get_config(preset: str = "demo"):
    """The configuration of a preset; see the module."""
    if preset not in PRESETS:
        raise ValueError(f"configs/cora.py has no preset {preset!r}; choose {', '.join(PRESETS)}")
    return PRESETS[preset]()
