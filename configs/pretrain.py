"""The tiny multilingual BERT and mT5 that ship with the package and start the demo.

Command:  python launch/pretrain.py --config=configs/pretrain.py --workdir=runs/pretrain
Cost:     see clmrc_jax/pretrained/README.md, which records seed, log and time of the shipped ones.
"""

import ml_collections


def get_config():
    """Vocabulary, encoder and generator; each part trains alone and continues when killed."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    # A folder with mbert/ and mt5/ to go on from (their vocabulary is kept); "" starts from nothing.
    # A part with steps = 0 stays as it is there.
    config.start = ""
    config.vocabulary = ml_collections.ConfigDict(
        {"size": 6000, "texts": 60000, "sentinels": 16, "seed": 0}
    )
    config.encoder = ml_collections.ConfigDict(
        {
            "bert": {
                "hidden_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 512,
                "max_position_embeddings": 128,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
                "initializer_range": 0.05,
            },
            "seed": 1,
            "examples": 10_000_000,
            "steps": 2000,
            "batch_size": 48,
            "contexts": 2,
            "question_buckets": (48,),
            "passage_buckets": (80, 112),
            "predictions": 18,
            "optimizer": {
                "learning_rate": 2e-3,
                "warmup_steps": 150,
                "schedule": "linear",
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
            "log_every": 100,
            "save_every": 500,
        }
    )
    config.generator = ml_collections.ConfigDict(
        {
            "mt5": {
                "d_model": 128,
                "d_kv": 32,
                "d_ff": 256,
                "num_layers": 3,
                "num_decoder_layers": 2,
                "num_heads": 4,
                "dropout_rate": 0.0,
            },
            "seed": 2,
            "examples": 10_000_000,
            "steps": 7500,
            "batch_size": 24,
            "passages": 3,
            "source_buckets": (96, 160, 224, 288),
            "target_length": 16,
            "corrupted_share": 0.1,
            "naming_share": 0.2,
            "easy_examples": 48_000,
            # T5's optimizer: steps relative to a parameter's size suit embeddings of norm 1.
            # AdamW (2e-3) had learned nothing yet where this one was half-way.
            "optimizer": {
                "name": "adafactor",
                "learning_rate": 0.02,
                "warmup_steps": 150,
                "schedule": "linear",
                "clip_norm": 1.0,
            },
            "log_every": 100,
            "save_every": 500,
        }
    )
    return config
