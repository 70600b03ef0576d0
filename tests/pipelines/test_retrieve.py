"""launch/retrieve.py end to end with a tiny encoder, on real files."""

import dataclasses
import importlib.util
import json
import shutil

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError, read_jsonl
from clmrc_jax.models import bert
from clmrc_jax.pipelines import retrieve as pipeline
from clmrc_jax.pipelines.retrieve import RetrieveOptions, retrieve
from clmrc_jax.train.pretrained import save_bert

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa query : passage".split()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a random two-layer BERT and a tokenizer of thirteen words."""
    folder = tmp_path_factory.mktemp("model") / "encoder"
    config = bert.BertConfig(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    params = jax.tree.map(np.asarray, bert.init(config, jax.random.key(0)))
    save_bert(folder, config, params)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, "[UNK]"))
    backend.pre_tokenizer = Whitespace()
    backend.save(str(folder / "tokenizer.json"))
    return str(folder)


def _files(folder, count=25):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[:10], 6)) for _ in range(count)]
    passages, questions = folder / "passages.jsonl", folder / "questions.jsonl"
    with passages.open("w") as file:
        for i, text in enumerate(texts):
            print(json.dumps({"id": f"p{i}", "lang": "fi", "title": "", "text": text}), file=file)
    with questions.open("w") as file:
        for i in range(9):
            row = {"id": f"q{i}", "question": texts[2 * i], "lang": "fi", "answers": []}
            print(json.dumps(row), file=file)
    return {"passages": str(passages), "questions": str(questions), "output": str(folder / "run")}


def _options(encoder, folder, **changes):
    settings = {"encoder": encoder, "pooling": "mean", "normalize": True, "max_length": 64}
    return RetrieveOptions(**settings | _files(folder) | changes)


def test_retrieve_question_equal_to_a_passage_finds_it_first(encoder, tmp_path):
    summary = retrieve(_options(encoder, tmp_path, top_k=5, embeddings="float32"))
    rows = [row for _, row in read_jsonl(summary["output"])]
    assert [row["q_id"] for row in rows] == [f"q{i}" for i in range(9)]
    assert [row["ctxs"][0]["id"] for row in rows] == [f"p{2 * i}" for i in range(9)]
    assert all(row["ctxs"][0]["score"] == pytest.approx(1, abs=1e-4) for row in rows)
    assert all(len(row["ctxs"]) == 5 for row in rows)
    assert summary["passages"] == 25 and summary["dim"] == 32


def test_retrieve_scores_equal_the_model_called_directly(encoder, tmp_path):
    from clmrc_jax.models.biencoder import BiEncoderConfig, encode_passages
    from clmrc_jax.train.pretrained import load_bert

    summary = retrieve(_options(encoder, tmp_path, top_k=25, pooling="cls", normalize=False))
    _, row = next(read_jsonl(summary["output"]))
    config, params = load_bert(encoder)
    config = BiEncoderConfig(config, pooling="cls", tied=True)
    texts = [row["question"], *(ctx["text"] for ctx in row["ctxs"])]
    ids = np.array(load_tokenizer(encoder).pack(texts, max_length=64))
    vectors = encode_passages(config, {"shared": {"bert": params}}, ids, ids >= 0)
    expected = np.asarray(vectors[1:] @ vectors[0])
    np.testing.assert_allclose([ctx["score"] for ctx in row["ctxs"]], expected, rtol=5e-3)


def test_retrieve_with_a_towers_projection_and_a_trec_file(encoder, tmp_path):
    """A trained tower of another width searches with its own vectors."""
    from safetensors.numpy import save_file

    first = retrieve(_options(encoder, tmp_path, top_k=5, normalize=False))
    expected = [[ctx["score"] for ctx in row["ctxs"]] for _, row in read_jsonl(first["output"])]
    shutil.copytree(encoder, tmp_path / "tower")
    half = np.eye(32, 48, dtype=np.float32) / 2  # halves every vector, and pads it
    projection = {"kernel": half, "bias": np.zeros(48, np.float32)}
    save_file(projection, tmp_path / "tower" / "projection.safetensors")
    options = _options(str(tmp_path / "tower"), tmp_path, top_k=5, normalize=False)
    options = dataclasses.replace(options, output=str(tmp_path / "run.trec"))
    assert retrieve(options)["dim"] == 48
    lines = [line.split() for line in (tmp_path / "run.trec").read_text().splitlines()]
    scores = np.array([float(line[4]) for line in lines]).reshape(9, 5)
    np.testing.assert_allclose(4 * scores, expected, rtol=1e-2)
    assert lines[0][0] == "q0" and lines[0][3] == "1"


