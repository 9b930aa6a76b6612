"""One project in which everything that a user names is hostile, and all that is made of it.

Names come back exactly from pages, cards and tables, and make nothing: no element, link or cell.
"""

import csv
import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from rich.cells import cell_len

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.terminal.text import visible
from egapipe.stages import compare, export, extract, predict, report
from egapipe.stages.compare.command import table_lines
from egapipe.stages.experiment.slots import Slots
from egapipe.stages.predict.command import line
from egapipe.stages.predict.output import write_output
from egapipe.stages.report.names import shortened
from egapipe.stages.sweep.command import lines
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.report import SweepReport, SweepTrial, finish, write_report
from tests.stages.report.pages import Page

CLASSES = [
    "$x_1$ {y} \\frac",
    '<img src=x onerror="alert(1)">',
    "two\nlines | `and` &amp; *more*",
    "猫と犬 🐈\u200d⬛",
    "--><script>alert(2)",
    '=1+2,"quoted"\r;\'',
]
VARIANTS = ["ce <b>|x|</b> [a](http://b.c)", "$e_g$ `a`\n| 猫🐈 & __init__ #1"]
STUDENT = "Kätzchen_猫_:__Netz__"
PLACE = "a <i>place<b> | `of` & 猫 [x](y) __z__"
LICENCE = "<b>mine: |`$x$`|\n# none"
ERROR = "it broke: <script>alert(3)</script> | `x`\n[/red] $y$ 猫"
VALUE = "<u>value</u> $v_1$ | 猫\n`w`"
NETWORK = """
import torch

class __Netz__(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 32))
    def forward(self, images):
        return self.layers(images)
"""
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "section"),
    *("table", "thead", "tbody", "tr", "th", "td", "div", "dl", "dt", "dd", "figure"),
    *("figcaption", "details", "summary", "pre", "img", "script"),
    *("button", "i", "a", "style"),
}


