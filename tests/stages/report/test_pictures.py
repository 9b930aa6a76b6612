"""What is drawn of images: whatever their classes are called, and whatever the student became."""

import json
import re
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from egapipe.pipeline.datasets.fingerprint import image_digests
from egapipe.pipeline.mathematics.correlation import correlations
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.distill import load_student
from egapipe.stages.report.charts.classes import (
    by_class,
    confused_classes,
    confused_pairs,
    confusion,
)
from egapipe.stages.report.charts.maps import chosen, onto, standard, tsne
from egapipe.stages.report.pages.document import Section, charts_script, page_html
from egapipe.stages.report.pages.run import classes_section, embeddings_section
from egapipe.stages.report.sample import Sample, take_sample
from tests.stages.report.browser import needs_browser, show
from tests.stages.report.pages import Page

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '" onload="alert(3)',
    "' onload='alert(4)",
    "$x_$ \\frac{1}{2}",
    "&lt;b&gt;",
    "Zwölf Kätzchen 語 🐈",
    "-->]]>",
    "",
    "a name that is longer than any place beside an axis has room for",
]
MEGABYTE = 10**6
FIGURES = ["map", "edges", "classes", "confusions", "reliability"]


@pytest.fixture(scope="module")
def sample(finished: Path) -> Sample:
    """All 360 test digits, as a real student sees them."""
    found = take_sample(load_student(RunFolder(finished)))
    assert found is not None
    return found


def written(folder: Path, title: str, *sections: Section) -> Path:
    page = folder / "report.html"
    page.write_text(page_html(title, title, sections), "utf-8")
    return page


