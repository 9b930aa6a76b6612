"""Names are drawn as they are, whatever is in them: in figures, in tables, and in the pictures."""

from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from egapipe.pipeline.results.experiment import Cell, Setting
from egapipe.pipeline.results.standing import Standing
from egapipe.stages.report.charts.curves import group_curves
from egapipe.stages.report.charts.figure import Figure
from egapipe.stages.report.charts.scores import gain_figure, score_figure
from egapipe.stages.report.charts.series import Series
from egapipe.stages.report.charts.sweep.parallel import parallel_figure
from egapipe.stages.report.charts.sweep.settings import setting_figure
from egapipe.stages.report.charts.sweep.trials import Trial, series_of
from egapipe.stages.report.names import shortened
from egapipe.stages.report.pages.document import Section, page_html
from egapipe.stages.report.pages.run import classes_section, embeddings_section
from egapipe.stages.report.sample import Sample
from tests.stages.report.test_pictures import Noise

# As it is, and as it has to be seen.
NAMES = {
    "$x$ and $y": "$x$ and $y",
    "{a} }b{": "{a} }b{",
    r"\frac{1}": r"\frac{1}",
    "two\nlines": "two↵lines",
    "two\r\nreturns": "two↵returns",
    "<b>&amp;</b>": "<b>&amp;</b>",
    "猫と犬": "猫と犬",
    "cat 🐈\u200d⬛": "cat 🐈\u200d⬛",
    "_underscore": "_underscore",
    "bell\x07": "bell\ufffd",
    "\u202eturned": "\ufffdturned",
    "half \udcff": "half \ufffd",
    "100 % #1": "100 % #1",
}


@pytest.fixture(scope="module")
def sample() -> Sample:
    """An image of each class, and two more."""
    classes = len(NAMES)
    labels = np.repeat(np.arange(classes), 3)
    random = np.random.default_rng(0)
    return Sample(
        dataset=Noise(),
        names=list(NAMES),
        rows=np.arange(len(labels)),
        labels=labels,
        nodes=random.normal(size=(len(labels), 8)).astype(np.float32),
        predicted=np.roll(labels, 1),
        losses=np.ones(len(labels), dtype=np.float32),
        confidence=np.full(len(labels), 0.5, dtype=np.float32),
        features=None,
    )


def figures(sample: Sample) -> Iterator[Figure]:
    """Every figure that draws names of the user's."""
    yield from embeddings_section(sample).figures[:1]
    yield from classes_section(sample).figures[:2]
    series = Series(tuple(NAMES), "names")
    metrics = [[[{"epoch": 0, "test/top1": 1.0}]] for _ in NAMES]
    curves = group_curves("curves", "", metrics, series)
    assert curves is not None
    yield curves
    settings = [Setting(name=str(number), label=name) for number, name in enumerate(NAMES)]
    found = [Standing(setting, {0: 1.0, 1: 2.0}, (1.0, 2.0), 1.0, 0.95) for setting in settings]
    yield score_figure("scores", "", found, series, "metric")
    yield gain_figure("gains", "", found, series, "baseline", "95%")
    trials = [
        Trial(
            Cell(number=i, setting=str(i), seed=0, state="done", epochs=1, value=float(i)),
            Setting(name=str(i), label="x", changes={"augment": name}),
            i,
        )
        for i, name in enumerate(NAMES)
    ]
    of_trials = series_of(trials)
    yield setting_figure("words", "augment", trials, [], None, of_trials, "metric")
    for part in (trials[:7], trials[7:]):
        yield parallel_figure(["augment"], part, of_trials, "metric", "max")


def strings(value: Any) -> Iterator[str]:
    """All texts in a specification."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for inner in value.values() for text in strings(inner))
    elif isinstance(value, list):
        yield from (text for inner in value for text in strings(inner))


def test_every_name_is_drawn_as_it_is(sample: Sample) -> None:
    seen: dict[str, set[str]] = {}
    for figure in figures(sample):
        assert figure.png()[:4] == b"\x89PNG"
        seen.setdefault(figure.name, set()).update(strings(figure.specs()))
    assert len(seen) == 8
    for name, texts in seen.items():
        longest = 14 if name == "parallel" else 18
        assert {shortened(shown, longest) for shown in NAMES.values()} <= texts, name


def test_no_name_is_an_expression(sample: Sample) -> None:
    """A name stands among data and parameters, never where Vega looks for code."""
    for figure in figures(sample):
        found = list(expressions(figure.specs()))
        assert found, figure.name
        for text in found:
            assert not any(name in text for name in NAMES if len(name) > 6), figure.name


def expressions(value: Any) -> Iterator[str]:
    """What Vega interprets in a specification."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _INTERPRETED and isinstance(inner, str):
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        yield from (text for inner in value for text in expressions(inner))


_INTERPRETED = ("calculate", "filter", "test", "expr", "labelExpr")


def test_every_name_is_in_the_table_as_it_is(sample: Sample) -> None:
    section = classes_section(sample)
    cells = Cells(page_html("\udcff", "\udcff", [section]).encode().decode()).found
    # The table has twelve pairs, and each name is once a label and once what it is taken for.
    start = cells.index("of the label") + 1
    pairs = cells[start : start + 12 * 4]
    assert {*pairs[0::4], *pairs[1::4]} == set(NAMES.values())
    for name in NAMES:
        one = Section("one")
        one.table(["name"], [[name]])
        assert Cells(page_html("", "", [one])).found == ["name", NAMES[name]]


class Cells(HTMLParser):
    """Of the cells of tables, as a browser shows them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._inside = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th"):
            self._inside = True
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data
