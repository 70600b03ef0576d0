"""Makes partition_specs/*.json: where every parameter of a preset lies, for a review of sharding.

    PYTHONPATH=. python tests/golden/make_partition_specs.py

One file per preset and model, one line per parameter, its PartitionSpec under every variant: "-"
is a dimension that is not cut. Layers that agree share a line. From shapes alone, on meshes that
need no devices.
"""

import collections
import importlib.util
import json
import pathlib
import re

import jax
from jax.sharding import AbstractMesh, AxisType

from clmrc_jax import sharding
from clmrc_jax.models import biencoder, dual_bert, marian, mt5, span_head
from clmrc_jax.pipelines.clmrc_settings import clmrc_settings
from clmrc_jax.pipelines.plan import config_of
from clmrc_jax.pipelines.settings import cora_settings
from clmrc_jax.pipelines.translator_settings import translator_settings

FOLDER = pathlib.Path(__file__).with_name("partition_specs")
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
FSDP = {"embed": "data"}
# name: (data, model) devices, changes to the default rules
VARIANTS = {
    "data": ((8, 1), {}),
    "fsdp": ((8, 1), FSDP),
    "model2": ((4, 2), {}),
    "fsdp_model2": ((4, 2), FSDP),
}


def preset(file: str, name: str):
    """configs/FILE.py:NAME."""
    spec = importlib.util.spec_from_file_location(f"{file}_config", CONFIGS / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(name)


def models() -> dict[str, tuple]:
    """File name -> (abstract parameters, axes table)."""
    found, key = {}, jax.random.key(0)
    for name in ("paper", "demo"):
        s = cora_settings(preset("cora", name))
        bi_encoder = s.biencoder(config_of(s.retriever_model, "bert", []))
        generator = config_of(s.generator_model, "mt5", [])
        for model, config, kind in (
            (biencoder, bi_encoder, "retriever"),
            (mt5, generator, "generator"),
        ):
            params = jax.eval_shape(lambda m=model, c=config: m.init(c, key))
            found[f"cora_{name}_{kind}"] = params, model.PARAM_AXES
    s = clmrc_settings(preset("dual_bert", "files"))
    bert = config_of(s.model, "bert", [])
    translator = translator_settings(preset("translator", "tatoeba"))
    size = translator.vocabulary
    others = {
        "dual_bert_files": (dual_bert, s.dual_bert(bert)),
        "dual_bert_files_plain_reader": (span_head, bert),
        "translator_tatoeba": (marian, marian.MarianConfig(vocab_size=size, **translator.sizes)),
    }
    for name, (model, config) in others.items():
        params = jax.eval_shape(lambda m=model, c=config: m.init(c, key))
        found[name] = params, model.PARAM_AXES
    return found


def table(params, axes) -> dict[str, dict[str, str]]:
    """{parameter: {"shape": .., variant: spec}}, layers that agree on one line."""
    rows = {
        path: {"shape": " ".join(map(str, leaf.shape))}
        for path, leaf in sharding.flatten_paths(params).items()
    }
    for variant, (sizes, changes) in VARIANTS.items():
        mesh = AbstractMesh(sizes, ("data", "model"), (AxisType.Auto,) * 2)
        specs = sharding.param_specs(params, axes, {**sharding.DEFAULT_RULES, **changes}, mesh)
        leaves = jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, sharding.PartitionSpec))
        for path, spec in zip(rows, leaves, strict=True):
            rows[path][variant] = " ".join(map(_entry, spec))
    return _merge_layers(rows)


def _entry(entry) -> str:
    return "-" if entry is None else entry if isinstance(entry, str) else "+".join(entry)


def _merge_layers(rows: dict) -> dict:
    groups = collections.defaultdict(list)
    for path, row in rows.items():
        groups[re.sub(r"layers_\d+", "layers_*", path), json.dumps(row)].append(path)
    merged = {}
    for (pattern, row), paths in groups.items():
        numbers = [int(n) for path in paths for n in re.findall(r"layers_(\d+)", path)]
        span = f"layers_{min(numbers)}..{max(numbers)}" if len(paths) > 1 else ""
        assert not span or sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
        merged[pattern.replace("layers_*", span) if span else paths[0]] = json.loads(row)
    return merged


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, (params, axes) in models().items():
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in table(params, axes).items()]
        (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
