"""The page in a real headless browser: drawn, legible, and alive."""

import re
from pathlib import Path
from typing import Any

import pytest

from egapipe.stages import report
from tests.stages.report.browser import DESKTOP, PHONE, Shown, needs_browser, show
from tests.stages.report.conftest import MadeComparison, MakeSweep

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
        assert hover["rings"] == [1, 1]
        assert hover["after"]
    # The same image in both panels.
    assert teacher["text"] == student["text"] != ""


@pytest.mark.parametrize("dark", [False, True])
def test_a_comparison(comparison_page: report.Report, tmp_path: Path, dark: bool) -> None:
    check_drawn(show(comparison_page.page, tmp_path, width=PHONE, dark=dark), PHONE, 4)


@pytest.fixture(scope="module")
def thirteen(made_comparison: MadeComparison) -> report.Report:
    """The page of thirteen variants and three seeds."""
    return report.run(made_comparison(VARIANTS, seeds=3))


VARIANTS = [
    *("ce", "kd", "fitnet", "sp", "cc", "pkt", "rkd", "nce", "irg", "crd", "ccl", "ega"),
    "a variant whose name is long, of ega and kd",
]


@pytest.mark.slow
def test_thirteen_variants_are_told_apart_on_a_phone(
    thirteen: report.Report, tmp_path: Path
) -> None:
    ask = """return {
      colours: all("#curves-0 .legend button.series i").map((one) => style(one).backgroundColor),
      legend: all("#curves-0 .legend")[0].getBoundingClientRect().bottom,
      plot: all("#curves-0 svg")[0].getBoundingClientRect().top,
      lines: new Set(all("#curves-0 .mark-line path").map((one) => style(one).stroke)).size,
      low: Math.min(...all("#curves-0 .role-axis-label text").map((one) => Number(one.textContent))
        .filter((one) => one > 12)),
    }"""
    shown = show(thirteen.page, tmp_path, width=PHONE, ask=ask)
    check_drawn(shown, PHONE, len(thirteen.pictures))
    asked = shown.found["asked"]
    assert len(set(asked["colours"])) == len(asked["colours"]) == asked["lines"] == 13
    # Beside the curves and not over them, on an axis that begins where they do.
    assert asked["legend"] <= asked["plot"]
    assert asked["low"] > 66


def test_a_table_is_sorted_and_filtered_and_isolates(
    thirteen: report.Report, tmp_path: Path
) -> None:
    ask = """
      const table = all("table.live")[0], rows = () => [...table.tBodies[0].rows];
      const column = (place) => rows().filter((row) => !row.hidden).map(
        (row) => row.cells[place].textContent.trim());
      const settled = () => new Promise((done) => setTimeout(done, 400));
      const seen = () => all("#curves-0 .mark-line path").filter(
        (one) => Number(style(one).opacity) > 0.5).length;
      const head = (place) => table.tHead.rows[0].cells[place].querySelector("button");
      const found = { before: column(0), all: seen() };
      head(2).click();
      found.down = column(2);
      head(2).click();
      found.up = column(2);
      head(4).click();
      found.gains = column(4);
      head(0).click();
      found.names = column(0);
      table.querySelectorAll("button.series")[3].click();
      await settled();
      found.one = seen();
      found.pressed = all("[aria-pressed=true]").length;
      found.faint = rows().filter((row) => row.classList.contains("faint")).length;
      all("button.all")[0].click();
      await settled();
      found.again = seen();
      const input = all("input[type=search]")[0];
      input.value = "kd";
      input.dispatchEvent(new Event("input"));
      await settled();
      found.filtered = column(0);
      found.drawn = seen();
      return found;"""
    shown = show(thirteen.page, tmp_path, ask=ask)
    assert shown.found["wrong"] == shown.console == []
    asked = shown.found["asked"]
    assert asked["before"] == VARIANTS
    assert asked["names"] == sorted(VARIANTS)
    tops = [float(text) for text in asked["down"]]
    assert tops == sorted(tops, reverse=True) == [float(text) for text in reversed(asked["up"])]
    # The baseline has none, and stands last whichever way.
    assert asked["gains"][-1] == ""
    gains = [float(text) for text in asked["gains"][:-1]]
    assert gains == sorted(gains, reverse=True)
    assert (asked["all"], asked["one"], asked["again"]) == (13, 1, 13)
    # In the table, in that of seeds, and above the curves.
    assert asked["pressed"] == 3
    assert asked["faint"] == 12
    assert sorted(asked["filtered"]) == sorted(name for name in VARIANTS if "kd" in name)
    assert asked["drawn"] == 3


def test_an_index_is_filtered_on_a_phone(comparison: Path, tmp_path: Path) -> None:
    written = report.run(comparison.parents[1], to=tmp_path / "index")
    ask = """
      const input = all("input[type=search]")[0];
      input.value = "ega comparison";
      input.dispatchEvent(new Event("input"));
      const none = all("tbody tr").filter((row) => !row.hidden).length;
      input.value = "ega seed1";
      input.dispatchEvent(new Event("input"));
      return [none, all("tbody tr").filter((row) => !row.hidden).length];"""
    shown = show(written.page, tmp_path, width=PHONE, ask=ask)
    check_drawn(shown, PHONE, 0)
    assert shown.found["asked"] == [0, 1]


def test_a_sweep(make_sweep: MakeSweep, tmp_path: Path) -> None:
    folder = make_sweep(
        ({"distill.objective.ega.weight": 0.05, "distill.lr": 0.01}, "done", 41.25),
        ({"distill.objective.ega.weight": 1.0}, "stopped", 20.0),
        ({"distill.objective.ega.weight": 5.0, "distill.lr": 0.05}, "done", 62.5),
    )
    written = report.run(folder)
    check_drawn(show(written.page, tmp_path, width=PHONE), PHONE, len(written.pictures))


@pytest.mark.slow
def test_a_sweep_of_many_settings_keeps_its_texts_legible(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    names = [f"distill.objective.kd.setting_{number}" for number in range(8)]
    folder = make_sweep(
        *(
            ({name: value * 10.0**place for place, name in enumerate(names)}, "done", value)
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
    assert any("Content Security Policy" in line for line in shown.console)
    # The script did not run: the name that it asks for is nowhere.
    assert not any("undefinedName" in text for text in [*shown.console, *shown.found["wrong"]])
    assert "refused: inline" in shown.found["wrong"]
    assert any("refused: https://example.invalid" in text for text in shown.found["wrong"])
