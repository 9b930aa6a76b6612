"""The page of a run, a comparison and a sweep: complete, self-contained, and true to its source."""

import json
import math
import os
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.mathematics.correlation import correlations
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages import report
from egapipe.stages.distill import load_student
from egapipe.stages.evaluate.cost import Cost, Latency
from egapipe.stages.evaluate.evaluation import Evaluation, Predictions, Probes
from egapipe.stages.evaluate.graphs import Agreement
from egapipe.stages.evaluate.left_out import LeftOut
from egapipe.stages.report.embedding import chosen, edge_figure
from egapipe.stages.report.figure import draw
from egapipe.stages.report.sample import take_sample
from egapipe.stages.report.timing import Costs, timing_figure
from tests.command import egapipe
from tests.stages.report.conftest import EditRun, MakeSweep
from tests.stages.report.pages import Page

RUN_FIGURES = ["accuracy", "losses", "map", "edges", "classes", "confusions", "timing"]
LAMBDA, RATE = "distill.objective.ega.weight", "distill.lr"


def check_page(written: report.Report) -> Page:
    """What holds for every page."""
    page = Page(written.page)
    outside = [text for text in page.references() if not text.startswith(("#", "data:image/"))]
    assert outside == []
    assert len(set(page.ids)) == len(page.ids)
    targets = {text[1:] for text in page.references() if text.startswith("#")}
    assert targets <= set(page.ids)
    policy = next(of for tag, of in page.elements if tag == "meta" and "http-equiv" in of)
    assert str(policy["content"]).startswith("default-src 'none'")
    assert [path.stem for path in written.pictures] == page.figures
    for path in written.pictures:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert width > 400
        assert height > 200
    return page


def test_a_run_has_every_figure_and_the_numbers_of_its_summary(
    run_page: report.Report, finished: Path
) -> None:
    page, summary = check_page(run_page), RunFolder(finished).summary()
    assert page.figures == RUN_FIGURES
    assert page.titles == ["Results", "Embeddings", "Classes", "Time", "Provenance"]
    assert page.tiles["top-1 on the test images"] == f"{summary['top1']:.2f} %"
    assert page.tiles["top-1 of the teacher's head"] == f"{summary['teacher_top1']:.2f} %"
    assert page.tiles["of them with a label"] == "100"
    facts = dict(page.tables[-1])
    assert facts["torch"] == summary["versions"]["torch"]
    assert facts["store content hash"] == summary["store"]["content_hash"]
    for text in ("distill:", "sha256", "fingerprint"):
        assert text in page.text


def test_the_confusions_are_those_of_the_accuracy(run_page: report.Report, finished: Path) -> None:
    page, summary = check_page(run_page), RunFolder(finished).summary()
    pairs = next(table for table in page.tables if table[0][:2] == ["label", "taken for"])
    wrong = round(360 * (1 - summary["top1"] / 100))
    counts = [int(row[2]) for row in pairs[1:]]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) <= wrong
    assert all(row[0] != row[1] for row in pairs[1:])


def test_a_comparison_has_the_table_and_its_intervals(
    comparison_page: report.Report, comparison: Path
) -> None:
    page = check_page(comparison_page)
    record = json.loads((comparison / "comparison.json").read_text("utf-8"))
    heading, ce, ega = page.tables[0]
    statistics = ["against ce", "pairs", "95% interval", "reading"]
    assert heading == ["variant", "n", "top-1 %", "std", *statistics, "seconds"]
    row = record["rows"][1]
    low, high = f"{row['low']:+.2f}", f"{row['high']:+.2f}"
    assert ega[:4] == ["ega", "2", f"{row['mean']:.2f}", f"{row['std']:.2f}"]
    assert ega[4:7] == [f"{row['gain']:+.2f}", "2", f"{low} to {high}"]
    assert ce[4:8] == ["", "", "", ""]
    assert "not finished" not in page.text
    assert page.figures == ["curves", "scores-0", "gains-0", "timing"]
    assert f"{record['teacher_top1']:.2f} %" in page.text


def test_a_comparison_of_one_seed_has_no_intervals(comparison: Path, tmp_path: Path) -> None:
    folder = tmp_path / "alone"
    shutil.copytree(comparison, folder)
    record = json.loads((folder / "comparison.json").read_text("utf-8"))
    record["cells"], record["planned"] = record["cells"][:2], record["planned"][:2]
    hostile = '<script>alert("1")</script> $\\frac$ 語'
    record["cells"][1]["variant"] = record["planned"][1]["variant"] = hostile
    (folder / "comparison.json").write_text(json.dumps(record), "utf-8")
    page = check_page(report.run(folder))
    # Its runs are not beside the copy: there is nothing to draw curves from.
    assert page.figures == ["scores-0", "timing"]
    assert page.tables[0][2][0] == hostile
    assert page.tables[0][2][6] == ""
    assert page.tables[0][2][7] == "one pair says nothing of chance"
    assert "alert" not in "".join(page.source.split("<script>")[1:]).split("</script>")[0]


