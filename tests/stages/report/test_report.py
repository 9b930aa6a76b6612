"""The page of a run, a comparison and a sweep: complete, self-contained, and true to its source."""

import json
import math
import os
import re
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
from egapipe.pipeline.results.experiment import read_experiment, write_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.standing import standings
from egapipe.stages import report
from egapipe.stages.distill import load_student
from egapipe.stages.evaluate.cost import Cost, Latency
from egapipe.stages.evaluate.evaluation import Evaluation, Predictions, Probes
from egapipe.stages.evaluate.graphs import Agreement
from egapipe.stages.evaluate.left_out import LeftOut
from egapipe.stages.report.charts.maps import EDGES, chosen, edge_figure
from egapipe.stages.report.charts.sweep.parallel import scale
from egapipe.stages.report.charts.timing import Costs, timing_figure
from egapipe.stages.report.sample import take_sample
from tests.command import egapipe
from tests.stages.report.conftest import EditRun, MadeComparison, MakeSweep
from tests.stages.report.pages import Page

CURVES = ["accuracy", "losses", "test-loss", "agreement", "rate"]
OF_STUDENT = ["map", "edges", "classes", "confusions", "reliability"]
RUN_FIGURES = [*CURVES, *OF_STUDENT, "timing"]
LAMBDA, RATE, SEED = "distill.objective.ega.weight", "distill.lr", "distill.seed"


def check_page(written: report.Report) -> Page:
    """What holds for every page."""
    page = Page(written.page)
    # A link of an index is followed by a reader, not loaded.
    inside = ("#", "data:image/", "./")
    outside = [text for text in page.references() if not text.startswith(inside)]
    assert outside == []
    assert len(set(page.ids)) == len(page.ids)
    targets = {text[1:] for text in page.references() if text.startswith("#")}
    assert targets <= set(page.ids)
    policy = next(of for tag, of in page.elements if tag == "meta" and "http-equiv" in of)
    allowed = str(policy["content"])
    assert allowed.startswith("default-src 'none'; script-src 'sha256-")
    # No code but the page's own, and none that it makes of texts.
    assert "unsafe-inline" not in allowed.partition("style-src")[0]
    assert "unsafe-eval" not in allowed
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
    experiment = read_experiment(str(comparison)).experiment
    _, found = standings(experiment)
    heading, ce, ega = page.tables[0]
    statistics = ["against ce", "pairs", "95% interval", "reading"]
    assert heading == ["variant", "n", "top-1 %", "std", *statistics, "seconds", "changes"]
    assert (ce[-1], ega[-1]) == ("objective none", "as configured")
    low, high = f"{found.low:+.2f}", f"{found.high:+.2f}"
    assert ega[:4] == ["ega", "2", f"{found.mean:.2f}", f"{found.std:.2f}"]
    assert ega[4:7] == [f"{found.gain:+.2f}", "2", f"{low} to {high}"]
    assert ce[4:8] == ["", "", "", ""]
    assert "not finished" not in page.text
    assert page.figures == ["curves-0", "scores-0", "gains-0", "timing"]
    assert f"{experiment.teacher:.2f} %" in page.text


def edited(comparison: Path, folder: Path, **values: Any) -> Page:
    """The page of that comparison with other values in its record."""
    recorded = read_experiment(str(comparison))
    # Its runs are beside it, not beside the copy.
    cells = [
        cell.model_copy(update={"run": str((comparison / str(cell.run)).resolve())})
        for cell in recorded.experiment.cells
    ]
    folder.mkdir()
    shutil.copy(comparison / "config.yaml", folder)
    changed = {"cells": tuple(cells), **values}
    write_experiment(RunFolder(folder), recorded.experiment.model_copy(update=changed))
    return check_page(report.run(folder))


