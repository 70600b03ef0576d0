"""What a run will need, before it starts: `tpu_train.py --dry_run`.

Parameters, memory per device, host memory, disk, and time per stage, from the config alone:
nothing is downloaded, allocated or written. The formulas are in `estimates`; what is assumed
rather than counted is listed under the tables.
"""

import dataclasses
from collections.abc import Iterable

import jax.numpy as jnp
from jax.sharding import AbstractMesh

from clmrc_jax.files import InputError, read_json
from clmrc_jax.models import bert, biencoder, mt5
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.biencoder import BiEncoderConfig
from clmrc_jax.models.mt5 import Mt5Config
from clmrc_jax.pipelines import estimates, evaluation_checks
from clmrc_jax.pipelines.batch_checks import check_buckets, check_generator, check_retriever
from clmrc_jax.pipelines.counts import Counts, corpus_counts
from clmrc_jax.pipelines.models import left_out_note, source_folder
from clmrc_jax.pipelines.plan_devices import (
    CPU_UTILISATION,
    device_notes,
    host_flops,
    planned_devices,
    planned_mesh,
)
from clmrc_jax.pipelines.settings import CoraSettings, ModelSource
from clmrc_jax.sharding import DEFAULT_RULES
from clmrc_jax.train.model_folders import given_folder