def edited(comparison: Path, folder: Path, **values: Any) -> Page:
    """The page of that comparison with other values in its record."""
    shutil.copytree(comparison, folder)
    record = json.loads((folder / "comparison.json").read_text("utf-8"))
    (folder / "comparison.json").write_text(json.dumps({**record, **values}), "utf-8")
    return check_page(report.run(folder))


def test_an_unfinished_comparison_says_so_and_each_row_its_n(
    comparison: Path, tmp_path: Path
) -> None:
    record = json.loads((comparison / "comparison.json").read_text("utf-8"))

    def state(name: str, **more: str) -> dict[str, Any]:
        """The last of the planned trainings in another state."""
        cells = [cell for cell in record["cells"] if (cell["variant"], cell["seed"]) != ("ega", 1)]
        planned = [
            {**cell, "state": name, **more}
            if (cell["variant"], cell["seed"]) == ("ega", 1)
            else cell
            for cell in record["planned"]
        ]
        return {"cells": cells, "planned": planned}

    page = edited(comparison, tmp_path / "three", **state("planned"))
    assert "3 of 4 planned trainings, 2 seeds" in page.text
    student = record["cells"][0]["student"]
    assert f"not finished: there is no result of {student} ega seed 1." in page.text
    assert [row[:2] for row in page.tables[0][1:]] == [["ce", "2"], ["ega", "1"]]
    page = edited(comparison, tmp_path / "failed", **state("failed", error="out of <b>memory</b>"))
    assert page.tables[0] == [
        ["failed", "error"],
        [f"{student} ega seed 1", "out of <b>memory</b>"],
    ]


def test_a_sweep_has_lambda_against_accuracy_and_parallel_coordinates(
    make_sweep: MakeSweep,
) -> None:
    folder = make_sweep(
        ({LAMBDA: 0.05, RATE: 0.01}, "finished", 41.25),
        ({LAMBDA: 1.0, RATE: 0.02}, "stopped", 20.0),
        ({LAMBDA: 5.0, RATE: 0.05}, "finished", 62.5),
    )
    page = check_page(report.run(folder))
    assert page.figures == ["setting-0", "setting-1", "curves", "parallel"]
    assert "lambda (ega.weight)" in page.text
    assert (
        "The best settings: test/top1 62.5 over 1 seed, which does not separate from" in page.text
    )
    assert "(one seed says nothing of chance)" in page.text
    heading, *rows = page.tables[0]
    assert heading == ["trial", "ega.weight", "lr", "status", "epochs", "test/top1"]
    assert rows[0] == ["2", "5", "0.05", "finished", "2", "62.5"]
    assert [row[0] for row in rows] == ["2", "0", "1"]
    assert "The best is trial 2: ega.weight 5, lr 0.05; test/top1 62.5." in page.text


def test_seeds_in_a_sweep_are_repeats_of_a_setting(make_sweep: MakeSweep) -> None:
    seed = "distill.seed"
    folder = make_sweep(
        ({RATE: 0.1, seed: 0}, "finished", 40.0),
        ({RATE: 0.1, seed: 1}, "finished", 44.0),
        ({RATE: 0.2, seed: 0}, "finished", 43.0),
        ({RATE: 0.2, seed: 1}, "failed", None),
    )
    page = check_page(report.run(folder))
    assert page.tables[0] == [
        ["settings", "n", "mean test/top1", "std"],
        ["lr 0.2", "1", "43", ""],
        ["lr 0.1", "2", "42", "2.828"],
    ]
    run = RunFolder(folder)
    run.write_json("summary.json", {**run.summary(), "planned": 6})
    assert "not finished: 6 trials were planned, 4 are here" in Page(report.run(folder).page).text


def test_a_sweep_with_failed_trials_and_conditional_settings(make_sweep: MakeSweep) -> None:
    folder = make_sweep(
        (
            {"distill.objective": {"kd": 1.0}, "distill.objective.kd.temperature": 4.0},
            "failed",
            None,
        ),
        ({"distill.objective": {}}, "finished", 30.0),
        (
            {"distill.objective": {"kd": 1.0}, "distill.objective.kd.temperature": 2.0},
            "finished",
            9.0,
        ),
        mode="min",
    )
    page = check_page(report.run(folder))
    # The temperature has one value among trials that have a result: nothing to draw it against.
    assert page.figures == ["curves", "parallel"]
    assert "not set" in page.text
    assert [row[0] for row in page.tables[0][1:]] == ["2", "1", "0"]
    assert page.tables[1][1] == ["0", "trial 0 <b>failed</b>"]
    assert "The best is trial 2" in page.text