def test_a_comparison_of_one_seed_has_no_intervals(
    made_comparison: MadeComparison,
) -> None:
    hostile = '<script>alert("1")</script> $\\frac$ 語'
    folder = made_comparison(["ce", hostile])
    shutil.rmtree(folder / "trials")
    page = check_page(report.run(folder))
    # Its runs are gone: there is nothing to draw curves from, and no differences of one pair.
    assert page.figures == ["scores-0", "timing"]
    assert page.tables[0][2][0] == hostile
    assert page.tables[0][2][6] == ""
    assert page.tables[0][2][7] == "one pair says nothing of chance"
    assert [tag for tag, _ in page.elements].count("script") == page.source.count("<script")


def test_an_unfinished_comparison_says_so_and_each_row_its_n(
    comparison: Path, tmp_path: Path
) -> None:
    experiment = read_experiment(str(comparison)).experiment
    last = next(c for c in experiment.cells if (c.setting, c.seed) == ("ega", 1))

    def state(name: str, **more: Any) -> dict[str, Any]:
        """The last of the planned trainings in another state."""
        changes = {"state": name, "value": None, "run": None, **more}
        cells = [c.model_copy(update=changes) if c == last else c for c in experiment.cells]
        return {"cells": tuple(cells), "finished": False}

    page = edited(comparison, tmp_path / "three", **state("running"))
    assert "3 of 4 planned trainings, 2 seeds" in page.text
    student = next(iter(experiment.groups))
    assert f"not finished: there is no result of {student} ega seed 1." in page.text
    assert [row[:2] for row in page.tables[0][1:]] == [["ce", "2"], ["ega", "1"]]
    page = edited(comparison, tmp_path / "failed", **state("failed", error="out of <b>memory</b>"))
    assert page.tables[0] == [
        ["failed", "error"],
        [f"{student} ega seed 1", "out of <b>memory</b>"],
    ]


def test_a_comparison_marks_what_separates_and_nothing_else(
    made_comparison: MadeComparison,
) -> None:
    """Not the largest mean: what holds for all variants together."""
    said = {}
    for name, gains in {
        "better": (2.0, 2.1, 1.9),
        "large": (6.5, 1.0, -0.5),
        "worse": (-2.0, -2.1, -1.9),
        "equal": (1.0, 1.0, 1.0),
        "wide": (32.5, 90.0, -20.0),
    }.items():
        folder = made_comparison(["base", name], seeds=3)
        recorded = read_experiment(str(folder))
        cells = [
            cell.model_copy(update={"value": 50.0 + (gains[cell.seed] if cell.number > 2 else 0)})
            for cell in recorded.experiment.cells
        ]
        changes = {"cells": tuple(cells), "confidence": 0.9983 if name == "wide" else 0.95}
        write_experiment(recorded.folder, recorded.experiment.model_copy(update=changes))
        page = check_page(report.run(folder))
        said[name] = page.tables[0][2][7]
        marked = [of.get("class") == "best" for tag, of in page.elements if tag == "tr"]
        assert marked[:3] == [False, False, name == "better"]
    assert "99.83% interval" in page.tables[0][0]
    assert said == {
        "better": "better",
        "large": "not separated",
        "worse": "worse",
        "equal": "says nothing, 3 equal pairs: too few images",
        "wide": "says nothing, 3 pairs: too few",
    }


def test_a_comparison_has_the_numbers_of_every_seed(
    comparison_page: report.Report, comparison: Path
) -> None:
    page, experiment = Page(comparison_page.page), read_experiment(str(comparison)).experiment
    seeds = next(table for table in page.tables if table[0] == ["variant", "seed 0", "seed 1"])
    values = {(cell.setting, cell.seed): cell.value for cell in experiment.cells}
    assert seeds[1:] == [
        [name, *(f"{values[name, seed]:.2f}" for seed in (0, 1))] for name in ("ce", "ega")
    ]


