"""Memory and work of the two models by formula: what `--dry_run` adds up. Nothing is allocated.

Bytes are those of one device, operations (2 per multiply-add) those of all devices. Activations
are estimates: what XLA keeps depends on its fusions (an inference holds less than the one
layer that is counted for it). Everything else is counted.
Letters: e embed, m mlp, i = heads * kv, b bytes of the compute dtype.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from clmrc_jax.models import bert, biencoder, mt5
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.biencoder import BiEncoderConfig
from clmrc_jax.models.mt5 import Mt5Config
from clmrc_jax.pipelines.settings import CoraSettings
from clmrc_jax.train.optimizer import OptimizerConfig, divide, make_transform
from clmrc_jax.train.state import abstract_state

FLOAT32 = 4


def parameter_count(init: Callable) -> int:
    """Parameters of `init(key)`, by shape inference."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(_shapes(init)))


def _shapes(init: Callable):
    return jax.eval_shape(init, jax.random.key(0))


def training_state_bytes(
    init: Callable,
    optimizer: OptimizerConfig,
    mesh: AbstractMesh,
    axes,
    rules,
    accumulate: int = 1,
) -> dict[str, int]:
    """Parameters, gradients and optimizer statistics on one device, as they will be sharded.

    AdamW keeps two float32 arrays per parameter, Adafactor the row and column means of large
    matrices. Accumulation sums into a second tree of gradients. Frozen parameters have neither.
    """
    state = abstract_state(_shapes(init), make_transform(optimizer), mesh, axes, rules)
    return {
        "parameters": device_bytes(state.params),
        "gradients": device_bytes(divide(optimizer, state.params)[0])
        * (2 if accumulate > 1 else 1),
        "optimizer": device_bytes(state.opt_state),
    }


def labelling_memory(s: CoraSettings, candidates: int, passage_bytes: float) -> dict[str, int]:
    """Bytes of host memory of mining: those of a part of the candidates, and the questions of all.

    A passage takes twice its bytes and 1 kB of Python objects, a token 36 bytes, and the key of a
    candidate's question 8, or 48 while candidates are sorted by question.
    """
    part = min(candidates, s.generator.label_chunk)
    parts = {
        "passages of a part": int(part * (2 * passage_bytes + 1000)),
        "tokens of a part": part * s.generator_format.labelling_length * 36,
        "questions of all candidates": candidates * 48,
    }
    return parts | {"total": sum(parts.values())}


def device_bytes(tree) -> int:
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def attention_bytes(pairs: float, itemsize: int) -> float:
    """Per query-key pair: float32 probability, dropout's mask, and what is left, to multiply."""
    return pairs * (FLOAT32 + 1 + itemsize)


def bert_layer_bytes(config: BertConfig, rows: float, length: int) -> float:
    """Activations of one layer: tokens * (10 e + 2 m) * b, and the attention probabilities.

    10 e: input, query, key, value, context, and output, residual sum and norm of the
    attention, output and residual sum of the MLP; 2 m: before and after GELU.
    """
    itemsize = jnp.dtype(config.dtype).itemsize
    width = 10 * config.hidden_size + 2 * config.intermediate_size
    pairs = rows * config.num_attention_heads * length**2
    return rows * length * width * itemsize + attention_bytes(pairs, itemsize)


def bert_training_bytes(config: BertConfig, rows: float, length: int) -> float:
    """Kept for the backward pass: every layer, or with remat every layer's input and one layer.

    XLA's CPU compiler undoes most of remat; the estimate is that of an accelerator.
    """
    layer = bert_layer_bytes(config, rows, length)
    if not config.remat:
        return config.num_hidden_layers * layer
    inputs = rows * length * config.hidden_size * jnp.dtype(config.dtype).itemsize
    return config.num_hidden_layers * inputs + layer


def mt5_encoder_layer_bytes(config: Mt5Config, rows: float, source: int) -> float:
    """Activations of one encoder layer: tokens * (6 e + 4 i + 4 m) * b, and the probabilities.

    6 e: input, norm and output of attention and MLP; 4 i: query, key, value, context;
    4 m: both halves of the gated MLP, GELU and product.
    """
    itemsize = jnp.dtype(config.dtype).itemsize
    inner = config.num_heads * config.d_kv
    width = 6 * config.d_model + 4 * inner + 4 * config.d_ff
    pairs = rows * config.num_heads * source**2
    return rows * source * width * itemsize + attention_bytes(pairs, itemsize)


def mt5_decoder_layer_bytes(config: Mt5Config, rows: float, source: int, target: int) -> float:
    """As the encoder's on the target, with cross-attention: keys and values of the source too."""
    itemsize = jnp.dtype(config.dtype).itemsize
    inner = config.num_heads * config.d_kv
    own = mt5_encoder_layer_bytes(config, rows, target)
    cross = rows * (target * (3 * config.d_model + 2 * inner) + source * 2 * inner) * itemsize
    return own + cross + attention_bytes(rows * config.num_heads * target * source, itemsize)


def mt5_training_bytes(
    config: Mt5Config, rows: float, source: int, target: int, parts: int = 1
) -> float:
    """Kept for the backward pass of encoder and decoder; remat as in `bert_training_bytes`.

    parts: sources per question that the encoder reads apart (Fusion-in-Decoder).
    """
    encoder = mt5_encoder_layer_bytes(config, rows * parts, source)
    source = source * parts
    decoder = mt5_decoder_layer_bytes(config, rows, source, target)
    if not config.remat:
        return config.num_layers * encoder + config.num_decoder_layers * decoder
    inputs = config.num_layers * source + config.num_decoder_layers * target
    kept = rows * inputs * config.d_model * jnp.dtype(config.dtype).itemsize
    return kept + max(encoder, decoder)


