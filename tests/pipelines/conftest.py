"""One smoke run of the main command, shared by all tests that look at a finished workdir."""

import os
import subprocess
import sys

import pytest
from etils import epath

from clmrc_jax.pipelines import corpora
from clmrc_jax.pipelines.models import train_vocabulary


@pytest.fixture(scope="session")
def launch(repository, tmp_path_factory):
    """launch(script, *flags) -> running process of launch/<script>.py on one device.

    All of them share one compilation cache.
    """
    cache = tmp_path_factory.mktemp("compilation_cache")
    hidden = ("XLA_FLAGS", "FORCE_COLOR")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"PYTHONPATH": str(repository), "JAX_COMPILATION_CACHE_DIR": str(cache)}

    def start(script, *flags, **options):
        command = [sys.executable, str(repository / "launch" / f"{script}.py"), *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=env, cwd=repository, **pipes | options)

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

    Beside it lie stdout.txt and stderr.txt.
    """
    workdir = tmp_path_factory.mktemp("smoke") / "workdir"
    status, out, err = train(workdir)
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
