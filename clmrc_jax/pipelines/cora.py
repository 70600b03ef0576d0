"""CORA from a question to an answer: algorithm 1 of the paper, top down.

    corpus -> [ round r: train mDPR -> encode -> index -> retrieve -> train mGEN
                -> mine (not after the last round) -> answer -> evaluate ] -> report

Every stage leaves its files in the workdir and is skipped when the same command runs again.
On several hosts all processes run the stages together: training is over the whole mesh,
encoding and answering go on in every process with its share, and process 0 writes what is single.
"""

import random

import numpy as np

from clmrc_jax import hosts, sharding
from clmrc_jax.data.qa_examples import Question
from clmrc_jax.evaluate.language_id import score_language
from clmrc_jax.evaluate.normalize import normalized_match
from clmrc_jax.evaluate.recall import score_retrieval
from clmrc_jax.evaluate.xor import score_xor
from clmrc_jax.files import JsonlRows, read_json, read_jsonl, write_json, write_jsonl
from clmrc_jax.pipelines import corpora, evaluation_checks, labelling, mesh_checks, mining, models
from clmrc_jax.pipelines.answering import PARTS, answer_in_parts, item, write_answers
from clmrc_jax.pipelines.generator_rows import GeneratorRows
from clmrc_jax.pipelines.gold_recall import gold_recall
from clmrc_jax.pipelines.settings import CoraSettings, determining, plain
from clmrc_jax.pipelines.stages import Run
from clmrc_jax.pipelines.training_identity import training_identity
from clmrc_jax.retrieval.embeddings import EmbeddingStore
from clmrc_jax.retrieval.index import open_index
from clmrc_jax.retrieval.runs import read_run, write_run

# Settings that the training of each model depends on.
RETRIEVER = ("corpus", "retriever_model", "retriever_head", "retriever_format", "retriever")
GENERATOR = ("corpus", "generator_model", "generator_format", "generator", "mining")
GENERATOR += ("synthetic_languages",)
LABELLING = (*GENERATOR, "generator_optimizer", "seed")
LABELS = "labels"  # folder of labelled candidates, until they are mined


