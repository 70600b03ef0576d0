"""What a reading run will need, before it starts: `tpu_train.py --dry_run` of a clmrc config.

As `pipelines.plan`, from the config and the question files alone: nothing is downloaded or
written, no array is made. Questions are counted, windows estimated from a sample of them;
where the config names no files, the paper's sets are assumed.
"""

import dataclasses
import random
from collections.abc import Callable

import jax.numpy as jnp
from etils import epath
from jax.sharding import AbstractMesh

from clmrc_jax.data import span_features
from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.data.span_windows import SpanFormat, window_bounds
from clmrc_jax.data.tokenization import Tokenizer, load_tokenizer
from clmrc_jax.models import dual_bert, span_head
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dual_bert import DualBertConfig
from clmrc_jax.pipelines import estimates
from clmrc_jax.pipelines.batch_checks import check_training, check_windows
from clmrc_jax.pipelines.clmrc_data import load_reading_sets
from clmrc_jax.pipelines.clmrc_settings import BACK_TRANSLATION, SYSTEMS, ClmrcSettings
from clmrc_jax.pipelines.estimates import FLOAT32
from clmrc_jax.pipelines.mesh_checks import reader_trainings
from clmrc_jax.pipelines.models import source_folder
from clmrc_jax.pipelines.plan import (
    config_of,
    process_memory,
    seconds_of,
    total,
)
from clmrc_jax.pipelines.plan_devices import device_notes, planned_devices, planned_mesh
from clmrc_jax.pipelines.reader import Model, forward_flops
from clmrc_jax.pipelines.settings import ModelSource
from clmrc_jax.sharding import DEFAULT_RULES

SAMPLE = 200  # questions that are cut into windows to estimate those of all
CHARACTERS_PER_TOKEN = 4.0  # of a language with spaces, where no tokenizer is at hand
ENTRY_BYTES = 200  # of one answer in an n-best list


@dataclasses.dataclass(frozen=True)
class Questions:
    """How many questions a set has, and windows per question.   characters: of both texts."""

    questions: int
    ratio: float
    characters: int

    @property
    def windows(self) -> int:
        """Windows of all questions."""
        return round(self.questions * self.ratio)


# SQuAD 1.1, and CMRC 2018 as Table 1 of the paper counts it; windows of 512 pieces.
_CMRC = Questions(10_321, 1.7, 10_321 * 525)
PAPER = {
    "source": Questions(87_599, 1.01, 87_599 * 800),
    "target": _CMRC,
    "bilingual": _CMRC,
    "cmrc_dev": Questions(3_219, 1.7, 3_219 * 525),
}


def make_plan(s: ClmrcSettings, topology: str = "") -> dict:
    """The plan as plain JSON values: bytes, operations, seconds; unknown ones are None.

    topology: a slice to plan for, e.g. "v4-32"; "" for the devices of this machine.
    Raises InputError for unreadable files, and models or batches that do not fit the mesh.
    """
    mesh, notes = planned_mesh(s.mesh, topology), []
    devices = planned_devices(mesh, topology)
    for recipe in set(reader_trainings(s).values()):
        rows = getattr(s, recipe).batch_size
        check_training(mesh, f"{recipe}.batch_size", rows, "training", s.training.accumulate)
    bert = config_of(s.model, "bert", notes, "model")
    models: dict[str, Model] = {}
    if bert:
        check_windows(bert, s.format)
        models["plain reader"] = bert
        if "bilingual" in s.phases():
            models["Dual BERT"] = s.dual_bert(bert)
    own = _own_reader(s)
    if own and (reader := config_of(own, "bert", notes, "translation.reader")):
        check_windows(reader, s.format)
        models["source reader"] = reader
    counts = _counts(s, notes)
    stages = _stages(s, counts, models, devices)
    parameters = {name: estimates.parameter_count(_init(model)) for name, model in models.items()}
    memory = _memory(s, models, mesh)
    seconds = total(row["seconds"] for row in stages if row["unit"] != "characters")
    return {
        "name": s.name,
        "devices": devices,
        "questions": {name: found.questions for name, found in counts.items()},
        "models": {
            name: {
                "from": _origin(s, name),
                "parameters": parameters[name],
                "sizes": dataclasses.asdict(_encoder(model)),
            }
            for name, model in models.items()
        },
        "memory": memory,
        "process": process_memory(memory, devices),
        "disk": _disk(s, counts, stages, parameters),
        "stages": stages,
        "seconds": seconds,
        "notes": notes + _assumptions(s, devices) + device_notes(devices, seconds),
    }


