"""Published weight names <-> our parameter trees: pure dict to dict, no files.

Each model is a list of `Weight` rows, the whole policy: one published (PyTorch) name, our path and
the shape. PyTorch stores a linear layer as [outputs, inputs], we as [*inputs, *outputs] with heads
as their own axis; both hold the same numbers, transposed.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.marian import MarianConfig
from clmrc_jax.models.mt5 import Mt5Config

Tensors = dict[str, np.ndarray]

# Left out on purpose: the tanh pooler is not used (CORA pools the last layer itself), position ids
# are constants, `cls.*` is the masked-language-model head, `qa_outputs.*` a span head.
BERT_IGNORED = r"(bert\.)?(pooler\..*|embeddings\.(position|token_type)_ids)|(cls|qa_outputs)\..*"
# Copies of `shared`; and a table that T5 checkpoints carry and no version ever used.
T5_IGNORED = (
    r"(en|de)coder\.embed_tokens\.weight"
    r"|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
)
# Copies of `model.shared`; and the sines and cosines, which are computed.
MARIAN_IGNORED = r"lm_head\.weight|model\.(en|de)coder\.embed_(tokens|positions)\.weight"
DPR_TOWERS = ("question_model", "ctx_model")


@dataclass(frozen=True)
class Weight:
    """One tensor. name: published; path: ours; inputs: axes summed over (kernels only);
    outputs: the other axes."""

    name: str
    path: tuple[str, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of our array."""
        return self.inputs + self.outputs

    @property
    def published_shape(self) -> tuple[int, ...]:
        """Of PyTorch's tensor."""
        if self.inputs:
            return (math.prod(self.outputs), math.prod(self.inputs))
        return self.outputs if self.path[-1] == "embedding" else (math.prod(self.outputs),)

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """[outputs, inputs] -> [*inputs, *outputs], float32."""
        tensor = np.asarray(tensor, np.float32)
        return np.ascontiguousarray(tensor.T if self.inputs else tensor).reshape(self.shape)

    def to_published(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_ours`."""
        array = np.asarray(array, np.float32)
        if self.inputs:
            array = array.reshape(math.prod(self.inputs), -1).T
        return np.ascontiguousarray(array).reshape(self.published_shape)


def _linear(name: str, path: tuple[str, ...], inputs, outputs, bias: bool = True) -> list[Weight]:
    rows = [Weight(f"{name}.weight", (*path, "kernel"), outputs, inputs)]
    return rows + ([Weight(f"{name}.bias", (*path, "bias"), outputs)] if bias else [])


def _embedding(name: str, path: tuple[str, ...], count: int, size: int) -> list[Weight]:
    return [Weight(f"{name}.weight", (*path, "embedding"), (count, size))]


def bert_weights(config: BertConfig) -> list[Weight]:
    """All weights of a `BertModel` body, without its pooler."""
    e, mlp, heads = (config.hidden_size,), (config.intermediate_size,), config.num_attention_heads
    split = (heads, config.hidden_size // heads)

    def norm(name: str, *path: str) -> list[Weight]:
        name, path = f"{name}.LayerNorm", (*path, "LayerNorm")
        return [
            Weight(f"{name}.weight", (*path, "scale"), e),
            Weight(f"{name}.bias", (*path, "bias"), e),
        ]

    rows = norm("embeddings", "embeddings")
    for kind, count in (
        ("word", config.vocab_size),
        ("position", config.max_position_embeddings),
        ("token_type", config.type_vocab_size),
    ):
        table = f"{kind}_embeddings"
        rows += _embedding(f"embeddings.{table}", ("embeddings", table), count, *e)
    for i in range(config.num_hidden_layers):
        theirs, ours = f"encoder.layer.{i}", f"layers_{i}"
        for part in ("query", "key", "value"):
            path = (ours, "attention", part)
            rows += _linear(f"{theirs}.attention.self.{part}", path, e, split)
        rows += _linear(f"{theirs}.attention.output.dense", (ours, "attention", "output"), split, e)
        rows += norm(f"{theirs}.attention.output", ours, "attention")
        rows += _linear(f"{theirs}.intermediate.dense", (ours, "intermediate"), e, mlp)
        rows += _linear(f"{theirs}.output.dense", (ours, "output"), mlp, e)
        rows += norm(f"{theirs}.output", ours)
    return rows


def mt5_weights(config: Mt5Config) -> list[Weight]:
    """All weights of an `MT5ForConditionalGeneration` (T5 v1.1)."""
    e = (config.d_model,)
    rows = _embedding("shared", ("shared",), config.vocab_size, *e)
    for stack, count in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
        for i in range(count):
            rows += _t5_layer(config, stack, i)
        rows += [Weight(f"{stack}.final_layer_norm.weight", (stack, "final_norm", "scale"), e)]
    if not config.tie_word_embeddings:
        rows += _linear("lm_head", ("lm_head",), e, (config.vocab_size,), bias=False)
    return rows


def _t5_layer(config: Mt5Config, stack: str, i: int) -> list[Weight]:
    e, mlp, heads = (config.d_model,), (config.d_ff,), (config.num_heads, config.d_kv)
    theirs, ours = f"{stack}.block.{i}.layer", (stack, f"layers_{i}")
    parts = [("self_attention", "SelfAttention")]
    parts += [("cross_attention", "EncDecAttention")] if stack == "decoder" else []
    parts += [("mlp", "DenseReluDense")]
    rows = []
    for number, (part, block) in enumerate(parts):
        name, path = f"{theirs}.{number}.{block}", (*ours, part)
        scale = (*ours, f"{part}_norm", "scale")
        rows += [Weight(f"{theirs}.{number}.layer_norm.weight", scale, e)]
        if part == "mlp":
            for dense, inputs, outputs in (("wi_0", e, mlp), ("wi_1", e, mlp), ("wo", mlp, e)):
                rows += _linear(f"{name}.{dense}", (*path, dense), inputs, outputs, bias=False)
            continue
        for dense in "qkv":
            rows += _linear(f"{name}.{dense}", (*path, dense), e, heads, bias=False)
        rows += _linear(f"{name}.o", (*path, "o"), heads, e, bias=False)
    if i == 0:
        table = "relative_attention_bias"
        rows += _embedding(
            f"{theirs}.0.SelfAttention.{table}",
            (*ours, "self_attention", table),
            config.relative_attention_num_buckets,
            config.num_heads,
        )
    return rows


def marian_weights(config: MarianConfig) -> list[Weight]:
    """All weights of a `MarianMTModel`; its logits' bias without PyTorch's leading axis of 1."""
    bias = Weight("final_logits_bias", ("final_logits", "bias"), (config.vocab_size,))
    rows = [*_embedding("model.shared", ("shared",), config.vocab_size, config.d_model), bias]
    for stack in ("encoder", "decoder"):
        for i in range(getattr(config, f"{stack}_layers")):
            rows += _marian_layer(config, stack, i)
    return rows


def _marian_layer(config: MarianConfig, stack: str, i: int) -> list[Weight]:
    e, mlp = (config.d_model,), (getattr(config, f"{stack}_ffn_dim"),)
    heads = getattr(config, f"{stack}_attention_heads")
    split = (heads, config.d_model // heads)
    theirs, ours = f"model.{stack}.layers.{i}", (stack, f"layers_{i}")
    attentions = [("self_attention", "self_attn"), ("cross_attention", "encoder_attn")]
    attentions = attentions if stack == "decoder" else attentions[:1]
    rows = []
    for part, block in attentions:
        for dense in "qkv":
            rows += _linear(f"{theirs}.{block}.{dense}_proj", (*ours, part, dense), e, split)
        rows += _linear(f"{theirs}.{block}.out_proj", (*ours, part, "o"), split, e)
    rows += _linear(f"{theirs}.fc1", (*ours, "mlp", "wi"), e, mlp)
    rows += _linear(f"{theirs}.fc2", (*ours, "mlp", "wo"), mlp, e)
    norms = [(f"{block}_layer_norm", f"{part}_norm") for part, block in attentions]
    for name, norm in (*norms, ("final_layer_norm", "mlp_norm")):
        rows.append(Weight(f"{theirs}.{name}.weight", (*ours, norm, "scale"), e))
        rows.append(Weight(f"{theirs}.{name}.bias", (*ours, norm, "bias"), e))
    return rows


def bert_from_published(config: BertConfig, tensors: Mapping[str, np.ndarray]) -> dict:
    """Our parameters from `BertModel` tensors, with or without the prefix "bert.".

    LayerNorm.gamma/beta of old checkpoints are LayerNorm.weight/bias.
    Raises ValueError that lists every missing, unexpected or misshaped weight.
    """
    body = any(name.startswith("bert.") for name in tensors)
    renamed = {}
    for name, tensor in tensors.items():
        if re.fullmatch(BERT_IGNORED, name):
            continue
        name = name.removeprefix("bert.") if body else name
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        renamed[re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)] = tensor
    return _to_params(bert_weights(config), renamed, "BertModel")


def bert_to_published(config: BertConfig, params: Mapping) -> Tensors:
    """`BertModel` tensors (no prefix, no pooler) of our parameters."""
    return _to_tensors(bert_weights(config), params)


def mt5_from_published(config: Mt5Config, tensors: Mapping[str, np.ndarray]) -> dict:
    """Our parameters from `MT5ForConditionalGeneration` tensors.

    A checkpoint without `lm_head.weight` shares it with `shared.weight`, as transformers does.
    Raises ValueError that lists every missing, unexpected or misshaped weight.
    """
    tensors = {k: v for k, v in tensors.items() if not re.fullmatch(T5_IGNORED, k)}
    head, shared = tensors.get("lm_head.weight"), tensors.get("shared.weight")
    if config.tie_word_embeddings and head is not None:
        if shared is not None and not np.array_equal(head, shared):
            raise ValueError(
                "tie_word_embeddings is true, yet lm_head.weight differs from shared.weight; "
                "set tie_word_embeddings to false in config.json"
            )
        del tensors["lm_head.weight"]
    elif head is None and shared is not None and not config.tie_word_embeddings:
        tensors["lm_head.weight"] = shared
    return _to_params(mt5_weights(config), tensors, "MT5ForConditionalGeneration")


def mt5_to_published(config: Mt5Config, params: Mapping) -> Tensors:
    """`MT5ForConditionalGeneration` tensors of our parameters."""
    return _to_tensors(mt5_weights(config), params)


def marian_from_published(config: MarianConfig, tensors: Mapping[str, np.ndarray]) -> dict:
    """Our parameters from `MarianMTModel` tensors; without a bias on the logits it is zero.

    Raises ValueError that lists every missing, unexpected or misshaped weight.
    """
    tensors = {k: v for k, v in tensors.items() if not re.fullmatch(MARIAN_IGNORED, k)}
    bias = tensors.get("final_logits_bias", np.zeros((1, config.vocab_size), np.float32))
    tensors["final_logits_bias"] = bias[0] if bias.ndim == 2 else bias
    return _to_params(marian_weights(config), tensors, "MarianMTModel")


def marian_to_published(config: MarianConfig, params: Mapping) -> Tensors:
    """`MarianMTModel` tensors of our parameters."""
    tensors = _to_tensors(marian_weights(config), params)
    return tensors | {"final_logits_bias": tensors["final_logits_bias"][None]}


def dpr_tower(tensors: Mapping[str, np.ndarray], tower: str) -> Tensors:
    """The BERT tensors of one tower of a DPR/mDPR state dict.

    tower: "question_model" or "ctx_model". Raises ValueError when the tower is not there.
    """
    if tower not in DPR_TOWERS:
        raise ValueError(f"tower {tower!r} is not one of {', '.join(DPR_TOWERS)}")
    found = {
        name.removeprefix(f"{tower}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{tower}.")
    }
    if not found:
        raise ValueError(
            f"no weight starts with {tower!r}; found {_some(sorted(tensors))}. "
            "This is no DPR checkpoint: load it without naming a tower"
        )
    return found


def flax_to_published(tree: Mapping) -> Tensors:
    """A Hugging Face Flax tree (`flax_model.msgpack`) -> PyTorch names and layouts."""
    tensors = {}
    for path, leaf in _flatten(tree):
        kind = path[-1]
        if kind == "kernel":
            leaf = np.asarray(leaf).T
        if kind in ("kernel", "embedding", "scale"):
            path = (*path[:-1], "weight")
        tensors[".".join(path)] = leaf
    return tensors


def published_to_flax(weights: list[Weight], tensors: Mapping[str, np.ndarray]) -> dict:
    """PyTorch names and layouts -> the Hugging Face Flax tree; T5's norms keep "weight"."""
    tree: dict = {}
    for row in weights:
        *parents, leaf = row.name.split(".")
        tensor = tensors[row.name]
        if leaf == "weight" and not parents[-1].endswith("layer_norm"):
            leaf = row.path[-1]
        _place(tree, (*parents, leaf), tensor.T if leaf == "kernel" else tensor)
    return tree


def _to_params(weights: list[Weight], tensors: Mapping[str, np.ndarray], model: str) -> dict:
    """Checks names and shapes of all tensors before the first is placed."""
    problems = shape_differences({row.name: row.published_shape for row in weights}, tensors)
    if problems:
        raise ValueError(
            f"these weights are not those of the configured {model}:\n  "
            + "\n  ".join(problems)
            + "\nMake the sizes in config.json those of the weights, or load the weights that "
            "belong to this config."
        )
    params: dict = {}
    for row in weights:
        _place(params, row.path, row.to_ours(tensors[row.name]))
    return params


def _to_tensors(weights: list[Weight], params: Mapping) -> Tensors:
    """Raises ValueError naming each parameter that is missing, unexpected or misshaped."""
    flat = dict(_flatten(params))
    expected = {"/".join(row.path): row.shape for row in weights}
    problems = shape_differences(expected, {"/".join(path): leaf for path, leaf in flat.items()})
    if problems:
        raise ValueError(
            "the parameters are not those of the config:\n  "
            + "\n  ".join(problems)
            + "\nPass the config that the parameters were made with."
        )
    return {row.name: row.to_published(flat[row.path]) for row in weights}


def shape_differences(expected: Mapping[str, tuple[int, ...]], found: Mapping) -> list[str]:
    """One line for every array that is missing, unexpected or misshaped.

    expected: name -> shape.   found: name -> array.
    """
    shapes = {name: tuple(array.shape) for name, array in found.items()}
    missing = [name for name in expected if name not in shapes]
    unexpected = [name for name in shapes if name not in expected]
    wrong = [name for name in expected if shapes.get(name, expected[name]) != expected[name]]
    return [
        *(f"missing    {name} {list(expected[name])}" for name in missing),
        *(f"unexpected {name} {list(shapes[name])}" for name in unexpected),
        *(
            f"shape      {name}: expected {list(expected[name])}, found {list(shapes[name])}"
            for name in wrong
        ),
    ]


def _flatten(tree: Mapping, path: tuple[str, ...] = ()):
    """Yields (path, leaf) of a nested dict."""
    for name, child in tree.items():
        if isinstance(child, Mapping):
            yield from _flatten(child, (*path, str(name)))
        else:
            yield (*path, str(name)), child


def _place(tree: dict, path: tuple[str, ...], leaf) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
