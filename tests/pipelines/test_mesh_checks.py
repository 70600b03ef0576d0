"""What does not fit the mesh is refused before the first stage, and nothing that fits."""

import importlib.util

import jax
import pytest

from clmrc_jax.files import InputError, write_json
from clmrc_jax.pipelines import batch_checks, mesh_checks
from clmrc_jax.pipelines.clmrc import Clmrc
from clmrc_jax.pipelines.clmrc_settings import clmrc_settings
from clmrc_jax.pipelines.cora import Cora
from clmrc_jax.pipelines.settings import cora_settings
from clmrc_jax.pipelines.stages import MANIFEST, Run
from clmrc_jax.pipelines.translator import Translation
from clmrc_jax.pipelines.translator_settings import translator_settings
from clmrc_jax.sharding import DEFAULT_RULES, make_mesh

PIPELINES = {
    "cora": (cora_settings, Cora),
    "dual_bert": (clmrc_settings, Clmrc),
    "translator": (translator_settings, Translation),
}
# Reads translations with another encoder than the run's, of 12 heads.
BACK = {
    "systems": ("bt_aligner",),
    "translation.forward": "command:cat",
    "translation.backward": "command:cat",
    "translation.reader": "google-bert/bert-base-cased",
}


@pytest.fixture
def settings(repository):
    """settings(name, preset, changes by dotted key) -> checked settings of a config file."""

    def make(name, preset="smoke", changes=()):
        path = repository / "configs" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"{name}_config", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(preset)
        config.update_from_flattened_dict(dict(changes))
        return PIPELINES[name][0](config)

    return make


@pytest.mark.parametrize(
    "name, changes, message",
    [
        (
            "cora",
            {"generator.batch_size": 12},
            r"config.generator.batch_size=12 does not divide over the 8 devices of the data axis; "
            r"set --config.generator.batch_size=16, or give the mesh a larger model axis$",
        ),
        (
            "cora",
            {"retriever.batch_size": 24, "retriever.accumulate": 2},
            r"batch_size=24 does not divide over the 8 devices of the data axis in "
            r"config.retriever.accumulate=2 micro-batches; set --config.retriever.batch_size=32, "
            r"or give the mesh a larger model axis, or fewer micro-batches$",
        ),
        (
            "cora",
            {"retriever.accumulate": 2, "retriever.chunk_size": 6},
            r"config.retriever.chunk_size=6 does not divide the 8 questions of a \(micro-\)batch; "
            r"set --config.retriever.chunk_size=4$",
        ),
        (
            "cora",
            {"mesh.model": 4},
            r"config.retriever_model does not fit config.mesh \(data=2, model=4\): parameter .*"
            r"axis 'heads' of size 2 does not divide over 4 devices",
        ),
        (
            "cora",
            {"mesh.model": 4, "retriever_model.sizes.num_attention_heads": 4},
            r"config.generator_model does not fit .*axis 'heads' of size 2 does not divide over 4",
        ),
        (
            "cora",
            {"retriever_model.sizes.num_attention_heads": 5},
            "config.retriever_model: hidden_size 32 is not divisible by num_attention_heads 5",
        ),
        (
            "cora",
            {"retriever_format.passage_buckets": (600,)},
            "config.retriever_format.passage_buckets goes to 600 tokens, but the encoder has 128",
        ),
        (
            "cora",
            {"retriever_model.pretrained": "/nowhere"},
            "config.retriever_model: /nowhere: no such folder; give one that holds config.json",
        ),
        (
            "dual_bert",
            {"target_recipe.batch_size": 12},
            "config.target_recipe.batch_size=12 does not divide over the 8 devices",
        ),
        (
            "dual_bert",
            {"source_recipe.batch_size": 24, "training.accumulate": 2},
            "config.source_recipe.batch_size=24 .* config.training.accumulate=2 micro-batches",
        ),
        ("dual_bert", {"mesh.model": 8}, r"config.model does not fit config.mesh \(data=1, model"),
        (
            "dual_bert",
            BACK | {"source_recipe.batch_size": 12},
            "config.source_recipe.batch_size=12 does not divide over the 8 devices",
        ),
        (
            "dual_bert",
            BACK | {"mesh.model": 8, "model.sizes.num_attention_heads": 8},
            r"config.translation.reader does not fit .*'heads' of size 12 does not divide over 8",
        ),
        ("translator", {"mesh.model": 8}, r"config.sizes does not fit config.mesh \(data=1, model"),
        ("translator", {"sizes.d_model": 30}, "config.sizes: d_model 30 is not divisible by"),
    ],
)
def test_misfit_is_named_with_what_would_fit_before_any_stage(
    settings, tmp_path, name, changes, message
):
    made = settings(name, changes=changes)
    with pytest.raises(InputError, match=message):
        PIPELINES[name][1](made, Run(tmp_path / "w", quiet=True))
    assert not (tmp_path / "w").exists(), "no stage, and so no file"


