"""Every kind of page, as wide as a phone and as a desk, in light and in dark."""

from collections.abc import Callable
from pathlib import Path

import pytest

from egapipe.stages import report
from egapipe.stages.report import Report
from tests.stages.report.browser import PHONE, needs_browser, show
from tests.stages.report.test_browser import VARIANTS, check_drawn, contrast

WIDE = 1280
LEAST_CONTRAST = 4.5  # of text, WCAG 2.1 AA

# Of every text that is not in a chart: its colour, and what is painted below it.
TEXTS = """
  const painted = (element) => {
    for (let at = element; at; at = at.parentElement)
      if (!/, 0\\)$|transparent/.test(style(at).backgroundColor)) return style(at).backgroundColor;
    return style(page.body).backgroundColor;
  };
  const own = (element) => [...element.childNodes].some(
    (node) => node.nodeType === 3 && node.textContent.trim());
  return all("body *").filter((one) => own(one) && one.getClientRects().length
    && !["SCRIPT", "STYLE"].includes(one.tagName) && !one.closest("svg"))
    .map((one) => [style(one).color, painted(one), one.textContent.slice(0, 40)]);"""

Ask = pytest.FixtureRequest


def of_run(ask: Ask) -> Report:
    page: Report = ask.getfixturevalue("run_page")
    return page


def without_images(ask: Ask) -> Report:
    gone = {"kind": "folder", "path": "/nowhere/at/all"}
    return report.run(ask.getfixturevalue("edit_run")(dataset__test=gone))


def of_two_variants(ask: Ask) -> Report:
    page: Report = ask.getfixturevalue("comparison_page")
    return page


def of_thirteen_variants(ask: Ask) -> Report:
    return report.run(ask.getfixturevalue("made_comparison")(VARIANTS, seeds=3))


def of_a_sweep(ask: Ask) -> Report:
    """With seeds, words, numbers, and every state that a trial can end in."""
    trials = [
        (
            {
                "distill.objective.ega.weight": weight,
                "distill.augment.crop": crop,
                "distill.lr": 0.01 * (1 + number),
                "distill.seed": seed,
            },
            "done",
            60 + 3 * number + 2 * seed,
        )
        for number, (weight, crop) in enumerate([(0.1, "pad"), (1.0, "none"), (3.0, "pad")] * 2)
        for seed in (0, 1)
    ]
    ended = [
        ({"distill.objective.ega.weight": 5.0, "distill.lr": 1.0}, "stopped", 11.0),
        ({"distill.objective.ega.weight": 0.5}, "failed", None),
    ]
    return report.run(ask.getfixturevalue("make_sweep")(*trials, *ended))


def of_a_running_sweep(ask: Ask) -> Report:
    states = [("done", 60.0), ("stopped", 20.0), ("running", 30.0), ("planned", None)]
    trials = [({"distill.lr": 0.1 * n}, *state) for n, state in enumerate(states, start=1)]
    return report.run(ask.getfixturevalue("make_sweep")(*trials, planned=9))


def of_a_failed_sweep(ask: Ask) -> Report:
    trials = [({"distill.lr": 10.0**n}, "failed", None) for n in range(3)]
    return report.run(ask.getfixturevalue("make_sweep")(*trials))


def of_all_runs(ask: Ask) -> Report:
    runs: Path = ask.getfixturevalue("comparison").parents[1]
    return report.run(runs, to=ask.getfixturevalue("tmp_path") / "index")


PAGES: list[Callable[[Ask], Report]] = [
    of_run,
    without_images,
    of_two_variants,
    of_thirteen_variants,
    of_a_sweep,
    of_a_running_sweep,
    of_a_failed_sweep,
    of_all_runs,
]


@needs_browser
@pytest.mark.slow  # a browser is started four times a page
@pytest.mark.timeout(900)
@pytest.mark.parametrize("made", PAGES, ids=lambda made: made.__name__)
def test_a_page_is_whole_and_legible(
    made: Callable[[Ask], Report], request: Ask, tmp_path: Path
) -> None:
    """Nothing of it is refused by its policy, written to the console, wider than the screen, over
    the edge of its panel, or of a colour like its ground."""
    written = made(request)
    for width in (PHONE, WIDE):
        for dark in (False, True):
            folder = tmp_path / f"{width}-{dark}"
            folder.mkdir()
            shown = show(written.page, folder, width=width, dark=dark, ask=TEXTS)
            check_drawn(shown, width, len(written.pictures))
            assert len(shown.found["asked"]) > 5
            faint = [
                (text, colour, ground)
                for colour, ground, text in shown.found["asked"]
                if contrast(colour, ground) < LEAST_CONTRAST
            ]
            assert not faint, (width, dark, faint)
