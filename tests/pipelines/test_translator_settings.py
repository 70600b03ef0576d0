"""The config of a translator's training as checked settings."""

import pytest

from clmrc_jax.files import InputError
from clmrc_jax.models.marian import MarianSearch
from clmrc_jax.pipelines.translator_settings import translator_settings

CONFIG = {"task": "translator", "name": "t", "seed": 0, "directions": ["en-es"]}


def test_config_becomes_settings():
    settings = translator_settings(
        {**CONFIG, "train": [["en-es", "a.tsv"]], "search": {"num_beams": 2}, "buckets": [8, 16]}
    )
    assert settings.train == (("en-es", "a.tsv"),) and settings.buckets == (8, 16)
    assert settings.search == MarianSearch(num_beams=2) and settings.directions == ("en-es",)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"directions": ("en",)}, "direction 'en'"),
        ({"directions": ("en-en",)}, "direction 'en-en'"),
        ({"directions": ()}, "directions is empty"),
        ({"train": (("en-es",),)}, r"train: \('en-es',\) is not"),
        ({"batchsize": 3}, "batchsize does not exist; known here: .*batch_tokens"),
        ({"profile": (9, 5)}, r"profile is \(9, 5\); give \(first step, last step\)"),
        ({"search": {"beams": 3}}, "search.beams does not exist"),
        ({"search": {"num_beams": 0}}, "search.num_beams is 0; it must be at least 1"),
        ({"accumulate": 0}, "accumulate is 0; it must be at least 1"),
        ({"batch_tokens": -512}, "batch_tokens is -512; it must be at least 1"),
        ({"held_out": -1}, "held_out is -1; it must be at least 0"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; it is a share, 0 to below 1"),
        ({"buckets": (16, 8)}, r"buckets is \(16, 8\); .*ascending"),
        ({"sizes": {"dtype": "float99"}}, "sizes.dtype 'float99': choose one of float32"),
    ],
)
def test_bad_settings_say_what_to_do(wrong, message):
    with pytest.raises(InputError, match=message):
        translator_settings({**CONFIG, **wrong})


@pytest.mark.parametrize(
    "sizes, message", [({"d_model": 30}, "30 is not"), ({"width": 8}, "width")]
)
def test_sizes_of_no_model_are_named_with_their_key(sizes, message):
    with pytest.raises(InputError, match=f"config.sizes: .*{message}"):
        translator_settings({**CONFIG, "sizes": sizes}).model(vocab_size=100)
