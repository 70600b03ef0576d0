#!/usr/bin/env python3
"""Training steps of Dual BERT per second beside PyTorch, same weights, same batch, same run.

python benchmarks/dual_bert.py --torch_python=PYTHON_WITH_TORCH [--batch_size=8 --turns=5 --steps=3]

A step is forward, backward, clipping and AdamW, with dropout. The two sides take turns of several
steps; PyTorch (benchmarks/dual_bert_torch.py) runs in a process of its own that sleeps while we
work. Compilation, a warm-up turn and the first step of every turn, which takes memory back from the
other side, are outside the measurement. On a busy machine compare CPU seconds
on one core: `taskset -c 0 python benchmarks/dual_bert.py --threads=1 --clock=cpu`. Loss and gradient norm without
dropout are compared first: a fast wrong answer does not count.

Prints as well what XLA sets aside for the gradient of self-adaptive attention: the published
maps, the factored form, and the factored form in chunks of target rows (nothing is run for that).
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from random_batches import span_pairs

from clmrc_jax.huge_pages import use_huge_pages
from clmrc_jax.models import dual_bert, official_names, saa
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.train import optimizer
from clmrc_jax.train.optimizer import OptimizerConfig
from clmrc_jax.train.span_objectives import dual_span_objective

CLOCKS = {"wall": "perf_counter", "cpu": "process_time"}


def main() -> None:
    """Measures, and prints medians and their ratio."""
    options = _parser().parse_args()
    _print_memory(options)
    if not options.turns:
        return
    bert = BertConfig(
        vocab_size=options.vocab_size,
        hidden_size=options.hidden_size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.hidden_size,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
    )
    config = dual_bert.paper(bert, fusion_dropout=options.dropout, saa_chunk=options.saa_chunk)
    params = jax.jit(dual_bert.init, static_argnums=0)(config, jax.random.key(0))
    batch = span_pairs(options.batch_size, options.length, options.vocab_size)
    loss, norm = _loss_and_norm(config, params, batch)
    with _torch_side(options, config, params, batch) as (theirs, torch_step):
        print(f"loss {loss:.6f}, PyTorch {theirs['loss']:.6f}")
        print(f"gradient norm {norm:.5f}, PyTorch {theirs['norm']:.5f}")
        if not np.allclose((loss, norm), (theirs["loss"], theirs["norm"]), rtol=1e-3):
            sys.exit("the two models differ: nothing to compare")
        sides = {"torch": torch_step, "ours": _Step(config, params, batch, options.clock)}
        seconds = {name: [] for name in sides}
        for turn in range(options.turns + 1):  # the first turn warms up
            for name, step in sides.items():
                spent = [step() for _ in range(options.steps + 1)][1:]
                seconds[name] += [statistics.median(spent)] if turn else []
    _report(seconds, options.batch_size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch_python", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden_size", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--vocab_size", type=int, default=119547, help="mBERT cased")
    parser.add_argument("--length", type=int, default=256, help="of target and of source")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--saa_chunk", type=int, default=0, help="target rows at a time; 0: all")
    parser.add_argument("--turns", type=int, default=5, help="0: print SAA's memory only")
    parser.add_argument("--steps", type=int, default=3, help="per turn that count")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of all threads")
    return parser


def _print_memory(options) -> None:
    """Temporary memory of SAA's gradient at the benchmark's size and at the paper's."""
    kv = options.hidden_size // options.heads
    sizes = {"this run": (options.batch_size, options.length, options.heads, kv)}
    sizes["paper (batch 64, length 512)"] = (64, 512, 12, 64)
    for name, (batch, length, heads, kv) in sizes.items():
        one_map = 4 * batch * heads * length**2 / 2**20
        print(f"SAA's gradient, {name}; one float32 map is {one_map:.0f} MiB")
        for way, attend in _attentions().items():
            print(
                f"  {way:22} {_temporary_bytes(attend, batch, length, heads, kv) / 2**20:7.0f} MiB"
            )


