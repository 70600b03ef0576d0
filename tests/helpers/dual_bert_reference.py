"""Dual BERT in float64 NumPy, written from the specification's formulas, on the released variables.

Independent of the package on purpose: no import of it, variables by their TensorFlow names,
loops over rows where they say more than an einsum. `options` are the fields of DualBertConfig
that the formulas depend on; the sizes are those of the small model below.
"""

import math

import numpy as np

NEG = -10000.0
OFFICIAL = {
    "residual": "source",
    "lambda_mode": "official_dot",
    "loss_terms": "mean",
    "span_attention": "self_adaptive",
    "mask_padding": False,
    "adaptive": True,
    "lambda_group_size": 0,
    "lambda_value": 1.0,
}
PAPER = OFFICIAL | {
    "residual": "target",
    "lambda_mode": "cosine_example",
    "loss_terms": "sum",
    "span_attention": "average",
    "mask_padding": True,
}
SIZES = {"size": 12, "layers": 1, "mlp": 20, "vocab": 40, "positions": 16}
HEADS = 4
_erf = np.vectorize(math.erf, otypes=[np.float64])


def random_variables(seed=0, scale=0.35):
    """Variables of a small model by name, large enough that nothing is near its initial value."""
    rng = np.random.default_rng(seed)
    size, layers, mlp, vocab, positions = SIZES.values()
    variables = {}

    def dense(name, inputs, outputs):
        variables[f"{name}/kernel"] = scale * rng.normal(size=(inputs, outputs))
        variables[f"{name}/bias"] = scale * rng.normal(size=outputs)

    def norm(name):
        variables[f"{name}/LayerNorm/gamma"] = 1 + 0.3 * rng.normal(size=size)
        variables[f"{name}/LayerNorm/beta"] = 0.3 * rng.normal(size=size)

    for table, rows in (("word", vocab), ("position", positions), ("token_type", 2)):
        variables[f"bert/embeddings/{table}_embeddings"] = rng.normal(size=(rows, size))
    norm("bert/embeddings")
    for i in range(layers):
        layer = f"bert/encoder/layer_{i}"
        for part in ("query", "key", "value"):
            dense(f"{layer}/attention/self/{part}", size, size)
        dense(f"{layer}/attention/output/dense", size, size)
        norm(f"{layer}/attention/output")
        dense(f"{layer}/intermediate/dense", size, mlp)
        dense(f"{layer}/output/dense", mlp, size)
        norm(f"{layer}/output")
    for part in ("query", "key", "value"):
        dense(f"target/attention_fusion/attention/{part}", size, size)
    dense("target/attention_fusion/transform/dense", size, size)
    norm("target/attention_fusion/transform")
    for side, width in (("target", 2 * size), ("source", size)):
        variables[f"{side}/cls/squad/output_weights"] = scale * rng.normal(size=(2, width))
        variables[f"{side}/cls/squad/output_bias"] = scale * rng.normal(size=2)
    return variables


def random_batch(rows=4, lengths=(9, 9), seed=1, invalid=()):
    """Windows: [CLS], a question of two tokens, [SEP], a passage, [SEP], padding.

    The second row's target and the last row's source have no answer: (0, 0).
    """
    rng = np.random.default_rng(seed)
    batch = {"valid": ~np.isin(np.arange(rows), invalid)}
    for prefix, length, empty in zip(("", "source_"), lengths, (1, rows - 1)):
        used = rng.integers(7, length + 1, rows)
        position = np.arange(length)[None]
        mask = position < used[:, None]
        start = rng.integers(4, used - 1)
        end = rng.integers(start, used - 1)
        start[empty] = end[empty] = 0
        fields = {
            "input_ids": np.where(mask, rng.integers(1, SIZES["vocab"], mask.shape), 0),
            "attention_mask": mask,
            "token_type_ids": (mask & (position >= 4)).astype(np.int32),
            "span_mask": (position == 0) | (position >= 4) & (position < used[:, None] - 1),
            "start": start.astype(np.int32),
            "end": end.astype(np.int32),
        }
        batch |= {prefix + name: value for name, value in fields.items()}
    return batch


def pad(batch, lengths):
    """The same windows, each side zero-padded to a new length."""
    padded = {}
    for name, array in batch.items():
        extra = lengths[name.startswith("source_")] - array.shape[-1] if array.ndim == 2 else 0
        padded[name] = np.pad(array, ((0, 0), (0, extra))) if extra else array
    return padded


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def dense(v, name, x):
    return x @ v[f"{name}/kernel"] + v[f"{name}/bias"]


def layer_norm(v, name, x):
    centred = x - x.mean(-1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return x * v[f"{name}/LayerNorm/gamma"] + v[f"{name}/LayerNorm/beta"]


def heads_of(x, heads):
    """[batch, length, size] -> [batch, heads, length, size / heads]"""
    return np.stack(np.split(x, heads, axis=-1), axis=1)


def encode(v, ids, mask, segments):
    x = v["bert/embeddings/word_embeddings"][ids]
    x = x + v["bert/embeddings/token_type_embeddings"][segments]
    x = x + v["bert/embeddings/position_embeddings"][: ids.shape[1]]
    x = layer_norm(v, "bert/embeddings", x)
    bias = np.where(mask, 0.0, NEG)[:, None, None, :]
    for i in range(SIZES["layers"]):
        layer = f"bert/encoder/layer_{i}"
        q, k, value = (
            heads_of(dense(v, f"{layer}/attention/self/{part}", x), HEADS)
            for part in ("query", "key", "value")
        )
        weights = softmax(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]) + bias)
        context = np.concatenate(list((weights @ value).swapaxes(0, 1)), axis=-1)
        attended = dense(v, f"{layer}/attention/output/dense", context)
        x = layer_norm(v, f"{layer}/attention/output", x + attended)
        middle = dense(v, f"{layer}/intermediate/dense", x)
        middle = middle * 0.5 * (1 + _erf(middle / math.sqrt(2)))
        x = layer_norm(v, f"{layer}/output", x + dense(v, f"{layer}/output/dense", middle))
    return x


