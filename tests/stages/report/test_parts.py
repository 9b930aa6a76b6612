"""What cannot be drawn is left out with a line; the rest of the page is there."""

import json
import shutil
from pathlib import Path

import pytest

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.experiment import read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages import report
from egapipe.stages.report.pages.document import Section
from egapipe.stages.report.parts import left_out
from tests.stages.report.conftest import EditRun, MakeSweep
from tests.stages.report.pages import Page


def test_a_part_that_fails_leaves_a_line_and_the_others() -> None:
    section = Section("x")
    section.text("before")
    with left_out(section, "the map"):
        raise FloatingPointError("overflow")
    section.text("after")
    assert [part.kind for part in section.parts] == ["text", "text", "text"]
    said = section.parts[1].values["text"]
    assert said == "the map could not be drawn and is left out: FloatingPointError: overflow"


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
    assert [path.stem for path in written.pictures] == [
        *("accuracy", "losses", "test-loss", "agreement", "rate", "timing")
    ]
    assert "Manifest of the train store" in page
    (warned,) = caplog.messages
    assert "what needs the student" in warned
    assert "\n" not in warned


def test_a_run_whose_test_images_are_gone_has_a_page(edit_run: EditRun, tmp_path: Path) -> None:
    gone = {"kind": "folder", "path": str(tmp_path / "gone")}
    page = Page(report.run(edit_run(dataset__test=gone), to=tmp_path / "page").page)
    assert page.figures == ["accuracy", "losses", "test-loss", "agreement", "rate", "timing"]
    assert "what needs the test images could not be drawn and is left out" in page.text
    assert "parameters, head included" in page.tiles


def test_a_run_of_an_older_egapipe_says_what_it_has_not(edit_run: EditRun) -> None:
    run = RunFolder(edit_run(dataset__test=None))
    lines = [json.loads(line) for line in run.metrics.read_text("utf-8").splitlines()]
    kept = [{k: v for k, v in of.items() if k not in ("test/loss", "test/graph")} for of in lines]
    run.metrics.write_text("".join(json.dumps(of) + "\n" for of in kept), "utf-8")
    page = Page(report.run(run.path).page)
    assert page.figures == ["accuracy", "losses", "rate", "timing"]
    assert "no record by epoch of the loss on test images or the agreement of" in page.text


def test_a_trial_of_a_sweep_with_a_damaged_record_is_left_out(
    make_sweep: MakeSweep, caplog: pytest.LogCaptureFixture
) -> None:
    trials = [({"distill.lr": lr}, "done", 40.0 + 100 * lr) for lr in (0.1, 0.2, 0.3)]
    folder = make_sweep(*trials)
    runs = [folder / "trials" / f"{number:04d}" for number in range(3)]
    (runs[0] / "store.json").write_text("{")
    page = Page(report.run(folder).page)
    assert page.figures == ["setting-0", "best", "curves", "parallel"]
    assert "3 trials (2 done, 1 failed)" in page.text
    assert "The best is lr 0.3" in page.text
    assert [row[0] for row in page.tables[0][1:]] == ["2", "1", "0"]
    assert page.tables[0][3][-1] == ""
    assert "store.json is damaged" in page.tables[1][1][1]
    (warned,) = caplog.messages
    assert "may be of other features and is left out" in warned
    (runs[2] / "store.json").write_text("{")
    assert "The best is lr 0.2" in Page(report.run(folder).page).text


def copied(comparison: Path, to: Path) -> tuple[Path, list[Path]]:
    """A copy of a comparison with its runs beside it, and the run of each of its cells."""
    copy = Path(shutil.copytree(comparison.parent, to / "runs")) / comparison.name
    recorded = read_experiment(str(copy))
    return copy, [copy / str(cell.run) for cell in recorded.experiment.cells]


def test_a_training_of_a_comparison_with_a_damaged_record_is_left_out(
    comparison: Path, tmp_path: Path
) -> None:
    copy, runs = copied(comparison, tmp_path)
    cells = read_experiment(str(copy)).experiment.cells
    (runs[0] / "store.json").write_text("{")
    (runs[3] / "metrics.jsonl").unlink()
    (runs[3] / "metrics.jsonl").symlink_to("metrics.jsonl")
    page = Page(report.run(copy, to=tmp_path / "page").page)
    assert "3 of 4 planned trainings" in page.text
    assert "store.json is damaged" in page.tables[0][1][1]
    (kept,) = (cell for cell in cells[1:] if cell.setting == cells[0].setting)
    first = next(row for table in page.tables for row in table if row[0] == cells[0].setting)
    assert first[1:3] == ["1", f"{kept.value:.2f}"]
    for run in runs:
        (run / "store.json").write_text("{")
    with pytest.raises(UsageError, match=r"no training .* counts: .*store\.json is damaged"):
        report.run(copy, to=tmp_path / "page")


def test_a_comparison_with_a_damaged_record_is_one_line(comparison: Path, tmp_path: Path) -> None:
    for name in ("experiment.json", "comparison.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        shutil.copy(comparison / "config.yaml", folder)
        (folder / name).write_text(json.dumps({"planned": [{"variant": "ce"}]}), "utf-8")
        with pytest.raises(UsageError, match="is damaged"):
            report.run(folder)


def test_a_comparison_with_a_run_gone_has_a_page(comparison: Path, tmp_path: Path) -> None:
    copy, runs = copied(comparison, tmp_path)
    shutil.rmtree(runs[0])
    page = report.run(copy, to=tmp_path / "page").page.read_text("utf-8")
    assert "Paired differences" in page