def test_retrieve_second_run_reuses_the_workdir(encoder, tmp_path):
    options = _options(encoder, tmp_path, workdir=str(tmp_path / "work"), index="numpy")
    retrieve(options)
    first = (tmp_path / "run").read_bytes()
    (shard,) = (tmp_path / "work").glob("embeddings-*/shard-*.npy")
    written = shard.stat().st_mtime_ns
    retrieve(options)
    assert (tmp_path / "run").read_bytes() == first
    assert shard.stat().st_mtime_ns == written
    retrieve(
        _options(encoder, tmp_path, workdir=str(tmp_path / "work"), passage_prefix="passage: ")
    )
    assert len(list((tmp_path / "work").glob("embeddings-*"))) == 2, "another text, other vectors"


def test_retrieve_streams_embeddings_that_exceed_the_devices(encoder, tmp_path, monkeypatch):
    opened, open_index = [], pipeline.open_index

    def kept(*args, **options):
        opened.append(open_index(*args, **options))
        return opened[-1]

    monkeypatch.setattr(pipeline, "open_index", kept)
    options = _options(encoder, tmp_path, workdir=str(tmp_path / "w"), batch_size=64)
    _files(tmp_path, count=1100)  # more than a tile on each of eight devices
    retrieve(options)
    whole = (tmp_path / "run").read_bytes()
    retrieve(dataclasses.replace(options, max_rows_on_device=128))
    assert [index._resident is None for index, _ in opened] == [False, True]
    assert (tmp_path / "run").read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": "faiss"}, "choose one of exact"),
        ({"pooling": "max"}, "cls or mean"),
        ({"top_k": 0}, "at least 1"),
        ({"max_rows_on_device": 0}, "--max_rows_on_device must be at least 1"),
        ({"embeddings": "float8"}, "--embeddings=float8: choose one of float16, float32, int8"),
        ({"passages": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
        ({"questions": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"passages_lang": "xx"}, "--passages_lang: unknown language code 'xx'"),
    ],
)
def test_retrieve_bad_settings_are_named(encoder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        retrieve(_options(encoder, tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_retrieve_reads_published_dpr_passages_and_native_mkqa(encoder, tmp_path):
    """Neither file names a language in its rows; the flags do."""
    settings = _files(tmp_path)
    rows = [row for _, row in read_jsonl(settings["passages"])]
    tsv = tmp_path / "psgs_w100.tsv"
    lines = ["id\ttext\ttitle", *(f"{row['id']}\t{row['text']}\tT" for row in rows)]
    tsv.write_text("\n".join(lines) + "\n")
    mkqa = tmp_path / "mkqa.jsonl"
    record = {
        "example_id": 7,
        "query": rows[3]["text"],
        "queries": {"fi": rows[4]["text"]},
        "answers": {lang: [{"type": "entity", "text": "x"}] for lang in ("en", "fi")},
    }
    mkqa.write_text(json.dumps(record) + "\n")
    files = {"passages": str(tsv), "questions": str(mkqa), "embeddings": "float32"}
    with pytest.raises(InputError, match="line 2: passage without .* give --passages_lang=en"):
        retrieve(_options(encoder, tmp_path, **files))
    options = _options(encoder, tmp_path, **files, passages_lang="fi", questions_lang="fi")
    (row,) = [row for _, row in read_jsonl(retrieve(options)["output"])]
    assert (row["q_id"], row["lang"]) == ("7_fi", "fi")
    assert {ctx["lang"] for ctx in row["ctxs"]} == {"fi"}
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"id": "1", "question": "alpha"}\n')
    with pytest.raises(InputError, match="question without .* give --questions_lang=en"):
        retrieve(_options(encoder, tmp_path, questions=str(bare)))


def test_retrieve_command_prints_json_and_reports_errors(encoder, tmp_path, repository, capsys):
    spec = importlib.util.spec_from_file_location("cli", repository / "launch" / "retrieve.py")
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    flags = [f"--{name}={value}" for name, value in _files(tmp_path).items()]
    flags += [f"--encoder={encoder}", "--pooling=mean", "--max_length=64", "--json", "--top_k=2"]
    assert command.main(flags) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 9
    (tmp_path / "questions.jsonl").write_text('{"id": "x", "question": "", "lang": "fi"}\n')
    assert command.main(flags) == 2
    assert "questions.jsonl, line 1" in capsys.readouterr().err
