"""Dual BERT's training step in PyTorch: the other side of benchmarks/dual_bert.py, which starts it.

python benchmarks/dual_bert_torch.py FOLDER THREADS CLOCK

CLOCK is a function of the module `time`. FOLDER holds `case.json` (sizes), `variables.npz` (released names) and `batch.npz`. Prints the loss
and gradient norm without dropout as JSON; then, for every line on stdin, takes one training step
and prints its seconds. The model is mode `paper`, written as one would in PyTorch: the two
sides in one encoder call, fused attention kernels, SAA as published, fused AdamW.
"""

import json
import math
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

LAYER_NORM_EPS = 1e-12


class DualBert(torch.nn.Module):
    """The model and its loss; parameters by the released names, "/" written as "|"."""

    def __init__(self, case: dict, variables):
        super().__init__()
        self.case = case
        for name, value in variables.items():
            value = torch.nn.Parameter(torch.from_numpy(np.array(value)))
            self.register_parameter(name.replace("/", "|"), value)

    def value(self, name: str):
        """Parameter by its released name."""
        return getattr(self, name.replace("/", "|"))

    def dense(self, name: str, x):
        """x W + b"""
        return x @ self.value(f"{name}/kernel") + self.value(f"{name}/bias")

    def norm(self, name: str, x):
        """LayerNorm over the last axis."""
        scale, shift = (self.value(f"{name}/LayerNorm/{part}") for part in ("gamma", "beta"))
        return F.layer_norm(x, x.shape[-1:], scale, shift, LAYER_NORM_EPS)

    def drop(self, x):
        """Dropout while training."""
        return F.dropout(x, self.case["dropout"], self.training)

    def heads(self, x):
        """[batch, length, embed] -> [batch, heads, length, kv]"""
        return x.unflatten(-1, (self.case["heads"], -1)).transpose(1, 2)

    def encode(self, ids, mask, segments):
        """[rows, length] -> [rows, length, embed]"""
        tables = "bert/embeddings/{}_embeddings".format
        x = F.embedding(ids, self.value(tables("word")))
        x = x + self.value(tables("position"))[: ids.shape[1]]
        x = x + F.embedding(segments, self.value(tables("token_type")))
        x = self.drop(self.norm("bert/embeddings", x))
        rate = self.case["dropout"] if self.training else 0.0
        for i in range(self.case["layers"]):
            layer = f"bert/encoder/layer_{i}"
            parts = ("query", "key", "value")
            q, k, v = (self.heads(self.dense(f"{layer}/attention/self/{p}", x)) for p in parts)
            context = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask[:, None, None, :], dropout_p=rate
            )
            context = context.transpose(1, 2).flatten(2)
            attended = self.drop(self.dense(f"{layer}/attention/output/dense", context))
            x = self.norm(f"{layer}/attention/output", attended + x)
            middle = F.gelu(self.dense(f"{layer}/intermediate/dense", x))
            x = self.norm(
                f"{layer}/output", self.drop(self.dense(f"{layer}/output/dense", middle)) + x
            )
        return x

    def fuse(self, target, source, target_mask, source_mask):
        """F of eq. 7, the maps as published."""
        scope = "target/attention_fusion"
        q = self.heads(self.dense(f"{scope}/attention/query", target))
        k = self.heads(self.dense(f"{scope}/attention/key", source))
        v = self.heads(self.dense(f"{scope}/attention/value", source))
        biases = [
            torch.zeros(m.shape, device=m.device).masked_fill(~m, -1e9)[:, None, None]
            for m in (target_mask, source_mask)
        ]
        own = (q @ q.transpose(2, 3) + biases[0]).softmax(-1)
        theirs = (k @ k.transpose(2, 3) + biases[1]).softmax(-1)
        scores = own @ (q @ k.transpose(2, 3)) @ theirs.transpose(2, 3)
        weights = self.drop((scores / math.sqrt(q.shape[-1]) + biases[1]).softmax(-1))
        attended = (weights @ v).transpose(1, 2).flatten(2)
        moved = self.drop(self.dense(f"{scope}/transform/dense", attended))
        return self.norm(f"{scope}/transform", moved + target)

    def forward(self, batch):
        """Mean loss over the batch, L_T + lambda L_aux with the cosine of each row."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        both = [torch.cat([batch[name], batch[f"source_{name}"]]) for name in names]
        target, source = self.encode(*both).chunk(2)
        fused = self.fuse(target, source, batch["attention_mask"], batch["source_attention_mask"])
        joined = torch.cat([target, fused], -1)
        losses = [
            self.span_loss(side, prefix, x, batch)
            for side, prefix, x in (("target", "", joined), ("source", "source_", source))
        ]
        spans = [
            span_vector(x, batch[f"{prefix}start"], batch[f"{prefix}end"])
            for prefix, x in (("", target), ("source_", source))
        ]
        weights = F.cosine_similarity(*spans).clamp(min=0)
        return (losses[0] + weights * losses[1]).mean()

    def span_loss(self, side, prefix, x, batch):
        """Sum of start and end cross entropy, per row."""
        scope = f"{side}/cls/squad"
        logits = F.linear(
            x, self.value(f"{scope}/output_weights"), self.value(f"{scope}/output_bias")
        )
        logits = logits + torch.where(batch[f"{prefix}span_mask"], 0.0, -1e4)[..., None]
        return sum(
            F.cross_entropy(logits[..., column], batch[prefix + place], reduction="none")
            for column, place in enumerate(("start", "end"))
        )


def span_vector(hidden, start, end):
    """First, last and self-attended vector of each row's span."""
    position = torch.arange(hidden.shape[1], device=hidden.device)[None]
    inside = (position >= start[:, None]) & (position <= end[:, None])
    x = hidden * inside[..., None]
    maps = (x @ x.transpose(1, 2)).masked_fill(~inside[:, None], -1e9).softmax(-1)
    share = inside / inside.sum(1, keepdim=True)
    rows = torch.arange(len(start), device=start.device)
    attended = (share[:, None] @ (maps @ x))[:, 0]
    return torch.cat([hidden[rows, start], hidden[rows, end], attended], -1)


def main() -> None:
    """Answers every line on stdin with one timed training step."""
    folder, threads, clock = sys.argv[1:]
    clock = getattr(time, clock)
    torch.set_num_threads(int(threads))
    with open(f"{folder}/case.json", encoding="utf-8") as file:
        model = DualBert(json.load(file), np.load(f"{folder}/variables.npz"))
    arrays = np.load(f"{folder}/batch.npz")
    batch = {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    batch = {k: v.long() if v.dtype == torch.int32 else v for k, v in batch.items()}
    groups = [[], []]
    for name, parameter in model.named_parameters():
        groups[name.endswith(("bias", "gamma", "beta"))].append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.01}, {"params": groups[1], "weight_decay": 0.0}],
        lr=1e-5,
        fused=True,
    )
    model.eval()
    loss = model(batch)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    print(json.dumps({"loss": loss.item(), "norm": norm.item()}), flush=True)
    model.train()
    for _ in sys.stdin:
        begin = clock()
        optimizer.zero_grad()
        model(batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(clock() - begin, flush=True)


if __name__ == "__main__":
    main()
