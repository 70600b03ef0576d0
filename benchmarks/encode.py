#!/usr/bin/env python3
"""Passages per second of our encoder beside PyTorch with transformers, same weights, same run.

python benchmarks/encode.py --encoder=FOLDER --squad xquad.en.json xquad.ar.json ... \\
    --torch_python=PYTHON_WITH_TORCH [--paragraphs=120 --batch_size=8 --repeats=5]

Three passes over the same paragraphs take turns, `repeats` times; medians are compared:
    torch      batches in file order, padded to the longest of the batch (a multiple of 32)
    ours       exactly the same padded arrays
    ours+len   the same paragraphs through our length buckets, constant tokens per batch
PyTorch runs in a process of its own (--torch_python, default this interpreter) that sleeps while
the others work. Compilation and one warm-up pass are outside the measurement. The vectors of
both sides are compared as well: a fast wrong answer does not count.
"""

import argparse
import contextlib
import functools
import gzip
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.huge_pages import use_huge_pages
from clmrc_jax.models import biencoder
from clmrc_jax.models.biencoder import BiEncoderConfig
from clmrc_jax.retrieval.batches import BatchPlan, make_batches
from clmrc_jax.train.pretrained import load_bert

# Reads the batches once; then, for every line on stdin, encodes all of them and prints seconds.
TORCH_SIDE = """
import sys, time, numpy as np, torch
from transformers import AutoModel
folder, batches, vectors, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
data = np.load(batches)
pairs = [(torch.from_numpy(data[f"ids{i}"]).long(), torch.from_numpy(data[f"mask{i}"]).long())
         for i in range(len(data.files) // 2)]
def encode():
    out = []
    with torch.inference_mode():
        for ids, mask in pairs:
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask[..., None].float()
            out.append(((hidden * weight).sum(1) / weight.sum(1)).numpy())
    return np.concatenate(out)
np.save(vectors, encode())
print("ready", flush=True)
for _ in sys.stdin:
    begin = time.perf_counter()
    encode()
    print(time.perf_counter() - begin, flush=True)
"""


def main() -> None:
    """Measures, and prints medians and ratios."""
    options = _parser().parse_args()
    texts = _paragraph_tokens(options)
    lengths = [len(text) for text in texts]
    print(
        f"{len(texts)} paragraphs, {min(lengths)}-{max(lengths)} tokens, mean {np.mean(lengths):.0f}"
    )
    padded = list(_padded_batches(texts, options.batch_size))
    rows = max(1, options.bucket_tokens // options.max_length)
    plan = BatchPlan(rows, tuple(range(32, options.max_length + 1, 32)))
    bucketed = [(b.ids, b.mask) for b in make_batches(texts, plan)]
    _say_padding("padded to the longest", padded, lengths)
    _say_padding("length buckets", bucketed, lengths)

    config, params = load_bert(options.encoder)
    bi_encoder = BiEncoderConfig(config, pooling="mean", tied=True)
    placed = jax.device_put({"shared": {"bert": params}})
    compiled = jax.jit(functools.partial(biencoder.encode_passages, bi_encoder))
    ours = functools.partial(_encode, functools.partial(compiled, placed))
    with _torch_side(options, padded) as (torch_vectors, torch_pass):
        difference = np.abs(ours(padded) - torch_vectors).max()
        print(f"largest difference of the vectors: {difference:.1e}")
        ours(bucketed)
        passes = {
            "torch": torch_pass,
            "ours": lambda: _seconds(ours, padded),
            "ours+len": lambda: _seconds(ours, bucketed),
        }
        seconds = {name: [] for name in passes}
        for _, (name, run) in itertools.product(range(options.repeats), passes.items()):
            seconds[name].append(run())
    _report(seconds, len(texts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", required=True, help="Hugging Face folder of a BERT encoder")
    parser.add_argument("--squad", required=True, nargs="+", help="SQuAD-style files (.gz too)")
    parser.add_argument("--torch_python", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--paragraphs", type=int, default=120, help="spread evenly over the files")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument(
        "--bucket_tokens", type=int, default=1024, help="tokens per batch of ours+len"
    )
    parser.add_argument("--max_length", type=int, default=512, help="a multiple of 32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    return parser


def _paragraph_tokens(options) -> list[list[int]]:
    """Token ids of the first paragraphs of every file."""
    paragraphs = []
    for path in options.squad:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            articles = json.load(file)["data"]
        texts = (p["context"] for article in articles for p in article["paragraphs"])
        paragraphs += itertools.islice(texts, -(-options.paragraphs // len(options.squad)))
    tokenizer = load_tokenizer(options.encoder)
    prefixed = [f"passage: {text}" for text in paragraphs[: options.paragraphs]]
    return tokenizer.pack(prefixed, max_length=options.max_length)


def _padded_batches(texts: list[list[int]], batch_size: int):
    """Consecutive texts, padded to the longest of each batch, rounded up to 32."""
    for start in range(0, len(texts), batch_size):
        part = texts[start : start + batch_size]
        length = -(-max(map(len, part)) // 32) * 32
        ids, mask = np.ones((len(part), length), np.int32), np.zeros((len(part), length), bool)
        for row, text in enumerate(part):
            ids[row, : len(text)], mask[row, : len(text)] = text, True
        yield ids, mask


def _encode(encode, batches) -> np.ndarray:
    """Vectors of all batches; all are sent before the first is fetched."""
    return np.concatenate([np.asarray(x) for x in [encode(ids, mask) for ids, mask in batches]])


def _seconds(run, batches) -> float:
    begin = time.perf_counter()
    run(batches)
    return time.perf_counter() - begin


@contextlib.contextmanager
def _torch_side(options, batches):
    """Starts PyTorch; gives its vectors and a function that times one pass."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = {}
        for i, (ids, mask) in enumerate(batches):
            arrays |= {f"ids{i}": ids, f"mask{i}": mask}
        np.savez(f"{folder}/batches.npz", **arrays)
        command = [options.torch_python, "-c", TORCH_SIDE, options.encoder]
        command += [f"{folder}/batches.npz", f"{folder}/vectors.npy", str(options.threads)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def one_pass() -> float:
            process.stdin.write("run\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        if process.stdout.readline().strip() != "ready":
            sys.exit(f"{options.torch_python} cannot run torch and transformers (message above)")
        try:
            yield np.load(f"{folder}/vectors.npy"), one_pass
        finally:
            process.stdin.close()
            process.wait()


def _say_padding(name: str, batches, lengths) -> None:
    slots = sum(ids.size for ids, _ in batches)
    print(f"{name}: {len(batches)} batches, {100 * (1 - sum(lengths) / slots):.0f}% padding")


def _report(seconds: dict[str, list[float]], paragraphs: int) -> None:
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        low, high = (paragraphs / f(seconds[name]) for f in (max, min))
        ratio = statistics.median(t / o for t, o in zip(seconds["torch"], seconds[name]))
        print(
            f"{name:9} {paragraphs / median:7.1f} passages/s  ({low:.1f}-{high:.1f})  "
            f"{ratio:.2f} x torch (median of {len(seconds[name])} turns)"
        )


if __name__ == "__main__":
    use_huge_pages()  # for PyTorch too, which inherits the environment
    main()
