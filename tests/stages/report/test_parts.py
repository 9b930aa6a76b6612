"""What cannot be drawn is left out with a line; the rest of the page is there."""

import json
import shutil
from pathlib import Path

import pytest

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages import report
from egapipe.stages.report.page import Section
from egapipe.stages.report.parts import left_out
from tests.stages.report.conftest import EditRun, MakeSweep
from tests.stages.report.pages import Page


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


@pytest.mark.parametrize("gone", ["student.safetensors", "checkpoints"])
def test_a_run_whose_student_cannot_be_loaded_has_a_page(
    gone: str, edit_run: EditRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = edit_run()
    if gone == "checkpoints":
        shutil.rmtree(run / gone)
    else:
        (next(run.rglob(gone))).write_bytes(b"damaged")
    written = report.run(run, to=tmp_path / "page")
    page = written.page.read_text("utf-8")
    assert "what needs the student could not be drawn and is left out" in page
    assert [path.stem for path in written.pictures] == ["accuracy", "losses", "timing"]
    assert "Manifest of the train store" in page
    (warned,) = caplog.messages
    assert "what needs the student" in warned
    assert "\n" not in warned


def test_a_trial_of_a_sweep_with_a_damaged_record_is_left_out(
    make_sweep: MakeSweep, caplog: pytest.LogCaptureFixture
) -> None:
    trials = [({"distill.lr": lr}, "finished", 40.0 + 100 * lr) for lr in (0.1, 0.2, 0.3)]
    folder = make_sweep(*trials)
    runs = [folder / trial["run"] for trial in RunFolder(folder).summary()["trials"]]
    (runs[0] / "store.json").write_text("{")
    written = report.run(folder)
    page = Page(written.page)
    assert page.figures == ["setting-0", "curves", "parallel"]
    assert "3 trials (2 finished, 1 failed)" in page.text
    assert "The best is trial 2" in page.text
    assert [row[0] for row in page.tables[0][1:]] == ["2", "1", "0"]
    assert page.tables[0][3][-1] == ""
    assert "store.json is damaged" in page.tables[1][1][1]
    (warned,) = caplog.messages
    assert "may be of other features and is left out" in warned
    (runs[2] / "store.json").write_text("{")
    assert "The best, trial 2, is left out." in Page(report.run(folder).page).text


def test_a_training_of_a_comparison_with_a_damaged_record_is_left_out(
    comparison: Path, tmp_path: Path
) -> None:
    runs = Path(shutil.copytree(comparison.parent, tmp_path / "runs"))
    copy = runs / comparison.name
    cells = json.loads((copy / "comparison.json").read_text("utf-8"))["cells"]
    (copy / cells[0]["run"] / "store.json").write_text("{")
    (copy / cells[3]["run"] / "metrics.jsonl").unlink()
    (copy / cells[3]["run"] / "metrics.jsonl").symlink_to("metrics.jsonl")
    page = Page(report.run(copy, to=tmp_path / "page").page)
    assert "3 of 4 planned trainings" in page.text
    assert "store.json is damaged" in page.tables[0][1][1]
    kept = [cell for cell in cells[1:] if cell["variant"] == cells[0]["variant"]]
    first = next(row for table in page.tables for row in table if row[0] == cells[0]["variant"])
    assert first[1:3] == ["1", f"{kept[0]['top1']:.2f}"]
    for cell in cells:
        (copy / cell["run"] / "store.json").write_text("{")
    with pytest.raises(UsageError, match=r"no training .* counts: .*store\.json is damaged"):
        report.run(copy, to=tmp_path / "page")


def test_a_comparison_with_damaged_plans_is_one_line(comparison: Path, tmp_path: Path) -> None:
    record = json.loads((comparison / "comparison.json").read_text("utf-8"))
    record["planned"] = [{"variant": "ce"}]
    (tmp_path / "comparison.json").write_text(json.dumps(record), "utf-8")
    shutil.copy(comparison / "config.yaml", tmp_path)
    with pytest.raises(UsageError, match="is damaged"):
        report.run(tmp_path)


def test_a_comparison_with_a_run_gone_has_a_page(comparison: Path, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(comparison.parent, tmp_path / "runs"))
    copy = runs / comparison.name
    cells = json.loads((copy / "comparison.json").read_text("utf-8"))["cells"]
    shutil.rmtree(copy / cells[0]["run"])
    page = report.run(copy, to=tmp_path / "page").page.read_text("utf-8")
    assert "Paired differences" in page
