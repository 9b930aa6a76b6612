"""Names are drawn as they are, whatever is in them: in figures, in tables, and in the pictures."""

import warnings
from collections.abc import Iterator
from html.parser import HTMLParser

import numpy as np
import pytest

from egapipe.pipeline.terminal.text import visible
from egapipe.stages.report.curves import group_curves
from egapipe.stages.report.figure import Figure, draw
from egapipe.stages.report.names import printable, printing, shortened
from egapipe.stages.report.of_comparison import _gains, _scores
from egapipe.stages.report.of_run import classes_section, embeddings_section
from egapipe.stages.report.page import Section, page_html
from egapipe.stages.report.parallel import parallel_figure
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


class Texts(HTMLParser):
    """Of the <text> elements of an SVG, as a browser shows them."""

    def __init__(self, panels: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._inside = False
        self.feed(panels)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "text"
        if self._inside:
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data


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
        features=None,
    )


def figures(sample: Sample) -> Iterator[Figure]:
    """Every figure that draws names of the user's."""
    yield from embeddings_section(sample).figures[:1]
    yield from classes_section(sample).figures
    curves = group_curves({name: [[{"epoch": 0, "test/top1": 1.0}]] for name in NAMES})
    assert curves is not None
    yield curves
    numbers = {"mean": 1.0, "n": 2, "gain": 1.0, "low": 0.5, "high": 1.5, "pairs": 2}
    rows = [{"variant": name, **numbers} for name in NAMES]
    yield _scores("scores", "student", rows, [])
    yield _gains("gains", "student", rows, "baseline", 0.95)
    trials = [{"changes": {"augment": name}, "value": float(i)} for i, name in enumerate(NAMES)]
    for part in (trials[:7], trials[7:]):
        yield parallel_figure(["augment"], part, "test/top1", "max")


def test_every_name_is_drawn_as_it_is(sample: Sample) -> None:
    """On the page; a picture is drawn without a character that its fonts lack."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = list(figures(sample))
    seen: dict[str, set[str]] = {}
    for figure in drawn:
        texts = Texts("".join(figure.panels)).found
        seen.setdefault(figure.name, set()).update(
            text.split(" (")[0].removeprefix(" ") for text in texts
        )
    assert len(seen) == 7
    for name, texts in seen.items():
        longest = 12 if name == "map" else 18
        assert {shortened(visible, longest) for visible in NAMES.values()} <= texts, name


def test_every_name_is_in_the_table_as_it_is(sample: Sample) -> None:
    section = classes_section(sample)
    cells = Cells(page_html("\udcff", "\udcff", [section]).encode().decode()).found
    # The table has twelve pairs, and each name is once a label and once what it is taken for.
    pairs = cells[cells.index("of the label") + 1 :]
    assert len(pairs) == 12 * 4
    assert {*pairs[0::4], *pairs[1::4]} == set(NAMES.values())
    for name in NAMES:
        one = Section("one")
        one.table(["name"], [[name]])
        assert Cells(one.html()).found == ["name", NAMES[name]]


class Cells(Texts):
    """Of the cells of tables."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag in ("td", "th")
        if self._inside:
            self.found.append("")


def test_names_that_differ_are_drawn_differently_without_a_font_for_them() -> None:
    assert printable("Zwölf µ — …") == "Zwölf µ — …"
    unknown = [chr(0x10FFF0 + number) for number in range(3)]
    assert [printable(one) for one in unknown] == ["[10FFF0]", "[10FFF1]", "[10FFF2]"]
    assert shortened(unknown[0]) == unknown[0]
    with printing():
        assert shortened(unknown[0]) == "[10FFF0]"
        assert shortened("a\u200db") == "ab" or "\u200d" in shortened("a\u200db")


def test_a_name_is_no_formula() -> None:
    broken = r"$\undefined{"
    (panel,) = draw("x", "x", "", lambda axes: axes.set(title=broken)).panels
    assert broken in Texts(panel).found
    assert visible(broken) == broken