def _own_reader(s: ClmrcSettings) -> ModelSource | None:
    """The encoder of the source reader where it is trained from another one than the run's."""
    if not s.translation.reader or s.source_model or not set(s.systems) & set(BACK_TRANSLATION):
        return None
    sizes = {name: x for name, x in s.model.sizes.items() if name in ("dtype", "remat")}
    return ModelSource(s.translation.reader, sizes=sizes)


def _origin(s: ClmrcSettings, model: str) -> str:
    own = model == "source reader"
    return (s.translation.reader if own else s.model.pretrained) or "random weights"


def _init(model: Model) -> Callable:
    owner = dual_bert if isinstance(model, DualBertConfig) else span_head
    return lambda key: owner.init(model, key)


def _counts(s: ClmrcSettings, notes: list[str]) -> dict[str, Questions]:
    """Set -> its size: the training sets that the systems need, then the evaluation sets."""
    sets, tokenizer = load_reading_sets(s.data), _tokenizer(s)
    evaluated = {x.name: x.examples for x in sets.evaluation} or {"cmrc_dev": []}
    names = dict.fromkeys(
        x for p in s.phases() for x in (("source", "target") if p == "mixed" else (p,))
    )
    found, assumed = {}, []
    for name, examples in ({name: getattr(sets, name) for name in names} | evaluated).items():
        if examples:
            found[name] = _count(examples, tokenizer, s.format)
            continue
        assumed.append(name)
        found[name] = PAPER[name]
        if name == "source" and s.data.max_source:
            found[name] = dataclasses.replace(PAPER[name], questions=s.data.max_source)
    if assumed:
        notes.append(f"no files for {', '.join(assumed)}: SQuAD 1.1 and CMRC 2018 are assumed")
    how = "tokenized" if tokenizer else "by their characters, for want of a tokenizer"
    notes.append(f"windows: estimated from {SAMPLE} questions of each set, {how}")
    return found


def _tokenizer(s: ClmrcSettings) -> Tokenizer | None:
    """The tokenizer, where it lies in a local folder."""
    folder = s.model.tokenizer or source_folder(s.model, "bert")
    return load_tokenizer(folder) if folder and epath.Path(folder).exists() else None


def _count(examples: list[MrcExample], tokenizer: Tokenizer | None, format: SpanFormat):
    few = random.Random(0).sample(examples, min(SAMPLE, len(examples)))
    if tokenizer:
        windows = len(span_features.span_windows(few, tokenizer, format, training=False))
    else:
        windows = sum(_windows_by_characters(example, format) for example in few)
    characters = sum(len(example.context) + len(example.question) for example in few) / len(few)
    return Questions(len(examples), windows / len(few), round(characters * len(examples)))


def _windows_by_characters(example: MrcExample, format: SpanFormat) -> int:
    tokens, question = (_tokens(text) for text in (example.context, example.question))
    room = format.max_length - min(question, format.max_query_length) - 3
    return len(window_bounds(tokens, max(1, room), format.doc_stride)[0])


def _tokens(text: str) -> int:
    """Tokens, roughly: every character of a text without spaces, else a quarter of them."""
    spaced = text.count(" ") > len(text) / 20
    return max(1, round(len(text) / (CHARACTERS_PER_TOKEN if spaced else 1)))


def _stages(
    s: ClmrcSettings, counts: dict[str, Questions], models: dict[str, Model], devices: dict
) -> list[dict]:
    """One row per stage: count, unit, operations and seconds, in the order of the run."""
    rows = {}  # by name: the source phase is shared
    evaluated = [
        found for name, found in counts.items() if name not in ("source", "target", "bilingual")
    ]
    windows = sum(found.windows for found in evaluated)

    def add(name, count, unit, kind="", flops=None):
        seconds = None if flops is None else seconds_of(kind, flops, devices)
        rows[name] = {
            "stage": name,
            "count": count,
            "unit": unit,
            "flops": flops,
            "seconds": seconds,
        }

    def train(name, recipe, trained_on, model):
        steps = max(1, recipe.steps(sum(counts[x].windows for x in trained_on)))
        passes = model and 3 + bool(_encoder(model).remat)
        flops = model and steps * passes * forward_flops(model, s.format, recipe.batch_size)
        add(name, steps, "steps", "train", flops)

    def read(name, count, model):
        add(name, count, "windows", "encode", model and forward_flops(model, s.format, count))

    plain, dual = models.get("plain reader"), models.get("Dual BERT")
    name, reader = "source", plain
    if _own_reader(s):
        name, reader = "source_reader", models.get("source reader")
    for system in s.systems:
        phases, model = (SYSTEMS | BACK_TRANSLATION)[system], plain
        if "source" in phases and not s.source_model:
            own = (name, reader) if system in BACK_TRANSLATION else ("source", plain)
            train(own[0], s.source_recipe, ["source"], own[1])
        if system in BACK_TRANSLATION:
            asked = [*evaluated, *(counts[x] for x in phases if x == "target")]
            add("translate", sum(x.characters for x in asked), "characters")
            read("read translations", sum(x.windows for x in asked), reader)
        for phase in (x for x in phases if x != "source"):
            model = dual if phase == "bilingual" else plain
            trained_on = ["source", "target"] if phase == "mixed" else [phase]
            train(f"{system}/train", s.target_recipe, trained_on, model)
        if system not in ("bt_raw", "bt_match"):
            read(f"{system}/read", windows, model)
    return list(rows.values())