def test_a_sweep_whose_trials_all_failed_still_tells_why(make_sweep: MakeSweep) -> None:
    page = check_page(report.run(make_sweep(({RATE: 0.1}, "failed", None))))
    assert page.figures == []
    assert "None reached its last epoch" in page.text
    assert page.tables[1][1] == ["0", "trial 0 <b>failed</b>"]


def test_an_unfinished_run_is_drawn_from_its_last_checkpoint(edit_run: EditRun) -> None:
    # Without test images, which are others' subject, it is drawn at once.
    folder = edit_run(dataset__test=None)
    (folder / "summary.json").unlink()
    page = check_page(report.run(folder))
    assert page.figures == ["accuracy", "losses"]
    assert "not finished" in page.text


def test_what_evaluate_measured_is_on_the_page(edit_run: EditRun) -> None:
    run = RunFolder(edit_run(dataset__test=None))
    cost = Cost(1234, 1000, 56_789, (Latency(1, 0.125, 9), Latency(64, 3.5, 9)))
    found = Evaluation(
        run=run.path,
        which="best",
        checkpoint="epoch00001-step0000000",
        student="digits_cnn",
        cost=cost,
        predictions=Predictions(81.5, 97.25, 6.125, 360),
        embeddings={"nodes": Probes(64, 81.234, math.nan)},
        graphs={"node_layers": Agreement(0.12345, 0.5)},
        left_out=LeftOut({"embeddings.teacher": "no store"}),
    ).as_json()
    run.write_json("summary.json", {**run.summary(), "evaluation": {"best": found}})
    page = check_page(report.run(run.path))
    assert "Evaluation of the best epoch" in page.text
    # A field that is added to an evaluation has to be shown, or to be named here.
    shown = {"which", "cost", "predictions", "embeddings", "graphs", "left_out"}
    not_shown = {"run", "checkpoint", "student", "test_images", "probe_images", "seconds"}
    assert shown | not_shown | {"protocol"} == found.keys()
    assert page.tables[:5] == [
        [
            ["test images", "top-1 %", "top-5 %", "expected calibration error %"],
            ["360", "81.50", "97.25", "6.12"],
        ],
        [
            ["embeddings", "width", "20-NN %", "linear probe %"],
            ["student's nodes", "64", "81.23", ""],
        ],
        [
            ["graphs that are compared", "edge r", "recall@10"],
            ["node layers of both", "0.123", "0.500"],
        ],
        [
            ["cost", ""],
            ["parameters", "1,234"],
            ["of them in the backbone", "1,000"],
            ["multiply-accumulates an image", "56,789"],
            ["ms on one CPU thread, batch 1", "0.12"],
            ["ms on one CPU thread, batch 64", "3.50"],
        ],
        [["left out", "why"], ["embeddings.teacher", "no store"]],
    ]


def test_the_edges_are_those_that_the_loss_compares(finished: Path) -> None:
    """Both behind their node layers, not the teacher's embeddings as they were stored."""
    student = load_student(finished)
    sample = take_sample(student)
    assert sample is not None
    head = student.teacher_head()
    assert head is not None
    places = chosen(sample, 64, 10)
    raw = sample.teacher(places)
    assert raw is not None
    with torch.no_grad():
        nodes = head.node(torch.from_numpy(raw)).numpy()
    mine = correlations(sample.nodes[places])
    by_nodes, by_embeddings = (np.abs(mine - correlations(of)).mean() for of in (nodes, raw))
    assert f"{by_nodes:.3f}" != f"{by_embeddings:.3f}"
    figure = edge_figure(sample)
    assert figure is not None
    assert f"mean absolute difference is {by_nodes:.3f}" in figure.caption
    assert "teacher's nodes" in figure.panels[0]
    without = edge_figure(sample, aligned=False)
    assert without is not None
    assert "trained without EGA" in without.caption
    headless = edge_figure(replace(sample, head=None))
    assert headless is not None
    assert "difference" not in headless.caption


def test_captions_say_what_was_measured(run_page: report.Report, finished: Path) -> None:
    page = Page(run_page.page)
    assert "Of training images the mean over the epoch's steps" in page.text
    assert '"loss" is what training makes small, the weighted sum' in page.text
    last = load_student(finished).checkpoint.name
    assert page.text.count(f"The student of the last checkpoint, {last}, on 360 test images") == 2


