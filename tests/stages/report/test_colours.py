"""Colours of lines and bars: none twice, and each seen on a light page as well as on a dark one."""

from itertools import pairwise

import pytest

from egapipe.stages.report.charts.colours import SHADES, palette
from tests.stages.report.test_browser import contrast

# Of the boxes that figures stand in, and the pages around them, see page.css.
LIGHT, DARK = ("#f5f6f8", "#ffffff"), ("#1d222b", "#14171d")


def rgb(colour: str) -> str:
    return ", ".join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 13, 30])
def test_no_colour_repeats_and_each_is_seen(count: int) -> None:
    colours = palette(count)
    assert len(set(colours)) == len(colours) == count
    for colour in [*colours, *SHADES]:
        for paper in (*LIGHT, *DARK):
            # WCAG 2.1 asks for 3 of what is needed to understand a graphic; names stand beside it.
            assert contrast(rgb(colour), rgb(paper)) > 2.2, (colour, paper)


def test_neighbours_among_many_differ_in_lightness_too() -> None:
    colours = palette(13)
    for one, other in pairwise(colours):
        channels = [[int(c[p : p + 2], 16) for p in (1, 3, 5)] for c in (one, other)]
        assert sum(abs(a - b) for a, b in zip(*channels, strict=True)) > 40, (one, other)
