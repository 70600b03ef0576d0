"""--dry_run of reading configs: counts, memory and time without network, files or arrays."""

import json
import socket

import pytest

from clmrc_jax.data.mrc_examples import Answer, MrcExample, write_squad
from clmrc_jax.files import InputError
from clmrc_jax.pipelines import train
from clmrc_jax.pipelines.clmrc_plan import make_plan
from clmrc_jax.pipelines.clmrc_settings import clmrc_settings


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a plan must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def plan(reading_config):
    """plan(preset, **{dotted key: value}) of configs/dual_bert.py."""
    return lambda preset, **changes: make_plan(clmrc_settings(reading_config(preset, **changes)))


def rows(made):
    return {row["stage"]: row for row in made["stages"]}


@pytest.mark.parametrize("preset", ["smoke", "official", "f3_drcd_500"])
def test_dry_run_prints_and_writes_nothing(reading_config, preset, tmp_path, capsys):
    returned = train.main(reading_config(preset), str(tmp_path / "w"), dry_run=True)
    text = capsys.readouterr().out
    assert returned["name"] in text and "assumed:" in text and "questions: " in text
    assert json.loads(json.dumps(returned)) == returned
    assert list(tmp_path.iterdir()) == []
    for parts in (*returned["memory"].values(), returned["disk"]):
        assert parts["total"] == sum(size for name, size in parts.items() if name != "total")
    assert returned["seconds"] == pytest.approx(sum(x["seconds"] for x in returned["stages"]))


def test_dry_run_json_is_the_returned_plan(reading_config, tmp_path, capsys):
    returned = train.main(reading_config("smoke"), str(tmp_path), dry_run=True, as_json=True)
    assert json.loads(capsys.readouterr().out) == returned


def test_published_row_is_planned_from_the_sizes_of_the_paper(plan):
    made = plan("t2_12")
    assert made["questions"] == {"source": 87_599, "bilingual": 10_321, "cmrc_dev": 3_219}
    encoder = 177_262_848  # mBERT cased without its pooler
    assert made["models"]["plain reader"]["parameters"] == encoder + 2 * 768 + 2
    fusion = 4 * (768 * 768 + 768) + 2 * 768
    heads = 2 * 2 * 768 + 2 + 2 * 768 + 2
    assert made["models"]["Dual BERT"]["parameters"] == encoder + fusion + heads
    stages = rows(made)
    assert list(stages) == ["source", "dual_squad/train", "dual_squad/read"]
    assert stages["source"]["count"] == int(round(87_599 * 1.01) / 64 * 2)
    per_step = {name: stages[name]["flops"] / stages[name]["count"] for name in stages}
    assert 2 < per_step["dual_squad/train"] / per_step["source"] < 2.3, "two sides, and SAA"
    memory = made["memory"]
    assert (
        memory["train Dual BERT"]["activations"] > 2 * memory["train plain reader"]["activations"]
    )
    assert memory["train Dual BERT"]["optimizer"] == 2 * memory["train Dual BERT"]["parameters"] + 4
    assert any("SQuAD 1.1 and CMRC 2018 are assumed" in note for note in made["notes"])


def test_options_that_save_memory_save_it_in_the_plan(plan):
    def held(remat=False, **changes):
        sizes = {"num_hidden_layers": 2, "dtype": "bfloat16", "remat": remat}
        made = plan("t2_08", **{"model.sizes": sizes} | changes)
        return made["memory"]["train Dual BERT"]["activations"]

    whole = held()
    assert held(**{"dual.saa_chunk": 64}) < whole < held(**{"dual.saa": "explicit"})
    assert held(**{"dual.adaptive": False}) < whole and held(remat=True) < whole
    assert held(**{"training.accumulate": 4}) == pytest.approx(whole / 4)
    assert held(**{"mesh.data": 16}) == pytest.approx(whole / 2), "eight devices are here"


