"""The plan of `--dry_run`: every preset, without network, files or arrays."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import types

import pytest

from clmrc_jax.files import InputError, write_json
from clmrc_jax.pipelines import models, plan, results, train
from clmrc_jax.pipelines.settings import cora_settings

PRESETS = ("demo", "smoke", "facts", "paper", "squads")


@pytest.fixture(scope="module")
def configs(repository):
    spec = importlib.util.spec_from_file_location("cora_config", repository / "configs" / "cora.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a plan must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def _plan(configs, preset, **changes):
    config = configs.get_config(preset)
    config.update_from_flattened_dict(changes)
    return plan.make_plan(cora_settings(config))


@pytest.mark.parametrize("preset", PRESETS)
def test_dry_run_of_every_preset_prints_and_writes_nothing(
    configs, preset, offline, tmp_path, capsys
):
    workdir = tmp_path / "workdir"
    returned = train.main(configs.get_config(preset), str(workdir), dry_run=True)
    text = capsys.readouterr().out
    assert returned["name"] in text and "assumed:" in text
    assert list(returned["models"]) == ["retriever", "generator"][: 1 if preset == "squads" else 2]
    assert json.loads(json.dumps(returned)) == returned
    assert list(tmp_path.iterdir()) == []
    process = returned["process"]
    assert process["arrays of the largest step"] >= max(
        phase["total"] for phase in returned["memory"].values()
    )
    assert bool(returned["labelling"]) == (preset != "squads"), "which mines nothing"
    host = (returned["host"], returned["labelling"], returned["disk"], process)
    for parts in (*returned["memory"].values(), *host):
        if parts:
            assert parts["total"] == sum(size for name, size in parts.items() if name != "total")


def test_a_run_without_mgen_says_how_to_turn_it_on(configs):
    (note,) = [x for x in _plan(configs, "squads")["notes"] if "mGEN" in x]
    assert "mGEN is left out (generate=False)" in note
    assert "--config.generate=True" in note and "RANDOM weights unless --config.generator" in note
    changes = {"generator_model.pretrained": "google/mt5-base"}
    (note,) = [x for x in _plan(configs, "squads", **changes)["notes"] if "mGEN" in x]
    assert "from 'google/mt5-base'" in note
    assert not [x for x in _plan(configs, "demo")["notes"] if "left out" in x]


def test_output_and_report_say_of_mgen_what_the_plan_says(configs):
    without = cora_settings(configs.get_config("squads"))
    said = []
    run = types.SimpleNamespace(say=said.append)
    assert models.make_generator(types.SimpleNamespace(settings=without, run=run)) == (None, None)
    (noted,) = [x for x in results._notes(without) if "mGEN" in x]
    (planned,) = [x for x in plan.make_plan(without)["notes"] if "mGEN" in x]
    assert said == [planned] and noted == f"{planned}."
    (note,) = [x for x in results._notes(cora_settings(configs.get_config("smoke"))) if "mGEN" in x]
    assert note.startswith("mGEN started from RANDOM weights")


def test_dry_run_json_is_the_returned_plan(configs, capsys, tmp_path):
    returned = train.main(configs.get_config("squads"), str(tmp_path), dry_run=True, as_json=True)
    assert json.loads(capsys.readouterr().out) == returned


@pytest.fixture(scope="module")
def paper(configs):
    """The plan of the paper's preset for the eight devices of the tests."""
    return _plan(configs, "paper")


def test_plan_paper_has_the_sizes_of_the_design(paper):
    made = paper
    assert made["models"]["retriever"]["parameters"] == 2 * 166_765_824
    assert made["models"]["generator"]["parameters"] == 582_401_280
    assert made["host"]["float32 matrix"] == 43_600_000 * 768 * 4  # 134 GB
    assert made["host"]["hash codes"] == pytest.approx(8.4e9, rel=0.01)
    assert made["labelling"]["tokens of a part"] == 100_000 * 256 * 36
    assert made["labelling"]["total"] < 2e9, "a part of 3.5 million candidates"
    assert made["disk"]["embeddings"] == 3 * 43_600_000 * 768 * 2  # three rounds of 67 GB
    assert made["disk"]["passage store"] == pytest.approx(26e9, rel=0.01)
    assert [x["stage"] for x in made["stages"]].count("label candidates") == 2
    assert made["stages"][1]["count"] == 43_600_000
    assert made["seconds"] == pytest.approx(sum(x["seconds"] for x in made["stages"]))


def test_plan_smoke_counts_what_the_run_has(configs):
    made = _plan(configs, "smoke")
    # printed by a run of this preset: 1,264 passages; 64 / 208 / 208 questions kept
    corpus = {name: made["corpus"][name] for name in ("passages", "train", "dev", "test")}
    assert corpus == {"passages": 1264, "train": 64, "dev": 208, "test": 208}
    assert made["corpus"]["origin"] == "counted"


def test_plan_more_devices_than_present_divide_the_memory(configs, paper):
    many = _plan(configs, "paper", **{"mesh.data": 32})
    assert many["devices"]["planned"] == 32
    assert any("planned for 32 devices" in note for note in many["notes"])
    parts = [x["memory"]["train mGEN"] for x in (paper, many)]
    assert parts[1]["activations"] == pytest.approx(parts[0]["activations"] / 4)
    assert parts[1]["optimizer"] == parts[0]["optimizer"], "only the model axis divides these"


def test_plan_model_that_does_not_divide_over_the_mesh_is_refused(configs):
    with pytest.raises(InputError, match="axis 'heads' of size 12 does not divide over 8"):
        _plan(configs, "paper", **{"mesh.data": 16, "mesh.model": 8})


