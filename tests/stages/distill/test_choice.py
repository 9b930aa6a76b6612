"""What is chosen is chosen on images that are neither trained on nor reported on, if asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config.data import DigitsSource, ValidationConfig
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.command import describe
from egapipe.stages.distill.data.rows.choice import held_out
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_resume import train
from tests.stages.distill.test_training import assert_same_weights

CPU = torch.device("cpu")
FRACTION = "dataset.validation={fraction: 0.2}"
OWN = "dataset.validation={kind: digits, split: test, limit: 100}"


class Labelled:
    """As much of a data set as the choice of rows looks at."""

    name = "labelled"

    def __init__(self, labels: list[int]) -> None:
        self.labels = np.array(labels, dtype=np.int64)


@given(
    labels=st.lists(st.integers(-1, 4), max_size=200),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 99),
)
def test_a_share_of_every_class_is_held_out(labels: list[int], fraction: float, seed: int) -> None:
    """Of the labelled images, and never all of a class."""
    dataset, validation = Labelled(labels), ValidationConfig(fraction=fraction, seed=seed)
    known = [label for label in set(labels) - {-1} if labels.count(label) > 1]
    if not known:
        with pytest.raises(UsageError, match=r"dataset\.validation\.fraction .* has two images"):
            held_out(dataset, validation)  # type: ignore[arg-type]
        return
    rows = held_out(dataset, validation)  # type: ignore[arg-type]
    assert rows.tolist() == sorted(set(rows.tolist()))
    for label in set(labels):
        count, held = labels.count(label), int((dataset.labels[rows] == label).sum())
        if label < 0 or count == 1:
            assert held == 0
        else:
            assert 1 <= held < count
            assert abs(held - fraction * count) <= 1
    assert (rows == held_out(dataset, validation)).all()  # type: ignore[arg-type]


def test_no_training_sees_what_is_held_out(quick: MakeConfig) -> None:
    """Neither its labels nor its images nor its embeddings, whatever the seed of the student."""
    jobs = [
        prepare(quick(FRACTION, "distill.labels_per_class=null", *sets), World.alone(CPU))
        for sets in ([], ["distill.seed=1"], ["distill.sampler=neighbours"])
    ]
    for job in jobs:
        assert job.validation is not None
        assert (job.validation.rows == jobs[0].sources.held_out).all()
        assert abs(len(job.validation.rows) - 0.2 * 1437) < 10
        assert not set(job.loader.rows) & set(job.validation.rows)
        drawn = np.concatenate([batch.rows.numpy() for batch in job.loader.epoch(0)])
        assert not set(drawn) & set(job.validation.rows)
        assert (job.loader.labels[job.validation.rows] == -1).all()
    dataset = open_dataset(DigitsSource(kind="digits"))
    assert jobs[0].validation is not None
    assert (jobs[0].validation.labels == dataset.labels).all()


@pytest.mark.parametrize("validation", [FRACTION, pytest.param(OWN, marks=pytest.mark.slow)])
def test_test_images_are_measured_once(quick: MakeConfig, tmp_path: Path, validation: str) -> None:
    """At the end; the best epoch is that of the validation, and both checkpoints' accuracies on the
    test images are those that are reported. Also of a training that was interrupted."""
    config = quick(validation, "distill.epochs=5", "distill.ema_decay=0.5")
    done = distill.run(config)
    lines, summary = read_metrics(RunFolder(done.run)), done.summary
    assert [name for line in lines for name in line if name.startswith("test/")] == []
    tops = [line["validation/top1"] for line in lines]
    assert summary["chosen_on"] == "validation"
    assert summary["best_epoch"] == int(np.argmax(tops))
    assert summary["best_validation_top1"] == max(tops)
    assert summary["validation_top1"] == tops[-1]
    for which, key in (("last", "top1"), ("best", "best_top1"), ("ema", "ema_top1")):
        assert distill.load_student(done.run, which).accuracy().top1 == summary[key]
    assert "chosen on the validation images" in describe(summary)
    whole = config.model_copy(update={"distill": config.distill.model_copy()})
    assert_same_weights(done.run, train(whole, tmp_path / "parts", 30).path)


def test_without_a_validation_it_is_said_that_test_images_chose(quick: MakeConfig) -> None:
    summary = distill.run(quick("distill.epochs=1")).summary
    assert summary["chosen_on"] == "test"
    assert "chosen on the test images that it is reported on" in describe(summary)
    earlier = {name: value for name, value in summary.items() if name != "chosen_on"}
    assert describe(earlier) == describe(summary)
    summary = distill.run(quick("distill.epochs=1", "dataset.test=null")).summary
    assert summary["chosen_on"] is None
    assert "chosen" not in describe(summary)


def test_a_validation_needs_no_test_images(quick: MakeConfig) -> None:
    summary = distill.run(quick(FRACTION, "distill.epochs=2", "dataset.test=null")).summary
    assert {"validation_top1", "best_validation_top1", "best_epoch"} <= summary.keys()
    assert not {"top1", "best_top1"} & summary.keys()


def test_a_sweep_compares_by_the_validation(quick: MakeConfig) -> None:
    assert quick().sweep.metric == "test/top1"
    assert quick(FRACTION).sweep.metric == "validation/top1"
    assert quick(FRACTION, "sweep.metric=test/top5").sweep.metric == "validation/top5"
    assert quick(FRACTION, "sweep.metric=train/loss").sweep.metric == "train/loss"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{}", "give one of fraction, source"),
        ("{fraction: 0.1, source: {kind: digits}}", "give one of fraction, source"),
        ("{fraction: 1.0}", "dataset.validation.fraction must be less than 1"),
        ("{share: 0.1}", "dataset.validation.share"),
        ("{kind: digit}", "dataset.validation"),
    ],
)
def test_validations_that_are_none(quick: MakeConfig, value: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        quick(f"dataset.validation={value}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_validation_is_another_run(quick: MakeConfig) -> None:
    sets = [[], [FRACTION], ["dataset.validation={fraction: 0.2, seed: 1}"], [OWN]]
    assert len({run_folder(quick(*one)).path for one in sets}) == 4