def test_the_sample_is_the_run_s_accuracy(sample: Sample, finished: Path) -> None:
    assert sample.rows.tolist() == list(range(360))
    accuracy = 100 * float((sample.predicted == sample.labels).mean())
    assert accuracy == pytest.approx(RunFolder(finished).summary()["top1"])
    matrix = confusion(sample, np.arange(10))
    assert matrix.sum() == 360
    assert float(np.diag(matrix).sum()) == pytest.approx(3.6 * accuracy)
    student = load_student(RunFolder(finished))
    [out] = student.outputs(sample.dataset, sample.rows)
    logits = out.logits.cpu().numpy().astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(shares[np.arange(360), sample.labels])
    np.testing.assert_allclose(sample.losses, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def hostile(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of classes with such names."""
    named = replace(sample, names=HOSTILE)
    sections = [embeddings_section(named), classes_section(named)]
    return written(tmp_path_factory.mktemp("hostile"), HOSTILE[0], *sections)


def test_names_of_classes_may_be_anything(sample: Sample, hostile: Path) -> None:
    page = Page(hostile)
    # The library of charts and page.js are what runs; data are charts and the texts of the map. No
    # name has opened another.
    scripts = [of.get("type") for tag, of in page.elements if tag == "script"]
    assert scripts.count(None) == 2
    assert set(scripts) == {None, "application/json"}
    assert len(scripts) == 2 + page.source.count('class="chart"') + 1
    assert not any(key.startswith("on") for _, of in page.elements for key in of)
    pairs = page.tables[0][1:]
    expected = confused_pairs(replace(sample, names=HOSTILE))
    assert [row[:2] for row in pairs] == [list(pair[:2]) for pair in expected]
    assert page.text.strip().startswith(HOSTILE[0])


@needs_browser
def test_a_browser_runs_no_name_of_a_class(hostile: Path, tmp_path: Path) -> None:
    shown = show(hostile, tmp_path, width=390)
    assert shown.found["wrong"] == shown.console == []
    assert shown.found["scroll"] <= 390
    texts = {text["text"] for figure in shown.found["figures"] for text in figure["texts"]}
    assert "$x_$ \\frac{1}{2}" in texts
    assert "-->]]>" in texts
    assert any(name in shown.found["hovers"][0]["text"] for name in HOSTILE if name)


def test_an_image_without_a_teachers_embedding_is_in_no_picture(sample: Sample) -> None:
    features = sample.features
    assert features is not None
    before = features.valid
    features.valid = before.copy()
    features.valid[:100] = False
    try:
        places = chosen(sample, 50, 10)
    finally:
        features.valid = before
    assert len(places) == 50
    assert sample.rows[places].min() >= 100
    assert (np.diff(sample.labels[places]) >= 0).all()
    assert len(np.unique(sample.labels[places])) == 10


def test_a_picture_of_many_classes_has_several_images_of_a_few(sample: Sample) -> None:
    places = chosen(sample, 30, 3)
    labels, counts = np.unique(sample.labels[places], return_counts=True)
    assert labels.tolist() == [0, 4, 9]
    assert counts.min() >= 9
    assert len(np.unique(places)) == 30


def test_a_student_that_diverged_has_no_map_but_a_page(sample: Sample, tmp_path: Path) -> None:
    broken = replace(
        sample,
        nodes=np.full_like(sample.nodes, np.nan),
        predicted=np.zeros_like(sample.predicted),
        losses=np.full_like(sample.losses, np.nan),
        confidence=np.full_like(sample.losses, np.nan),
    )
    sections = [embeddings_section(broken), classes_section(broken)]
    page = Page(written(tmp_path, "broken", *sections))
    assert page.figures == ["classes", "confusions"]
    assert "the reliability diagram could not be drawn" in page.text
    assert "No test image has finite embeddings" in page.text


@pytest.mark.filterwarnings("error")
@pytest.mark.slow
def test_a_student_that_collapsed_is_drawn(sample: Sample) -> None:
    equal = replace(sample, nodes=np.ones_like(sample.nodes))
    assert [figure.name for figure in embeddings_section(equal).figures] == ["map", "edges"]
    assert not correlations(equal.nodes).any()


@pytest.mark.parametrize("images", [1, 2, 4, 5, 6])
def test_a_few_images_of_one_class(sample: Sample, images: int) -> None:
    few = replace(
        sample,
        names=["only"],
        rows=sample.rows[:images],
        labels=np.zeros(images, dtype=np.int64),
        nodes=sample.nodes[:images],
        predicted=np.zeros(images, dtype=np.int64),
        losses=sample.losses[:images],
        confidence=sample.confidence[:images],
    )
    named = [figure.name for figure in embeddings_section(few).figures]
    assert named == (["map", "edges"] if images >= 5 else ["edges"])
    assert confused_pairs(few) == []
    named = [figure.name for figure in classes_section(few).figures]
    assert named == ["classes", "confusions", "reliability"]


def test_the_map_is_the_same_at_every_call_and_keeps_neighbours() -> None:
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(4, 16, dtype=np.float32) * 20, 20, axis=0)
    vectors = (centres + random.normal(size=centres.shape)).astype(np.float32)
    positions = tsne(vectors)
    np.testing.assert_array_equal(positions, tsne(vectors))
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(axis=1) // 20 == np.arange(80) // 20).all()


def test_a_turned_mirrored_and_scaled_map_lies_on_the_other_again() -> None:
    """Procrustes: what differs in nothing else is the same map."""
    random = np.random.default_rng(0)
    other = standard(random.normal(size=(50, 2)).astype(np.float32))
    turn = np.array([[np.cos(2.0), np.sin(2.0)], [np.sin(2.0), -np.cos(2.0)]])
    moved = (7 * other @ turn + [3, -9]).astype(np.float32)
    np.testing.assert_allclose(onto(moved, other), other, atol=1e-4)
    # Of unlike ones it is no worse than as it was, in the same measure.
    unlike = standard(random.normal(size=(50, 2)).astype(np.float32))
    before, after = (((of - other) ** 2).sum() for of in (unlike, onto(unlike, other)))
    assert after < before


class Noise:
    """10,000 images of 32 x 32 that no format makes smaller, of 100 classes."""

    name = "noise"
    arrays = None
    labels = np.arange(10_000, dtype=np.int64) % 100

    @property
    def classes(self) -> list[str] | None:
        return [f"class number {number}" for number in range(100)]

    @property
    def keys(self) -> Sequence[str]:
        return [str(row) for row in range(10_000)]

    def __len__(self) -> int:
        return len(self.keys)

    def encoded(self, row: int) -> bytes:
        return np.random.default_rng(row).bytes(32 * 32 * 3)

    def image(self, row: int) -> Image.Image:
        return Image.frombytes("RGB", (32, 32), self.encoded(row))

    def fingerprint(self) -> str:
        return "noise"

    def digests(self, rows: int) -> list[bytes]:
        return image_digests(self, rows)


@pytest.mark.slow  # ten thousand images are embedded
def test_the_page_of_ten_thousand_images_stays_small(tmp_path: Path) -> None:
    random, data = np.random.default_rng(0), Noise()
    sample = Sample(
        dataset=data,
        names=data.classes or [],
        rows=np.arange(10_000),
        labels=data.labels,
        nodes=random.normal(size=(10_000, 256)).astype(np.float32),
        predicted=random.integers(0, 100, 10_000),
        losses=random.exponential(size=10_000).astype(np.float32),
        confidence=random.uniform(size=10_000).astype(np.float32),
        features=None,
        why="none was extracted",
    )
    page = written(tmp_path, "noise", embeddings_section(sample), classes_section(sample))
    assert page.stat().st_size < 5 * MEGABYTE
    assert Page(page).figures == FIGURES


@pytest.mark.parametrize("classes", [10, 100, 1_000, 21_841])
def test_a_page_of_any_number_of_classes_can_be_read(classes: int, tmp_path: Path) -> None:
    """Few images, many classes: memory and page follow the images, not the classes squared."""
    random, images = np.random.default_rng(0), 60
    labels = random.integers(0, classes, images)
    predicted = np.where(random.random(images) < 0.5, labels, random.integers(0, classes, images))
    sample = Sample(
        dataset=Noise(),
        names=[f"class number {number}" for number in range(classes)],
        rows=np.arange(images),
        labels=labels,
        nodes=random.normal(size=(images, 16)).astype(np.float32),
        predicted=predicted,
        losses=random.exponential(size=images).astype(np.float32),
        confidence=random.uniform(size=images).astype(np.float32),
        features=None,
        why="none was extracted",
    )
    tracemalloc.start()
    try:
        confusion(sample, confused_classes(sample, 30))
        confused_pairs(sample)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * MEGABYTE
    sections = [embeddings_section(sample), classes_section(sample)]
    file = written(tmp_path, "many", *sections)
    assert file.stat().st_size - len(charts_script()) < MEGABYTE
    page = Page(file)
    assert page.figures == FIGURES
    wrong = (labels != predicted).sum()
    assert sum(int(row[2]) for row in page.tables[0][1:]) <= wrong
    # What is named in a figure is few enough to be read, and what is left out is said.
    named = {
        figure.name: set(re.findall("class number [0-9]+", json.dumps(figure.specs())))
        for section in sections
        for figure in section.figures
    }
    assert len(named["classes"]) == min(30, len(np.unique(labels)))
    assert len(named["map"]) <= 20
    assert len(named["confusions"]) == (classes if classes <= 100 else 30)
    caption = sections[1].figures[1].caption
    assert (f"of {classes:,} classes" in caption) == (classes > 100)
    # A share of one image or two says little: of how many it is stands beside it.
    worst = sections[1].figures[0].caption
    counts = np.bincount(labels, minlength=classes)
    found = re.findall(r"class number ([0-9]+) \([0-9]+ % of ([0-9]+)\)", worst)
    assert len(found) == 5
    assert all(int(count) == counts[int(name)] for name, count in found)


def test_the_confusions_of_many_classes_are_the_most_frequent_ones() -> None:
    """Beside a dense count of the same."""
    random, classes = np.random.default_rng(1), 200
    labels, predicted = random.integers(0, classes, (2, 5_000)) // random.integers(1, 9, (2, 5_000))
    blank = np.zeros((5_000, 1), dtype=np.float32)
    names = [str(c) for c in range(classes)]
    rows = np.arange(5_000)
    sample = Sample(Noise(), names, rows, labels, blank, predicted, blank[:, 0], blank[:, 0], None)
    dense = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(dense, (labels, predicted), 1)
    counts, right = by_class(sample)
    assert (counts == dense.sum(axis=1)).all()
    assert (right == np.diag(dense)).all()
    assert (confusion(sample, np.arange(classes)) == dense).all()
    some = confused_classes(sample, 30)
    assert (confusion(sample, some) == dense[np.ix_(some, some)]).all()
    np.fill_diagonal(dense, 0)
    assert [n for _, _, n, _ in confused_pairs(sample)] == sorted(dense.ravel())[::-1][:12]
    assert all(dense[int(a), int(b)] == n for a, b, n, _ in confused_pairs(sample))
    involved = dense.sum(axis=0) + dense.sum(axis=1)
    others = np.setdiff1d(np.arange(classes), some)
    assert involved[some].min() >= involved[others].max()
