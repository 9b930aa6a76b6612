"""Colours that stand out on a white page as well as on a dark one."""

import math

COLOURS = ("#3b82c4", "#e0792b", "#3f9d5a", "#cf4a4a", "#8a6bc1", "#8d6a4f", "#d26fae", "#808890")
"""Of lines and bars, where they are few."""
BLUE, ORANGE, GREEN, RED = COLOURS[:4]
GREY = COLOURS[7]
SHADES = ("#4f7fd0", "#b065b5", "#f08a24")
"""The ends and the middle of a scale of numbers, low to high."""

# Of OKLCH: lightness of neighbours differs, and both can be seen on either page.
_LIGHTNESS = (0.56, 0.66)
_CHROMA = 0.14
_FIRST_HUE = 250.0


def palette(count: int) -> list[str]:
    """So many colours, none of them twice: around the circle of hues when there are many."""
    if count < len(COLOURS):
        return list(COLOURS[:count])
    return [
        _hex(_LIGHTNESS[number % 2], _CHROMA, _FIRST_HUE + 360.0 * number / count)
        for number in range(count)
    ]


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """`#rrggbb` of OKLCH (Ottosson 2020), with less chroma where a screen has not so much."""
    while True:
        channels = _linear(lightness, chroma, math.radians(hue))
        if all(-1e-4 <= one <= 1 + 1e-4 for one in channels) or chroma <= 0:
            return "#" + "".join(f"{round(255 * _encoded(one)):02x}" for one in channels)
        chroma -= 0.01


def _linear(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """Linear red, green and blue."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )


def _encoded(linear: float) -> float:
    """sRGB of a linear channel, 0 to 1."""
    one = min(1.0, max(0.0, linear))
    return 12.92 * one if one <= 0.0031308 else 1.055 * one ** (1 / 2.4) - 0.055
