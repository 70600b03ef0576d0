"""Settings that change only speed and memory are no part of what a run is."""

import importlib.util
import re

import pytest

from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dual_bert import DualBertConfig
from clmrc_jax.models.mt5 import Mt5Config
from clmrc_jax.pipelines.clmrc_settings import clmrc_settings
from clmrc_jax.pipelines.run_identity import LATER, SPEED_ONLY, identity
from clmrc_jax.pipelines.settings import cora_settings, plain
from clmrc_jax.pipelines.translator_settings import translator_settings


def flat(values, prefix=""):
    """Dotted keys of nested settings, those of inner nodes included."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")


@pytest.fixture(scope="module")
def settings(repository):
    """Task -> plain settings of a preset, optional fields filled in."""
    found = {}
    for name, make, preset in (
        ("cora", cora_settings, "paper"),
        ("dual_bert", clmrc_settings, "smoke"),
        ("translator", translator_settings, "smoke"),
    ):
        path = repository / "configs" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"{name}_config", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[name] = plain(make(module.get_config(preset)))
    found["translator"]["sizes"].setdefault("remat", False)
    found["dual_bert"]["model"]["sizes"].setdefault("remat", False)
    found["dual_bert"]["dual"].update(saa="factored", saa_chunk=0)
    return found


def test_every_key_exists_in_some_config(settings):
    known = {key for values in settings.values() for key in flat(values)}
    assert set(SPEED_ONLY) <= known, "misspelt, or renamed in the settings"
    for config in (BertConfig(), Mt5Config()):
        assert hasattr(config, "remat")
    assert hasattr(DualBertConfig(), "saa") and hasattr(DualBertConfig(), "saa_chunk")


def test_every_later_key_exists_in_some_config(settings):
    known = {key for values in settings.values() for key in flat(values)}
    for keys, _ in LATER:
        assert any(re.fullmatch(keys, key) for key in known), keys


@pytest.mark.parametrize("task", ["cora", "dual_bert", "translator"])
def test_identity_keeps_everything_else(settings, task):
    kept, everything = set(flat(identity(settings[task]))), set(flat(settings[task]))
    left_out = everything - kept
    assert left_out == {
        k for k in everything if k in SPEED_ONLY or k.startswith(("mesh.", "rules."))
    }
    assert not [k for k in left_out if k.endswith(("accumulate", "batch_size", "dtype", "seed"))]
    flat_settings = {key: 0 for key in everything}  # as a sweep has them
    assert set(identity(flat_settings)) == kept


STAGES = ("source", "source_reader", "vocabulary_4000", "plain/train", "dual_squad/train")


@pytest.mark.parametrize("stage", STAGES)
def test_another_evaluation_does_not_train_again(settings, stage):
    whole = settings["dual_bert"]
    data = whole["data"] | {"evaluate": [("dev", "d.json", "ja", "xquad")], "max_evaluate": 7}
    later = whole | {"data": data, "scorer": "official", "decoding": {"n_best": 1}}
    assert identity(later, stage=stage) == identity(whole, stage=stage)
    assert identity(later, stage="plain/read") != identity(whole, stage="plain/read")
    trained_on = whole | {"data": data | {"max_target": 3}}
    assert identity(trained_on, stage=stage) != identity(whole, stage=stage)


def test_another_evaluation_does_not_make_a_vocabulary_again(settings):
    """Its stage has fewer settings than the others: size and data."""
    data = settings["dual_bert"]["data"]
    one, other = ({"size": 99, "data": data | {"max_evaluate": most}} for most in (0, 7))
    assert identity(one, stage="vocabulary_99") == identity(other, stage="vocabulary_99")