def fuse(v, options, target, source, target_mask, source_mask):
    """Section 3.2 and 3.3 of the specification."""
    scope = "target/attention_fusion"
    q = heads_of(dense(v, f"{scope}/attention/query", target), HEADS)
    k = heads_of(dense(v, f"{scope}/attention/key", source), HEADS)
    value = heads_of(dense(v, f"{scope}/attention/value", source), HEADS)
    source_bias = np.where(source_mask, 0.0, NEG)[:, None, None, :]
    target_bias = np.where(target_mask, 0.0, NEG)[:, None, None, :]
    on = float(options["mask_padding"])
    out = {"saa_S": q @ k.swapaxes(2, 3)}
    out["saa_A_tilde"] = out["saa_S"]
    if options["adaptive"]:
        out["saa_A_T"] = softmax(q @ q.swapaxes(2, 3) + on * target_bias)
        out["saa_A_S"] = softmax(k @ k.swapaxes(2, 3) + on * source_bias)
        out["saa_A_tilde"] = (out["saa_A_T"] @ out["saa_S"]) @ out["saa_A_S"].swapaxes(2, 3)
    out["saa_P"] = softmax(out["saa_A_tilde"] / math.sqrt(q.shape[-1]) + source_bias)
    attended = np.concatenate(list((out["saa_P"] @ value).swapaxes(0, 1)), axis=-1)
    out["attended"] = attended
    out["transformed"] = dense(v, f"{scope}/transform/dense", attended)
    residual = target if options["residual"] == "target" else source
    out["fused"] = layer_norm(v, f"{scope}/transform", out["transformed"] + residual)
    out["joined"] = np.concatenate([target, out["fused"]], axis=-1)
    return out


def span_vector(options, hidden, start, end, mask):
    """H̃ of one row. hidden: [length, size]; section 3.6, or the paper's words for "average"."""
    length = len(hidden)
    inside = (np.arange(length) >= start) & (np.arange(length) <= end)
    x = hidden * inside[:, None]
    g = x @ x.T
    if options["span_attention"] == "average":
        picked = hidden[start : end + 1]
        attended = (softmax(picked @ picked.T) @ picked).mean(0)
    else:
        real = mask if options["mask_padding"] else np.ones(length, bool)
        a = np.zeros((length, length))
        a[:, real] = softmax(g[:, real])
        m = a @ g @ a.T
        attended = softmax(m[real].mean(0) + np.where(inside, 0.0, NEG)) @ x
    return np.concatenate([x[start], x[end], attended])


def row_lambdas(options, target, source, valid):
    """(similarity, lambda), each [batch]; section 3.7."""
    mode, rows = options["lambda_mode"], len(target)
    if mode in ("const", "none"):
        return None, np.full(rows, options["lambda_value"] if mode == "const" else 0.0)
    raw = np.zeros(rows)
    size = options["lambda_group_size"] or rows
    for begin in range(0, rows, size):
        group = [b for b in range(begin, begin + size) if valid[b] or mode == "cosine_example"]
        dots = {b: target[b] @ source[b] for b in group}
        cosines = {
            b: dots[b] / np.linalg.norm(target[b]) / np.linalg.norm(source[b]) for b in group
        }
        for b in range(begin, begin + size):
            if mode == "official_dot":
                raw[b] = sum(dots.values()) / target.shape[1]
            elif mode == "cosine_batch_mean":
                raw[b] = sum(cosines.values()) / len(group)
            else:
                raw[b] = cosines[b]
    return raw, np.maximum(raw, 0.0)


def run(v, options, batch, fixed_lambda=None):
    """Every intermediate and the loss; fixed_lambda: treat lambda as that constant."""
    sides = {"target": "", "source": "source_"}
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    hidden = {
        side: encode(v, *(batch[prefix + name] for name in inputs))
        for side, prefix in sides.items()
    }
    masks = batch["attention_mask"], batch["source_attention_mask"]
    out = fuse(v, options, hidden["target"], hidden["source"], *masks)
    valid = batch["valid"]
    for side, prefix in sides.items():
        out[f"{side}_hidden"] = hidden[side]
        x = out["joined"] if side == "target" else hidden[side]
        scope = f"{side}/cls/squad"
        logits = x @ v[f"{scope}/output_weights"].T + v[f"{scope}/output_bias"]
        logits = logits + np.where(batch[f"{prefix}span_mask"], 0.0, NEG)[..., None]
        losses = np.zeros(len(valid))
        for column, place in enumerate(("start", "end")):
            out[f"{prefix}{place}_logits"] = logits[..., column]
            gold = log_softmax(logits[..., column])[np.arange(len(valid)), batch[prefix + place]]
            losses -= gold
        out[f"{side}_losses"] = losses / 2 if options["loss_terms"] == "mean" else losses
        out[f"{side}_span"] = np.stack(
            [
                span_vector(options, hidden[side][b], s, e, m)
                for b, (s, e, m) in enumerate(
                    zip(batch[f"{prefix}start"], batch[f"{prefix}end"], masks[prefix != ""])
                )
            ]
        )
    similarity, weights = row_lambdas(options, out["target_span"], out["source_span"], valid)
    out["similarity"], out["lambda"] = similarity, weights
    weights = weights if fixed_lambda is None else fixed_lambda
    out["loss"] = np.mean((out["target_losses"] + weights * out["source_losses"])[valid])
    return out
