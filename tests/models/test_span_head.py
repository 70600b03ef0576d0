"""The plain span reader against NumPy on the hidden states of its encoder."""

import jax
import numpy as np

from clmrc_jax import sharding
from clmrc_jax.models import bert, span_head
from clmrc_jax.models.bert import BertConfig

BERT = BertConfig(
    vocab_size=31,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    initializer_range=0.3,
)
LENGTH = 7
MASK = np.arange(LENGTH) < np.array([[7], [5], [6]])
BATCH = {
    "input_ids": np.random.default_rng(0).integers(1, 31, MASK.shape) * MASK,
    "attention_mask": MASK,
    "token_type_ids": (MASK & (np.arange(LENGTH) >= 3)).astype(np.int32),
    "span_mask": MASK & ((np.arange(LENGTH) >= 3) | (np.arange(LENGTH) == 0)),
}
PARAMS = jax.jit(span_head.init, static_argnums=0)(BERT, jax.random.key(0))
predict = jax.jit(span_head.predict, static_argnums=0)


def test_log_probabilities_are_those_of_a_linear_head_over_allowed_positions():
    names = ("input_ids", "attention_mask", "token_type_ids")
    encode = jax.jit(bert.encode, static_argnums=0)
    hidden = np.float64(encode(BERT, PARAMS["bert"], *(BATCH[name] for name in names)))
    for column, found in enumerate(predict(BERT, PARAMS, BATCH)):
        logits = hidden @ np.float64(PARAMS["head"]["kernel"])[:, column]
        logits = np.where(BATCH["span_mask"], logits, -np.inf)
        expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        allowed = BATCH["span_mask"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[allowed], expected[allowed], atol=1e-5)
        assert np.exp(found)[~allowed].max() == 0


def test_excluded_logits_carry_the_published_constant():
    hidden = np.ones((1, 2, 3), np.float32)
    head = {"kernel": np.full((3, 2), 0.5, np.float32), "bias": np.float32([0.25, -1])}
    start, end = span_head.logits(head, hidden, np.array([[True, False]]))
    np.testing.assert_allclose(start, [[1.75, 1.75 - 10000]])
    np.testing.assert_allclose(end, [[0.5, 0.5 - 10000]])


def test_init_starts_from_pretrained_weights():
    params = span_head.init(BERT, jax.random.key(1), PARAMS["bert"])
    assert params["bert"] is PARAMS["bert"]
    assert params["head"]["kernel"].shape == (8, 2) and not params["head"]["bias"].any()


def test_every_parameter_has_one_row_of_axes():
    specs = sharding.param_specs(PARAMS, span_head.PARAM_AXES, sharding.DEFAULT_RULES)
    assert tuple(sharding.flatten_paths(specs)["head/kernel"]) == (None, None)
