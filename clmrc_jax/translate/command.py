"""Any program that reads a line and writes its translation as a line, e.g. Apertium.

One process per call, not per line. Line breaks and outer blanks of a text are kept here and never
sent: the program sees non-blank single lines only.
"""

import contextlib
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence

from clmrc_jax.files import InputError
from clmrc_jax.translate.translator import Batch, TranslationError

_log = logging.getLogger(__name__)
# Everything that some program may take for the end of a line, NUL (Apertium's flush) included.
_BREAK = re.compile("(\r\n|[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\0])")
_OUTER_BLANKS = re.compile(r"(\s*)(.*?)(\s*)", re.DOTALL)


class CommandTranslator:
    """Translates through a command line, run without a shell (`sh -c '... | ...'` for a pipe).

    command: the program and its arguments; {source} and {target} stand for the language codes.
    timeout: seconds that one call may take.

    Apertium moves words across a line break (`mesa`, `roja` become `Red`, `table`), also with
    `-f line`; so its lines are sent with blank lines between them, which end a sentence. Then a
    text is translated as it would be alone (tested).
    """

    def __init__(self, command: str, *, timeout: float = 3600.0, batch: Batch | None = None):
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise InputError(f"command {command!r}: {error}; mind the quotes") from error
        if not self._arguments:
            raise InputError("an empty command; write e.g. command:'apertium -u spa-eng'")
        self.name, self.timeout = f"command:{command}", timeout
        self.batch = batch or Batch()
        program = os.path.basename(self._arguments[0])
        self._separator = "\n\n" if program == "apertium" else "\n"
        self._marks_unknown = program == "apertium" and "-u" not in self._arguments

    def prepare(self, texts: Sequence[str], source: str, target: str) -> None:
        """Raises InputError when there is no such program."""
        self._require_program()
        if self._marks_unknown:
            _log.warning(
                "apertium puts * before words it does not know; `apertium -u` leaves the mark out"
            )

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """One translation per text; line breaks and outer blanks of a text stay as they are.

        Raises TranslationError when the program fails, takes too long, or does not write one line
        for each line; the texts it had finished before it failed are in `finished`.
        """
        cut = [_cut(text) for text in texts]
        lines = [line for parts in cut for _, line, _ in parts if line]
        if not lines:
            return list(texts)
        self._require_program()
        try:
            translated = self._run(lines, source, target)
        except TranslationError as error:
            raise TranslationError(str(error), _join(cut, error.finished)) from error
        return _join(cut, translated)

    def _require_program(self) -> None:
        if shutil.which(self._arguments[0]) is None:
            raise InputError(
                f"{self.name}: there is no program {self._arguments[0]!r} here; install it, or "
                "give its full path"
            )

    def _run(self, lines: list[str], source: str, target: str) -> list[str]:
        """One translated line per line, from one process."""
        arguments = [
            argument.replace("{source}", source).replace("{target}", target)
            for argument in self._arguments
        ]
        sent = "".join(line + self._separator for line in lines).encode()
        code, output, errors = _communicate(arguments, sent, self.timeout)
        received = self._received(output, len(lines))
        if code == 0 and len(received) == len(lines):
            return received
        why = f"ended with exit code {code}"
        if code is None:
            why = f"did not finish within {self.timeout:.0f} s"
        elif code == 0:
            # One line too few shifts all the others: which are right cannot be told.
            received = []
            counts = [part.count(b"\n") for part in (output, sent)]
            why = (
                f"wrote {counts[0]} lines for {counts[1]}; a translator must write exactly one "
                "line for each line it reads"
            )
        last = " ".join(errors.decode(errors="replace").strip().splitlines()[-1:])
        raise TranslationError(
            f"{self.name}: {why}" + (f"; it said: {last:.300}" if last else ""), received
        )

    def _received(self, output: bytes, expected: int) -> list[str]:
        """The whole lines of the output; [] where they do not pair with those that were sent."""
        step = len(self._separator)
        if output.count(b"\n") == expected * step - 1 and not output.endswith(b"\n"):
            output += b"\n"  # only the very last line break is missing
        ended = output[: output.rfind(b"\n") + 1]  # what follows was cut off
        try:
            lines = ended.decode().split("\n")[:-1]
        except UnicodeDecodeError as error:
            raise TranslationError(f"{self.name}: its output is not UTF-8 ({error})") from error
        between = lines[1::2] if step == 2 else []
        if any(line.strip() for line in between) or len(lines) > expected * step:
            return []
        return [line.strip() for line in lines[::step]]


def _communicate(
    arguments: list[str], sent: bytes, timeout: float
) -> tuple[int | None, bytes, bytes]:
    """(exit code, output, error output) of a process; the code is None when time ran out."""
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a group of its own, so that a whole pipeline can be ended
        )
    except OSError as error:
        raise InputError(
            f"{arguments[0]}: cannot be started ({error}); mend or replace it"
        ) from error
    with process:
        try:
            output, errors = process.communicate(sent, timeout)
            return process.returncode, output, errors
        except subprocess.TimeoutExpired as error:
            return None, error.output or b"", error.stderr or b""
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _cut(text: str) -> list[tuple[str, str, str]]:
    """(before, line to send or "", after) of every line; joined they are the text again."""
    pieces = _BREAK.split(text)
    breaks = [*pieces[1::2], ""]
    parts = []
    for piece, end in zip(pieces[::2], breaks):
        before, line, after = _OUTER_BLANKS.fullmatch(piece).groups()
        parts.append((before, line, after + end))
    return parts


def _join(cut: list[list[tuple[str, str, str]]], translated: Sequence[str]) -> list[str]:
    """The texts of `_cut` with translated lines; stops before a text whose lines are not there."""
    texts, used = [], 0
    for parts in cut:
        needed = sum(bool(line) for _, line, _ in parts)
        if used + needed > len(translated):
            break
        lines = iter(translated[used : used + needed])
        used += needed
        texts.append(
            "".join(before + (next(lines) if line else "") + after for before, line, after in parts)
        )
    return texts
