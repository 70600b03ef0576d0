"""One smoke run of the main command, shared by all tests that look at a finished workdir."""

import importlib.util
import os
import subprocess
import sys

import pytest
from etils import epath

from clmrc_jax.data.vocabulary import train_vocabulary
from clmrc_jax.pipelines import corpora
from clmrc_jax.pipelines.clmrc import Clmrc
from clmrc_jax.pipelines.clmrc_settings import clmrc_settings
from clmrc_jax.pipelines.stages import Run


@pytest.fixture(scope="session")
def launch(repository, tmp_path_factory):
    """launch(script, *flags) -> running process of launch/<script>.py on one device.

    All of them share one compilation cache. variables: more of the environment.
    """
    cache = tmp_path_factory.mktemp("compilation_cache")
    hidden = ("XLA_FLAGS", "FORCE_COLOR")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"PYTHONPATH": str(repository), "JAX_COMPILATION_CACHE_DIR": str(cache)}

    def start(script, *flags, variables=(), **options):
        command = [sys.executable, str(repository / "launch" / f"{script}.py"), *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        own = env | dict(variables)
        return subprocess.Popen(command, env=own, cwd=repository, **pipes | options)

    return start


@pytest.fixture(scope="session")
def train(launch):
    """train(workdir, *flags) -> (exit status, stdout, stderr) of a finished smoke run."""

    def run(workdir, *flags, preset="smoke", **options):
        config = f"--config=configs/cora.py:{preset}"
        process = launch("tpu_train", config, f"--workdir={workdir}", *flags, **options)
        out, err = process.communicate()
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def smoke_run(train, tmp_path_factory):
    """Workdir of a finished run of configs/cora.py:smoke; look, do not write.

    Beside it lie stdout.txt and stderr.txt. Step 4, where a training has one, was traced.
    """
    workdir = tmp_path_factory.mktemp("smoke") / "workdir"
    status, out, err = train(workdir, "--config.profile=(4, 5)")
    assert status == 0, err
    (workdir.parent / "stdout.txt").write_text(out)
    (workdir.parent / "stderr.txt").write_text(err)
    return workdir


@pytest.fixture(scope="session")
def smoke_corpus(tmp_path_factory):
    """The prepared corpus of the smoke size; look, do not write."""
    folder = epath.Path(tmp_path_factory.mktemp("corpus"))
    corpora.prepare(corpora.CorpusSettings(size="smoke"), folder)
    return corpora.Corpus.open(folder)


@pytest.fixture(scope="session")
def vocabulary(smoke_corpus, tmp_path_factory):
    """Folder with a SentencePiece vocabulary of the smoke corpus."""
    folder = tmp_path_factory.mktemp("vocabulary")
    texts = [f"{passage.title} {passage.text}" for passage in smoke_corpus.store]
    train_vocabulary(texts, folder, vocab_size=2500)
    return str(folder)


TINY_READER = (
    "--config.format.max_length=64",
    "--config.format.source_length=64",
    "--config.format.doc_stride=32",
    "--config.format.max_query_length=24",
    "--config.data.max_source=6",
    "--config.data.max_target=4",
    "--config.data.max_evaluate=4",
    "--config.source_recipe.epochs=0.5",
    "--config.target_recipe.epochs=3.0",
    "--config.training.save_every=2",
    "--config.model.vocabulary=600",
)


@pytest.fixture(scope="session")
def train_reader(launch):
    """train_reader(workdir, *flags, config=..) -> (exit status, stdout, stderr): a tiny run.

    `train_reader.start` returns its running process instead.
    """

    def start(workdir, *flags, config="configs/dual_bert.py:smoke", variables=()):
        flags = (f"--config={config}", f"--workdir={workdir}", *TINY_READER, *flags)
        # The time of so small a run is that of compiling it well.
        own = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | dict(variables)
        return launch("tpu_train", *flags, variables=own)

    def run(workdir, *flags, **options):
        process = start(workdir, *flags, **options)
        out, err = process.communicate()
        return process.returncode, out, err

    run.start = start
    return run


@pytest.fixture(scope="session")
def reading_run(train_reader, tmp_path_factory):
    """Workdir of a finished run of two systems, cascade and dual_squad; look, do not write.

    Beside it lie stdout.txt and stderr.txt. A trace was asked for, of steps that no training has.
    """
    workdir = tmp_path_factory.mktemp("reading") / "workdir"
    flags = ("--config.systems=('cascade', 'dual_squad')", "--config.profile=(90, 95)")
    status, out, err = train_reader(workdir, *flags)
    assert status == 0, err
    (workdir.parent / "stdout.txt").write_text(out)
    (workdir.parent / "stderr.txt").write_text(err)
    return workdir


@pytest.fixture(scope="session")
def reading_config(repository):
    """reading_config(preset, **{dotted key: value}): a config of configs/dual_bert.py."""
    path = repository / "configs" / "dual_bert.py"
    spec = importlib.util.spec_from_file_location("dual_bert_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def make(preset="smoke", **changes):
        config = module.get_config(preset)
        config.update_from_flattened_dict(changes)
        return config

    make.module = module
    return make


@pytest.fixture
def begin_reading(reading_config, tmp_path):
    """begin_reading(**{dotted key: value}): a run of `cascade` in tmp_path/w, nothing trained."""

    def make(**changes):
        config = reading_config(systems=("cascade",))
        config.model.sizes = {}
        config.update_from_flattened_dict(changes)
        return Clmrc(clmrc_settings(config), Run(tmp_path / "w", quiet=True))

    return make