class Cora:
    """One run: the corpus, both models with their compiled functions, and the rounds.

    Parameters rest on the host: a stage that uses them puts them on the devices, and for the
    other model's stages, above all its training, nothing is left there.
    """

    def __init__(self, settings: CoraSettings, run: Run):
        self.settings, self.run = settings, run
        self.mesh = sharding.make_mesh(**settings.mesh)
        self.rules = {**sharding.DEFAULT_RULES, **settings.rules}
        mesh_checks.check_cora(settings, self.mesh, self.rules, run)
        evaluation_checks.check_settings(settings)
        counts = run.stage(
            "corpus",
            plain(settings.corpus),
            lambda folder: corpora.prepare(settings.corpus, folder),
            alone=True,
        )
        corpora.check_inputs(counts.get("inputs", {}), run.path("corpus"))
        self.corpus_counts = counts
        self.corpus = corpora.Corpus.open(run.path("corpus"))
        evaluation_checks.check_questions(settings, self.corpus)
        self.retriever, self._retriever_params = models.make_retriever(self)
        self.generator, self._generator_params = models.make_generator(self)
        # Again, now with the sizes of models that were on the hub alone.
        axes = {"retriever": models.RETRIEVER_AXES, "generator": models.GENERATOR_AXES}
        for name, params in self.parameters().items():
            mesh_checks.check_parameters(f"{name}_model", params, axes[name], self.mesh, self.rules)

    def train(self) -> None:
        """All rounds; the paper's T iterations after the initial training are `rounds`."""
        if self.corpus.gold() is not None:
            self.zero_shot()
        training = self.corpus.rows("annotated")
        for round in range(self.settings.rounds + 1):
            self.round(round, training)
            if round < self.settings.rounds:
                training = self.mine(round, training)

    def round(self, round: int, training) -> None:
        """Lines 3-5 of algorithm 1, then answering and evaluation of the round's models."""
        self.train_retriever(round, training)
        self.encode(round)
        self.retrieve(round)
        if self.settings.generate:
            self.train_generator(round)
            self.answer(round)
        self.evaluate(round, len(training))

    def _placed_retriever(self) -> dict:
        return models.placed(self._retriever_params, models.RETRIEVER_AXES, self.mesh, self.rules)

    def _placed_generator(self) -> dict:
        return models.placed(self._generator_params, models.GENERATOR_AXES, self.mesh, self.rules)

    def zero_shot(self) -> None:
        """Recall of gold paragraphs before any training: what the rounds are compared with."""

        def work(folder):
            embeddings = self.retriever.encode_corpus(
                self._placed_retriever(), self.corpus.store, folder / "embeddings"
            )
            scores = self._gold_recall(embeddings)
            if hosts.is_first():
                write_json(folder / "gold_recall.json", scores)
            return scores["macro"]

        self.run.stage("zero_shot", determining(self.settings), work)

    def _gold_recall(self, embeddings) -> dict:
        questions = self.corpus.questions(self.settings.evaluation.split)
        queries = self.retriever.encode_questions(
            self._placed_retriever(), [(q.question, q.lang) for q in questions]
        )
        return gold_recall(queries, questions, self.corpus.gold(), self.corpus.store, embeddings)

    # Line 3: theta_mDPR(t) <- Train(theta_mDPR(t-1), B(t))
    def train_retriever(self, round: int, training) -> None:
        """Trains mDPR from the last round's parameters on the rows `training`."""

        def work(folder):
            trained = self.retriever.train(
                self._retriever_params,
                training,
                self.corpus.rows("dev"),
                round=round,
                seed=self._seed(round, 1),
                workdir=folder,
                config=training_identity(self.settings, RETRIEVER, training),
            )
            models.save_retriever(self, folder / "model", trained)
            return {"rows": len(training)} | _last_metrics(folder / "retriever")

        self._stage(round, "mdpr", work)
        self._retriever_params = models.load_retriever(self, self._path(round, "mdpr"))

    def encode(self, round: int) -> None:
        """Embeddings of every passage, and the index over them."""

        def work(folder):
            embeddings = self.retriever.encode_corpus(
                self._placed_retriever(), self.corpus.store, folder / "embeddings"
            )
            _, recall = self._open_index(embeddings, folder)
            return {"passages": len(embeddings), "index_recall": recall}

        self._stage(round, "index", work)

    def _open_index(self, embeddings, folder):
        """The index and its recall; None on processes that have no part in the search."""
        i = self.settings.index
        together = i.kind == "exact"  # over all devices; the other kinds search on one host
        if not (together or hosts.is_first()):
            return None, 1.0
        return open_index(
            i.kind,
            embeddings,
            mesh=self.mesh if together else sharding.local_mesh(self.mesh),
            folder=folder / i.kind,
            scann=i.scann,
            max_rows_on_device=i.max_rows_on_device,
        )

    # Line 4: P_multi <- mDPR(q, embedding(C_multi))
    def retrieve(self, round: int) -> None:
        """The top k passages of every question of every split."""

        def work(folder):
            source = self._path(round, "index")
            index, _ = self._open_index(EmbeddingStore(source / "embeddings"), source)
            counts, params = {}, self._placed_retriever()
            for split in corpora.SPLITS:
                questions = self.corpus.questions(split)
                if split == "train":
                    questions += self._mined_questions(round)
                if not questions:
                    continue
                vectors = self.retriever.encode_questions(
                    params, [(q.question, q.lang) for q in questions]
                )
                k = min(self.settings.index.top_k, len(self.corpus.store))
                found = None if index is None else index.search(vectors, k)
                if hosts.is_first():
                    path = folder / f"{split}.jsonl"
                    counts[split] = write_run(path, questions, *found, self.corpus.store)
            return counts

        self._stage(round, "retrieved", work)

    def _mined_questions(self, round: int) -> list[Question]:
        """English questions with a mined answer and tag in another language: part of B(t)."""
        if round == 0:
            return []
        rows = JsonlRows(self._path(round - 1, "mined") / "training.jsonl")
        return [
            Question(row["q_id"], row["question"], row["lang"], tuple(row["answers"]))
            for row in rows
            if mining.LINK in row["q_id"]
        ]

    # Line 5: theta_mGEN(t) <- Train(theta_mGEN(t-1), (q, a, P_multi)), with synthetic answers
    def train_generator(self, round: int) -> None:
        """Trains mGEN from the last round's parameters on what mDPR has retrieved."""

        def work(folder):
            rows = GeneratorRows(
                JsonlRows(self._path(round, "retrieved") / "train.jsonl"),
                self.corpus.links,
                self.settings.mining,
                self.settings.generator,
                self.settings.synthetic_languages,
                self.settings.generator_format.passages,
                round=round,
                seed=self._seed(round, 3),
            )
            lengths = None
            if self.settings.generator.group_by_length:
                lengths = rows.expected_lengths(self.generator.count_tokens)
            trained = self.generator.train(
                self._generator_params,
                rows,
                rows.choose,
                lengths=lengths,
                epoch_length=len(rows.run),
                round=round,
                seed=self._seed(round, 2),
                workdir=folder,
                validate=self._generator_validation(round),
                config=training_identity(self.settings, GENERATOR, rows.run),
            )
            models.save_generator(self, folder / "model", trained)
            counts = {"rows": len(rows.run), "synthetic": len(rows) - len(rows.run)}
            return counts | _last_metrics(folder / "generator")

        self._stage(round, "mgen", work)
        self._generator_params = models.load_generator(self, self._path(round, "mgen"))

    def _generator_validation(self, round: int):
        """Exact match of greedy answers to dev questions (spec 4.3)."""
        path = self._path(round, "retrieved") / "dev.jsonl"
        count = self.settings.generator.validation_rows
        if not count or not path.exists():
            return None
        rows = JsonlRows(path)
        rows = [rows[i] for i in random.Random(0).sample(range(len(rows)), min(count, len(rows)))]

        def validate(params, step):
            texts, _, _ = self.generator.answer(
                params, [item(row) for row in rows], beams=1, description="validate mGEN"
            )
            right = [normalized_match(t, r["answers"], r["lang"]) for t, r in zip(texts, rows)]
            return {"exact_match": float(np.mean(right))}

        return validate

    # Lines 6-8: language links, labelling by mGEN, B(t+1)
    def mine(self, round: int, training):
        """Candidates from retrieval and links, labelled by mGEN; returns the new rows' file."""
        rules, names = self.settings.mining, self.settings.corpus.passage_names

        def work(folder):
            labelled = self._labelled(round, folder / LABELS)
            if labelled is None:
                return {}
            counts, mined = labelled.write_mined(folder / "mined.jsonl", rules, round, names)
            united = mining.merge(training, JsonlRows(folder / "mined.jsonl"), rules, names)
            rows = write_jsonl(folder / "training.jsonl", united)
            return {**counts, "mined questions": mined, "rows": rows}

        self._stage(round, "mined", work)
        if hosts.is_first():  # only now: a killed stage would label all of them again
            (self._path(round, "mined") / LABELS).rmtree(missing_ok=True)
        return JsonlRows(self._path(round, "mined") / "training.jsonl")

    def _labelled(self, round: int, folder) -> labelling.Labelled | None:
        """All candidates of a round with mGEN's predictions; None on processes but the first."""
        path, params = self._path(round, "retrieved") / "train.jsonl", self._placed_generator()
        candidates = mining.all_candidates(read_run(path), self.corpus, self.settings.mining)

        def predict(part):
            items = [(c.question, c.answer_lang, [c.ctx]) for c in part]
            description = "label passages with mGEN"
            return self.generator.answer(params, items, beams=1, description=description)[0]

        return labelling.label_candidates(
            candidates,
            predict,
            folder,
            size=self.settings.generator.label_chunk,
            made_by=training_identity(self.settings, LABELLING, JsonlRows(path)),
        )

    def answer(self, round: int) -> None:
        """Answers of the evaluation split, with passages and (closed book) without."""
        split, closed_book = self.settings.evaluation.split, self.settings.evaluation.closed_book
        path = self._path(round, "retrieved") / f"{split}.jsonl"

        def work(folder):
            answer_in_parts(
                read_run(path),
                self.generator,
                self._placed_generator(),
                folder / PARTS,
                closed_book=closed_book,
                size=self.settings.generator.answer_chunk,
                made_by=training_identity(self.settings, LABELLING, JsonlRows(path)),
            )
            if not hosts.is_first():
                return {}
            counts = write_answers(folder / PARTS, folder, split)
            return counts | {"offered": self.settings.generator_format.passages}

        self._stage(round, "answers", work)
        if hosts.is_first():  # only now: a killed stage would answer all of them again
            (self._path(round, "answers") / PARTS).rmtree(missing_ok=True)

    def evaluate(self, round: int, training_rows: int) -> None:
        """Scores of the round in `metrics.json`, the input of the report."""
        e = self.settings.evaluation

        def work(folder):
            gold = {}
            if self.corpus.gold() is not None:  # all processes encode its questions
                embeddings = EmbeddingStore(self._path(round, "index") / "embeddings")
                gold["gold"] = self._gold_recall(embeddings)
                gold["gold_before"] = read_json(self.run.path("zero_shot", "gold_recall.json"))
            if not hosts.is_first():
                return {}
            golds = self.corpus.questions(e.split)
            run = JsonlRows(self._path(round, "retrieved") / f"{e.split}.jsonl")
            retrieval = score_retrieval(run, golds, e.recall_at)
            metrics = {
                "round": round,
                "training_rows": training_rows,
                "retrieval": retrieval.tables(),
                "matrix": retrieval.extras["matrix"],
                "index_recall": self._counts(round, "index")["index_recall"],
            } | gold
            key = f"r_multi@{e.recall_at}"
            shown = {key: retrieval.macro[key]}
            if self.settings.generate:
                metrics |= self._answer_metrics(round, golds)
                shown["f1"] = metrics["answers"]["macro"]["f1"]
            write_json(folder / "metrics.json", metrics)
            return shown

        self._stage(round, "scores", work)

    def _answer_metrics(self, round: int, golds) -> dict:
        e, folder = self.settings.evaluation, self._path(round, "answers")
        files = {"answers": f"{e.split}.json", "closed_book": f"{e.split}.closed_book.json"}
        metrics = {"survived": self._counts(round, "answers")["survived"]}
        for name, file in files.items():
            if (folder / file).exists():
                metrics[name] = score_xor(golds, read_json(folder / file), e.scorer).tables()
        language = score_language(golds, read_json(folder / files["answers"]))
        return metrics | {"language_rate": language.tables()}

    def metrics(self) -> list[dict]:
        """Scores of all finished rounds, mining counts included."""
        found = []
        for round in range(self.settings.rounds + 1):
            path = self._path(round, "scores") / "metrics.json"
            if path.exists():
                mined = self._path(round, "mined") / "stage.json"
                counts = read_json(mined)["counts"] if mined.exists() else {}
                found.append(read_json(path) | {"mining": counts})
        return found

    def parameters(self) -> dict[str, dict]:
        """The models' parameters as they are now, by model."""
        both = {"retriever": self._retriever_params, "generator": self._generator_params}
        return {name: params for name, params in both.items() if params is not None}

    def _path(self, round: int, stage: str):
        return self.run.path(f"round_{round}", stage)

    def _counts(self, round: int, stage: str) -> dict:
        return read_json(self._path(round, stage) / "stage.json")["counts"]

    def _stage(self, round: int, stage: str, work) -> dict:
        settings = determining(self.settings, "name")
        return self.run.stage(f"round_{round}/{stage}", {"round": round} | settings, work)

    def _seed(self, round: int, purpose: int) -> int:
        return self.settings.seed * 1000 + round * 10 + purpose


def _last_metrics(folder) -> dict:
    """What the last line of a training's log says: loss, and validation of the parameters kept."""
    *_, (_, last) = read_jsonl(folder / "metrics.jsonl")
    valid = ("valid/nll", "valid/average_rank", "valid/exact_match")
    kept = ("loss", *valid, "examples_per_second", "padding_waste")
    finished = read_json(folder / "finished.json")
    if finished["step"] != last["step"]:  # the best ones were others than the last
        last |= {f"valid/{name}": value for name, value in finished["metrics"].items()}
        last["kept_step"], kept = float(finished["step"]), ("kept_step", *kept)
    return {key: last[key] for key in kept if isinstance(last.get(key), float)}