def test_plan_batch_that_does_not_divide_over_the_mesh_is_refused(configs):
    message = "config.retriever.batch_size=128 does not divide over the 256 devices"
    with pytest.raises(InputError, match=message):
        _plan(configs, "paper", **{"mesh.data": 256})


def test_plan_of_a_slice_has_its_memory_and_chip_hours(configs, capsys, tmp_path):
    config = configs.get_config("paper")
    made = train.main(config, str(tmp_path), dry_run=True, topology="v4-32")
    devices = made["devices"]
    assert devices["kind"] == "TPU v4" and devices["mesh"] == {"data": 16, "model": 1}
    assert devices["memory_bytes"] == 30.75 * 2**30
    hours = 16 * made["seconds"] / 3600
    assert f"v4-32: 16 chips, {hours:,.1f} chip-hours" in " ".join(capsys.readouterr().out.split())
    trained = next(row for row in made["stages"] if row["stage"] == "train mDPR")
    assert trained["seconds"] == pytest.approx(trained["flops"] / (16 * 275e12 * 0.4))


def test_plan_of_a_slice_refuses_part_of_it_and_no_run_takes_it(configs, tmp_path):
    config = configs.get_config("paper")
    with pytest.raises(InputError, match="--topology=v4-32 plans for a slice, and needs --dry_run"):
        train.main(config, str(tmp_path), topology="v4-32")
    config.mesh.data = 8
    with pytest.raises(InputError, match="is not of the 16 chips of v4-32"):
        train.main(config, str(tmp_path), dry_run=True, topology="v4-32")
    with pytest.raises(InputError, match="there is no such slice"):
        train.main(config, str(tmp_path), dry_run=True, topology="v4-33")


def test_plan_chunks_bound_the_activations(configs, paper):
    chunked = _plan(configs, "paper", **{"retriever.chunk_size": 16})
    parts = [x["memory"]["train mDPR"]["activations"] for x in (paper, chunked)]
    assert parts[1] < parts[0] / 10
    assert chunked["stages"][0]["flops"] == pytest.approx(paper["stages"][0]["flops"] * 4 / 3)


def test_plan_unknown_hub_id_is_said_and_the_rest_planned(configs, offline):
    made = _plan(configs, "paper", **{"retriever_model.pretrained": "nobody/knows-this"})
    assert made["models"]["retriever"]["parameters"] is None
    assert made["seconds"] is None and made["stages"][0]["flops"] is None
    assert any("nobody/knows-this is neither a folder" in note for note in made["notes"])
    assert "train mGEN" in made["memory"] and "train mDPR" not in made["memory"]


@pytest.mark.parametrize("path", ["./none", "../none", "~/none", "/nope", "a/b/c"])
def test_plan_names_a_path_without_a_folder(configs, offline, path):
    message = f"config.retriever_model: {path}: no such folder; give one that holds config.json"
    with pytest.raises(InputError, match=message):
        _plan(configs, "paper", **{"retriever_model.pretrained": path})


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"generator_model.pretrained": "my models/mt5"},
            "config.generator_model: my models/mt5: no such folder, and no id of the hub: Repo id",
        ),
        (
            {"generator_model.sizes.dtype": "float16"},
            "config.generator_model: mT5 overflows in float16",
        ),
        (
            {"retriever_format.passage_buckets": (128, 600)},
            "config.retriever_format.passage_buckets goes to 600 tokens, but the encoder has 512",
        ),
    ],
)
def test_plan_refuses_what_the_run_would(configs, offline, changes, message):
    with pytest.raises(InputError, match=message):
        _plan(configs, "paper", **changes)


def test_plan_local_folder_gives_its_sizes(configs, tmp_path):
    raw = {"model_type": "mt5", "vocab_size": 300, "d_model": 64, "d_kv": 16, "d_ff": 128}
    write_json(tmp_path / "config.json", raw | {"num_layers": 2, "num_heads": 4})
    made = _plan(configs, "paper", **{"generator_model.pretrained": str(tmp_path)})
    sizes = made["models"]["generator"]["sizes"]
    assert (sizes["vocab_size"], sizes["num_decoder_layers"]) == (300, 2)
    assert not sizes["tie_word_embeddings"] and sizes["remat"], "config's own sizes still apply"


SHORT_RUNS = {
    # All rounds: each adds programs, and the last one takes the most.
    "cora.py:demo": ("retriever.steps=(20,20,20)", "generator.steps=(20,20,20)"),
    "dual_bert.py:demo": ("source_recipe.epochs=0.2", "target_recipe.epochs=0.5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", SHORT_RUNS)
def test_a_real_run_on_the_cpu_takes_the_memory_of_its_plan(repository, tmp_path, preset):
    script, config = repository / "launch" / "tpu_train.py", repository / "configs" / preset
    flags = [f"--config={config}", f"--workdir={tmp_path}", "--json"]
    flags += [f"--config.{change}" for change in SHORT_RUNS[preset]]
    # One device, as a user has; the tests' own flags would make eight of the CPU.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}

    def launch(*more):
        command = [sys.executable, str(script), *flags, *more]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    planned = launch("--dry_run")["process"]["total"]
    launch()
    logs = [path.read_text().splitlines() for path in tmp_path.rglob("metrics.jsonl")]
    used = max(json.loads(lines[-1])["host_memory_peak_bytes"] for lines in logs)
    assert planned == pytest.approx(used, rel=0.2)
