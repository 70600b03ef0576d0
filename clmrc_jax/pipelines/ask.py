"""Questions to a finished run: the models, index and passages of its last round, kept loaded."""

import dataclasses
import os
import re
import time

import jax
from etils import epath

from clmrc_jax import sharding
from clmrc_jax.data.languages import LANGUAGES, language
from clmrc_jax.data.passages import PassageStore
from clmrc_jax.data.qa_examples import Question
from clmrc_jax.evaluate.language_id import in_script, script_of
from clmrc_jax.files import InputError, read_json
from clmrc_jax.pipelines import models
from clmrc_jax.pipelines.settings import CoraSettings, build
from clmrc_jax.pipelines.stages import MANIFEST
from clmrc_jax.retrieval.embeddings import EmbeddingStore
from clmrc_jax.retrieval.index import open_index
from clmrc_jax.retrieval.runs import run_rows

# The language taken where several share a script; the others must be asked for.
LIKELIEST = {"LATIN": "en", "ARABIC": "ar", "CJK": "zh_cn"}
# Scripts that one language alone uses, however many Chinese characters stand beside them.
OWN_SCRIPT = {"HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko"}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What `Asker` found.

    answer: None when the run has no generator.   score: log probability over answer length.
    note: how the language was guessed; "" when it was given.
    passages: {id, lang, article_id, title, text, score, whole}, best first; `whole` tells
        whether the passage reached the generator uncut.
    seconds: time to answer.
    """

    question: str
    lang: str
    note: str
    answer: str | None
    score: float | None
    passages: list[dict]
    seconds: float


class Asker:
    """The last finished round of a workdir, loaded once and asked often.

    The models lie on one device, since one question cannot be divided; an exact index spreads
    over all of them. The first question of a length compiles (`warm_up`), later ones take
    a fraction of a second.
    """

    def __init__(self, workdir: str | os.PathLike):
        """Raises InputError when the workdir holds no finished round."""
        workdir = epath.Path(workdir)
        self.settings, self.round = run_settings(workdir), last_round(workdir)
        folder = workdir / f"round_{self.round}"
        s = dataclasses.replace(
            self.settings,
            retriever=dataclasses.replace(self.settings.retriever, encode_batch=1),
            generator=dataclasses.replace(self.settings.generator, generate_batch=1),
        )
        mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
        rules = {**sharding.DEFAULT_RULES, **s.rules}
        self.store = PassageStore(workdir / "corpus")
        self.index, _ = open_index(
            s.index.kind,
            EmbeddingStore(folder / "index" / "embeddings"),
            mesh=sharding.make_mesh(),
            folder=folder / "index" / s.index.kind,
            scann=s.index.scann,
            max_rows_on_device=s.index.max_rows_on_device,
        )
        self._retriever, self._retriever_params = models.open_question_encoder(
            s, folder / "mdpr", mesh, rules
        )
        self._generator = None
        if s.generate:
            self._generator, self._generator_params = models.open_generator(
                s, folder / "mgen", mesh, rules
            )

    def __call__(self, question: str, lang: str = "", top_k: int = 0) -> Answer:
        """Finds passages and generates the answer.

        lang: language of question and answer; "" guesses it from the script (`guess_language`).
        top_k: passages to find and read; 0 for as many as the generator was trained with.
        Raises InputError for an empty question, an unknown language, and a negative top_k.
        """
        begin = time.monotonic()
        question = " ".join(question.split())
        if not question:
            raise InputError("empty question: give some text, --question='...'")
        if top_k < 0:
            raise InputError(f"top_k is {top_k}: at least 1 passage must be found")
        lang, note = (_checked(lang), "") if lang else guess_language(question)
        passages = self._retrieve(question, lang, top_k or self._default_top_k())
        text, score, survived = self._generate(question, lang, passages)
        passages = [p | {"whole": i < survived} for i, p in enumerate(passages)]
        return Answer(question, lang, note, text, score, passages, time.monotonic() - begin)

    def warm_up(self, top_k: int = 0) -> None:
        """Asks about the first passage, so that the user's first question finds programs compiled."""
        passage = self.store[0]
        self(passage.text[:60], passage.lang, top_k)

    def _default_top_k(self) -> int:
        s = self.settings
        return s.generator_format.passages if s.generate else min(s.index.top_k, 10)

    def _retrieve(self, question: str, lang: str, top_k: int) -> list[dict]:
        vectors = self._retriever.encode_questions(self._retriever_params, [(question, lang)])
        scores, rows = self.index.search(vectors, min(top_k, len(self.store)))
        (row,) = run_rows([Question("", question, lang, ())], scores, rows, self.store)
        return row["ctxs"]

    def _generate(self, question: str, lang: str, passages: list[dict]):
        """Answer, score, and how many passages fitted whole (all of them without a generator)."""
        if self._generator is None:
            return None, None, len(passages)
        format = dataclasses.replace(self._generator.format, passages=len(passages))
        texts, scores, survived = self._generator.answer(
            self._generator_params, [(question, lang, passages)], format=format
        )
        return texts[0], scores[0], survived[0]


def run_settings(workdir: str | os.PathLike) -> CoraSettings:
    """The settings that `tpu_train.py` recorded in workdir/config.json.

    Raises InputError when there are none, or when they are of another version of the package.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise InputError(
            f"{workdir}: no finished run here (no config.json); "
            "train one with launch/tpu_train.py --workdir, or give its folder"
        )
    settings = read_json(path)
    if "retriever" not in settings:
        raise InputError(
            f"{workdir}: a run without passages to find; launch/ask.py asks runs of configs/cora.py, "
            "and launch/read.py answers with a span reader"
        )
    try:
        return build(CoraSettings, settings, "")
    except InputError as error:
        raise InputError(f"{path}: {error} (was the run made by another version?)") from error


def last_round(workdir: str | os.PathLike) -> int:
    """The last round whose scores are there. Raises InputError when no round is finished."""
    found = [
        int(re.search(r"round_(\d+)$", path.parent.parent.name)[1])
        for path in epath.Path(workdir).glob(f"round_*/scores/{MANIFEST}")
    ]
    if not found:
        raise InputError(
            f"{workdir}: no finished run here, not even its first round; "
            "start the training again with the same command, it continues"
        )
    return max(found)


def guess_language(question: str) -> tuple[str, str]:
    """Language of a question by its script, and a note saying what was taken and why.

    Of several languages with that script the likeliest is taken and the others are named.
    Raises InputError for a question without letters of a known script.
    """
    scripts = {script_of(character) for character in question if character.isalpha()}
    for script, code in OWN_SCRIPT.items():
        if script in scripts:
            return code, f"language: {code} ({LANGUAGES[code].name}), by its script"
    candidates = [code for code in LANGUAGES if scripts and in_script(question, code)]
    if not candidates:
        raise InputError(
            f"the language of {question!r} cannot be seen from its letters: {_known()}"
        )
    code = next((x for x in LIKELIEST.values() if x in candidates), candidates[0])
    note = f"language: {code} ({LANGUAGES[code].name}), by its script"
    others = [x for x in candidates if x != code]
    return code, note + (f"; if it is another, give --lang={'|'.join(others)}" if others else "")


def _checked(lang: str) -> str:
    try:
        return language(lang).code
    except ValueError as error:
        raise InputError(f"unknown language {lang!r}: {_known()}") from error


def _known() -> str:
    return f"give --lang, one of {', '.join(sorted(LANGUAGES))}"
