"""The page in a real headless browser: drawn, legible, and alive."""

import re
from pathlib import Path
from typing import Any

import pytest

from egapipe.stages import report
from tests.stages.report.browser import DESKTOP, PHONE, Shown, needs_browser, show
from tests.stages.report.conftest import MakeSweep

pytestmark = needs_browser

SMALLEST_TEXT = 7  # pixels of height, on a phone


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, WCAG 2.1."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio, WCAG 2.1: 1 to 21; 4.5 is enough for text."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def check_drawn(shown: Shown, width: int, figures: int) -> None:
    found = shown.found
    assert shown.console == []
    assert found["wrong"] == []
    assert found["width"] == width
    assert found["scroll"] <= width
    assert all(image > 0 for image in found["images"])
    assert len(found["figures"]) == figures
    for figure in found["figures"]:
        check_figure(figure, found["ink"])


def check_figure(figure: dict[str, Any], ink: str) -> None:
    assert figure["panels"]
    for panel in figure["panels"]:
        assert panel["width"] > 200, figure["id"]
        assert panel["height"] > 90, figure["id"]
    assert figure["marks"] > 5, figure["id"]
    assert figure["texts"], figure["id"]
    for text in figure["texts"]:
        assert text["height"] >= SMALLEST_TEXT, (figure["id"], text)
        assert text["fill"] == ink, (figure["id"], text)
        # Fonts differ from machine to machine: a few pixels over the edge are no loss.
        panel = text["panel"]
        assert panel["left"] - 6 <= text["left"] <= text["right"] <= panel["right"] + 6, text


def test_a_run_on_a_phone_and_a_dark_desk(run_page: report.Report, tmp_path: Path) -> None:
    light = show(run_page.page, tmp_path, width=PHONE)
    dark = show(run_page.page, tmp_path, width=DESKTOP, dark=True)
    check_drawn(light, PHONE, len(run_page.pictures))
    check_drawn(dark, DESKTOP, len(run_page.pictures))
    assert luminance(light.found["background"]) > 0.8
    assert luminance(dark.found["background"]) < 0.05
    for shown in (light, dark):
        assert contrast(shown.found["background"], shown.found["ink"]) > 7


def test_pointing_at_an_image_shows_it(run_page: report.Report, tmp_path: Path) -> None:
    teacher, student = show(run_page.page, tmp_path).found["hovers"]
    for hover in (teacher, student):
        assert hover["points"] == 360
        assert hover["before"]
        assert not hover["hidden"]
        assert hover["width"] > 96 < hover["height"]
        assert hover["picture"].startswith('url("data:image/webp')
        assert hover["rings"] == ["inline", "inline"]
        assert hover["after"]
    # The same image in both panels.
    assert teacher["text"] == student["text"] != ""


@pytest.mark.parametrize("dark", [False, True])
def test_a_comparison(comparison_page: report.Report, tmp_path: Path, dark: bool) -> None:
    check_drawn(show(comparison_page.page, tmp_path, width=PHONE, dark=dark), PHONE, 4)


def test_a_sweep(make_sweep: MakeSweep, tmp_path: Path) -> None:
    folder = make_sweep(
        ({"distill.objective.ega.weight": 0.05, "distill.lr": 0.01}, "finished", 41.25),
        ({"distill.objective.ega.weight": 1.0}, "stopped", 20.0),
        ({"distill.objective.ega.weight": 5.0, "distill.lr": 0.05}, "finished", 62.5),
    )
    written = report.run(folder)
    check_drawn(show(written.page, tmp_path, width=PHONE), PHONE, len(written.pictures))


def test_a_sweep_of_many_settings_keeps_its_texts_legible(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    names = [f"distill.objective.kd.setting_{number}" for number in range(8)]
    folder = make_sweep(
        *(
            ({name: value * 10.0**place for place, name in enumerate(names)}, "finished", value)
            for value in (1.0, 2.0, 4.0)
        )
    )
    written = report.run(folder)
    for width in (PHONE, DESKTOP):
        check_drawn(show(written.page, tmp_path, width=width), width, len(written.pictures))


def test_what_goes_wrong_in_a_page_is_seen(run_page: report.Report, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    source = run_page.page.read_text("utf-8")
    bad = '<img src="https://example.invalid/x.png"><script>undefinedName();</script>'
    broken.write_text(source.replace("</main>", f"{bad}</main>"), "utf-8")
    shown = show(broken, tmp_path)
    assert any("undefinedName" in line for line in shown.console)
    assert any("undefinedName" in text for text in shown.found["wrong"])
    assert any("refused: https://example.invalid" in text for text in shown.found["wrong"])
