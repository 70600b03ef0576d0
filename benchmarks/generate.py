"""4-beam generation at mT5-small size: ours beside transformers' `generate`, in one run.

    python benchmarks/generate.py --torch_python=PYTHON

PYTHON is an interpreter with torch, transformers and safetensors; this one needs neither. Both sides
load the same random weights (8 layers, 512 wide, 250,112 pieces: 1.2 GB), answer the same sources
in turn, and are timed from token ids to token ids, compilation and loading left out. Prints the
median time of each, the speed-up and how many answers agree token by token.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from clmrc_jax.huge_pages import use_huge_pages

TORCH_WORKER = """
import json, sys, time
import numpy as np, torch
from transformers import AutoModelForSeq2SeqLM
folder, beams, max_length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
inputs = np.load(folder + "/inputs.npz")
ids, mask = torch.tensor(inputs["ids"]).long(), torch.tensor(inputs["mask"]).long()
print("ready", torch.__version__, torch.get_num_threads(), flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    with torch.inference_mode():
        tokens = model.generate(input_ids=ids, attention_mask=mask, num_beams=beams,
                                max_length=max_length, min_length=max_length, do_sample=False)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "tokens": tokens.tolist()}), flush=True)
"""


def our_generate(config, beams: int, max_length: int):
    """Returns a jitted (params, ids, mask) -> tokens [batch, max_length]."""
    import jax

    from clmrc_jax.models import decoding, mt5

    search = decoding.BeamConfig(beams=beams, max_length=max_length, min_length=max_length)

    @jax.jit
    def generate(params, ids, mask):
        encoded = mt5.encode(config, params, ids, mask)
        cache = mt5.init_cache(config, params, encoded, mask, max_length, beams)
        step = functools.partial(mt5.decode_step, config, params)
        result = decoding.beam_search(
            step, cache, search, batch=ids.shape[0], reorder=mt5.reorder_cache
        )
        return result.tokens[:, 0]

    return generate


def start_torch(python: str, folder: str, beams: int, max_length: int) -> subprocess.Popen:
    """The other side, waiting for lines on its standard input."""
    command = [python, "-c", TORCH_WORKER, folder, str(beams), str(max_length)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    ready = worker.stdout.readline()
    if not ready.startswith("ready"):
        raise SystemExit(f"{python} could not start: does it have torch and transformers?")
    _, version, threads = ready.split()
    print(f"torch {version} with {threads} threads", file=sys.stderr)
    return worker


def torch_generate(worker: subprocess.Popen) -> tuple[float, np.ndarray]:
    worker.stdin.write("go\n")
    worker.stdin.flush()
    answer = json.loads(worker.stdout.readline())
    return answer["seconds"], np.array(answer["tokens"])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch_python", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--source_length", type=int, default=256)
    parser.add_argument("--max_length", type=int, default=20, help="counts the start token")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser.parse_args()


def alternate(ours, worker: subprocess.Popen, rounds: int) -> dict:
    """Runs both sides in turn. ours: () -> tokens. Returns medians, speed-up and agreement."""
    our_times, torch_times = [], []
    for i in range(rounds + 1):  # the first round warms both sides up
        start = time.perf_counter()
        our_tokens = np.asarray(ours())
        our_seconds = time.perf_counter() - start
        torch_seconds, torch_tokens = torch_generate(worker)
        if i:
            our_times.append(our_seconds)
            torch_times.append(torch_seconds)
            times = f"ours {our_seconds:.3f} s, transformers {torch_seconds:.3f} s"
            print(f"round {i}: {times}", file=sys.stderr)
    our_median, torch_median = statistics.median(our_times), statistics.median(torch_times)
    agree = int((our_tokens == torch_tokens).all(axis=1).sum())
    return {
        "ours_s": our_median,
        "transformers_s": torch_median,
        "speedup": torch_median / our_median,
        "same_answers": f"{agree}/{len(our_tokens)}",
    }


def main() -> None:
    args = parse_arguments()
    sys.path.insert(0, os.fspath(pathlib.Path(__file__).parents[1]))
    import jax

    from clmrc_jax.models import mt5
    from clmrc_jax.train import pretrained

    config = mt5.Mt5Config(
        d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_decoder_layers=8, num_heads=6
    )
    rng = np.random.default_rng(0)
    ids = rng.integers(2, config.vocab_size, (args.batch, args.source_length)).astype(np.int32)
    lengths = rng.integers(args.source_length // 2, args.source_length + 1, args.batch)
    mask = np.arange(args.source_length)[None] < lengths[:, None]
    params = jax.jit(functools.partial(mt5.init, config))(jax.random.key(0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "model")
        pretrained.save_mt5(folder, config, params)
        np.savez(os.path.join(folder, "inputs.npz"), ids=ids, mask=mask)
        worker = start_torch(args.torch_python, folder, args.beams, args.max_length)
        generate = our_generate(config, args.beams, args.max_length)
        result = alternate(lambda: generate(params, ids, mask), worker, args.rounds)
        worker.stdin.close()
        worker.wait()
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


if __name__ == "__main__":
    use_huge_pages()  # for PyTorch too, which inherits the environment
    main()
