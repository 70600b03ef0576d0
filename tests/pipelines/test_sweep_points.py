import json
import subprocess
import sys

import pytest

from clmrc_jax.files import InputError
from clmrc_jax.pipelines.sweep_points import (
    expand,
    load_sweep,
    point_name,
    share_translations,
    short_keys,
)

CONFIG = """
import ml_collections
from ml_collections.config_dict import placeholder

PUBLISHED = {"dual": {"f1": 90.2}, "other.py:raw": {"f1": 1.0}}
SWEEPS = {
    "seeds": {"preset": ["cascade", "dual"], "seed": [0, 1]},
    "table": lambda: {"points": {"preset": ["cascade", "other.py:raw"]}, "metrics": ["f1"],
                      "baseline": "cascade"},
    "odd": {"points": [{"seed": 1}], "metric": ["f1"]},
}


def get_config(preset="cascade"):
    if preset not in ("cascade", "dual"):
        raise ValueError(f"no preset {preset!r}")
    return ml_collections.ConfigDict({
        "name": preset, "seed": 0, "corpus": {"seed": 0, "path": ""}, "ablate": False,
        "reader": {"steps": (80, 60), "rate": 1e-3}, "optimizer": {"rate": 1e-3, "decay": 0.0},
        "mesh": {"data": -1, "model": 1}, "limit": None,
        "dual": {"weight": placeholder(float), "chunk": placeholder(int),
                 "masked": placeholder(bool), "residual": placeholder(str)},
    })
"""
OTHER = """
import ml_collections


def get_config(preset="translated"):
    return ml_collections.ConfigDict({"seed": 0, "trick": preset})
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "other.py").write_text(OTHER)
    path = tmp_path / "dual_bert.py"
    path.write_text(CONFIG)
    return str(path)


def names(sweep):
    return [point.name for point in sweep.points]


def test_expand_multiplies_lists_and_walks_zips_together():
    block = {"a": [1, 2], "zip": {"b": ["x", "y"], "c": [10, 20]}, "d": 5}
    assert expand(block) == [
        {"a": a, "b": b, "c": c, "d": 5} for a in (1, 2) for b, c in (("x", 10), ("y", 20))
    ]
    two = expand({"zip": [{"a": [1, 2]}, {"b": [3, 4], "c": [5, 6]}]})
    assert two == [{"a": a, "b": b, "c": c} for a in (1, 2) for b, c in ((3, 5), (4, 6))]
    assert expand([{"a": 1}, {"a": range(2, 4)}]) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert expand({"steps": [(8, 6), (4,)]}) == [{"steps": (8, 6)}, {"steps": (4,)}]


@pytest.mark.parametrize(
    "block, message",
    [
        ({"a": []}, "'a' has an empty list of values"),
        ([], "empty list of points"),
        (3, "expected {key: "),
        ({"zip": {"a": [1, 2], "b": [1]}}, r"differ in length \(a: 2, b: 1\)"),
        ({"zip": [1]}, "zip needs"),
        ({"a": 1, "zip": {"a": [1]}}, "'a' is swept twice"),
    ],
)
def test_expand_bad_block_is_named(block, message):
    with pytest.raises(InputError, match=message):
        expand(block, "s")


def test_load_named_sweep_gives_points_with_names_sources_and_published_numbers(config):
    sweep = load_sweep(config, "seeds")
    assert names(sweep) == ["cascade,seed=0", "cascade,seed=1", "dual,seed=0", "dual,seed=1"]
    last = sweep.points[-1]
    assert last.source == f"{config}:dual" and last.published == {"f1": 90.2}
    assert last.config["seed"] == 1 and last.config["reader.steps"] == [80, 60]
    assert sweep.points[0].published == {} and sweep.metrics == ()


def test_load_sweep_function_with_table_options_and_a_preset_of_another_file(config):
    sweep = load_sweep(config, "table")
    assert names(sweep) == ["cascade", "other.raw"]
    assert sweep.metrics == ("f1",) and sweep.baseline == "cascade"
    assert sweep.points[1].source.endswith("other.py:raw") and sweep.points[1].published["f1"] == 1
    with pytest.raises(InputError, match="sweep odd: metric beside points; known: metrics"):
        load_sweep(config, "odd")


def test_load_json_sweep_converts_to_the_types_of_the_config(config):
    text = '{"optimizer.rate": [1, 2e-5], "reader.steps": [[8, 6]], "ablate": true}'
    first, second = load_sweep(f"{config}:dual", text).points
    assert first.values == {"optimizer.rate": 1.0, "reader.steps": (8, 6), "ablate": True}
    assert second.name == "dual,optimizer.rate=2e-5,steps=8+6,ablate=True"
    nested = load_sweep(config, '{"mesh": [{"data": 4, "model": 2}, {"data": 8, "model": 1}]}')
    assert names(nested) == ["cascade,data=4,model=2", "cascade,data=8,model=1"]


def test_load_sweep_drops_points_that_come_twice(config):
    sweep = load_sweep(config, '[{"seed": [0, 1]}, {"seed": [1, 2]}]')
    assert names(sweep) == ["cascade,seed=0", "cascade,seed=1", "cascade,seed=2"]


@pytest.mark.parametrize(
    "sweep, message",
    [
        ('{"optimizer.lr": 1}', r"optimizer.lr does not exist; known inside optimizer: .*rate"),
        ('{"seed.x": 1}', "seed.x does not exist; known inside seed: nothing"),
        ('{"seed": [0.5]}', r"seed is int \(0\); 0.5 does not fit"),
        ('{"seed": [true]}', "seed is int .*True does not fit"),
        ('{"ablate": [1]}', "ablate is bool"),
        ('{"corpus.path": [3]}', "corpus.path is str"),
        ('{"reader.steps": [80, 60]}', r"80 does not fit; a list of alternatives holds lists"),
        ('{"mesh": [4]}', "mesh is a section(.|\n)*; set one of data, model"),
        ('{"limit": [4]}', r"limit is NoneType \(None\); 4 does not fit"),
        ('{"dual.weight": ["much"]}', r"dual.weight is float \(None\); 'much' does not fit"),
        ('{"dual.chunk": [0.5]}', r"dual.chunk is int \(None\); 0.5 does not fit"),
        ('{"dual.masked": [1]}', r"dual.masked is bool \(None\); 1 does not fit"),
        ('{"preset": ["big"]}', "dual_bert.py:big: no preset 'big'"),
        ('{"preset": [1]}', "preset 1 is not a name"),
        ('{"preset": ["absent.py:x"]}', "absent.py: no such config file"),
        ('{"seed": 1, "seed": 2}', "'seed' stands twice"),
        ('{"seed": ', "not valid JSON"),
        ("table3", "no sweep 'table3': choose seeds, table, odd"),
    ],
)
def test_load_sweep_bad_input_says_what_and_where(config, sweep, message):
    with pytest.raises(InputError, match=message):
        load_sweep(config, sweep)


def test_load_sweep_without_config_file_or_get_config_raises(tmp_path):
    with pytest.raises(InputError, match="x.py: no such config file"):
        load_sweep(str(tmp_path / "x.py"), "{}")
    (tmp_path / "x.py").write_text("")
    with pytest.raises(InputError, match="no function get_config"):
        load_sweep(str(tmp_path / "x.py"), "{}")
    (tmp_path / "x.py").write_text("import nothing_like_it")
    with pytest.raises(InputError, match="x.py: ModuleNotFoundError: .*'nothing_like_it'"):
        load_sweep(str(tmp_path / "x.py"), "{}")
    (tmp_path / "x.md").write_text("")
    with pytest.raises(InputError, match="x.md: no Python file"):
        load_sweep(str(tmp_path / "x.md"), "{}")


def test_overrides_hold_for_all_points_and_stay_out_of_the_names(config):
    given = [("optimizer.decay", "1"), ("corpus.path", "7"), ("ablate", "true")]
    points = load_sweep(config, '{"seed": [0, 1]}', given).points
    assert [point.name for point in points] == ["cascade,seed=0", "cascade,seed=1"]
    assert all(
        p.fixed == {"optimizer.decay": 1.0, "corpus.path": "7", "ablate": True} for p in points
    )
    with pytest.raises(InputError, match="optimizer.decay is float"):
        load_sweep(config, '{"seed": 0}', [("optimizer.decay", "much")])


def test_placeholder_takes_values_of_its_type_as_an_axis_and_for_all_points(config):
    text = '{"dual.weight": [1, 0.5], "dual.masked": false}'
    given = [("dual.chunk", "8"), ("dual.residual", "source")]
    points = load_sweep(config, text, given).points
    assert [p.values for p in points] == [
        {"dual.weight": weight, "dual.masked": False} for weight in (1.0, 0.5)
    ]
    assert type(points[0].values["dual.weight"]) is float
    assert points[0].fixed == {"dual.chunk": 8, "dual.residual": "source"}
    assert points[1].config["dual.weight"] == 0.5 and points[1].name.startswith(
        "cascade,weight=0.5"
    )
    (point,) = load_sweep(config, '{"seed": 0}', [("dual.weight", "inf")]).points
    assert point.flags()[1] == "--config.dual.weight=inf"
    with pytest.raises(InputError, match="dual.chunk is int"):
        load_sweep(config, '{"seed": 0}', [("dual.chunk", "few")])


def test_flags_give_the_trainer_the_config_that_was_checked(config):
    """Read back by the parser that the trainer uses."""
    text = (
        '{"preset": "dual", "reader.steps": [[8]], "ablate": true, "seed": 3, "dual.weight": 1,'
        ' "dual.masked": false}'
    )
    (point,) = load_sweep(config, text, [("corpus.path", "a b'c")]).points
    script = (
        "from absl import app; from ml_collections import config_flags\n"
        "c = config_flags.DEFINE_config_file('config')\n"
        "app.run(lambda _: print(c.value.to_json(sort_keys=True)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *point.flags()], capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout)
    assert seen["name"] == "dual" and seen["seed"] == 3 and seen["ablate"] is True
    assert seen["dual"]["weight"] == 1.0 and seen["dual"]["masked"] is False
    assert seen["reader"]["steps"] == [8] and seen["corpus"]["path"] == "a b'c"


def test_point_name_is_safe_and_unique_where_text_is_not():
    keys = ["corpus.path", "seed"]
    plain = point_name("dual", {"corpus.path": "a"}, keys)
    slash = point_name("dual", {"corpus.path": "a/b"}, keys)
    space = point_name("dual", {"corpus.path": "a b"}, keys)
    assert plain == "dual,path=a"
    assert slash.startswith("dual,path=a_b-") and space.startswith("dual,path=a_b-")
    assert slash != space
    long = point_name("dual", {"corpus.path": "x" * 300}, keys)
    assert len(long) <= 120 and long != point_name("dual", {"corpus.path": "x" * 301}, keys)


def test_short_keys_are_the_shortest_ending_of_one_key(config):
    points = load_sweep(config, '{"optimizer.rate": 1, "corpus.seed": 1, "seed": 1}').points
    assert short_keys(points) == {
        "optimizer.rate": "optimizer.rate",
        "corpus.seed": "corpus.seed",
        "seed": "seed",
    }
    assert short_keys(load_sweep(config, '{"optimizer.decay": 1}').points) == {
        "optimizer.decay": "decay"
    }


def test_points_that_translate_share_one_cache_unless_they_name_their_own(repository, config):
    back = str(repository / "configs" / "back_translation.py")
    text = '[{"seed": [0, 1]}, {"preset": "dual_bert.py:smoke"}, {"translation.cache": "own"}]'
    plan = load_sweep(back, text)
    points = share_translations(plan, "runs/w").points
    caches = [point.config["translation.cache"] for point in points]
    assert caches == ["runs/w/translations"] * 2 + ["", "own"]
    assert "--config.translation.cache=runs/w/translations" in points[0].flags()
    assert [p.name for p in points] == [p.name for p in plan.points]
    assert points[2] == plan.points[2] and points[3] == plan.points[3]
    other = load_sweep(config, "seeds")
    assert share_translations(other, "w") == other
