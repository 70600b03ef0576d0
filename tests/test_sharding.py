import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from clmrc_jax import sharding
from clmrc_jax.files import InputError
from clmrc_jax.models import bert

AXES = (
    (r"dense/kernel", ("embed", "mlp")),
    (r"dense/bias", ("mlp",)),
    (r"norm/scale", ("embed",)),
)


def abstract(embed=8, mlp=16):
    shape = jax.ShapeDtypeStruct
    return {
        "tower": {
            "dense": {
                "kernel": shape((embed, mlp), jnp.float32),
                "bias": shape((mlp,), jnp.float32),
            },
            "norm": {"scale": shape((embed,), jnp.float32)},
        }
    }


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((-1, 1), (8, 1)), ((4, 2), (4, 2)), ((-1, 4), (2, 4)), ((2, -1), (2, 4))],
)
def test_make_mesh_fills_the_free_axis(sizes, expected):
    mesh = sharding.make_mesh(*sizes)
    assert tuple(mesh.shape.items()) == (("data", expected[0]), ("model", expected[1]))


@pytest.mark.parametrize("sizes", [(3, 1), (-1, 3), (4, 1), (-1, -1), (0, 1), (-1, 16)])
def test_make_mesh_sizes_that_do_not_fit_raise(sizes):
    with pytest.raises(InputError, match="mesh"):
        sharding.make_mesh(*sizes)


def test_param_specs_joins_table_and_rules():
    specs = sharding.param_specs(abstract(), AXES, mesh=sharding.make_mesh(4, 2))
    assert specs["tower"]["dense"] == {"kernel": P(None, "model"), "bias": P("model")}
    assert specs["tower"]["norm"]["scale"] == P(None)


def test_param_specs_fsdp_is_one_rule():
    rules = {**sharding.DEFAULT_RULES, "embed": ["data"]}  # a list, as from a config file
    specs = sharding.param_specs(abstract(), AXES, rules, sharding.make_mesh(4, 2))
    assert specs["tower"]["dense"]["kernel"] == P(("data",), "model")


def test_parse_rules_takes_a_mapping_and_pairs_alike():
    wanted = {"embed": "data", "mlp": ("data", "model"), "vocab": None}
    assert sharding.parse_rules({**wanted, "mlp": ["data", "model"]}) == wanted
    assert sharding.parse_rules(tuple(wanted.items())) == wanted
    assert sharding.parse_rules(()) == sharding.parse_rules({}) == {}
    assert {sharding.VOCABULARY, "embed"} <= set(sharding.DEFAULT_RULES)
    assert tuple(sharding.make_mesh().shape) == sharding.MESH_AXES


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (("embed", "data"), "rules has 'embed', which is no pair.*config.rules="),
        ((("embed", "data", "model"),), "no pair"),
        ({"width": "data"}, "'width' is no logical axis; known: batch, heads, mlp"),
        ((("embed", "data"), ("embed", None)), "'embed' stands there twice"),
        ((("embed", "fsdp"),), "'embed' -> 'fsdp' is no mesh axis; known: data, model"),
        ((("embed", ("data", 1)),), "'embed' -> 1 is no mesh axis"),
        ({"embed": 1}, "'embed' -> 1 is no mesh axis"),
    ],
)
def test_parse_rules_refuses_what_it_does_not_know(rules, message):
    with pytest.raises(InputError, match=message):
        sharding.parse_rules(rules)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (AXES[1:], r"tower/dense/kernel \(8, 16\): no row"),
        ((*AXES, (r"tower/dense/.*", ("embed", "mlp"))), "tower/dense/bias.*2 rows"),
        ((AXES[0], (r"dense/bias", ("embed", "mlp")), AXES[2]), "bias has 1 dimensions.*names 2"),
        ((AXES[0], (r"dense/bias", ("width",)), AXES[2]), "logical axis 'width' has no rule"),
        (((r"dense/kernel", ("heads", "mlp")), *AXES[1:]), "kernel.*mesh axis 'model' twice"),
    ],
)
def test_param_specs_faulty_table_names_the_parameter(rows, message):
    with pytest.raises(InputError, match=message):
        sharding.param_specs(abstract(), rows)


def test_param_specs_indivisible_axis_names_parameter_and_remedy():
    with pytest.raises(InputError, match="dense/bias.*'mlp' of size 15.*over 2.*map 'mlp' to"):
        sharding.param_specs(abstract(mlp=15), AXES, mesh=sharding.make_mesh(4, 2))


def bert_specs(mesh, rules=sharding.DEFAULT_RULES, heads=4):
    """Specs of a BERT whose 45 rows of vocabulary no mesh divides."""
    config = bert.BertConfig(
        vocab_size=45,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=heads,
        intermediate_size=16,
    )
    params = jax.eval_shape(lambda key: bert.init(config, key), jax.random.key(0))
    axes = (AxisType.Auto,) * 2
    specs = sharding.param_specs(
        params, bert.PARAM_AXES, rules, AbstractMesh(mesh, ("data", "model"), axes)
    )
    return specs["embeddings"]["word_embeddings"]["embedding"]


def test_param_specs_indivisible_vocabulary_is_cut_along_the_other_dimension_and_says_so(caplog):
    sharding._note.cache_clear()
    assert bert_specs((4, 2)) == bert_specs((4, 2)) == P(None, "model")
    (record,) = caplog.records  # once, although computed twice
    text = "word_embeddings/embedding: 45 rows of vocabulary do not divide over ('model',), cut"
    assert text in record.message and "along 'embed' (16) instead" in record.message


