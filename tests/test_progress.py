"""Progress lines in a log, bars on a terminal."""

import re

import pytest

from clmrc_jax import progress
from clmrc_jax.progress import Meter, track


@pytest.fixture
def log(monkeypatch):
    """No terminal, and a line for every unit."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)


def test_track_yields_everything_and_logs_share_count_and_eta(log, capsys):
    assert list(track([5, 6, 7, 8], "count")) == [5, 6, 7, 8]
    out, err = capsys.readouterr()
    assert out == "", "stdout is for results"
    lines = err.splitlines()
    shares = [" 25% (1/4)", " 50% (2/4)", " 75% (3/4)", "100% (4/4)"]
    for line, share in zip(lines, shares, strict=True):
        assert line.startswith(f"  count: {share} eta ")
        assert re.search(r"eta \d+:\d\d:\d\d$", line)
    assert lines[-1].endswith("eta 0:00:00")


def test_track_of_unknown_length_counts(log, capsys):
    assert list(track(iter("ab"), "letters")) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["  letters: 1", "  letters: 2"]


def test_meter_continues_from_an_earlier_start(log, capsys):
    with Meter("shards", 10, start=6) as meter:
        meter.advance(2, note="loss 1.5")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("  shards:  80% (8/10) eta 0:00:00") and line.endswith(" loss 1.5")


def test_short_stage_logs_nothing(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    list(track(range(100), "quick"))
    assert capsys.readouterr().err == ""


def test_terminal_bar_within_a_bar_shows_both(monkeypatch, capsys):
    """Training shows a bar while its validation shows another."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Meter("train", 2) as outer:
        assert list(track([1, 2], "validate")) == [1, 2]
        outer.advance(2, note="loss 0.5")
    shown = capsys.readouterr().err
    assert "train" in shown and "validate" in shown


def test_error_inside_ends_the_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(KeyError), Meter("broken", 3):
        raise KeyError
    with Meter("next", 1) as meter:
        meter.advance()
