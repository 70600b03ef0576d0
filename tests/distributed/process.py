"""What one of two processes does: `process.py WHAT PORT INDEX [WORKDIR]`, 4 devices each."""

import importlib.util
import os
import pathlib
import signal
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from clmrc_jax import hosts, sharding
from clmrc_jax.files import InputError
from clmrc_jax.pipelines.stages import Run
from clmrc_jax.pipelines.translator import Translation
from clmrc_jax.pipelines.translator_settings import translator_settings
from clmrc_jax.retrieval.batches import BatchPlan
from clmrc_jax.retrieval.encode import encode_corpus
from clmrc_jax.retrieval.exact import ExactIndex

TESTS = pathlib.Path(__file__).resolve().parent.parent
TOY, CONFIGS = TESTS / "train" / "toy.py", TESTS.parent / "configs"


def module(path):
    """A file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def talk():
    """Results of process 0, and of all."""
    mine, asked = jax.process_index(), []
    found = hosts.on_first("value", lambda: asked.append(mine) or {"a": [1, "ä"], "from": mine})
    assert found == {"a": [1, "ä"], "from": 0} and asked == [0] * (mine == 0)
    assert hosts.gather("words", ["ß" * 5 * mine, mine]) == [["", 0], ["ßßßßß", 1]]
    hosts.wait_for_all("end")


def place():
    """Batches, parameters and their local views on meshes of every form."""
    whole = np.arange(48, dtype=np.float32).reshape(16, 3)
    mine, slices = jax.process_index(), {(8, 1): 2, (4, 2): 2, (2, 4): 2, (1, 8): 1}
    for sizes, count in slices.items():
        mesh = sharding.make_mesh(*sizes)
        index, found = sharding.batch_slice(mesh)
        assert found == count and index == (mine if count == 2 else 0)
        part = np.split(whole, count)[index]
        batch = sharding.place_batch(mesh, {"x": part})["x"]
        np.testing.assert_array_equal(sharding.fetch(batch), whole)
        kernel = np.arange(64, dtype=np.float64).reshape(8, 8)
        tree = {"cut": kernel, "kept": kernel + 1, "scalar": 3}
        specs = {"cut": ("data", "model"), "kept": (None, "model"), "scalar": ()}
        shardings = {k: NamedSharding(mesh, PartitionSpec(*v)) for k, v in specs.items()}
        placed = sharding.place(tree, shardings)
        again = sharding.place(placed, shardings, may_alias=False)
        for made in (sharding.fetch(again), sharding.local_view(placed, mesh)):
            for name, value in tree.items():
                np.testing.assert_array_equal(made[name], value)
        local = sharding.local_view(placed, mesh)
        assert all(x.is_fully_addressable for x in local.values())
        assert sharding.local_view(local, mesh) is local
    crossed = [jax.devices()[i] for i in (0, 4, 5, 1, 2, 3, 6, 7)]
    try:
        sharding.batch_slice(sharding.make_mesh(4, 2, crossed))
    except InputError as error:
        assert "'model' axis cuts across hosts of 4 devices" in str(error)
    else:
        raise AssertionError("a batch cannot be read over this mesh")


def search():
    """Exact search over the devices of both processes, more questions than fit one batch."""
    rng = np.random.default_rng(0)
    corpus, queries = (rng.normal(size=(n, 16)).astype(np.float32) for n in (1000, 50))
    index = ExactIndex(corpus, sharding.make_mesh(), query_batch=16, max_rows_on_device=64)
    _, rows = index.search(queries, 7)
    np.testing.assert_array_equal(rows, np.argsort(-queries @ corpus.T, kind="stable")[:, :7])


def fail():
    """Process 1 finds bad input while process 0 is in a collective with it."""
    with hosts.share_failures():
        if jax.process_index() == 1:
            time.sleep(1)
            raise InputError("questions.jsonl, line 3: empty question")
        multihost_utils.sync_global_devices("never")


def train(workdir):
    """Eight devices train until a crash after step 6; step 4 is saved."""
    fit(workdir, "toy", lambda done: done == 6 and os._exit(0))


def share(workdir):
    """A model axis over all devices: both processes hold every row."""
    fit(workdir, "toy", lambda done: None, (1, 8))


def translate(workdir):
    """A translator with FSDP over all devices, from its text to the scores of its folder."""
    config = module(CONFIGS / "translator.py").get_config("smoke")
    config.rules = (("embed", "data"),)
    made = Translation(translator_settings(config), Run(workdir))
    made.train()
    assert hosts.gather("scores", made.scores)[0] == made.scores and made.scores["en-es"]["count"]


def stop(workdir):
    """One training to its end; SIGTERM to process 1 after step 3 of the next."""

    def tell(done):
        if done == 3 and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)  # the notice takes its way

    with hosts.share_failures():
        fit(workdir, "first", lambda done: None)
        fit(workdir, "second", tell)


def encode(workdir, late="0", stop=""):
    """A stage that encodes four shards; process 0 comes `late` seconds after process 1.

    With `stop` process 1 gets SIGTERM in it, and waits for the other then.
    """

    def tokenize(texts):
        if texts[0] >= 2 * 8:
            if jax.process_index() == 0:
                time.sleep(float(late))
            elif stop:
                os.kill(os.getpid(), signal.SIGTERM)
        return [[text + 1] for text in texts]

    def work(folder):
        store = encode_corpus(
            jax.jit(lambda ids, mask: ids[:, :1].astype(np.float32)),
            Numbers(),
            tokenize,
            folder / "embeddings",
            plan=BatchPlan(batch_size=8, buckets=(4,)),
            fingerprint="f",
            shard_rows=8,
        )
        return {"sum": float(store.rows(0, 32).sum())}

    with hosts.share_failures():
        Run(workdir).stage("encode", {}, work)


class Numbers:
    """32 texts, each its own row."""

    def __len__(self):
        return 32

    def get_many(self, rows):
        return list(rows)


def fit(workdir, name, after, sizes=(4, 2)):
    """Trains twelve steps on a mesh of eight devices; after(done) is called after each."""
    toy = module(TOY)

    def validate(params, done):
        after(done)
        return {"score": 0.0}

    rules = {**sharding.DEFAULT_RULES, "mlp": "data"}
    mesh = sharding.make_mesh(*sizes)
    index, count = sharding.batch_slice(mesh)
    data = toy.dataset(noise=0.0, host_index=index, host_count=count)
    options = {"steps": 12, "seed": 7, "workdir": workdir, "name": name}
    trainer = toy.trainer(mesh=mesh, rules=rules)
    often = {"log_every": 1, "save_every": 4, "validate_every": 1}
    trainer.fit(toy.init(), data, validate=validate, **often, **options)


def main(what, port, index, *words):
    jax.distributed.initialize(f"localhost:{port}", 2, int(index))
    assert jax.device_count() == 8 and jax.process_count() == 2
    try:
        globals()[what](*words)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
