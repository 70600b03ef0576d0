"""Which settings tell results apart, and which change only the speed and the memory of a run.

A finished or half-finished run goes on with other values of the second kind: on another slice,
with other rules for its parameters, after its memory did not suffice.
"""

import re

# Dotted config keys; a key stands for all that is below it. With each of them results are the same
# but for the order of floating-point sums and for which units dropout draws. Not among them:
# `accumulate` (in-batch negatives come from one micro-batch), batch sizes of training, padded
# lengths, dtypes, and how often a training validates (which chooses the parameters kept).
SPEED_ONLY = (
    # Where arrays lie. With several hosts batches are padded to one length, which is masked.
    "mesh",
    "rules",
    # What the backward pass computes again.
    "retriever_model.sizes.remat",
    "generator_model.sizes.remat",
    "model.sizes.remat",
    "sizes.remat",
    "retriever.chunk_size",
    # Two forms of the same product, whole or in parts.
    "dual.saa",
    "dual.saa_chunk",
    # Rows worked on at a time where rows do not see each other, and who tokenises them.
    "retriever.encode_batch",
    "retriever.tokenizer_workers",
    "index.max_rows_on_device",
    "generator.generate_batch",
    "generator.label_chunk",
    "generator.answer_chunk",
    "training.predict_batch",
    "training.read_chunk",
    "search_batch",
    # Where finished translations are kept, and who pays for new ones.
    "translation.cache",
    "translation.consent",
    "translation.project",
    # What is written on the way.
    "retriever.save_every",
    "retriever.log_every",
    "generator.save_every",
    "generator.log_every",
    "training.save_every",
    "training.log_every",
    "save_every",
    "log_every",
    "profile",
)


# (keys, stages that they come too late for), regexes: more rounds, another scorer or more evaluation
# sets do not train again. Stages that trained on answers of theirs (back-translation) are not among
# them.
LATER = (
    (r"rounds|evaluation\.examples", r".*"),
    (r"evaluation\.(scorer|recall_at)", r"zero_shot|round_\d+/(?!scores).*"),
    (r"evaluation\.(split|closed_book)", r"round_\d+/(mdpr|index|retrieved|mgen|mined)"),
    (
        r"scorer|decoding|data\.(evaluate|max_evaluate)",
        r"source|source_reader|vocabulary_\d+|(plain|cascade|mixed|dual|dual_squad)/train",
    ),
)


def identity(settings: dict, prefix: str = "", stage: str = "") -> dict:
    """Settings (nested, or flat with dotted keys) without those of SPEED_ONLY.

    stage: of a run, then also without the keys that are LATER than it.
    """
    found = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if _counts(path, stage):
            inner = isinstance(value, dict)
            found[key] = identity(value, f"{path}.", stage) if inner else value
    return found


def _counts(path: str, stage: str) -> bool:
    if any(path == known or path.startswith(f"{known}.") for known in SPEED_ONLY):
        return False
    late = (keys for keys, stages in LATER if stage and re.fullmatch(stages, stage))
    return not any(re.fullmatch(keys, path) for keys in late)
