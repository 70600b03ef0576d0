"""launch/import_reader.py: a checkpoint of the released code becomes a reader that answers."""

import importlib.util
import shutil

import jax
import numpy as np
import pytest

import dual_bert_reference as reference
from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide, write_aligned
from clmrc_jax.files import read_json
from clmrc_jax.models import bert, dual_bert
from clmrc_jax.pipelines.read import ReadOptions, read
from clmrc_jax.train import official_weights
from clmrc_jax.train.pretrained import save_bert
from clmrc_jax.train.readers import load_reader
from small_dual_bert import BERT

VARIABLES = reference.random_variables(seed=3)
CONTEXT, ENGLISH = "abcd在efgh", "ab cd ef gh"


@pytest.fixture
def main(repository):
    path = repository / "launch/import_reader.py"
    spec = importlib.util.spec_from_file_location("launch_import_reader", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *flags: module.main(list(map(str, flags)))


@pytest.fixture
def encoder(tmp_path):
    """A BERT folder with a WordPiece vocabulary of the reference's size."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "在"]
    pieces += [f"##{letter}" for letter in "abcdefgh"]
    pieces += [f"[unused{n}]" for n in range(BERT.vocab_size - len(pieces))]
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(pieces[: BERT.vocab_size]) + "\n", encoding="utf-8")
    save_bert(tmp_path / "bert", BERT, bert.init(BERT, jax.random.key(0)), [vocabulary])
    return tmp_path / "bert"


def save(path, variables):
    np.savez(path, **{name: np.float32(value) for name, value in variables.items()})
    return path


def span_variables():
    """Of a plain reader as run_squad.py leaves it, with Adam's moments."""
    found = {name: value for name, value in VARIABLES.items() if name.startswith("bert/")}
    head = np.random.default_rng(0).normal(size=(2, BERT.hidden_size))
    found |= {"cls/squad/output_weights": head, "cls/squad/output_bias": np.zeros(2)}
    return found | {"global_step": np.zeros(()), "cls/squad/output_bias/adam_m": np.zeros(2)}


@pytest.mark.parametrize("kind", ["dual", "span"])
def test_imported_reader_has_the_variables_and_answers(main, encoder, tmp_path, capsys, kind):
    variables = save(tmp_path / "v.npz", VARIABLES if kind == "dual" else span_variables())
    output = tmp_path / "reader"
    assert main(f"--variables={variables}", f"--bert={encoder}", f"--output={output}") == 0
    assert f"{output}: a reader of kind {kind}" in capsys.readouterr().out
    saved = load_reader(output)
    assert saved.kind == kind and saved.reading["format"]["mode"] == "official"
    if kind == "dual":
        assert saved.dual == dual_bert.official(saved.bert, lambda_group_size=8)
        expected = official_weights.load_dual_bert(variables, saved.dual)
    else:
        expected = official_weights.load_span_reader(variables, saved.bert)
    jax.tree.map(np.testing.assert_array_equal, saved.params, expected)
    side = SourceSide("en", "ab?", ENGLISH, Answer("cd", 3))
    question = MrcExample("q", "zh_cn", "", "ef?", CONTEXT, (Answer("在", 4),), source=side)
    write_aligned(tmp_path / "data.json", [question])
    answers = str(tmp_path / "answers.json")
    read(ReadOptions(str(output), str(tmp_path / "data.json"), "zh_cn", answers))
    assert read_json(answers)["q"] in CONTEXT


def test_bad_checkpoints_are_one_line_and_leave_no_folder(main, encoder, tmp_path, capsys):
    output = tmp_path / "reader"

    def refused(variables, *message):
        flags = (f"--bert={encoder}", f"--output={output}")
        assert main(f"--variables={variables}", *flags) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and all(part in error for part in message), error
        assert not output.exists()

    refused(tmp_path / "none.npz", "none.npz: no such file")
    only_bert = {k: v for k, v in VARIABLES.items() if k.startswith("bert/")}
    refused(save(tmp_path / "encoder.npz", only_bert), "neither a Dual BERT's variables")
    part = {k: v for k, v in VARIABLES.items() if not k.startswith("source/")}
    refused(save(tmp_path / "part.npz", part), "missing source/cls/squad/output_weights")
    whole = save(tmp_path / "whole.npz", VARIABLES)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(encoder / "config.json", bare)
    assert main(f"--variables={whole}", f"--bert={bare}", f"--output={output}") == 2
    assert f"{bare}: no tokenizer" in capsys.readouterr().err and not output.exists()
    output.mkdir()
    assert main(f"--variables={whole}", f"--bert={encoder}", f"--output={output}") == 2
    assert "exists already" in capsys.readouterr().err
