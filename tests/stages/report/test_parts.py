"""What cannot be drawn is left out with a line; the rest of the page is there."""

import json
import shutil
from pathlib import Path

import pytest

from egapipe.stages import report
from egapipe.stages.report.page import Section
from egapipe.stages.report.parts import left_out
from tests.stages.report.conftest import EditRun


def test_a_part_that_fails_leaves_a_line_and_the_others() -> None:
    section = Section("x")
    section.text("before")
    with left_out(section, "the map"):
        raise FloatingPointError("overflow")
    section.text("after")
    assert [part.count("<p>") for part in section.parts] == [1, 1, 1]
    assert "the map could not be drawn and is left out" in section.parts[1]


def test_an_interrupt_or_a_failed_assertion_is_no_missing_part() -> None:
    for error in (KeyboardInterrupt, AssertionError):
        with pytest.raises(error), left_out(Section("x"), "the map"):
            raise error


def test_a_run_with_a_damaged_evaluation_has_a_page(edit_run: EditRun, tmp_path: Path) -> None:
    run = edit_run()
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    summary |= {"evaluation": {"last": {"cost": {"macs": 1}}}, "top1": "ninety"}
    (run / "summary.json").write_text(json.dumps(summary), "utf-8")
    written = report.run(run, to=tmp_path / "page")
    page = written.page.read_text("utf-8")
    assert "the evaluation could not be drawn" in page
    assert "the numbers of summary.json could not be drawn" in page
    assert "Worst images" in page
    assert written.pictures


def test_a_comparison_with_a_run_gone_has_a_page(comparison: Path, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(comparison.parent, tmp_path / "runs"))
    copy = runs / comparison.name
    cells = json.loads((copy / "comparison.json").read_text("utf-8"))["cells"]
    shutil.rmtree(copy / cells[0]["run"])
    page = report.run(copy, to=tmp_path / "page").page.read_text("utf-8")
    assert "Paired differences" in page
