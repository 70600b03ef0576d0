"""`.npz` files with the released code's variables."""

import jax
import numpy as np
import pytest

import dual_bert_reference as reference
from clmrc_jax.files import InputError
from clmrc_jax.models import dual_bert
from clmrc_jax.train import official_weights
from small_dual_bert import BERT

CONFIG = dual_bert.official(BERT)
VARIABLES = reference.random_variables(seed=7)


def save(path, variables):
    np.savez(path, **{name: np.float32(value) for name, value in variables.items()})
    return path


def test_loaded_model_computes_what_the_reference_computes_from_the_same_variables(tmp_path):
    prefixed = {f"var/{name}": value for name, value in VARIABLES.items()}
    path = save(tmp_path / "model.npz", prefixed | {"in/ids": np.zeros(3)})
    params = official_weights.load_dual_bert(path, CONFIG, prefix="var/")
    batch = reference.random_batch()
    expected = reference.run(VARIABLES, reference.OFFICIAL, batch)
    found = jax.jit(dual_bert.forward, static_argnums=0)(CONFIG, params, batch)
    for name in ("start_logits", "end_logits", "source_start_logits", "lambda"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=2e-5)


def test_errors_name_the_file_and_the_variables(tmp_path):
    with pytest.raises(InputError, match="none.npz: no such file"):
        official_weights.load_dual_bert(tmp_path / "none.npz", CONFIG)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match="text.npz: not a whole .npz file"):
        official_weights.load_dual_bert(tmp_path / "text.npz", CONFIG)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="one.npy: not a whole .npz file"):
        official_weights.load_dual_bert(tmp_path / "one.npy", CONFIG)
    partial = {k: v for k, v in VARIABLES.items() if not k.startswith("source/")}
    path = save(tmp_path / "partial.npz", partial | {"other": np.zeros(2)})
    with pytest.raises(InputError) as error:
        official_weights.load_dual_bert(path, CONFIG)
    for part in ("partial.npz", "missing    source/cls/squad/output_weights", "unexpected other"):
        assert part in str(error.value)


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", **{"bert/x": np.array([{}], dtype=object)})
    with pytest.raises(InputError, match="objects.npz: not a whole .npz file"):
        official_weights.load_span_reader(tmp_path / "objects.npz", BERT)