def _attentions() -> dict:
    def published(query, key, value, *biases):
        return saa.attend_explicitly(saa.attention_maps(query, key, *biases), value)

    chunked = {
        f"factored, {chunk} rows": functools.partial(saa.attend_adaptively, chunk=chunk)
        for chunk in (128, 32)
    }
    return {"published (5 maps)": published, "factored": saa.attend_adaptively} | chunked


def _temporary_bytes(attend, batch, length, heads, kv) -> int:
    arrays = [jax.ShapeDtypeStruct((batch, length, heads, kv), jnp.float32)] * 3
    biases = [jax.ShapeDtypeStruct((batch, 1, 1, length), jnp.float32)] * 2
    gradient = jax.grad(lambda *inputs: jnp.sum(attend(*inputs) ** 2), (0, 1, 2))
    compiled = jax.jit(gradient).lower(*arrays, *biases).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def _loss_and_norm(config, params, batch) -> tuple[float, float]:
    objective = dual_span_objective(config)
    run = jax.jit(jax.value_and_grad(lambda p, b: objective(p, b, None)[0]))
    loss, gradients = run(params, batch)
    return float(loss), float(optimizer.global_norm(gradients))


class _Step:
    """One training step per call, timed, as the training loop compiles it."""

    def __init__(self, config, params, batch, clock):
        objective = dual_span_objective(config)
        transform = optimizer.make_transform(OptimizerConfig(weight_decay=0.01, clip_norm=1.0))
        self.clock = getattr(time, CLOCKS[clock])
        self.batch = jax.device_put(batch)
        self.state = params, jax.jit(transform.init)(params)
        self.count = 0

        def step(state, batch, key):
            params, moments = state
            differentiate = jax.value_and_grad(objective, has_aux=True)
            (loss, _), gradients = differentiate(params, batch, key)
            updates, moments = transform.update(gradients, moments, params)
            return (optimizer.apply_updates(params, updates, 1e-5), moments), loss

        self.step = jax.jit(step, donate_argnums=0)

    def __call__(self) -> float:
        begin = self.clock()
        key = jax.random.fold_in(jax.random.key(1), self.count)
        self.state, loss = self.step(self.state, self.batch, key)
        loss.block_until_ready()
        self.count += 1
        return self.clock() - begin


@contextlib.contextmanager
def _torch_side(options, config, params, batch):
    """Starts PyTorch; gives its loss and gradient norm, and a function that times one step."""
    rows = official_names.dual_bert_variables(config)
    case = {"layers": options.layers, "heads": options.heads, "dropout": options.dropout}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/variables.npz", **official_names.to_official(rows, params))
        np.savez(f"{folder}/batch.npz", **batch)
        pathlib.Path(f"{folder}/case.json").write_text(json.dumps(case))
        script = pathlib.Path(__file__).with_name("dual_bert_torch.py")
        command = [options.torch_python, str(script), folder, str(options.threads)]
        command.append(CLOCKS[options.clock])
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def one_step() -> float:
            process.stdin.write("step\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        first = process.stdout.readline()
        if not first:
            sys.exit(f"{options.torch_python} cannot run the PyTorch side (message above)")
        try:
            yield json.loads(first), one_step
        finally:
            process.stdin.close()
            process.wait()


def _report(seconds: dict[str, list[float]], rows: int) -> None:
    for name, times in seconds.items():
        median = statistics.median(times)
        ratio = statistics.median(t / o for t, o in zip(seconds["torch"], times))
        print(
            f"{name:6} {rows / median:6.2f} examples/s  ({min(times):.2f}-{max(times):.2f} s a step)"
            f"  {ratio:.2f} x torch (median of {len(times)} turns)"
        )


if __name__ == "__main__":
    use_huge_pages()  # for PyTorch too, which inherits the environment
    main()
