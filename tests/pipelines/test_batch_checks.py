"""Batches and lengths that cannot be trained on are named with the key and what would do."""

import jax
import pytest

from clmrc_jax.data.retriever_features import RetrieverFormat
from clmrc_jax.data.span_windows import SpanFormat
from clmrc_jax.files import InputError
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.pipelines import batch_checks

MESH = jax.sharding.AbstractMesh((8, 1), ("data", "model"))
ENCODER = BertConfig(max_position_embeddings=128)


@pytest.mark.parametrize("rows", [0, -4, -8])
def test_no_rows_are_no_batch(rows):
    message = f"config.generator.batch_size={rows} does not divide .*generator.batch_size=8, or"
    with pytest.raises(InputError, match=message):
        batch_checks.check_batch(MESH, "generator.batch_size", rows)
    batch_checks.check_batch(MESH, "generator.batch_size", 8)


@pytest.mark.parametrize("name", ["question_buckets", "passage_buckets"])
def test_buckets_end_with_the_positions_of_the_encoder(name):
    formats = {
        longest: RetrieverFormat(
            **{"question_buckets": (64,), "passage_buckets": (64,)} | {name: (64, longest)}
        )
        for longest in (128, 129)
    }
    batch_checks.check_buckets(ENCODER, formats[128])
    with pytest.raises(InputError, match=f"{name} goes to 129 tokens, but the encoder has 128"):
        batch_checks.check_buckets(ENCODER, formats[129])


@pytest.mark.parametrize("name", ["max_length", "source_length"])
def test_windows_end_with_the_positions_of_the_encoder(name):
    lengths = {"max_length": 128, "source_length": 128}
    batch_checks.check_windows(ENCODER, SpanFormat(**lengths))
    with pytest.raises(InputError, match=f"{name} 129 .*is more than the encoder's 128 positions"):
        batch_checks.check_windows(ENCODER, SpanFormat(**lengths | {name: 129}))