@pytest.mark.parametrize("chosen_on", ["test", "validation", "nothing recorded"])
def test_a_choice_on_test_images_is_called_one(edit_run: EditRun, chosen_on: str) -> None:
    run = RunFolder(edit_run(dataset__test=None))
    summary = {**run.summary(), "chosen_on": chosen_on}
    if chosen_on == "nothing recorded":
        del summary["chosen_on"]
    run.write_json("summary.json", summary)
    said = (
        "chosen on the test images that it is reported on" in Page(report.run(run.path).page).text
    )
    assert said == (chosen_on != "validation")


def test_without_a_store_the_student_is_drawn_alone(edit_run: EditRun, tmp_path: Path) -> None:
    page = check_page(report.run(edit_run(store__url=str(tmp_path / "nowhere"))))
    assert page.figures == [name for name in RUN_FIGURES if name != "timing"]
    assert "Without the teacher's embeddings: " in page.text
    assert "student's nodes" in page.text
    assert "student minus teacher" not in page.text


def test_without_test_images_there_are_curves_and_provenance(edit_run: EditRun) -> None:
    page = check_page(report.run(edit_run(dataset__test=None)))
    assert page.figures == ["accuracy", "losses", "timing"]
    assert "no labelled test images" in page.text


def test_the_same_numbers_make_the_same_files(
    comparison_page: report.Report, comparison: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "report" / "mine.png"
    mine.parent.mkdir()
    mine.touch()
    report.run(comparison, to=tmp_path)
    stale, listed = tmp_path / "report" / "stale.png", tmp_path / "report" / "figures.json"
    stale.touch()
    figures = json.loads(listed.read_text())["figures"]
    listed.write_text(json.dumps({"figures": [*figures, stale.name, "../../kept"]}))
    (tmp_path.parent / "kept").touch()
    again = report.run(comparison, to=tmp_path)
    first, second = (
        {path.name: path.read_bytes() for path in [of.page, *of.pictures]}
        for of in (comparison_page, again)
    )
    assert first == second
    assert not stale.exists()
    assert mine.exists()
    assert (tmp_path.parent / "kept").exists()


def test_a_page_of_somebody_else_is_not_replaced(comparison: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(UsageError, match="egapipe did not write it"):
        report.run(comparison, to=tmp_path)
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("made", [[], ["config.yaml"], ["config.yaml", "trials/"]])
def test_a_folder_that_is_none_of_them_is_one_line(
    made: list[str], finished: Path, tmp_path: Path
) -> None:
    for name in made:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            shutil.copy(finished / name, tmp_path)
    with pytest.raises(UsageError) as refused:
        report.run(tmp_path)
    assert "\n" not in str(refused.value)
    assert "egapipe" in str(refused.value)
    assert not (tmp_path / "report.html").exists()


def test_the_command_says_where_everything_is(finished: Path, tmp_path: Path) -> None:
    done = egapipe("report", str(finished), "--to", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    assert f"{len(RUN_FIGURES)} figures: {tmp_path / 'page' / 'report'}" in done.stdout
    assert (tmp_path / "page" / "report.html").is_file()


def test_without_matplotlib_the_extra_is_named(
    comparison: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"egapipe\[report\]"):
        report.run(comparison, to=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_text_in_a_figure_is_text_and_no_formula() -> None:
    title = '"><script>alert(1)</script>'
    figure = draw("x", title, "", lambda axes: axes.set(title=f'$a & {title} xlink:href="#b'))
    (panel,) = figure.panels
    assert "<script>" not in panel
    assert "$a &amp; " in panel
    # It looks like a reference and is none: it stays what it was.
    assert "#b" in panel
    assert "#x-0-b" not in panel


@pytest.mark.parametrize(("views", "epochs", "even"), [(4, 60, 0.1), (5, 1, 7.5)])
def test_the_break_even_is_where_both_cost_the_same(views: int, epochs: int, even: float) -> None:
    costs = Costs(extract=30.0, infer=20.0, views=views, train=7.0, epochs=epochs)
    assert costs.break_even == pytest.approx(even)
    assert costs.cached(costs.break_even) == pytest.approx(costs.live(costs.break_even))


def test_the_configuration_on_the_page_can_be_loaded(
    run_page: report.Report, finished: Path, tmp_path: Path
) -> None:
    text = Page(run_page.page).text
    start = text.index("name: quickstart")
    (tmp_path / "again.yaml").write_text(text[start : text.index("Manifest of the train")], "utf-8")
    assert load_config(str(tmp_path / "again.yaml")) == RunFolder(finished).config()


@pytest.mark.parametrize(("scale", "said"), [(1.0, "Extraction pays from 2"), (0.01, "too little")])
def test_a_moment_of_work_is_no_ground_for_advice(scale: float, said: str) -> None:
    costs = Costs(30.0 * scale, 10.0 * scale, views=1, train=7.0 * scale, epochs=2)
    caption = timing_figure(costs).caption
    assert said in caption
    assert ("pays with" in caption or "pays from" in caption) == (scale == 1)
