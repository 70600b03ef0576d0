"""Two-layer models of every pipeline, compiled for real slices: memory, collectives, exit codes."""

import ast
import importlib.util
import json
import math
import pathlib
import re
import shlex

import jax
import pytest
from jax.sharding import PartitionSpec as P

from clmrc_jax.files import InputError
from clmrc_jax.pipelines import compile as compiling
from clmrc_jax.pipelines import (
    compile_advice,
    compile_steps,
    compile_tables,
    flops,
    hlo,
    topology,
)
from clmrc_jax.pipelines.settings import cora_settings

pytestmark = pytest.mark.skipif(
    not topology.can_compile(), reason="libtpu is not installed: pip install 'jax[tpu]'"
)
BERT = {
    "vocab_size": 1024,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "max_position_embeddings": 128,
    "dtype": "bfloat16",
}
MT5 = {
    "vocab_size": 1024,
    "d_model": 128,
    "d_ff": 256,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "dtype": "bfloat16",
    "remat": True,
}
SMALL = {
    "retriever.batch_size": 32,
    "retriever.encode_batch": 32,
    "generator.batch_size": 32,
    "generator.generate_batch": 32,
    "generator.max_length": 8,
    "generator_format.target_length": 8,
    "retriever_format.question_buckets": (32,),
    "retriever_format.passage_buckets": (64,),
    "generator_format.source_buckets": (128,),
}


