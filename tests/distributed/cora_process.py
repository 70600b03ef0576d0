"""A small CORA run, by one process or, as the environment says, one of several.

    cora_process.py WORKDIR PART PROCESSES

PART "retriever" trains mDPR, encodes and searches; "whole" is every stage of the smoke preset.
Nothing in it depends on dropout or on a draw within a batch, so that scores must be equal for any
number of processes.
"""

import importlib.util
import pathlib
import sys

import jax

ROOT = pathlib.Path(__file__).resolve().parents[2]


def config(part: str):
    """The smoke preset without randomness; FSDP for the retriever, on all devices."""
    path = ROOT / "configs" / "cora.py"
    spec = importlib.util.spec_from_file_location("cora_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.get_config("smoke")
    made.rules = (("embed", "data"),)
    made.index.kind = "exact"
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    made.retriever_model.update({"vocabulary": 2000})
    made.retriever_model.sizes.update(still | {"initializer_range": 0.2})
    made.retriever.update({"positives": "first", "hard_negatives": 0, "shard_rows": 256})
    made.retriever.english_first = 0.0
    made.generator_model.update({"vocabulary": 2000})
    made.generator_model.sizes.update({"dropout_rate": 0.0})
    made.generator.update({"answer_passages": 0, "synthetic_share": 0.0})
    # A large epsilon: Adam would otherwise blow the rounding of tiny gradients up to full steps.
    for optimizer in (made.retriever_optimizer, made.generator_optimizer):
        optimizer.update({"learning_rate": 0.1, "eps": 1.0})
    if part == "retriever":
        made.update({"generate": False, "rounds": 0})
    return made


def main(workdir, part, processes):
    from clmrc_jax.pipelines import train

    train.main(config(part), workdir)
    assert jax.device_count() == 8 and jax.process_count() == int(processes)


if __name__ == "__main__":
    main(*sys.argv[1:])