def test_demo_counts_the_embedded_corpus_and_shares_the_source_phase(plan):
    made = plan("demo")
    assert made["questions"]["target"] == made["questions"]["bilingual"] > 100
    stages = list(rows(made))
    assert stages.count("source") == 1 and stages[:3] == ["source", "zero_shot/read", "plain/train"]
    assert len(stages) == 1 + 4 + 3
    assert any("tokenized" in note for note in made["notes"])


def test_files_are_counted(plan, tmp_path):
    answer = Answer("long", 0)
    examples = [MrcExample(str(i), "zh_cn", "", "?", "long" * 300, (answer,)) for i in range(5)]
    write_squad(tmp_path / "train.json", examples)
    made = plan(
        "t2_07",
        **{
            "data.target_train": ((str(tmp_path / "train.json"), "zh_cn"),),
            "target_recipe.batch_size": 1,
            "mesh.data": 1,
        },
    )
    assert made["questions"] == {"target": 5, "cmrc_dev": 3_219}
    # 1,200 characters, one token each; windows of 508 that begin every 128
    assert rows(made)["plain/train"]["count"] == 2 * 5 * 7
    with pytest.raises(InputError, match=r"gone\.json: no such file"):
        plan("t2_07", **{"data.target_train": (("gone.json", "zh_cn"),)})


def test_back_translation_counts_characters_and_no_time_for_them(plan):
    systems = ("bt_raw", "bt_verifier")
    command = {f"translation.{name}": "command:cat" for name in ("forward", "backward")}
    made = plan("files", systems=systems, **command)
    stages = rows(made)
    assert list(stages) == [
        *("source", "translate", "read translations"),
        *("bt_verifier/train", "bt_verifier/read"),
    ]
    assert stages["translate"]["count"] == (10_321 + 3_219) * 525
    assert stages["translate"]["seconds"] is None and made["seconds"] > 0
    assert any("characters" in note for note in made["notes"])
    given = plan("files", systems=systems, source_model="somewhere", **command)
    assert "source" not in rows(given) and any("somewhere" in note for note in given["notes"])


def test_source_reader_on_another_encoder_is_planned_in_its_own_size(plan):
    large = {"translation.reader": "google-bert/bert-large-cased", "systems": ("bt_aligner",)}
    command = {f"translation.{name}": "command:cat" for name in ("forward", "backward")}
    made, same = (
        plan("files", **large, **command),
        plan("files", systems=("bt_aligner",), **command),
    )
    models = made["models"]
    assert models["source reader"]["from"] == "google-bert/bert-large-cased"
    assert models["source reader"]["sizes"]["hidden_size"] == 1024
    assert models["plain reader"]["sizes"]["hidden_size"] == 768
    ours, theirs = rows(made), rows(same)
    assert list(ours)[0] == "source_reader" and "source" not in ours
    assert ours["source_reader"]["flops"] > 3 * theirs["source"]["flops"]
    assert ours["read translations"]["flops"] > 3 * theirs["read translations"]["flops"]
    assert ours["bt_aligner/train"] == theirs["bt_aligner/train"]
    assert (
        made["disk"]["models"] > same["disk"]["models"] and "train source reader" in made["memory"]
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.pretrained": "./e5"}, "config.model: ./e5: no such folder; give one that holds"),
        ({"format.max_length": 600}, "max_length 600 .* is more than the encoder's 512 positions"),
        ({"model.sizes": {"hidden_size": 50}}, "config.model: hidden_size 50 is not divisible"),
    ],
)
def test_what_the_run_refuses_the_plan_refuses_too(plan, changes, message):
    with pytest.raises(InputError, match=message):
        plan("t2_07", **changes)


def test_unknown_encoder_is_said_and_the_questions_still_counted(plan):
    made = plan("t2_07", **{"model.pretrained": "nobody/knows-this"})
    assert made["models"] == {} and made["memory"] == {} and made["disk"] == {}
    assert made["seconds"] is None and rows(made)["plain/train"]["count"] > 0
    assert any("nobody/knows-this is neither a folder" in note for note in made["notes"])