# Sizes of published models, so that a plan needs no download. {}: the dataclass' defaults.
_E5_SMALL = {
    "vocab_size": 250037,
    "hidden_size": 384,
    "intermediate_size": 1536,
}
_BERT_LARGE = {
    "vocab_size": 28996,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
PUBLISHED = {
    "google-bert/bert-base-multilingual-uncased": {},
    "google-bert/bert-base-multilingual-cased": {"vocab_size": 119547},
    "google-bert/bert-base-chinese": {"vocab_size": 21128},
    "google-bert/bert-base-cased": {"vocab_size": 28996},
    "google-bert/bert-large-cased": _BERT_LARGE,
    "google/mt5-base": {},
    "intfloat/multilingual-e5-small": _E5_SMALL,
}
# Python, libraries and compiled programs of a run on the CPU: the high-water mark of one whose
# arrays are small (cora.py:smoke).
CPU_PROCESS_BYTES = 1_200_000_000
CPU_ACTIVATIONS = 1.5  # XLA fuses less on a CPU: 1.2 to 1.6 times the formula, more with dropout
LINKED = 10  # candidates from language links per annotated English question


def make_plan(s: CoraSettings, topology: str = "") -> dict:
    """The plan as plain JSON values: bytes, operations, seconds; unknown ones are None.

    topology: a slice to plan for, e.g. "v4-32"; "" for the devices of this machine.
    Raises InputError for an unreadable corpus, and models or batches that do not fit the mesh.
    """
    notes, mesh = evaluation_checks.plan_notes(s), planned_mesh(s.mesh, topology)
    check_retriever(mesh, s.retriever)
    if s.generate:
        check_generator(mesh, s.generator)
    counts = corpus_counts(s.corpus)
    configs = _configs(s, notes)
    notes += [] if s.generate else [left_out_note(s)]
    devices = planned_devices(mesh, topology)
    models, stages = _models(s, configs), _stages(s, counts, configs, devices)
    memory = _memory(s, counts, configs, mesh)
    seconds = total(stage["seconds"] for stage in stages)
    notes += [*_assumptions(s, counts, devices), *device_notes(devices, seconds)]
    return {
        "name": s.name,
        "devices": devices,
        "corpus": dataclasses.asdict(counts),
        "models": models,
        "memory": memory,
        "process": process_memory(memory, devices),
        "host": _host(s, counts, configs),
        "labelling": _labelling(s, counts),
        "disk": _disk(s, counts, models, _width(s, configs["retriever"])),
        "stages": stages,
        "seconds": seconds,
        "notes": notes,
    }


def _configs(s: CoraSettings, notes: list[str]) -> dict[str, BertConfig | Mt5Config | None]:
    """The sizes of both models, with a note for what is not known of them."""
    encoder, generator = config_of(s.retriever_model, "bert", notes, "retriever_model"), None
    if encoder:
        check_buckets(encoder, s.retriever_format)
    if s.generate:
        generator = config_of(s.generator_model, "mt5", notes, "generator_model")
    return {"retriever": encoder, "generator": generator}


def total(values: Iterable) -> float | None:
    """The sum; None where a part is unknown."""
    values = list(values)
    return None if None in values else sum(values)


def process_memory(memory: dict, devices: dict) -> dict:
    """What a run on the CPU takes in all: {part: bytes}, the "total" last.

    memory: {phase: {part: bytes}} of one device; a training also holds the parameters that it
    started from, and a copy of its state while that is written to a checkpoint. Empty for
    accelerators, where the arrays lie on the devices.
    """
    if devices["kind"] != "cpu" or not memory:
        return {}
    more = CPU_ACTIVATIONS - 1

    def needs(phase):
        copies = 2 * phase["parameters"] + phase["optimizer"] if "optimizer" in phase else 0
        return phase["total"] + more * phase.get("activations", 0) + copies

    arrays = round(devices["planned"] * max(map(needs, memory.values())))
    parts = {"Python, libraries, programs": CPU_PROCESS_BYTES, "arrays of the largest step": arrays}
    return parts | {"total": sum(parts.values())}


def config_of(
    source: ModelSource, kind: str, notes: list[str], key: str = ""
) -> BertConfig | Mt5Config | None:
    """The model's sizes without its weights; None, and a note, when nothing tells them.

    key: the config key of the model, for errors. Raises InputError for a path without a folder, and
    for sizes of no such model.
    """
    try:
        return _config_of(source, kind, notes)
    except (TypeError, ValueError) as error:
        raise InputError(f"config.{key}: {error}" if key else str(error)) from error


def _config_of(source, kind, notes):
    cls = BertConfig if kind == "bert" else Mt5Config
    try:
        folder = source_folder(source, kind)
    except InputError as error:
        notes.append(f"{kind} sizes unknown: {error}")
        return None
    if not folder:
        return cls(**{"vocab_size": source.vocabulary} | source.sizes)
    raw = _published_sizes(folder)
    if raw is None and "vocab_size" not in source.sizes:
        notes.append(
            f"{kind} sizes unknown: {folder} is neither a folder nor in the hub's cache; "
            f"load it once, or give its sizes in the config"
        )
        return None
    names = {field.name for field in dataclasses.fields(cls)} - {"dtype", "remat"}
    known = {name: value for name, value in (raw or {}).items() if name in names and value}
    if kind == "mt5" and raw and "num_layers" in raw:
        known.setdefault("num_decoder_layers", raw["num_layers"])
        known["tie_word_embeddings"] = raw.get("model_type") == "t5" and raw.get(
            "tie_word_embeddings", True
        )
    return cls(**known | source.sizes)


def _published_sizes(folder_or_id: str) -> dict | None:
    """config.json of a folder or of a cached hub id, or the table's row; never the network.

    Raises InputError for a path without a folder, and what the hub would not have as an id.
    """
    folder = given_folder(folder_or_id)
    if folder:
        return read_json(folder / "config.json")
    if folder_or_id in PUBLISHED:
        return PUBLISHED[folder_or_id]
    if folder_or_id.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache  # slow to import, needed only here
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(folder_or_id, "config.json")
    except HFValidationError as error:
        raise InputError(
            f"{folder_or_id}: no such folder, and no id of the hub: {error}"
        ) from error
    return read_json(cached) if isinstance(cached, str) else None


def _bi_encoder(s: CoraSettings, config: BertConfig) -> BiEncoderConfig:
    return BiEncoderConfig(bert=config, **s.retriever_head)


def _models(s: CoraSettings, configs: dict) -> dict:
    inits = {"retriever": lambda c: lambda key: biencoder.init(_bi_encoder(s, c), key)}
    inits["generator"] = lambda c: lambda key: mt5.init(c, key)
    sources = {"retriever": s.retriever_model, "generator": s.generator_model}
    return {
        name: {
            "from": sources[name].pretrained or "random weights",
            "parameters": config and estimates.parameter_count(inits[name](config)),
            "sizes": config and dataclasses.asdict(config),
        }
        for name, config in configs.items()
        if name == "retriever" or s.generate
    }


def _memory(s: CoraSettings, counts: Counts, configs: dict, mesh: AbstractMesh) -> dict:
    """Bytes on one device, by phase and part. `held`: parameters of the model that is used."""
    rules, phases = {**DEFAULT_RULES, **s.rules}, {}
    if configs["retriever"]:
        model = _bi_encoder(s, configs["retriever"])
        phases |= estimates.retriever_memory(s, model, mesh, rules)
        mdpr = {"held": phases["train mDPR"]["parameters"]}
        phases["encode passages"] |= mdpr
        if s.index.kind in ("exact", "scann"):  # ScaNN's recall is measured against exact search
            rows = -(-counts.passages // mesh.size)
            size = rows * model.embedding_size * estimates.FLOAT32
            phases["exact search"] = {"embeddings": size} | mdpr
    if configs["generator"]:
        phases |= estimates.generator_memory(s, configs["generator"], mesh, rules)
        phases["generate"]["held"] = phases["train mGEN"]["parameters"]
    for parts in phases.values():
        parts["total"] = sum(parts.values())
    return phases


def _width(s: CoraSettings, config: BertConfig | None) -> int | None:
    return config and _bi_encoder(s, config).embedding_size


def _host(s: CoraSettings, counts: Counts, configs: dict) -> dict:
    """Bytes of host memory at the largest stage: building the index.

    ScaNN: n * d * 4 for the matrix it is given, its own copy for reordering (4, 2 or 1 bytes a
    number), and a 4-bit code per block of dimensions. numpy: embeddings are mapped, not loaded.
    """
    width = _width(s, configs["retriever"])
    if width is None or s.index.kind != "scann":
        return {}
    cells = counts.passages * width
    parts = {"float32 matrix": cells * 4, "reordering copy": _reorder_bytes(s, cells)}
    if counts.passages >= s.index.scann.brute_force_below:
        parts["hash codes"] = _code_bytes(s, cells)
    return parts | {"total": sum(parts.values())}


def _labelling(s: CoraSettings, counts: Counts) -> dict:
    size = _candidates(s, counts), counts.passage_bytes
    return estimates.labelling_memory(s, *size) if s.rounds else {}


def _candidates(s: CoraSettings, counts: Counts) -> int:
    linked = counts.english * LINKED if s.mining.language_links else 0
    return counts.train * s.mining.retrieved + linked


def _reorder_bytes(s: CoraSettings, cells: int) -> int:
    return cells * {"float32": 4, "bfloat16": 2, "int8": 1}[s.index.scann.storage]


def _code_bytes(s: CoraSettings, cells: int) -> int:
    return cells // (2 * s.index.scann.dimensions_per_block)


def _disk(s: CoraSettings, counts: Counts, models: dict, width: int | None) -> dict:
    """Bytes in the workdir at the end of the run, and the checkpoints of the running training.

    Every round keeps embeddings, index, retrieval runs, and each model twice (the training's
    last parameters and the Hugging Face folder), float32. A running training has two
    checkpoints of parameters and statistics, and the best parameters; mining, its candidates.
    """
    rounds = s.rounds + 1
    run_rows = counts.questions * s.index.top_k * rounds
    disk = {
        "passage store": int(counts.passages * counts.passage_bytes),
        "retrieval runs": int(run_rows * counts.passage_bytes),
    }
    if s.rounds:
        disk["candidates while mining"] = int(_candidates(s, counts) * (counts.passage_bytes + 300))
    if width is not None:
        number = jnp.dtype(s.retriever.embeddings).itemsize
        scale = 4 if s.retriever.embeddings == "int8" else 0
        disk["embeddings"] = rounds * counts.passages * (width * number + scale)
        if s.index.kind == "scann":
            cells = rounds * counts.passages * width
            coded = counts.passages >= s.index.scann.brute_force_below
            disk["index"] = _reorder_bytes(s, cells) + (_code_bytes(s, cells) if coded else 0)
    sizes = [m["parameters"] for m in models.values() if m["parameters"]]
    if sizes:
        disk["models"] = rounds * 2 * estimates.FLOAT32 * sum(sizes)
        disk["checkpoints while training"] = 7 * estimates.FLOAT32 * max(sizes)
    return disk | {"total": sum(disk.values())}


def _stages(s: CoraSettings, counts: Counts, configs: dict, devices: dict) -> list[dict]:
    """One row per stage and round: count, unit, operations and seconds."""
    stages = []
    for round in range(s.rounds + 1):
        work = _retriever_work(s, counts, configs["retriever"], round)
        if s.generate:
            work += _generator_work(s, counts, configs["generator"], round)
        for name, count, unit, pieces in work:
            seconds = pieces and total(seconds_of(kind, x, devices) for kind, x in pieces.items())
            flops = pieces and sum(pieces.values())
            row = {"round": round, "stage": name, "count": count, "unit": unit}
            stages.append(row | {"flops": flops, "seconds": seconds})
    return stages


def seconds_of(kind: str, flops: float, devices: dict) -> float | None:
    """Time of `flops` operations of a kind of work; None for an unknown peak.

    devices["utilisation"]: the share of the peak that each kind reaches.
    """
    if kind == "host":
        return flops / (host_flops(devices) * CPU_UTILISATION["search"])
    peak = devices["peak_flops"]
    share = devices["utilisation"][kind]
    return None if peak is None else flops / (peak * devices["planned"] * share)


def _retriever_work(s: CoraSettings, counts: Counts, config: BertConfig | None, round: int) -> list:
    """(stage, count, unit, {kind of work: operations}) of a round's retrieval half."""
    steps = s.retriever.steps_of(round)
    if config is None:
        pieces = [None] * 3
    else:
        f, n = s.retriever_format, counts.passages
        typical = sum(f.passage_buckets) // len(f.passage_buckets)
        queries = bert.forward_flops(config, counts.questions, f.question_buckets[0])
        scores = 2.0 * counts.questions * n * _width(s, config)
        if s.index.kind == "scann" and n >= s.index.scann.tree_above:
            # a tenth of the leaves is visited; one table look-up per block and row
            scores /= 10 * 2 * s.index.scann.dimensions_per_block
        pieces = [
            {"train": estimates.retriever_training_flops(s, config, steps)},
            {"encode": bert.forward_flops(config, n, typical)},
            {"encode": queries, "search" if s.index.kind == "exact" else "host": scores},
        ]
    return [
        ("train mDPR", steps, "steps", pieces[0]),
        ("encode and index", counts.passages, "passages", pieces[1]),
        ("retrieve", counts.questions, "questions", pieces[2]),
    ]


def _generator_work(s: CoraSettings, counts: Counts, config: Mt5Config | None, round: int) -> list:
    """As `_retriever_work`: training mGEN, labelling candidates, answering (twice: closed book)."""
    t, f, e = s.generator, s.generator_format, s.evaluation
    steps, last = t.steps_of(round), round == s.rounds
    candidates = _candidates(s, counts)
    answers = getattr(counts, e.split)
    source = f.source_length * (f.passages if f.fusion else 1)

    def generation(rows, length, beams):
        encoder, decoder = estimates.generation_flops(config, rows, length, t.max_length, beams)
        return {"encode": encoder, "generate": decoder}

    training = labels = final = None
    if config is not None:
        training = {"train": estimates.generator_training_flops(s, config, steps)}
        labels = generation(candidates, f.labelling_length, 1)
        final = generation(answers, source, t.beams)
        if e.closed_book:
            closed = generation(answers, f.source_buckets[0], t.beams)
            final = {kind: final[kind] + closed[kind] for kind in final}
    work = [("train mGEN", steps, "steps", training)]
    work += [] if last else [("label candidates", candidates, "passages", labels)]
    return [*work, ("answer", answers, "questions", final)]


def _assumptions(s: CoraSettings, counts: Counts, devices: dict) -> list[str]:
    links = ", as if there were links" if evaluation_checks.link_notes(s) else ""
    shares = ", ".join(
        f"{kind} {100 * share:.0f}%" for kind, share in devices["utilisation"].items()
    )
    return [
        f"corpus counts: {counts.origin}",
        f"time: questions of the shortest bucket, all else at full length, at these shares of the peak: {shares}; compilation, reading and "
        "index building come on top",
        f"labelling: {LINKED} candidates from language links per annotated English question{links}",
    ]