def _config(repository, name, preset):
    spec = importlib.util.spec_from_file_location(name, repository / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(preset)


@pytest.fixture(scope="module")
def cora(repository):
    """cora(changes) -> the paper's config with two small layers."""

    def make(**changes):
        config = _config(repository, "cora", "paper")
        config.update_from_flattened_dict(SMALL | changes)
        config.retriever_model.update({"pretrained": "", "sizes": BERT})
        config.generator_model.update({"pretrained": "", "sizes": MT5})
        return config

    return make


@pytest.fixture(scope="module")
def v4(cora):
    """Rows by step of a report for v4-8, data parallel."""
    return compiling.make_report(
        cora(), "v4-8", steps=("train mDPR", "encode passages", "exact search", "generate")
    )


def _row(report, name):
    return next(row for row in report["steps"] if row["step"] == name)


def _parameters(sizes):
    """Parameters of a BERT, by hand."""
    e, m, layers = sizes["hidden_size"], sizes["intermediate_size"], sizes["num_hidden_layers"]
    tables = sizes["vocab_size"] + sizes["max_position_embeddings"] + 2
    layer = 4 * (e * e + e) + 2 * e * m + m + e + 2 * 2 * e
    return (tables + 2) * e + layers * layer


def test_state_of_the_mdpr_update_is_weights_and_two_statistics_on_every_chip(v4):
    memory = _row(v4, "train mDPR")["memory"]
    state = 2 * 3 * 4 * _parameters(BERT)  # two towers
    assert state <= memory["arguments"] <= 1.02 * state  # and the batch; XLA pads small vectors
    assert memory["capacity"] == 30.75 * 2**30
    assert memory["peak"] > memory["arguments"] and memory["held"] == 0
    assert v4["fits"] and v4["chips"] == 4


def test_mdpr_update_gathers_one_side_once_and_reduces_every_gradient_once(v4):
    """What one would draw on paper, to the byte but for a handful of values per question."""
    found = _row(v4, "train mDPR")["collectives"]
    questions, width = 32, BERT["hidden_size"]
    # The smaller side travels: 32 questions, not 64 passages; bfloat16, or float32 if fused so.
    assert found["all-gather"]["count"] == 1
    assert questions * width * 2 <= found["all-gather"]["bytes"] <= questions * width * 4
    # Gradients as computed: kernels in bfloat16; tables, biases and norms, which are sums over
    # tokens, in float32. Positions past the texts have none.
    unused = 2 * BERT["max_position_embeddings"] - 32 - 64
    tables = 2 * (BERT["vocab_size"] + BERT["max_position_embeddings"] + 2) - unused
    vectors = 2 * 5 * 2 * width + 2 * 2 * (5 * width + BERT["intermediate_size"])
    gradients = 2 * (2 * _parameters(BERT) - unused * width) + 2 * (tables * width + vectors)
    reduced = sum(row["bytes"] for kind, row in found.items() if "reduce" in kind)
    rest = 2 * questions * width * 4 + 8 * questions * 4  # of the vectors; loss, ranks, keys
    assert gradients <= reduced <= gradients + rest
    assert set(found) <= {"all-gather", "all-reduce", "reduce-scatter"}


@pytest.mark.slow  # tests/models/test_dropout.py holds the layers to the same
def test_update_on_more_chips_moves_no_more_through_hbm_per_chip(cora):
    """The same rows per chip: nothing is computed, or drawn for dropout, for the whole batch."""
    found = {}
    for name, rows in (("v4-8", 32), ("v4-32", 128)):
        changes = {"generator.batch_size": rows, "retriever.batch_size": rows}
        report = compiling.make_report(cora(**changes), name, steps=("train mGEN",))
        found[name] = _row(report, "train mGEN")
    assert found["v4-32"]["hbm_bytes"] < 1.1 * found["v4-8"]["hbm_bytes"]
    assert found["v4-32"]["memory"]["temporaries"] < 1.1 * found["v4-8"]["memory"]["temporaries"]


def test_encoding_and_decoding_need_no_collective(v4):
    assert _row(v4, "encode passages")["collectives"] == {}
    assert _row(v4, "generate")["collectives"] == {}


def test_exact_search_merges_scores_and_rows_of_the_local_top_k_once(v4):
    row = _row(v4, "exact search")
    assert list(row["collectives"]) == ["all-gather"]
    gathered = row["collectives"]["all-gather"]
    assert (gathered["count"], gathered["bytes"]) == (2, 2 * 256 * 4 * 20 * 4)
    # 4,194,304 rows per chip; float32 at full precision is six passes.
    assert row["flops"] == 2 * 256 * 4 * 2**22 * 128
    assert row["seconds"]["compute"] == pytest.approx(6 * row["flops"] / 4 / 275e12)


def test_counted_operations_agree_with_the_formulas(v4):
    for name, most in (("train mDPR", 1.05), ("encode passages", 1.0), ("generate", 1.25)):
        row = _row(v4, name)
        assert 1.0 <= row["flops"] / row["model_flops"] <= most, name


def test_fsdp_on_v5e_divides_the_state_and_gathers_the_weights(cora):
    config = cora()
    config.rules = (("embed", "data"),)
    report = compiling.make_report(config, "v5e-16", steps=["train mGEN"])
    row = _row(report, "train mGEN")
    attention, mlp, layers = 4 * 128 * 128, 3 * 128 * 256, 2
    parameters = 2 * 1024 * 128 + layers * (3 * attention + 2 * mlp)
    assert row["memory"]["arguments"] < 3 * 4 * parameters / 8  # of 16; vectors are padded
    assert {"all-gather", "all-reduce"} <= set(row["collectives"])
    assert report["mesh"] == {"data": 16, "model": 1} and report["fits"]


def test_dual_bert_update_compiles_for_v5e(repository):
    config = _config(repository, "dual_bert", "files")
    config.model.update({"pretrained": "", "sizes": BERT})
    config.format.update({"max_length": 64, "source_length": 64, "doc_stride": 16})
    config.format.max_query_length = 16
    report = compiling.make_report(config, "v5e-4", steps=["train Dual BERT"])
    row = _row(report, "train Dual BERT")
    assert row["fits"] and row["shape"] == "64 x 64 + 64"
    assert row["flops"] > row["model_flops"]  # the attention between the sides comes on top
    assert "all-gather" not in row["collectives"]


@pytest.mark.parametrize(
    ("config", "preset", "changes"),
    [
        ("dual_bert", "official", {"dual.lambda_group_size": 8}),
        ("back_translation", "apertium", {"systems": ("bt_aligner",)}),
    ],
)
def test_every_reading_config_compiles(repository, config, preset, changes):
    made = _config(repository, config, preset)
    made.model.update({"pretrained": "", "sizes": BERT | {"num_hidden_layers": 1}})
    made.format.update({"max_length": 64, "source_length": 64, "max_query_length": 16})
    made.update_from_flattened_dict(changes)
    name = "Dual BERT" if preset == "official" else "reader"
    assert compiling.make_report(made, "v4-8", steps=[f"read with {name}"])["fits"]


@pytest.mark.parametrize("name, chips", [("v5p-8", 4), ("v6e-8", 8), ("v5e-1", 1)])
def test_exact_search_compiles_for_every_kind_of_chip(cora, name, chips):
    report = compiling.make_report(cora(), name, steps=["exact search"])
    assert report["fits"] and report["chips"] == chips


def test_compiler_that_fails_is_named_with_its_version(monkeypatch, cora):
    def broken(lowered):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

    monkeypatch.setattr(jax.stages.Lowered, "compile", broken)
    with pytest.raises(InputError, match=r"search cannot .* by libtpu 0.* under jax 0.*RET_CHECK"):
        compiling.make_report(cora(), "v4-8", steps=["exact search"])


@pytest.fixture(scope="module")
def overflow(cora):
    """43.6M rows of 4 kB on four chips of 16 GiB."""
    changes = {"retriever_head.projection": 1024, "index.max_rows_on_device": 1 << 26}
    return compiling.make_report(cora(**changes), "v5e-4", steps=["exact search"])


def test_program_that_does_not_fit_says_by_how_much_and_what_would_help(overflow, capsys):
    row = _row(overflow, "exact search")
    assert not overflow["fits"] and not row["fits"]
    rows = math.ceil(43_600_000 / 4 / 2**14) * 2**14
    assert row["memory"]["peak"] >= rows * 4096 > row["memory"]["capacity"]
    # The table of chips says the same as the compiler's message.
    assert row["memory"]["capacity"] == topology.CHIPS["v5e"].usable_bytes
    assert row["options"][0][0] == f"--config.index.max_rows_on_device={1 << 25}"
    compile_tables.show(overflow)
    text = capsys.readouterr().out
    assert "exact search does not fit" in text and "max_rows_on_device" in text


def test_report_is_json_and_markdown(v4, overflow):
    for report in (v4, overflow):
        assert json.loads(json.dumps(report)) == report
        tables = compile_tables.markdown(report).split("\n\n")
        assert len(tables) == 3
        for table in tables:
            assert len({line.count("|") for line in table.splitlines()}) == 1
        assert len(tables[0].splitlines()) == 2 + len(report["steps"])


def test_main_prints_json_and_returns_whether_it_fits(cora, capsys):
    changes = {"retriever_head.projection": 1024, "index.max_rows_on_device": 1 << 26}
    options = {"steps": ["exact search"], "output": "json"}
    assert compiling.main(cora(**changes), "v5e-4", **options) is False
    assert json.loads(capsys.readouterr().out)["fits"] is False


@pytest.mark.parametrize(
    ("changes", "topology_name", "steps", "message"),
    [
        ({}, "v4-9", [], "there is no such slice"),
        ({}, "v4-8", ["train"], "'train' is no step of this run"),
        ({"retriever.batch_size": 30}, "v4-8", [], "retriever.batch_size=30 does not divide"),
        ({"generator.batch_size": 6}, "v4-8", [], "--config.generator.batch_size=8"),
        ({"mesh.model": 3}, "v4-8", [], "does not fit 4 devices"),
        ({"mesh.data": 1, "mesh.model": 4}, "v4-8", [], "axis 'heads' of size 2 does not divide"),
        ({"task": "translate"}, "v4-8", [], "one of the tasks cora, clmrc"),
    ],
)
def test_bad_input_is_named_before_anything_is_compiled(
    cora, changes, topology_name, steps, message
):
    config = cora()
    with config.unlocked():
        for key, value in changes.items():
            config.update({key: value} if key == "task" else {})
            config.update_from_flattened_dict({key: value} if key != "task" else {})
    with pytest.raises(InputError, match=message):
        compiling.make_report(config, topology_name, steps=steps)


def test_model_axis_divides_weights_and_hosts_keep_views_of_their_own(repository):
    settings = cora_settings(_config(repository, "cora", "paper"))
    wanted = topology.slice_of("v5e-16")
    steps, held = {}, {}
    for model in (1, 4):
        meshes = compiling.make_meshes({"data": -1, "model": model}, wanted)
        steps[model] = {step.name: step for step in compile_steps.cora_steps(settings, meshes)}
        # While exact search runs, mDPR waits on the devices; mGEN rests on the host.
        held[model] = steps[model]["exact search"].held
        others = {name: step.held for name, step in steps[model].items() if name != "exact search"}
        assert others.pop("encode passages") == pytest.approx(held[model] / 2)  # other tower
        assert set(others.values()) == {0}, "an update has the devices for itself"
    assert held[1] == 4 * 2 * 166_765_824
    # Norms, position tables and relative positions stay whole; everything else is divided.
    assert held[1] / 4 < held[4] < 1.02 * held[1] / 4
    for step in steps[4].values():
        chips = 16 if step.name.startswith("train ") else 4
        assert step.mesh.size == chips and step.mesh.shape["model"] == 4, step.name
    # mBERT's 105,879 rows do not divide by 4: the columns do.
    table = steps[4]["train mDPR"].arguments[0].params["question"]["bert"]["embeddings"]
    assert table["word_embeddings"]["embedding"].sharding.spec == P(None, "model")


def test_roofline_takes_the_slowest_of_the_three_at_their_peaks():
    wanted = topology.slice_of("v5e-16")
    sent = {"count": 1, "bytes": 0, "sent": 300e9, "sent_in_part": 100e9}
    traffic = hlo.Traffic({"all-reduce": sent}, hbm_bytes=800e9, unknown_loops=0)
    found = compiling.roofline(flops.Operations(1.0, 16 * 197e12), traffic, wanted)
    assert found["compute"] == pytest.approx(1.0) and found["hbm"] == pytest.approx(1.0)
    assert found["interconnect"] == pytest.approx(200 / 200 + 100 / 100)
    assert (found["bound"], found["step"]) == ("interconnect", found["interconnect"])


def test_roofline_of_one_chip_has_no_interconnect():
    traffic = hlo.Traffic({}, hbm_bytes=800e9, unknown_loops=0)
    found = compiling.roofline(flops.Operations(1.0, 0.0), traffic, topology.slice_of("v5e-1"))
    assert (found["interconnect"], found["bound"], found["step"]) == (0.0, "hbm", 1.0)


def test_options_that_shrink_what_is_too_large_come_first():
    state = compile_advice.FSDP
    rows = compile_advice.smaller("retriever.batch_size", 128, "fewer rows")[0]
    first = compile_advice.best_first((rows, state), arguments=95, capacity=100)
    assert first == [state, rows]
    assert compile_advice.best_first((state, rows), arguments=10, capacity=100) == [rows, state]
    assert rows.change == "--config.retriever.batch_size=64"


def _documented():
    """(file and preset, slice, steps, changes of the config) of every command in the docs."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "tpu_compile.md"
    block = page.read_text("utf-8").split("## The paper's presets")[1].split("```")[1]
    prefix, found = "", []
    for line in block.replace("\\\n", "").strip().splitlines():
        if line.startswith("P="):
            (prefix,) = shlex.split(line.removeprefix("P="))
            continue
        command, _, comment = line.replace("$P", prefix).partition("#")
        flags = (part for part in shlex.split(command) if "=" in part)
        flags = dict(part.removeprefix("--").split("=", 1) for part in flags)
        preset, steps = flags.pop("config"), flags.pop("steps", "")
        slices = [flags.pop("topology"), *re.findall(r"v\d\w*-\d+", comment)]
        changes = {k.removeprefix("config."): ast.literal_eval(v) for k, v in flags.items()}
        steps = tuple(filter(None, steps.split(",")))
        found += [(preset, name, steps, changes) for name in slices]
    return found


def test_documented_commands_cover_every_training_of_the_table():
    slices = ("v4-8", "v4-32", "v5e-16", "v5e-256")
    cora, dual_bert = ("configs/cora.py:paper", "configs/dual_bert.py:files")
    found = {(preset, name, *changes.values()) for preset, name, _, changes in _documented()}
    whole = {(cora, "v4-8"), (cora, "v4-32"), (cora, "v5e-16", 32), (cora, "v5e-256", 1024, 256)}
    parts = {(cora, name, 1024, n) for name, n in zip(slices, (128, 256, 128))}
    parts.add((cora, "v5e-256", 128, 2, 128))
    reading = {(dual_bert, name, *([256, 256] * (name == "v5e-256"))) for name in slices}
    assert found == whole | parts | reading


@pytest.mark.slow
@pytest.mark.parametrize("preset, name, steps, changes", _documented())
def test_documented_command_fits_at_full_size(repository, preset, name, steps, changes):
    file, _, preset = preset.partition(":")
    config = _config(repository, pathlib.Path(file).stem, preset)
    config.update_from_flattened_dict(changes)
    report = compiling.make_report(config, name, steps=steps)
    assert report["fits"], [(row["step"], row["memory"]) for row in report["steps"]]
