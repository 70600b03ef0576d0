"""Google Cloud Translation (Advanced, v3) through its official client.

Costs money, so nothing is sent without all three: credentials, the user's consent, and an estimate
of the characters that was shown before. `pip install "clmrc_jax[google]"` for the client.
Limits (cloud.google.com/translate/quotas): 1,024 strings and 30,000 characters per request, of which
5,000 are recommended.
"""

import dataclasses
import logging
import random
import re
import time
from collections.abc import Callable, Sequence

from clmrc_jax.files import InputError
from clmrc_jax.translate.translator import Batch, TranslationError, batches

_log = logging.getLogger(__name__)
REQUEST = Batch(texts=256, characters=5_000)
MOST_CHARACTERS = 30_000  # of one request; longer texts are cut at the end of a sentence
DOLLARS_PER_MILLION = 20.0  # list price of the NMT model, before the monthly free allowance
ATTEMPTS, FIRST_WAIT, LONGEST_WAIT = 9, 1.0, 64.0  # about three minutes: outlasts a quota minute
AGREE = (
    "repeat the command with --consent_to_pay (of a training run: "
    "--config.translation.consent=True) if that is what you want"
)
_RETRIED = {429, 500, 502, 503, 504}
_SENTENCE_END = re.compile(r"[.!?…][\s\"'”’»)]*\s|[。！？]|\n")
_CODES = {"zh": "zh-CN", "zh_hk": "zh-TW"}  # others: zh_cn -> zh-CN


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a translation would send. characters: Unicode code points, blanks included, as billed.

    dollars: at DOLLARS_PER_MILLION, without the monthly free allowance.
    """

    texts: int
    characters: int

    @property
    def dollars(self) -> float:
        return self.characters * DOLLARS_PER_MILLION / 1e6

    def __str__(self) -> str:
        return (
            f"{self.texts:,} texts with {self.characters:,} characters, about "
            f"${self.dollars:,.2f} at ${DOLLARS_PER_MILLION:.0f} per million characters"
        )


def estimate(texts: Sequence[str]) -> Estimate:
    """What sending these texts would take; blank ones are never sent."""
    sent = [text for text in texts if text.strip()]
    return Estimate(len(sent), sum(map(len, sent)))


class GoogleTranslator:
    """Translates through Google Cloud, with retries.

    consent: the user agrees to pay.   project: Google Cloud project, "" = that of the credentials.
    client: a `translate_v3.TranslationServiceClient`, None = made from the application default
    credentials when it is first needed.   sleep: waits that many seconds between two attempts.
    """

    name = "google:general/nmt"  # the default model: part of the cache key
    batch = REQUEST  # one request per committed batch: a kill loses no more than that

    def __init__(
        self,
        *,
        consent: bool = False,
        project: str = "",
        client=None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.consent, self.project = consent, project
        self._client, self._sleep = client, sleep

    def prepare(self, texts: Sequence[str], source: str, target: str) -> None:
        """Shows the estimate; raises InputError without consent, client library or credentials."""
        cost = estimate(texts)
        if not cost.texts:
            return
        _log.warning("%s -> %s by Google Cloud Translation: %s", source, target, cost)
        self._require(cost)

    def check(self, source: str, target: str) -> None:
        """Raises InputError without consent, client library or credentials; sends nothing."""
        if not self.consent:
            raise InputError(f"Google Cloud Translation costs money: {AGREE}")
        self._require_access()

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """One translation per text; blank texts stay as they are and are not sent.

        Raises TranslationError for what Google refuses, with the finished translations; InputError
        without consent or credentials.
        """
        pieces = [_cut(text, MOST_CHARACTERS) if text.strip() else [] for text in texts]
        sent = [piece for parts in pieces for piece in parts]
        if not sent:
            return list(texts)
        self._require(estimate(texts))
        translated: list[str] = []
        try:
            for request in batches(sent, REQUEST):
                translated += self._request(request, source, target)
        except TranslationError as error:
            raise TranslationError(str(error), _join(texts, pieces, translated)) from error
        return _join(texts, pieces, translated)

    def _require(self, cost: Estimate) -> None:
        if not self.consent:
            raise InputError(
                f"Google Cloud Translation would be sent {cost}. Nothing was sent: {AGREE}"
            )
        self._require_access()

    def _require_access(self) -> None:
        if self._client is None:
            self._client, found = _client()
            self.project = self.project or found
        if not self.project:
            raise InputError(
                "Google Cloud Translation: the credentials name no project; give --google_project "
                "(of a training run: --config.translation.project)"
            )

    def _request(self, texts: list[str], source: str, target: str) -> list[str]:
        request = {
            "parent": f"projects/{self.project}/locations/global",
            "contents": texts,
            "mime_type": "text/plain",  # as HTML, line breaks and & would not survive
            "source_language_code": google_code(source),
            "target_language_code": google_code(target),
        }
        response = self._with_retries(request)
        translated = [item.translated_text for item in response.translations]
        if len(translated) != len(texts):
            raise TranslationError(
                f"Google Cloud Translation returned {len(translated)} translations for "
                f"{len(texts)} texts; run the same command again"
            )
        return translated

    def _with_retries(self, request: dict):
        no_answer = _no_answer()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._client.translate_text(request=request)
            except no_answer as error:
                raise TranslationError(_explain_silence(error)) from error
            except (
                Exception
            ) as error:  # told apart by status, so that a fake client can have its own
                if not isinstance(getattr(error, "code", None), int):
                    raise  # a defect, not an answer of the service
                if _credentials_failed(error):
                    raise TranslationError(_explain_silence(error)) from error
                if attempt == ATTEMPTS or not _passes(error):
                    raise TranslationError(_explain(error, attempt)) from error
                wait = min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT)
                _log.info("Google Cloud Translation: %s; again in %.0f s", error, wait)
                self._sleep(wait * random.uniform(0.75, 1.25))


def _no_answer() -> tuple[type[Exception], ...]:
    """What the client raises without an answer of the service; () for a client of another kind."""
    try:
        from google.api_core.exceptions import RetryError
        from google.auth.exceptions import GoogleAuthError
    except ImportError:
        return ()
    return GoogleAuthError, RetryError


def _credentials_failed(error: Exception) -> bool:
    """Whether an UNAVAILABLE of gRPC only says that the credentials could not be renewed."""
    text = str(error).lower()
    return "metadata from plugin failed" in text or "invalid_grant" in text


def _explain_silence(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return (
        f"Google Cloud Translation gave no answer: {said:.300}. Expired credentials: log in again "
        "(`gcloud auth application-default login`); else check the network. The same command "
        "continues"
    )


def google_code(code: str) -> str:
    """A language code of languages.py as Google spells it: zh_cn -> zh-CN."""
    base, _, region = code.partition("_")
    return _CODES.get(code) or (f"{base}-{region.upper()}" if region else base)


def _passes(error: Exception) -> bool:
    """Whether waiting may help: the service is busy, or a per-minute quota is used up."""
    text = str(error).lower()
    if "daily limit" in text or "per day" in text:
        return False
    return error.code in _RETRIED or (error.code == 403 and "rate limit" in text)


def _explain(error: Exception, attempts: int) -> str:
    said = f"Google Cloud Translation: {' '.join(str(error).split()):.300}"
    text = said.lower()
    if error.code == 429 or "limit exceeded" in text or "quota" in text:
        return (
            f"{said}. The project's quota is used up (after {attempts} attempts): a quota per "
            "minute is back in a minute, a quota per day at midnight Pacific time; raise it in the "
            "Cloud console under IAM & Admin, Quotas (translate.googleapis.com), or check the "
            "project's billing. Then run the same command again"
        )
    if error.code in (401, 403):
        return (
            f"{said}. The credentials may not do this: enable the Cloud Translation API and "
            "billing in the project, and give the account the role Cloud Translation API User"
        )
    if error.code in _RETRIED:
        return f"{said}. The service stayed busy over {attempts} attempts; run the command again"
    return f"{said}. Check that Google translates between these languages"


def _client() -> tuple[object, str]:
    """(client, project) from the application default credentials. Raises InputError without."""
    try:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import translate_v3
    except ImportError as error:
        raise InputError(
            f"Google Cloud Translation needs its client ({error}): pip install 'clmrc_jax[google]'"
        ) from error
    try:
        credentials, project = google.auth.default()
    except DefaultCredentialsError as error:
        raise InputError(
            "Google Cloud Translation: no credentials here; run `gcloud auth application-default "
            "login`, or let GOOGLE_APPLICATION_CREDENTIALS name a service account's key file"
        ) from error
    return translate_v3.TranslationServiceClient(credentials=credentials), project or ""


def _cut(text: str, most: int) -> list[str]:
    """Pieces of at most `most` characters, ended by a sentence, else a blank; joined = the text."""
    pieces = []
    while len(text) > most:
        ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, most)]
        end = ends[-1] if ends else text.rfind(" ", 0, most) + 1
        pieces.append(text[: end or most])
        text = text[end or most :]
    return [*pieces, text] if text else pieces


def _join(texts: Sequence[str], pieces: list[list[str]], translated: list[str]) -> list[str]:
    """Whole texts from translated pieces; stops before a text whose pieces are not all there."""
    joined, used = [], 0
    for text, parts in zip(texts, pieces):
        if used + len(parts) > len(translated):
            break
        if len(parts) > 1:  # the service may drop the blank at a piece's end
            ends = [part[len(part.rstrip()) :] for part in parts]
            done = translated[used : used + len(parts)]
            joined.append("".join(x.rstrip() + end for x, end in zip(done, ends)))
        else:
            joined.append(translated[used] if parts else text)
        used += len(parts)
    return joined
