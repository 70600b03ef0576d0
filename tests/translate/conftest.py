"""Translators for the tests: real ones, only without a language."""

import sys
import textwrap

import pytest

from clmrc_jax.translate.translator import Batch, TranslationError


class Shouting:
    """Translates into upper case, remembers every call, and fails at the text `poison`."""

    name = "shouting"

    def __init__(self, batch=None, poison=None):
        self.batch, self.poison, self.calls = batch or Batch(), poison, []

    @property
    def texts(self):
        return [text for call in self.calls for text in call]

    def translate(self, texts, source, target):
        self.calls.append(list(texts))
        if self.poison in texts:
            done = texts[: texts.index(self.poison)]
            raise TranslationError(f"cannot say {self.poison!r}", [text.upper() for text in done])
        return [text.upper() for text in texts]


@pytest.fixture
def shouting():
    return Shouting


@pytest.fixture
def program(tmp_path):
    """Makes a command line of a Python program that finds its input lines in `lines`."""

    def make(body):
        path = tmp_path / "program.py"
        head = "import os, sys, time\nlines = sys.stdin.read().split('\\n')[:-1]\n"
        path.write_text(head + textwrap.dedent(body))
        return f"{sys.executable} {path}"

    return make