def test_a_sweep_has_lambda_against_accuracy_and_parallel_coordinates(
    make_sweep: MakeSweep,
) -> None:
    folder = make_sweep(
        ({RATE: 0.01, LAMBDA: 0.05}, "done", 41.25),
        ({RATE: 0.02, LAMBDA: 1.0}, "stopped", 20.0),
        ({RATE: 0.05, LAMBDA: 5.0}, "done", 62.5),
    )
    page = check_page(report.run(folder))
    # The lambda before what is planned before it.
    assert page.figures == ["setting-0", "setting-1", "best", "curves", "parallel"]
    assert "lambda (ega.weight) against top-1" in page.text
    assert "The best is lr 0.05, ega.weight 5: test/top1 62.5 over 1 seed." in page.text
    assert "One seed says nothing of chance." in page.text
    assert "too few to say which setting mattered" in page.text
    heading, *rows = page.tables[0]
    assert heading == ["trial", "lr", "ega.weight", "seed", "state", "epochs", "test/top1"]
    assert rows[0] == ["2", "0.05", "5", "0", "done", "12 of 12", "62.5"]
    assert [row[0] for row in rows] == ["2", "0", "1"]


def test_seeds_in_a_sweep_are_repeats_of_a_setting(make_sweep: MakeSweep) -> None:
    trials = [
        ({RATE: 0.1, SEED: 0}, "done", 40.0),
        ({RATE: 0.1, SEED: 1}, "done", 44.0),
        ({RATE: 0.2, SEED: 0}, "done", 43.0),
        ({RATE: 0.2, SEED: 1}, "failed", None),
    ]
    page = check_page(report.run(make_sweep(*trials)))
    assert page.tables[0] == [
        ["setting", "n", "mean test/top1", "std"],
        ["lr 0.2", "1", "43", ""],
        ["lr 0.1", "2", "42", "2.828"],
    ]
    # Of more seeds, though its mean is less.
    assert "The best is lr 0.1: test/top1 42 over 2 seeds." in page.text


def test_a_sweep_that_is_running_has_a_page(make_sweep: MakeSweep) -> None:
    folder = make_sweep(
        ({RATE: 0.1}, "done", 40.0),
        ({RATE: 0.2}, "running", 35.0),
        ({RATE: 0.3}, "running", None),
        planned=6,
    )
    page = check_page(report.run(folder))
    assert "6 trials (1 done, 2 running, 3 planned)" in page.text
    assert "This sweep is not finished" in page.text
    assert page.figures == ["setting-0", "curves", "parallel"]


def test_a_sweep_with_failed_trials_and_conditional_settings(make_sweep: MakeSweep) -> None:
    folder = make_sweep(
        (
            {"distill.objective": {"kd": 1.0}, "distill.objective.kd.temperature": 4.0},
            "failed",
            None,
        ),
        ({"distill.objective": {}}, "done", 30.0),
        (
            {"distill.objective": {"kd": 1.0}, "distill.objective.kd.temperature": 2.0},
            "done",
            9.0,
        ),
        mode="min",
    )
    page = check_page(report.run(folder))
    # The temperature has one value among trials that have a result: nothing to draw it against.
    # The objective is words, and has a figure too.
    assert page.figures == ["setting-0", "best", "curves", "parallel"]
    assert "objective against top-1" in page.text
    assert "not set" in "".join(chart_texts(page, "parallel"))
    assert [row[0] for row in page.tables[0][1:]] == ["2", "1", "0"]
    assert page.tables[1][1] == ["0", "trial 0 <b>failed</b>"]
    assert "The best is objective kd=1, kd.temperature 2: test/top1 9" in page.text


def test_a_sweep_says_which_setting_mattered(make_sweep: MakeSweep) -> None:
    trials = [
        ({RATE: 0.01 * (number % 4 + 1), "distill.schedule": "ab"[number % 2]}, "done", value)
        for number, value in enumerate([40.0, 50.0, 60.0, 70.0] * 3)
    ]
    page = check_page(report.run(make_sweep(*trials)))
    assert "importance" in page.figures
    first, *_ = chart_texts(page, "importance")
    assert first == "lr"


def test_an_axis_has_the_values_that_are_listed_and_no_others() -> None:
    listed = scale([0.1, 0.2, 0.4, 0.1])
    assert listed.ticks == {0.0: "0.1", 0.5: "0.2", 1.0: "0.4"}
    drawn = scale([0.05 * 1.3**number for number in range(20)])
    assert drawn.ticks[0.0] == "0.05"
    assert set(drawn.ticks.values()) == {"0.05", "0.1", "1", "7.31"}
    words = scale(["cosine", None, "steps"])
    assert sorted(words.ticks.values()) == ["cosine", "not set", "steps"]
    # Of a setting that only failed trials have.
    assert list(scale([None, None]).ticks.values()) == ["not set"]


