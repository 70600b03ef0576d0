"""A translator trained from parallel text: the Marian model of OPUS-MT, small.

    python launch/tpu_train.py --config=configs/translator.py --workdir=runs/translator

The folder runs/translator/export then translates (`launch/translate.py
--translator=marian:runs/translator/export`), and transformers' MarianMTModel reads it. BLEU and chrF
are sacreBLEU's. Presets, `--config=configs/translator.py:NAME`:

demo (default)  English to Spanish on the embedded corpus (4,677 sentences and names), a few minutes
                on two CPU cores; BLEU 58.4, chrF 68.0 on its 741 sentences of unseen facts
smoke           the same path in seconds, for tests; it learns nothing
tatoeba         your own text, 3+3 layers of 256, for example Tatoeba's sentences from
                manythings.org/anki, hours on a CPU, minutes on a GPU:
                --config.train="(('en-zh', 'en-zh.tsv.gz'),)" --config.directions="('zh-en',)"
                A corpus is ('en-zh', FILE) with two columns, or ('en-zh', FILE, FILE) with aligned
                lines; valid and test alike, e.g. FLORES as
                --config.test="(('en-zh', 'flores.tar.gz!dev/eng_Latn.dev',
                'flores.tar.gz!dev/zho_Hans.dev'),)". Without them `held_out` pairs are kept back.
"""

import ml_collections


def demo():
    """Sized so that it learns the sentences of the embedded corpus in a few minutes."""
    return ml_collections.ConfigDict(
        {
            "task": "translator",
            "name": "translator:demo",
            "seed": 0,
            # Several target languages share a model: ("en-es", "en-fi"), told apart by >>es<<.
            "directions": ("en-es",),
            "train": (),
            "valid": (),
            "test": (),
            "held_out": 500,
            "max_pairs": 0,
            "vocabulary": 1600,
            "sizes": {
                "d_model": 128,
                "encoder_layers": 2,
                "decoder_layers": 2,
                "encoder_attention_heads": 4,
                "decoder_attention_heads": 4,
                "encoder_ffn_dim": 256,
                "decoder_ffn_dim": 256,
                "dropout": 0.1,
                "dtype": "float32",
            },
            "buckets": (8, 24, 32, 48),
            "steps": 400,
            "batch_tokens": 1536,
            "accumulate": 1,
            "label_smoothing": 0.1,
            "valid_rows": 32,
            "search_batch": 32,
            "validate_every": 200,
            "log_every": 50,
            "save_every": 200,
            "mesh": {"data": -1, "model": 1},
            # Parameters over the mesh, see sharding.py; FSDP is (("embed", "data"),).
            "rules": (),
            # (first, last) step of every training that jax.profiler traces, e.g. (20, 25).
            "profile": (),
            "search": {
                "num_beams": 4,
                "max_length": 64,
                "length_penalty": 1.0,
                "early_stopping": False,
                "renormalize": True,
                "force_eos": True,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 2e-3,
                "warmup_steps": 100,
                "schedule": "cosine",
                "weight_decay": 0.01,
                "b2": 0.98,
                "clip_norm": 1.0,
            },
        }
    )


def smoke():
    """Every stage, nothing learned."""
    config = demo()
    config.name = "translator:smoke"
    config.update({"vocabulary": 600, "steps": 3, "batch_tokens": 512, "valid_rows": 4})
    config.update({"validate_every": 2, "log_every": 1, "save_every": 2, "held_out": 12})
    config.sizes.update({"d_model": 16, "encoder_layers": 1, "decoder_layers": 1})
    config.sizes.update({"encoder_ffn_dim": 32, "decoder_ffn_dim": 32})
    config.buckets = (64,)
    config.search.update({"num_beams": 2, "max_length": 8})
    return config


def tatoeba():
    """Short everyday sentences; set `train` and `directions`."""
    config = demo()
    config.name = "translator:tatoeba"
    config.directions = ("zh-en",)
    config.vocabulary = 8000
    config.sizes.update({"d_model": 256, "encoder_layers": 3, "decoder_layers": 3})
    config.sizes.update({"encoder_ffn_dim": 1024, "decoder_ffn_dim": 1024})
    config.buckets = (16, 32, 64, 128)
    config.update({"steps": 15000, "batch_tokens": 4096, "valid_rows": 200, "validate_every": 1000})
    config.update({"save_every": 500, "search_batch": 64})
    config.search.max_length = 128
    config.optimizer.update({"learning_rate": 7e-4, "warmup_steps": 1500})
    return config


PRESETS = {"demo": demo, "smoke": smoke, "tatoeba": tatoeba}


def get_config(preset: str = "demo"):
    """The preset of that name; see the module's docstring."""
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; choose {', '.join(PRESETS)}")
    return PRESETS[preset]()
