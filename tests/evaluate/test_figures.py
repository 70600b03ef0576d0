"""Figures as PNG bytes: they open, sizes follow the data, colours follow the numbers."""

import io

import numpy as np
import pytest
from matplotlib import image

from clmrc_jax.evaluate.figures import _spread, language_matrix, metrics_over_rounds, role_order


def _pixels(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return image.imread(io.BytesIO(png))[..., :3]


def test_role_order_runs_by_category_then_table():
    codes = ["zh_cn", "el", "vi", "fr", "sv", "en", "ar", "es", "da"]
    assert role_order(codes) == ["ar", "en", "es", "sv", "da", "fr", "vi", "zh_cn", "el"]
    with pytest.raises(ValueError, match="unknown language code"):
        role_order(["xx"])


def test_language_matrix_grows_with_its_rows():
    small = _pixels(language_matrix({"ja": {"en": 100.0}}, "t"))
    large = _pixels(language_matrix({x: {"en": 100.0} for x in ("ja", "fi", "de", "vi")}, "t"))
    assert large.shape[0] - small.shape[0] == pytest.approx(3 * 0.44 * 160, abs=2)
    assert large.shape[1] == small.shape[1]


def test_language_matrix_draws_large_shares_darker_than_small_ones():
    def dark(share):
        pixels = _pixels(language_matrix({"ja": {"en": share, "fi": 100 - share}}, "t"))
        return np.mean(np.abs(pixels - np.array([0x0B, 0x35, 0x66]) / 255).max(-1) < 0.02)

    assert dark(100.0) > 10 * dark(50.0)


def test_language_matrix_keeps_its_canvas_with_labels_inside_the_border():
    languages = ["ar", "ja", "es", "da", "vi", "zh_cn", "el"]
    pixels = _pixels(language_matrix({x: {y: 100 / 7 for y in languages} for x in languages}, "t"))
    border = [pixels[:8], pixels[-8:], pixels[:, :8], pixels[:, -8:]]
    assert all((edge == 1).all() for edge in border)


def test_language_matrix_without_passages_is_refused():
    for empty in ({}, {"ja": {}}):
        with pytest.raises(ValueError, match="empty"):
            language_matrix(empty, "t")


def test_metrics_over_rounds_leaves_out_what_has_no_value():
    series = {"seen": [10.0, None, 30.0], "macro": [None, 15.0, 20.0], "unseen": [None] * 3}
    one = _pixels(metrics_over_rounds([0, 1, 2], {"F1": series, "R": {"seen": [None] * 3}}, "t"))
    two = _pixels(metrics_over_rounds([0, 1, 2], {"F1": series, "R": series}, "t"))
    assert one.shape[1] < two.shape[1] and one.shape[0] == two.shape[0]
    with pytest.raises(ValueError, match="nothing to draw"):
        metrics_over_rounds([0], {"F1": {"seen": [None]}}, "t")


def test_metrics_over_rounds_draws_a_single_round():
    pixels = _pixels(metrics_over_rounds([4], {"F1": {"seen": [100.0], "closed_book": [0.0]}}, "t"))
    seen = np.abs(pixels - np.array([0x21, 0x66, 0xAC]) / 255).max(-1) < 0.02
    assert seen.any()


def test_equal_numbers_give_equal_files():
    def draw():
        return language_matrix({"ja": {"en": 100.0}}, "t", "$x_1$ is no formula")

    assert draw() == draw()


def test_spread_keeps_order_and_gap_and_centres_close_values():
    values = [50.0, 51.0, 90.0, 49.0]
    places = _spread(values, gap=6)
    assert places == pytest.approx([50, 56, 90, 44])
    assert _spread([], 6) == []
    many = sorted(_spread([99.0, 98.0, 97.5, 60.0, 99.5], 6))
    assert all(b - a >= 6 - 1e-9 for a, b in zip(many, many[1:]))