def check(name, made, mesh, workdir):
    rules = {**DEFAULT_RULES, **made.rules}
    if name == "translator":
        return mesh_checks.check_translator(made, mesh, rules)
    functions = {"cora": mesh_checks.check_cora, "dual_bert": mesh_checks.check_clmrc}
    return functions[name](made, mesh, rules, Run(workdir, quiet=True))


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("preset", ["smoke", "demo"])
@pytest.mark.parametrize("rules", [(), (("embed", "data"),)])
def test_presets_fit_every_number_of_devices(settings, tmp_path, name, preset, devices, rules):
    mesh = make_mesh(devices=jax.devices()[:devices])
    check(name, settings(name, preset, {"rules": rules}), mesh, tmp_path)


def test_published_sizes_are_known_without_a_download(settings, tmp_path):
    with pytest.raises(InputError, match="'heads' of size 12 does not divide over 8 devices"):
        check("cora", settings("cora", "paper"), make_mesh(1, 8), tmp_path)
    unknown = settings("cora", changes={"generator_model.pretrained": "nobody/has-this"})
    check("cora", unknown, make_mesh(8, 1), tmp_path)


def test_published_batch_of_mgen_needs_a_model_axis_on_64_chips():
    for sizes, fits in {(64, 1): False, (32, 2): True, (16, 4): True}.items():
        mesh = jax.sharding.AbstractMesh(sizes, ("data", "model"))
        if fits:
            batch_checks.check_batch(mesh, "generator.batch_size", 32)
            continue
        with pytest.raises(InputError, match="batch_size=32 does not divide over the 64 devices"):
            batch_checks.check_batch(mesh, "generator.batch_size", 32)


@pytest.mark.parametrize(
    "name, changes, stages",
    [
        ("cora", {"retriever.batch_size": 12}, ("round_0/mdpr", "round_1/mdpr")),
        ("cora", {"generator.batch_size": 12}, ("round_0/mgen", "round_1/mgen")),
        ("dual_bert", {"source_recipe.batch_size": 12, "systems": ("cascade",)}, ("source",)),
        ("dual_bert", {"target_recipe.batch_size": 12, "systems": ("dual",)}, ("dual/train",)),
        ("dual_bert", BACK | {"source_recipe.batch_size": 12}, ("source_reader",)),
    ],
)
def test_batches_of_finished_trainings_may_be_of_another_mesh(
    settings, tmp_path, name, changes, stages
):
    made, mesh = settings(name, changes=changes), make_mesh()
    for stage in stages:
        with pytest.raises(InputError, match="batch_size=12 does not divide over the 8 devices"):
            check(name, made, mesh, tmp_path)
        write_json(tmp_path / stage / MANIFEST, {})
    check(name, made, mesh, tmp_path)


def test_model_without_a_training_is_not_asked_for(settings, tmp_path):
    changes = {"generate": False, "rounds": 0, "generator.batch_size": 12}
    check("cora", settings("cora", changes=changes), make_mesh(), tmp_path)
    changes = {"systems": ("plain",), "source_recipe.batch_size": 12}
    check("dual_bert", settings("dual_bert", changes=changes), make_mesh(), tmp_path)
