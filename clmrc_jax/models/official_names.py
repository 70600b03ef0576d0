"""Variables of the released TensorFlow code <-> our parameter trees: pure dict to dict, no files.

    bert/...                                            as in Google's BERT; the pooler is ignored
    target/attention_fusion/attention/{query,key,value}/{kernel,bias}   -> fusion/{query,key,value}
    target/attention_fusion/transform/dense/{kernel,bias}               -> fusion/output
    target/attention_fusion/transform/LayerNorm/{gamma,beta}            -> fusion/LayerNorm
    {target,source}/cls/squad/{output_weights,output_bias}              -> {target,source}_head
    cls/squad/{output_weights,output_bias}              -> head, of the plain span reader

TensorFlow stores a kernel as (inputs, outputs), output_weights as (2, inputs). The same tables
rename gradients, which have the shapes of their variables.
"""

import math
import re
from collections.abc import Mapping

import numpy as np
from flax import traverse_util

from clmrc_jax.models import weight_maps
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dual_bert import DualBertConfig
from clmrc_jax.models.weight_maps import Tensors, Weight

# The pooler gets no gradient from spans; the rest is what training keeps beside its variables.
IGNORED = r"bert/pooler/.*|global_step|.*/adam_[mv]|cls/(predictions|seq_relationship)/.*"


def bert_variables(config: BertConfig) -> list[Weight]:
    """The encoder's variables, paths below "bert"; shapes of `weight_maps.bert_weights`."""
    return [
        Weight(_bert_name(row), ("bert", *row.path), row.outputs, row.inputs)
        for row in weight_maps.bert_weights(config)
    ]


def span_reader_variables(config: BertConfig) -> list[Weight]:
    """Encoder and head of the plain span reader."""
    return bert_variables(config) + _head("cls/squad", "head", config.hidden_size)


def dual_bert_variables(config: DualBertConfig) -> list[Weight]:
    """Encoder, fusion and both heads of Dual BERT."""
    bert = config.bert
    size, count = bert.hidden_size, bert.num_attention_heads
    heads, scope = (count, size // count), "target/attention_fusion"
    rows = bert_variables(bert)
    for name, path, inputs, outputs in (
        *((f"attention/{part}", part, (size,), heads) for part in ("query", "key", "value")),
        ("transform/dense", "output", heads, (size,)),
    ):
        rows += [
            Weight(f"{scope}/{name}/kernel", ("fusion", path, "kernel"), outputs, inputs),
            Weight(f"{scope}/{name}/bias", ("fusion", path, "bias"), outputs),
        ]
    for name, path in (("gamma", "scale"), ("beta", "bias")):
        path = ("fusion", "LayerNorm", path)
        rows.append(Weight(f"{scope}/transform/LayerNorm/{name}", path, (size,)))
    rows += _head("target/cls/squad", "target_head", 2 * size)
    return rows + _head("source/cls/squad", "source_head", size)


def _head(scope: str, path: str, width: int) -> list[Weight]:
    return [
        Weight(f"{scope}/output_weights", (path, "kernel"), (2,), (width,)),
        Weight(f"{scope}/output_bias", (path, "bias"), (2,)),
    ]


def _bert_name(row: Weight) -> str:
    """encoder.layer.0.output.dense.weight -> bert/encoder/layer_0/output/dense/kernel"""
    name = re.sub(r"layer\.(\d+)", r"layer_\1", row.name).replace(".", "/")
    stem, leaf = name.rsplit("/", 1)
    if stem.endswith("LayerNorm"):
        leaf = {"weight": "gamma", "bias": "beta"}[leaf]
    elif row.inputs and leaf == "weight":
        leaf = "kernel"
    return f"bert/{stem}" if row.path[-1] == "embedding" else f"bert/{stem}/{leaf}"


def from_official(rows: list[Weight], variables: Mapping[str, np.ndarray]) -> dict:
    """Our parameters, float32, of one of the tables above.

    variables: by TensorFlow name, with or without ":0".
    Raises ValueError that lists every missing, unexpected or misshaped variable.
    """
    variables = {name.removesuffix(":0"): value for name, value in variables.items()}
    variables = {k: v for k, v in variables.items() if not re.fullmatch(IGNORED, k)}
    expected = {row.name: _shape(row) for row in rows}
    problems = weight_maps.shape_differences(expected, variables)
    if problems:
        raise ValueError(
            "these variables are not those of the configured model:\n  "
            + "\n  ".join(problems)
            + "\nMake the sizes of the config those of the variables, or load the variables that "
            "belong to it."
        )
    flat = {row.path: _to_ours(row, variables[row.name]) for row in rows}
    return traverse_util.unflatten_dict(flat)


def to_official(rows: list[Weight], params: Mapping) -> Tensors:
    """The inverse of `from_official`; also for gradients. params: a tree with the table's paths."""
    flat = traverse_util.flatten_dict(params)
    tensors = {}
    for row in rows:
        array = np.asarray(flat[row.path], np.float32).reshape(_kernel_shape(row))
        tensors[row.name] = array.T if _transposed(row) else array
    return tensors


def _transposed(row: Weight) -> bool:
    return row.name.endswith("/output_weights")


def _kernel_shape(row: Weight) -> tuple[int, ...]:
    """(inputs, outputs) of a kernel, the whole shape of anything else."""
    if row.inputs:
        return math.prod(row.inputs), math.prod(row.outputs)
    return row.published_shape


def _shape(row: Weight) -> tuple[int, ...]:
    """Of TensorFlow's variable."""
    shape = _kernel_shape(row)
    return shape[::-1] if _transposed(row) else shape


def _to_ours(row: Weight, variable: np.ndarray) -> np.ndarray:
    array = np.asarray(variable, np.float32)
    return np.ascontiguousarray(array.T if _transposed(row) else array).reshape(row.shape)