def logits_bytes(config: Mt5Config, rows: float, target: int, vocab_ways: int) -> float:
    """Float32 logits and their gradient: 2 * rows * target * vocabulary * 4."""
    return 2 * rows * target * config.vocab_size * FLOAT32 / vocab_ways


def beam_cache_bytes(config: Mt5Config, rows: float, source: int, length: int, beams: int) -> float:
    """Keys and values of decoding: the source's once, the answer's per beam and twice.

    2 * layers * rows * i * b * (source + 2 * beams * length); twice because following the beams
    gathers the cache into a new one.
    """
    itemsize = jnp.dtype(config.dtype).itemsize
    per_position = 2 * config.num_decoder_layers * config.num_heads * config.d_kv * itemsize
    copies = 2 * beams if beams > 1 else 1
    return rows * per_position * (source + copies * length)


def retriever_memory(s: CoraSettings, model: BiEncoderConfig, mesh: AbstractMesh, rules) -> dict:
    """Bytes on one device by phase and part: training mDPR, and encoding the corpus."""
    t, ways = s.retriever, mesh.shape["data"]
    question, passage = (
        s.retriever_format.question_buckets[-1],
        s.retriever_format.passage_buckets[-1],
    )
    rows = t.batch_size / ways / t.accumulate
    contexts = rows * (1 + t.hard_negatives)

    def tower(rows, length):
        # GradCache recomputes chunk after chunk, so that one chunk is alive at a time.
        alive = min(rows, t.chunk_size / ways) if t.chunk_size else rows
        return bert_training_bytes(model.bert, alive, length)

    frozen = bert_layer_bytes(model.bert, contexts, passage)
    passages = frozen if t.freeze_passages else tower(contexts, passage)
    questions = tower(rows, question)
    scores = 2 * FLOAT32 * rows * t.batch_size / t.accumulate * (1 + t.hard_negatives)
    init = lambda key: biencoder.init(model, key)  # noqa: E731
    state = training_state_bytes(
        init, s.retriever_optimizer, mesh, biencoder.PARAM_AXES, rules, t.accumulate
    )
    alive = max(passages, questions) if t.chunk_size else passages + questions
    encoding = bert_layer_bytes(model.bert, t.encode_batch / ways, passage)
    return {
        "train mDPR": state | {"activations": alive, "scores": scores},
        "encode passages": {"activations": encoding},
    }


def generator_memory(s: CoraSettings, config: Mt5Config, mesh: AbstractMesh, rules) -> dict:
    """Bytes on one device by phase and part: training mGEN, and decoding with beams."""
    t, f, ways = s.generator, s.generator_format, mesh.shape["data"]
    rows, decoded = t.batch_size / ways / t.accumulate, t.generate_batch / ways
    state = training_state_bytes(
        lambda key: mt5.init(config, key),
        s.generator_optimizer,
        mesh,
        mt5.PARAM_AXES,
        rules,
        t.accumulate,
    )
    vocab_ways = mesh.shape["model"] if rules["vocab"] == "model" else 1
    # Fusion-in-Decoder encodes passage by passage and joins them for the decoder.
    parts = max(f.passages, 1) if f.fusion else 1
    source = parts * f.source_length
    activations = mt5_training_bytes(config, rows, f.source_length, f.target_length, parts)
    encoder = mt5_encoder_layer_bytes(config, decoded * parts, f.source_length)
    return {
        "train mGEN": state
        | {
            "activations": activations,
            "scores": logits_bytes(config, rows, f.target_length, vocab_ways),
        },
        "generate": {
            "activations": encoder,
            "scores": logits_bytes(config, decoded * t.beams, 1, vocab_ways),
            "beam cache": beam_cache_bytes(config, decoded, source, t.max_length, t.beams),
        },
    }


def retriever_training_flops(s: CoraSettings, config: BertConfig, steps: int) -> float:
    """Forward, twice that backward; remat and GradCache each repeat the forward.

    Questions fall into the shortest bucket, passages into the longest.
    """
    t, f = s.retriever, s.retriever_format
    repeats = 3 + bool(config.remat) + bool(t.chunk_size)
    questions = bert.forward_flops(config, t.batch_size, f.question_buckets[0])
    rows = t.batch_size * (1 + t.hard_negatives)
    passages = bert.forward_flops(config, rows, f.passage_buckets[-1])
    return steps * (repeats * questions + (1 if t.freeze_passages else repeats) * passages)


def generator_training_flops(s: CoraSettings, config: Mt5Config, steps: int) -> float:
    """As of the retriever, with sources and targets of full length."""
    t, f = s.generator, s.generator_format
    source = f.source_length * (max(f.passages, 1) if f.fusion else 1)
    forward = mt5.forward_flops(config, t.batch_size, source, f.target_length)
    return steps * (3 + bool(config.remat)) * forward


def generation_flops(
    config: Mt5Config, rows: int, source: int, length: int, beams: int
) -> tuple[float, float]:
    """Operations of the encoder (with the source's keys and values) and of the decoder."""
    encoder = mt5.forward_flops(config, rows, source, 0)
    return encoder, beams * (mt5.forward_flops(config, rows, source, length) - encoder)