def test_a_sweep_whose_trials_all_failed_still_tells_why(make_sweep: MakeSweep) -> None:
    page = check_page(report.run(make_sweep(({RATE: 0.1}, "failed", None))))
    assert page.figures == []
    assert "None reached its last epoch" in page.text
    assert page.tables[1][1] == ["0", "trial 0 <b>failed</b>"]


def test_an_index_lists_everything_newest_first(comparison: Path, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(comparison.parents[1], tmp_path / "runs"))
    project = runs / comparison.parent.name
    (project / comparison.name / "report.html").write_text("x")
    broken = project / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("distill: {nonsense: 1}")
    newest = sorted(path for path in project.iterdir() if (path / "store.json").is_file())[2]
    os.utime(newest / "summary.json", (2e9, 2e9))
    page = check_page(report.run(runs))
    heading, *rows = page.tables[0]
    assert len(rows) == 5
    assert [row[heading.index("kind")] for row in rows].count("run") == 4
    assert rows[0][0] == newest.name
    assert rows[0][1] == f"{RunFolder(newest).summary()['top1']:.2f}"
    dates = [row[heading.index("changed")] for row in rows]
    assert dates == sorted(dates, reverse=True)
    of_comparison = next(row for row in rows if row[0] == comparison.name)
    assert of_comparison[2:4] == ["4", "done"]
    assert of_comparison[heading.index("kind")] == "comparison"
    # All learned from the same features.
    assert len({row[heading.index("features")] for row in rows}) == 1
    links = [of["href"] for tag, of in page.elements if tag == "a"]
    assert links == [f"./{project.name}/{comparison.name}/report.html"]
    assert page.tables[1][1][0] == f"{project.name}/broken"


def chart_texts(page: Page, figure: str) -> list[str]:
    """The parameter `names` of a figure's charts, and the texts among their data."""
    start = page.source.index(f'<figure id="{figure}"')
    (found, *_) = re.findall(
        r'<script type="application/json">(.*?)</script>', page.source[start:], re.DOTALL
    )
    spec = json.loads(found)
    named = [p["value"] for p in spec["params"] if p["name"] == "names"]
    layers = spec.get("layer", [spec])
    rows = [row for of in spec.get("datasets", {}).values() for row in of]
    rows += [row for layer in layers for row in layer.get("data", {}).get("values", [])]
    return [*named[0], *(str(row["text"]) for row in rows if "text" in row)]


def test_an_unfinished_run_is_drawn_from_its_last_checkpoint(edit_run: EditRun) -> None:
    # Without test images, which are others' subject, it is drawn at once.
    folder = edit_run(dataset__test=None)
    (folder / "summary.json").unlink()
    page = check_page(report.run(folder))
    assert page.figures == CURVES
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
    places = chosen(sample, **EDGES)
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
    assert figure.panels[0].title.text == "teacher's nodes"
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
    assert "student's nodes" in page.source
    assert "student minus teacher" not in page.source


def test_without_test_images_there_are_curves_and_provenance(edit_run: EditRun) -> None:
    page = check_page(report.run(edit_run(dataset__test=None)))
    assert page.figures == [*CURVES, "timing"]
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


@pytest.mark.slow
def test_the_command_says_where_everything_is(finished: Path, tmp_path: Path) -> None:
    done = egapipe("report", str(finished), "--to", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    assert f"{len(RUN_FIGURES)} figures: {tmp_path / 'page' / 'report'}" in done.stdout
    assert (tmp_path / "page" / "report.html").is_file()


@pytest.mark.parametrize("library", ["altair", "vl_convert", "jinja2"])
def test_without_a_library_the_extra_is_named(
    library: str, comparison: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=r"egapipe\[report\]"):
        report.run(comparison, to=tmp_path)
    assert list(tmp_path.iterdir()) == []


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
