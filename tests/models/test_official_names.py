"""Released variable names: a round trip, and errors that name what is wrong."""

import numpy as np
import pytest

import dual_bert_reference as reference
from clmrc_jax.models import official_names
from small_dual_bert import BERT, ROWS

VARIABLES = {name: np.float32(array) for name, array in reference.random_variables().items()}


def test_names_of_the_specification_are_exactly_the_table():
    assert {row.name for row in ROWS} == set(VARIABLES)


def test_round_trip_is_exact_and_layouts_are_as_documented():
    params = official_names.from_official(ROWS, VARIABLES)
    name = "target/attention_fusion/attention/query/kernel"
    np.testing.assert_array_equal(
        params["fusion"]["query"]["kernel"], VARIABLES[name].reshape(12, 4, 3)
    )
    weights = VARIABLES["target/cls/squad/output_weights"]
    np.testing.assert_array_equal(params["target_head"]["kernel"], weights.T)
    back = official_names.to_official(ROWS, params)
    assert set(back) == set(VARIABLES)
    for name, array in VARIABLES.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_pooler_moments_and_tensor_suffixes_are_no_obstacle():
    extra = {"bert/pooler/dense/kernel": np.ones((2, 2)), "global_step": np.int64(3)}
    extra |= {f"{name}/adam_m": array for name, array in VARIABLES.items()}
    suffixed = {f"{name}:0": array for name, array in VARIABLES.items()}
    params = official_names.from_official(ROWS, suffixed | extra)
    np.testing.assert_array_equal(
        params["bert"]["embeddings"]["LayerNorm"]["scale"],
        VARIABLES["bert/embeddings/LayerNorm/gamma"],
    )


def test_missing_extra_and_misshaped_variables_are_all_named():
    wrong = dict(VARIABLES)
    del wrong["source/cls/squad/output_bias"]
    wrong["cls/squad/output_bias"] = np.zeros(2)
    wrong["target/cls/squad/output_weights"] = np.zeros((2, 12))
    with pytest.raises(ValueError) as error:
        official_names.from_official(ROWS, wrong)
    message = str(error.value)
    assert "missing    source/cls/squad/output_bias [2]" in message
    assert "unexpected cls/squad/output_bias [2]" in message
    assert "target/cls/squad/output_weights: expected [2, 24], found [2, 12]" in message
    assert message.count("\n") == 4


def test_span_reader_has_its_own_head_name():
    rows = official_names.span_reader_variables(BERT)
    names = {row.name for row in rows if not row.name.startswith("bert/")}
    assert names == {"cls/squad/output_weights", "cls/squad/output_bias"}
