"""launch/read.py on written files: trained readers, both sides, SQuAD 2.0, an imported model."""

import dataclasses
import functools
import importlib.util
import json
import math
import shutil

import numpy as np
import pytest
import safetensors.numpy

from clmrc_jax.data.mrc_examples import MrcExample, write_aligned, write_squad
from clmrc_jax.data.span_features import target_windows
from clmrc_jax.data.span_windows import SpanFormat
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.data.world_facts.cldr import load_world_facts
from clmrc_jax.data.world_facts.reading import reading_examples
from clmrc_jax.files import InputError, read_json, write_json
from clmrc_jax.pipelines import read as reading
from clmrc_jax.pipelines.clmrc_settings import ReaderTraining
from clmrc_jax.pipelines.models import builtin_folder
from clmrc_jax.pipelines.read import NO_ANSWER, ReadOptions, null_scores, read
from clmrc_jax.pipelines.reader import Reader


@pytest.fixture(scope="module")
def main(repository):
    """main(script, arguments) -> exit status of a script in launch/."""
    found = {}
    for name in ("read", "evaluate"):
        path = repository / "launch" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"launch_{name}", path)
        found[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    return lambda script, *flags: found[script].main(list(map(str, flags)))


@pytest.fixture(scope="module")
def files(reading_run, tmp_path_factory):
    """The run's four test questions: target, source, aligned, and one more that is impossible."""
    asked = read_json(reading_run / "cascade/read/test.json")
    world = load_world_facts("smoke")
    examples = [x for x in reading_examples(world, "test", "ja", source="en") if x.id in asked]
    folder = tmp_path_factory.mktemp("files")
    write_squad(folder / "ja.json", examples)
    write_squad(folder / "en.json", [_source(x) for x in examples])
    write_aligned(folder / "aligned.json", examples)
    unanswerable = dataclasses.replace(examples[0], id="none", answers=(), impossible=True)
    write_squad(folder / "squad2.json", [*examples, unanswerable])
    return folder


def _source(example: MrcExample) -> MrcExample:
    side = example.source
    return dataclasses.replace(
        example, lang="en", question=side.question, context=side.context, answers=(side.answer,)
    )


def _flags(model, data, output, *more):
    return (f"--model={model}", f"--data={data}", "--lang=ja", f"--output={output}", *more)


def test_read_answers_as_the_run_did(main, reading_run, files, tmp_path, capsys):
    model, output = reading_run / "cascade/train/model", tmp_path / "out.json"
    assert main("read", *_flags(model, files / "ja.json", output, "--json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["kind"] == "span" and summary["questions"] == 4
    assert read_json(output) == read_json(reading_run / "cascade/read/test.json")
    ours = read_json(summary["nbest"])
    for id, entries in read_json(reading_run / "cascade/read/test.nbest.json").items():
        assert [e["text"] for e in ours[id]] == [e["text"] for e in entries]
        assert ours[id][0]["start_logit"] == pytest.approx(entries[0]["start_logit"], abs=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.nbest.json"]


def test_killed_reading_goes_on_with_the_next_part(reading_run, files, tmp_path, monkeypatch):
    model, output = reading_run / "cascade/train/model", tmp_path / "out.json"
    options = ReadOptions(str(model), str(files / "ja.json"), "ja", str(output))
    training = functools.partial(ReaderTraining, read_chunk=1)
    monkeypatch.setattr(reading, "ReaderTraining", training)
    asked, whole = [], Reader.read

    def killed(self, model, params, examples, description):
        asked.extend(x.id for x in examples)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return whole(self, model, params, examples, description)

    monkeypatch.setattr(Reader, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        read(options)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parts"]
    other = dataclasses.replace(options, n_best=3)
    with pytest.raises(InputError, match="out.parts: its parts were made with other settings"):
        read(other)
    read(options)
    expected = read_json(reading_run / "cascade/read/test.json")
    assert read_json(output) == expected
    assert asked == [*expected][:3] + [*expected][2:], "each once, but for the part that was killed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.nbest.json"]


def test_dual_bert_reads_parallel_and_aligned_files_alike(main, reading_run, files, tmp_path):
    model = reading_run / "dual_squad/train/model"
    source = f"--source_data={files / 'en.json'}"
    assert main("read", *_flags(model, files / "ja.json", tmp_path / "a.json", source)) == 0
    assert main("read", *_flags(model, files / "aligned.json", tmp_path / "b.json")) == 0
    theirs = read_json(reading_run / "dual_squad/read/test.json")
    assert read_json(tmp_path / "a.json") == read_json(tmp_path / "b.json") == theirs


def test_read_says_which_side_is_missing_or_too_many(main, reading_run, files, tmp_path, capsys):
    dual, span = (reading_run / f"{x}/train/model" for x in ("dual_squad", "cascade"))
    output = tmp_path / "out.json"
    assert main("read", *_flags(dual, files / "ja.json", output)) == 2
    assert "4 of 4 questions have no translation" in capsys.readouterr().err
    source = f"--source_data={files / 'en.json'}"
    assert main("read", *_flags(span, files / "ja.json", output, source)) == 2
    assert "a plain reader; leave --source_data out" in capsys.readouterr().err
    assert main("read", *_flags(span, files / "gone.json", output)) == 2
    assert "gone.json: no such file" in capsys.readouterr().err
    assert main("read", *_flags(span, files / "ja.json", output, "--text=official")) == 2
    assert "needs windows of format.mode 'official'" in capsys.readouterr().err
    assert main("read", *_flags(span, files / "ja.json", output, "--max_length=400")) == 2
    assert "the encoder's 128 positions; shorten" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_null_threshold_answers_nothing_where_no_answer_scores_more(
    main, reading_run, files, tmp_path, capsys
):
    model, data = reading_run / "cascade/train/model", files / "squad2.json"

    def answers(threshold):
        output = tmp_path / f"{threshold}.json"
        assert main("read", *_flags(model, data, output, f"--null_threshold={threshold}")) == 0
        nulls = read_json(tmp_path / f"{threshold}.null_scores.json")
        assert str(output) in capsys.readouterr().out
        return read_json(output), nulls

    always, nulls = answers("inf")
    assert len(always) == 5 and all(always.values()) and set(nulls) == set(always)
    assert set(answers("-inf")[0].values()) == {""}
    middle = sorted(nulls.values())[2]
    some, again = answers(middle)
    assert some == {id: "" if nulls[id] > middle else text for id, text in always.items()}
    assert again == pytest.approx(nulls)
    scoring = ("--task=squad2", f"--data={data}", f"--predictions={tmp_path / 'inf.json'}")
    null_file = f"--null_scores={tmp_path / 'inf.null_scores.json'}"
    assert main("evaluate", *scoring, null_file, "--lang=ja", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parts"]["no_answer"]["em"] == 0 and found["best_em"] >= 20
    best = tmp_path / "best.json"
    threshold = f"--null_threshold={found['best_em_threshold']}"
    assert main("read", *_flags(model, data, best, threshold)) == 0
    assert main("evaluate", *scoring[:2], f"--predictions={best}", "--lang=ja", "--json") == 0
    shown = capsys.readouterr().out
    assert json.loads(shown[shown.index("{") :])["em"] == pytest.approx(found["best_em"])


def test_null_scores_stay_finite_where_nothing_can_be_answered():
    def entry(text, score):
        return {"text": text, "start_logit": score, "end_logit": score}

    found = null_scores({"a": [entry("", -1.0)], "b": [entry("x", -1.0), entry("", -3.0)]})
    assert found == {"a": NO_ANSWER, "b": -4.0}
    with pytest.raises(InputError, match="null_threshold"):
        null_scores({"c": [entry("x", -1.0)]})


SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 80,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(folder, tensors) of transformers' BertForQuestionAnswering, written by hand."""
    folder = tmp_path_factory.mktemp("published")
    vocabulary = (folder / "spiece.model", f"{builtin_folder('bert')}/spiece.model")
    vocabulary[0].write_bytes(open(vocabulary[1], "rb").read())
    raw = SIZES | {"vocab_size": load_tokenizer(str(folder)).vocab_size}
    kind = {"model_type": "bert", "architectures": ["BertForQuestionAnswering"]}
    write_json(folder / "config.json", kind | raw)
    draw, e, m = np.random.default_rng(0), raw["hidden_size"], raw["intermediate_size"]
    shapes = {f"bert.embeddings.{k}_embeddings.weight": (raw[n], e) for k, n in _TABLES.items()}
    shapes |= _norm("bert.embeddings", e) | _linear("qa_outputs", 2, e)
    for layer in range(raw["num_hidden_layers"]):
        here = f"bert.encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{here}.attention.{name}", e, e)
        shapes |= _norm(f"{here}.attention.output", e) | _norm(f"{here}.output", e)
        shapes |= _linear(f"{here}.intermediate.dense", m, e) | _linear(
            f"{here}.output.dense", e, m
        )
    tensors = {k: draw.normal(0, 0.4, shape).astype(np.float32) for k, shape in shapes.items()}
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(tensors))
    return folder, tensors


_TABLES = {
    "word": "vocab_size",
    "position": "max_position_embeddings",
    "token_type": "type_vocab_size",
}


def _linear(name, rows, columns):
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name, size):
    return {f"{name}.LayerNorm.{part}": (size,) for part in ("weight", "bias")}


def reference(tensors, tokens, first, count):
    """(start, end) log-probabilities of one window in float64."""
    t = {name: x.astype(np.float64) for name, x in tensors.items()}
    erf = np.vectorize(math.erf)

    def linear(name, x):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + SIZES["layer_norm_eps"])
        return x * t[f"{name}.LayerNorm.weight"] + t[f"{name}.LayerNorm.bias"]

    def softmax(x):
        x = np.exp(x - x.max(-1, keepdims=True))
        return x / x.sum(-1, keepdims=True)

    places = np.arange(len(tokens))
    tables = [t[f"bert.embeddings.{name}_embeddings.weight"] for name in _TABLES]
    x = norm(
        "bert.embeddings", tables[0][tokens] + tables[1][places] + tables[2][(places >= first) * 1]
    )
    for layer in range(SIZES["num_hidden_layers"]):
        here = f"bert.encoder.layer.{layer}"
        heads = lambda y: y.reshape(len(tokens), 2, -1).swapaxes(0, 1)  # noqa: E731
        q, k, v = (
            heads(linear(f"{here}.attention.self.{n}", x)) for n in ("query", "key", "value")
        )
        mixed = softmax(q @ k.swapaxes(1, 2) / 2.0) @ v  # 4 numbers per head
        mixed = mixed.swapaxes(0, 1).reshape(len(tokens), -1)
        x = norm(f"{here}.attention.output", x + linear(f"{here}.attention.output.dense", mixed))
        inner = linear(f"{here}.intermediate.dense", x)
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(f"{here}.output", x + linear(f"{here}.output.dense", inner))
    allowed = (places == 0) | ((places >= first) & (places < first + count))
    return np.log(softmax(np.where(allowed, linear("qa_outputs", x).T, -np.inf)) + 1e-300)


def test_imported_model_gives_the_logits_of_its_formula(published, tmp_path):
    folder, tensors = published
    context = "The currency of Norway is the krone."  # eight tokens, at eight places
    example = MrcExample("q", "en", "", "Which currency has Norway?", context, ())
    write_squad(tmp_path / "data.json", [example])
    output = str(tmp_path / "out.json")
    options = ReadOptions(str(folder), str(tmp_path / "data.json"), "en", output, max_length=64)
    assert read(options)["kind"] == "span"
    (window,) = target_windows(
        example, load_tokenizer(str(folder)), SpanFormat(64, 64), labelled=False
    )
    start, end = reference(tensors, window.tokens, window.first, window.count)
    places = {offset: window.first + i for i, offset in enumerate(map(tuple, window.offsets))}
    starts, ends = {a: p for (a, _), p in places.items()}, {b: p for (_, b), p in places.items()}
    entries = read_json(tmp_path / "out.nbest.json")["q"]
    assert len(entries) == 20
    for entry in entries:
        first, last = starts[entry["start"]], ends[entry["end"]]
        assert entry["start_logit"] == pytest.approx(start[first], abs=2e-5)
        assert entry["end_logit"] == pytest.approx(end[last], abs=2e-5)
    best = entries[0]["start_logit"] + entries[0]["end_logit"]
    pairs = [start[i] + end[j] for i in places.values() for j in places.values() if i <= j < i + 30]
    assert best == pytest.approx(max(pairs), abs=4e-5)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("format", {"rhythm": 3}, "'rhythm'"),
        ("format", {"mode": "verse"}, "mode 'verse': choose one of"),
        ("format", [1], "a mapping"),
        ("decoding", {"n_best": "x"}, "'n_best': 'x'"),
    ],
)
def test_settings_of_another_version_are_named(published, tmp_path, name, settings, message):
    folder = tmp_path / "reader"
    shutil.copytree(published[0], folder)
    head = {f"head/{x}": np.zeros(shape, np.float32) for x, shape in _HEAD.items()}
    (folder / "heads.safetensors").write_bytes(safetensors.numpy.save(head))
    write_json(folder / "reader.json", {"kind": "span", "reading": {name: settings}})
    with pytest.raises(InputError, match=rf"reader/reader\.json: reading\.{name} is .*{message}"):
        read(ReadOptions(str(folder), "data.json", "en", str(tmp_path / "out.json")))


_HEAD = {"kernel": (SIZES["hidden_size"], 2), "bias": (2,)}