def _encoder(model: Model) -> BertConfig:
    return model.bert if isinstance(model, DualBertConfig) else model


def _memory(s: ClmrcSettings, models: dict[str, Model], mesh: AbstractMesh) -> dict:
    """Bytes on one device, by phase and part."""
    rules, phases = {**DEFAULT_RULES, **s.rules}, {}
    recipe, ways = s.target_recipe, mesh.shape["data"]
    for name, model in models.items():
        axes = (dual_bert if isinstance(model, DualBertConfig) else span_head).PARAM_AXES
        optimizer, parts = recipe.optimizer_config(recipe.batch_size), s.training.accumulate
        state = estimates.training_state_bytes(_init(model), optimizer, mesh, axes, rules, parts)
        rows = recipe.batch_size / ways / parts
        phases[f"train {name}"] = state | {"activations": _training_bytes(model, s.format, rows)}
        rows = s.training.predict_batch / ways
        layer = estimates.bert_layer_bytes(_encoder(model), rows, s.format.max_length)
        sides = 1 + isinstance(model, DualBertConfig)
        phases[f"read, {name}"] = {"parameters": state["parameters"], "activations": sides * layer}
    for parts in phases.values():
        parts["total"] = sum(parts.values())
    return phases


def _training_bytes(model: Model, format: SpanFormat, rows: float) -> float:
    """Activations kept for the backward pass: the encoder's of both sides, and SAA's.

    SAA: its maps (three, five where explicit; with `saa_chunk` one chunk of rows) and, per
    position, Q, K, V, what they attend to, R, F and their concatenation: 9 e.
    """
    encoder, target = _encoder(model), format.max_length
    if not isinstance(model, DualBertConfig):
        return estimates.bert_training_bytes(encoder, rows, target)
    source, itemsize = format.source_length, jnp.dtype(encoder.dtype).itemsize
    sides = sum(estimates.bert_training_bytes(encoder, rows, x) for x in (target, source))
    cells = target * source + (target**2 + source**2) * model.adaptive
    if model.saa == "explicit":
        cells += target * source
    elif model.saa_chunk:
        cells = min(model.saa_chunk, target) * max(target, source)
    maps = estimates.attention_bytes(rows * encoder.num_attention_heads * cells, itemsize)
    return sides + maps + rows * (target + source) / 2 * 9 * encoder.hidden_size * itemsize


def _disk(s: ClmrcSettings, counts: dict, stages: list[dict], parameters: dict) -> dict:
    """Bytes in the workdir at the end, and the checkpoints of the running training.

    Every training keeps its parameters twice, as the last checkpoint and as a Hugging Face
    folder; two checkpoints of parameters and statistics while it runs. float32.
    """
    if "plain reader" not in parameters:
        return {}
    trained = [row["stage"] for row in stages if row["unit"] == "steps"]
    kinds = {f"{x}/train": "Dual BERT" for x in s.systems if "bilingual" in SYSTEMS.get(x, ())}
    kinds["source_reader"] = "source reader"
    sizes = [parameters.get(kinds.get(x, "plain reader"), 0) for x in trained]
    asked = sum(
        x.questions for name, x in counts.items() if name not in PAPER or name == "cmrc_dev"
    )
    disk = {
        "models": 2 * FLOAT32 * sum(sizes),
        "checkpoints while training": 6 * FLOAT32 * max(sizes, default=0),
        "answers": len(s.systems) * asked * s.decoding.n_best * ENTRY_BYTES,
    }
    return disk | {"total": sum(disk.values())}


def _assumptions(s: ClmrcSettings, devices: dict) -> list[str]:
    known = devices["utilisation"]
    shares = ", ".join(f"{kind} {100 * known[kind]:.0f}%" for kind in ("train", "encode"))
    notes = [
        f"time: full windows at these shares of the peak: {shares}; compilation and making the "
        "windows come on top"
    ]
    if set(s.systems) & set(BACK_TRANSLATION):
        notes.append("translation: characters into the source language at most; time not counted")
    if s.source_model:
        notes.append(f"source reader: {s.source_model}, not trained here; its sizes not looked at")
    return notes