def test_param_specs_indivisible_vocabulary_joins_fsdp_where_that_divides(caplog):
    sharding._note.cache_clear()
    fsdp = {**sharding.DEFAULT_RULES, "embed": "data"}
    assert bert_specs((4, 2), fsdp) == P(None, ("data", "model"))
    assert bert_specs((8, 4), fsdp) == P(None, "data")  # 16 columns do not divide over 32
    assert "held whole by every device" in caplog.records[-1].message
    assert bert_specs((8, 1), fsdp) == P("model", "data")  # nothing to divide


def test_param_specs_more_ways_than_heads_name_both():
    with pytest.raises(InputError, match="key/bias.*'heads' of size 4 does not divide over 8"):
        bert_specs((1, 8))


def test_param_specs_row_matches_only_at_a_name_boundary():
    rows = ((r"ense/kernel", ("embed", "mlp")), *AXES[1:])
    with pytest.raises(InputError, match="dense/kernel.*no row"):
        sharding.param_specs(abstract(), rows)


def test_param_specs_bert_table_covers_the_model():
    config = bert.BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    params = jax.eval_shape(lambda key: bert.init(config, key), jax.random.key(0))
    specs = sharding.param_specs(params, bert.PARAM_AXES, mesh=sharding.make_mesh(4, 2))
    layer = specs["layers_1"]
    assert layer["attention"]["query"]["kernel"] == P(None, "model", None)
    assert layer["attention"]["output"]["kernel"] == P("model", None, None)
    assert layer["output"]["kernel"] == P("model", None)
    assert specs["embeddings"]["word_embeddings"]["embedding"] == P("model", None)


def specs_of_state(transform, params, axes):
    mesh = sharding.make_mesh(4, 2)
    shardings = sharding.param_shardings(mesh, params, axes)
    state = jax.eval_shape(transform.init, params)
    placed = sharding.state_shardings(mesh, state, params, shardings)
    return {path: leaf.spec for path, leaf in sharding.flatten_paths(placed).items()}


def test_state_shardings_adam_moments_lie_where_their_parameters_do():
    specs = specs_of_state(optax.scale_by_adam(), abstract(), AXES)
    assert specs["mu/tower/dense/kernel"] == specs["nu/tower/dense/kernel"] == P(None, "model")
    assert specs["count"] == P()


def test_state_shardings_adafactor_rows_drop_the_summed_dimension():
    transform = optax.scale_by_factored_rms(min_dim_size_to_factor=4)
    specs = specs_of_state(transform, abstract(), AXES)
    state = sharding.flatten_paths(jax.eval_shape(transform.init, abstract()))
    for path in ("v_row/tower/dense/kernel", "v_col/tower/dense/kernel"):
        assert specs[path] == (P("model") if state[path].shape == (16,) else P(None))
    assert specs["v/tower/dense/bias"] == P("model")
    square = specs_of_state(transform, abstract(16, 16), AXES)
    assert square["v_row/tower/dense/kernel"] == P()


def test_place_batch_splits_rows_over_the_data_axis():
    mesh = sharding.make_mesh(4, 2)
    placed = sharding.place_batch(mesh, {"x": np.arange(24).reshape(8, 3)})["x"]
    assert placed.sharding == sharding.batch_sharding(mesh)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(placed, np.arange(24).reshape(8, 3))


def test_place_batch_indivisible_rows_raise():
    with pytest.raises(InputError, match="'x' has 6 rows.*4 devices"):
        sharding.place_batch(sharding.make_mesh(4, 2), {"x": np.zeros((6, 3))})


def test_activate_gives_logical_constraints_a_meaning():
    import flax.linen as nn

    mesh = sharding.make_mesh(4, 2)

    def constrained(x):
        return nn.with_logical_constraint(x * 2, ("batch", "mlp"))

    with sharding.activate(mesh):
        y = jax.jit(constrained)(jnp.ones((8, 4)))
    assert y.sharding.is_equivalent_to(jax.NamedSharding(mesh, P("data", "model")), 2)


def golden_maker():
    path = pathlib.Path(__file__).parent / "golden" / "make_partition_specs.py"
    spec = importlib.util.spec_from_file_location("make_partition_specs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_specs_of_the_presets_are_the_golden_ones():
    """A change shows as a diff of tests/golden/partition_specs; make_partition_specs.py makes them."""
    maker = golden_maker()
    models = maker.models()
    assert {f"{name}.json" for name in models} == {path.name for path in maker.FOLDER.iterdir()}
    for name, (params, axes) in models.items():
        golden = json.loads((maker.FOLDER / f"{name}.json").read_text())
        assert maker.table(params, axes) == golden, name


def test_one_process_reads_whole_batches_and_sees_its_arrays_as_they_are():
    mesh = sharding.make_mesh(4, 2)
    assert sharding.batch_slice(mesh) == (0, 1) and sharding.local_mesh(mesh) is mesh
    tree = {"a": np.arange(8.0), "b": {"c": np.ones((4, 2))}}
    shardings = jax.tree.map(lambda x: jax.NamedSharding(mesh, P("data")), tree)
    placed = sharding.place(tree, shardings)
    assert placed["a"].sharding.spec == P("data") and sharding.local_view(placed, mesh) is placed
    jax.tree.map(np.testing.assert_array_equal, sharding.fetch(placed), tree)
