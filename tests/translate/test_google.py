import logging
import sys
import types

import pytest

from clmrc_jax.files import InputError
from clmrc_jax.translate.cache import CachedTranslator
from clmrc_jax.translate.google import (
    ATTEMPTS,
    MOST_CHARACTERS,
    REQUEST,
    GoogleTranslator,
    estimate,
    google_code,
)
from clmrc_jax.translate.translator import TranslationError


class ServiceError(Exception):
    """Like google.api_core's errors: a status in `code`, a message."""

    def __init__(self, code, message):
        super().__init__(f"{code} {message}")
        self.code = code


class Client:
    """Stands for translate_v3.TranslationServiceClient; raises `errors` first, one per call."""

    def __init__(self, *errors, keep_blanks=True):
        self.errors, self.requests, self.keep_blanks = list(errors), [], keep_blanks

    def translate_text(self, *, request):
        self.requests.append(request)
        if self.errors and (error := self.errors.pop(0)):
            raise error
        texts = [text.upper() for text in request["contents"]]
        texts = texts if self.keep_blanks else [text.strip() for text in texts]
        items = [types.SimpleNamespace(translated_text=text) for text in texts]
        return types.SimpleNamespace(translations=items)


def translator(client, waits=None, **options):
    sleep = (lambda _: None) if waits is None else waits.append
    options = {"consent": True, "project": "p"} | options
    return GoogleTranslator(client=client, sleep=sleep, **options)


def test_google_request_has_plain_text_and_googles_language_codes():
    client = Client()
    assert translator(client).translate(["你好", " ", "再见"], "zh_cn", "en") == [
        "你好",
        " ",
        "再见",
    ]
    assert client.requests == [
        {
            "parent": "projects/p/locations/global",
            "contents": ["你好", "再见"],
            "mime_type": "text/plain",
            "source_language_code": "zh-CN",
            "target_language_code": "en",
        }
    ]
    codes = [google_code(code) for code in ("zh", "zh_tw", "zh_hk", "he", "no")]
    assert codes == ["zh-CN", "zh-TW", "zh-TW", "he", "no"]


def test_google_requests_stay_within_the_limits_and_keep_order():
    client = Client()
    texts = [f"text {i} " + "x" * (i % 400) for i in range(700)]
    assert translator(client).translate(texts, "es", "en") == [text.upper() for text in texts]
    assert len(client.requests) > 3
    for request in client.requests:
        assert len(request["contents"]) <= REQUEST.texts
        assert sum(map(len, request["contents"])) <= REQUEST.characters


@pytest.mark.parametrize("keep_blanks", [True, False])
def test_google_very_long_text_is_cut_at_sentences_and_joined(keep_blanks):
    sentence = "one sentence of some length, said 2.5 times.  "
    long = "short\n" + sentence * 1000 + "w" * (MOST_CHARACTERS + 7) + " end"
    client = Client(keep_blanks=keep_blanks)
    first, second, third = translator(client).translate(["a", long, "b"], "es", "en")
    assert (first, second, third) == ("A", long.upper(), "B")
    sent = [text for request in client.requests for text in request["contents"]]
    assert all(len(text) <= MOST_CHARACTERS for text in sent) and len(sent) > 4
    assert sent[1].endswith("times.  ") and sent[2].startswith("one sentence")


def test_google_busy_service_is_asked_again_with_growing_waits():
    waits = []
    client = Client(ServiceError(503, "busy"), ServiceError(403, "User Rate Limit Exceeded"))
    assert translator(client, waits).translate(["a"], "es", "en") == ["A"]
    assert len(client.requests) == 3 and 0.7 < waits[0] < 1.3 and 1.4 < waits[1] < 2.6


@pytest.mark.parametrize(
    ("error", "attempts", "message"),
    [
        (ServiceError(429, "Quota exceeded for x"), ATTEMPTS, "quota is used up .*Pacific.*Quotas"),
        (ServiceError(403, "Daily Limit Exceeded"), 1, "quota is used up"),
        (ServiceError(429, "Quota exceeded: characters per day"), 1, "quota is used up"),
        (ServiceError(403, "API has not been used"), 1, "enable the Cloud Translation API"),
        (ServiceError(503, "unavailable"), ATTEMPTS, "stayed busy over 9 attempts"),
        (ServiceError(400, "Bad language pair"), 1, "Bad language pair.*between these languages"),
    ],
)
def test_google_refusal_is_explained(error, attempts, message):
    client = Client(*[error] * ATTEMPTS)
    with pytest.raises(TranslationError, match=message):
        translator(client).translate(["a"], "es", "en")
    assert len(client.requests) == attempts