@dataclass(frozen=True)
class Project:
    """A small experiment with all that it leaves behind."""

    config: Config
    comparison: compare.CompareReport
    run: Path
    sweep: SweepReport
    export: Path
    images: list[Path]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("hostile") / PLACE
    images = _write_images(folder / "images")
    teacher = Path(__file__).parents[2] / "configs" / "teachers" / "digits"
    shutil.copytree(teacher, folder / "teacher", ignore=shutil.ignore_patterns("*.py"))
    (folder / "Kätzchen_猫_.py").write_text(NETWORK, "utf-8")
    sets = {
        "dataset.train": {"kind": "folder", "path": str(folder / "images" / "train")},
        "dataset.test": {"kind": "folder", "path": str(folder / "images" / "test")},
        "teacher.model": str(folder / "teacher"),
        "store": {"url": str(folder / "stores"), "cache_dir": str(folder / "cache")},
        "views.count": 0,
        "distill.student.name": STUDENT,
        "distill.epochs": 1,
        "distill.batch_size": 16,
        "distill.threads": 1,
        "distill.labels_per_class": None,
        "compare.seeds": [0],
        "compare.variants": dict(
            zip(VARIANTS, [{"distill.objective": {}}, {"distill.lr": 0.01}], strict=True)
        ),
        "runs": str(folder / "runs"),
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in sets.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = load_config("quickstart", overrides, trust_remote_code=True)
        for split in config.splits():
            extract.run(config, split=split, local=True)
        compared = compare.run(config)
        run = RunFolder(Path(compared.folder)).beside(str(compared.done[1].run)).path
        out = folder / "out"
        export.run(run, to=out, formats=["safetensors"], licence=LICENCE, trust_remote_code=True)
        sweep = _sweep(config, SweepFolder(folder / f"sweep {PLACE}"))
        yield Project(config, compared, run, sweep, out, images)


def _write_images(folder: Path) -> list[Path]:
    digits, written = open_dataset(DigitsSource(kind="digits", split="all")), []
    for split, rows in (("train", range(90)), ("test", range(90, 150))):
        for row in rows:
            name = CLASSES[int(digits.labels[row]) % len(CLASSES)]
            written.append(folder / split / name / f"{row} <b>|.png")
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            digits.image(row).save(written[-1])
    return written


def _sweep(config: Config, folder: SweepFolder) -> SweepReport:
    """Two trials, one of them failed, as `egapipe sweep` leaves them."""
    space = {"distill.student.name": {"choice": [VALUE]}, "distill.lr": {"uniform": [0, 1]}}
    config = load_config(
        "quickstart", [f"sweep.space={json.dumps(space)}", f"runs={json.dumps(config.runs)}"]
    )
    folder.start(config)
    trials = []
    for number, status in enumerate(("finished", "failed")):
        changes = {"distill.student.name": f"{VALUE}{number}", "distill.lr": 0.5 + number}
        run = folder.trial(number, changes)
        run.path.mkdir()
        value = 50.0 if status == "finished" else None
        if value is not None:
            run.metrics.write_text(json.dumps({"epoch": 0, "test/top1": value}) + "\n", "utf-8")
        error = ERROR if status == "failed" else None
        trial = SweepTrial(number, changes, "finished", 1, value, run.path, error)
        trials.append(replace(trial, status=status))  # type: ignore[arg-type]
    made = SweepReport(folder.path, trials, trials[0], "test/top1", "max", 1.0, 1)
    write_report(config, folder, made, Slots("cpu", cpus=1, gpus=0.0, workers=0, concurrent=1))
    finish(config, folder, made)
    return made


def check_page(written: report.Report) -> Page:
    """Nothing on a page but what the program puts there, and nothing that a browser would run."""
    page = Page(written.page)
    assert {element.tag for element in page.elements} <= TAGS
    assert not [key for _, of in page.elements for key in of if key.startswith("on")]
    assert {of.get("type") for tag, of in page.elements if tag == "script"} <= {
        *(None, "application/json")
    }
    assert all(path.name.isascii() and path.is_file() for path in written.pictures)
    return page


def test_the_page_of_a_run(project: Project) -> None:
    page = check_page(report.run(project.run, trust_remote_code=True))
    curves = ["accuracy", "losses", "test-loss", "agreement", "rate"]
    drawn = ["map", "edges", "classes", "confusions", "reliability", "timing"]
    assert page.figures == [*curves, *drawn]
    for name in CLASSES:
        assert visible(name) in page.text
        assert shortened(visible(name)) in parameter(page, "confusions", "names")
    pairs = next(table for table in page.tables if table[0][:2] == ["label", "taken for"])
    assert {name for row in pairs[1:] for name in row[:2]} <= set(map(visible, CLASSES))
    assert len(pairs) > 3
    assert f"{STUDENT}, cross-entropy + ega, seed 0" in page.text
    pictures = [of for tag, of in page.elements if tag == "img"]
    assert all(str(of["src"]).startswith("data:image/") for of in pictures)
    texts = page.source.split('<script type="application/json" class="texts">')[1]
    texts = texts.split("</script>")[0]
    said = [text.partition(", taken for ")[0] for text in json.loads(texts)]
    assert set(said) == set(map(visible, CLASSES))


def parameter(page: Page, figure: str, name: str) -> list[str]:
    """A parameter of a figure's first chart."""
    start = page.source.index(f'<figure id="{figure}"')
    text = page.source[start:].split('<script type="application/json">')[1].split("</script>")[0]
    assert "<" not in text
    return next(p["value"] for p in json.loads(text)["params"] if p["name"] == name)


def test_the_page_of_a_comparison(project: Project) -> None:
    page = check_page(report.run(project.comparison.folder))
    assert [row[0] for row in page.tables[0]] == ["variant", *map(visible, VARIANTS)]
    assert page.tables[0][0][4] == f"against {visible(VARIANTS[0])}"
    for name in VARIANTS:
        assert visible(name) in page.text
    assert parameter(page, "scores-0", "whole") == list(map(visible, VARIANTS))
    assert f"Accuracy, {STUDENT}" in page.text


def test_the_page_of_a_sweep(project: Project) -> None:
    page = check_page(report.run(project.sweep.folder))
    trials, errors = page.tables[:2]
    assert [row[1] for row in trials[1:]] == [f"{visible(VALUE)}{number}" for number in (0, 1)]
    assert errors == [["trial", "error"], ["1", visible(ERROR)]]
    assert f"sweep {PLACE}" in page.text


def test_the_model_card(project: Project) -> None:
    text = (project.export / "README.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    card = yaml.safe_load(front)
    title = f"quickstart-{STUDENT}".replace(":", ".")
    assert card["license"] == LICENCE
    assert STUDENT in card["tags"]
    assert card["model-index"][0]["name"] == title
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
    inner = [child for token in tokens for child in token.children or []]
    assert {child.type for child in inner} <= {"text", "text_special", "code_inline", "softbreak"}
    assert not [token for token in tokens if token.type.startswith(("html", "list", "blockquote"))]
    lines = [
        "".join(child.content for child in token.children or [])
        for token in tokens
        if token.type == "inline"
    ]
    assert lines[0] == title
    assert lines[1].startswith(f"A {STUDENT} for {len(CLASSES)} classes, distilled")
    assert f"teacher {project.config.teacher.model}. It takes" in lines[1]  # type: ignore[union-attr]
    headings = [
        content for kind, content in itertools.pairwise(tokens) if kind.type == "heading_open"
    ]
    assert [token.content for token in headings][1:] == ["Made from", "Results", "Files", "Use"]


def test_the_tables_of_a_comparison(project: Project) -> None:
    folder = project.comparison.folder
    tokens = MarkdownIt("commonmark").enable("table").parse((folder / "table.md").read_text())
    cells = [
        "".join(child.content for child in token.children or [])
        for token in tokens
        if token.type == "inline"
    ]
    assert cells[:2] == ["top-1 %", STUDENT]
    assert cells[2::2] == [visible(name) for name in VARIANTS]
    with (folder / "cells.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["student"], row["variant"]) for row in rows] == [
        (STUDENT, name) for name in VARIANTS
    ]
    printed = [visible(text) for text in table_lines(project.comparison)]
    start = next(place for place, text in enumerate(printed) if text.startswith("variant"))
    block = printed[start : start + 3]
    assert len({cell_len(text) for text in block}) == 1
    assert [text.startswith(visible(n)) for text, n in zip(block[1:], VARIANTS, strict=True)]


def test_the_tables_of_a_sweep(project: Project) -> None:
    with (project.sweep.folder / "trials.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["distill.student.name"] for row in rows] == [f"{VALUE}0", f"{VALUE}1"]
    assert rows[1]["error"] == ERROR
    config = SweepFolder(project.sweep.folder).config()
    said = lines(config, project.sweep)
    head, *trials = said[:3]
    for place, text in enumerate(trials):
        assert f"  {visible(VALUE)}{place}  " in text
        column = head.index("epochs") + len("epochs")
        assert cell_len(text.partition("      1")[0] + "      1") <= column + 1
    assert trials[1].endswith("failed")
    # The reason stands below the table, however long it is.
    assert f"trial 1: {visible(ERROR)}" in map(visible, said)
    assert (project.sweep.folder / "best.yaml").is_file()


def test_predictions(project: Project) -> None:
    found = list(predict.run(project.run, project.images[-9:], trust_remote_code=True))
    assert {name for one in found for name, _ in one.classes} <= set(CLASSES)
    write_output(project.export / "all.csv", iter(found))
    with (project.export / "all.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == [one.classes[0][0] for one in found]
    assert [row["path"] for row in rows] == [str(path) for path in project.images[-9:]]
    assert all("\n" not in visible(line(one)) for one in found)


def test_the_files_have_names_that_can_be_seen(project: Project) -> None:
    """Of folders and files that the program names; images have those that the user gave."""
    for root in (project.comparison.folder.parent, project.sweep.folder, project.export):
        for path in root.rglob("*"):
            assert path.name.isprintable(), path
            assert len(path.name.encode()) < 200, path