@pytest.fixture
def google_errors(monkeypatch):
    """The exceptions of Google's client library, which need not be installed here."""
    auth, api = (types.ModuleType(f"google.{x}.exceptions") for x in ("auth", "api_core"))
    auth.GoogleAuthError = type("GoogleAuthError", (Exception,), {})
    auth.RefreshError = type("RefreshError", (auth.GoogleAuthError,), {})
    api.RetryError = type("RetryError", (Exception,), {})
    for name in ("google", "google.auth", "google.api_core"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for module in (auth, api):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return {"expired": auth.RefreshError("token expired"), "silent": api.RetryError("deadline")}


@pytest.mark.parametrize("kind", ["expired", "silent"])
def test_google_expired_credentials_and_no_network_keep_what_is_paid(google_errors, kind):
    client = Client(None, google_errors[kind])
    with pytest.raises(
        TranslationError, match="log in again.*The same command continues"
    ) as caught:
        translator(client).translate(["a" * 3000, "b" * 3000], "es", "en")
    assert caught.value.finished == ("A" * 3000,) and len(client.requests) == 2


def test_google_credentials_that_grpc_cannot_renew_are_not_waited_for():
    error = ServiceError(503, "Getting metadata from plugin failed with error: ('invalid_grant',)")
    client = Client(error)
    with pytest.raises(TranslationError, match="invalid_grant.*log in again"):
        translator(client).translate(["a"], "es", "en")
    assert len(client.requests) == 1


def test_google_check_asks_for_consent_and_access_and_sends_nothing():
    client = Client()
    with pytest.raises(InputError, match=r"costs money: .*config.translation.consent=True"):
        translator(client, consent=False).check("en", "es")
    with pytest.raises(InputError, match="name no project"):
        translator(client, project="").check("en", "es")
    translator(client).check("en", "es")
    assert not client.requests


def test_google_failure_in_a_later_request_keeps_the_paid_ones(tmp_path):
    texts = ["a" * 3000, "", "b" * 3000, "c" * 3000]
    failing = translator(Client(None, None, ServiceError(403, "Daily Limit Exceeded")))
    with pytest.raises(TranslationError) as caught:
        failing.translate(texts, "es", "en")
    assert caught.value.finished == ("A" * 3000, "", "B" * 3000)
    client = Client(None, ServiceError(400, "no"))
    with pytest.raises(TranslationError, match="1 finished translations are kept"):
        CachedTranslator(translator(client), tmp_path).translate(texts, "es", "en")
    client = Client()
    CachedTranslator(translator(client), tmp_path).translate(texts, "es", "en")
    assert [request["contents"] for request in client.requests] == [["b" * 3000], ["c" * 3000]]


def test_google_error_that_is_no_answer_of_the_service_goes_on():
    with pytest.raises(ZeroDivisionError):
        translator(Client(ZeroDivisionError())).translate(["a"], "es", "en")


def test_google_without_consent_is_never_called_and_says_what_it_would_cost(tmp_path, caplog):
    client = Client()
    asked = translator(client, consent=False)
    texts = ["a" * 600_000, "b" * 650_000, " "]
    message = r"2 texts with 1,250,000 characters, about \$25.00 .*repeat .*--consent_to_pay"
    for refused in (asked.prepare, asked.translate, CachedTranslator(asked, tmp_path).prepare):
        with pytest.raises(InputError, match=message):
            refused(texts, "es", "en")
    assert not client.requests
    assert estimate(texts).characters == 1_250_000 and estimate(texts).texts == 2


def test_google_estimate_is_shown_before_and_counts_only_what_is_not_cached(tmp_path, caplog):
    cached = CachedTranslator(translator(Client()), tmp_path)
    cached.translate(["already there"], "es", "en")
    with caplog.at_level(logging.WARNING):
        cached.prepare(["already there", "new", "new"], "es", "en")
        assert "es -> en by Google Cloud Translation: 1 texts with 3 characters" in caplog.text
        caplog.clear()
        cached.prepare(["already there"], "es", "en")
    assert not caplog.text


def test_google_everything_cached_needs_no_consent(tmp_path):
    CachedTranslator(translator(Client()), tmp_path).translate(["a"], "es", "en")
    cached = CachedTranslator(GoogleTranslator(), tmp_path)
    cached.prepare(["a"], "es", "en")
    assert cached.translate(["a"], "es", "en") == ["A"]


def test_google_without_project_client_or_credentials_is_an_input_error(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="name no project; give --google_project"):
        translator(Client(), project="").translate(["a"], "es", "en")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(InputError, match=r"clmrc_jax\[google\]|no credentials here; run `gcloud"):
        GoogleTranslator(consent=True).prepare(["a"], "es", "en")
