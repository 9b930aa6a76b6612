"""Checkpoints that a kill or a restart finds: the best one is never lost, nor is the time."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.disk import files
from egapipe.pipeline.errors import TrainingError, UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.folder import training_folder
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training import checkpoint
from egapipe.stages.distill.training.checkpoint import Checkpoints
from egapipe.stages.distill.training.loop import fit
from egapipe.stages.distill.workers.launch import REFUSAL, RESULTS, outcome
from egapipe.stages.distill.workers.world import World
from tests.stages.distill import workers
from tests.stages.distill.conftest import MakeConfig

ALONE = World.alone(torch.device("cpu"))
POINTERS = {"best.json", "last.json"}


@pytest.fixture
def config(quick: MakeConfig) -> Config:
    return quick("distill.batch_size=400", "distill.lr=0.03")


def weights(run: Path, which: str) -> dict[str, torch.Tensor]:
    folder = Checkpoints(RunFolder(run).checkpoints).find(which)
    assert folder is not None, which
    return load_file(folder / "student.safetensors")


@pytest.mark.slow
def test_a_kill_between_any_two_pointers_loses_neither(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch is the best so far: the pointers to it are written one after the other."""
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    written: list[str] = []
    stop: int | None = None

    def counted(path: Path, data: bytes) -> None:
        if path.name in POINTERS:
            if len(written) == stop:
                raise workers.Interruption
            written.append(path.name)
        files.replace_file(path, data)

    monkeypatch.setattr(checkpoint, "replace_file", counted)
    workers.train(str(file), str(tmp_path / "whole"), ALONE, None)
    assert written.count("best.json") >= 2
    expected = {which: weights(tmp_path / "whole", which) for which in ("best", "last")}
    for moment in range(len(written)):
        run = tmp_path / str(moment)
        written.clear()
        stop = moment
        assert not workers.train(str(file), str(run), ALONE, None)
        stop = None
        assert workers.train(str(file), str(run), ALONE, None)
        for which, whole in expected.items():
            found = weights(run, which)
            assert [name for name in whole if not torch.equal(found[name], whole[name])] == []
        assert len(list((run / "checkpoints").iterdir())) <= 4


def slowly(config: Config, run: RunFolder, stop: int | None) -> dict[str, float] | None:
    """Train with a pause after each step; None if it stopped after so many."""
    steps: list[int] = []

    def stepped(at: checkpoint.Position) -> None:
        time.sleep(0.05)
        steps.append(at.step)
        if len(steps) == stop:
            raise workers.Interruption

    try:
        return fit(prepare(config, ALONE), run, lambda epoch, metrics: None, stepped)
    except workers.Interruption:
        return None


def test_the_time_before_a_checkpoint_within_an_epoch_counts(
    quick: MakeConfig, tmp_path: Path
) -> None:
    """The seconds of a training are those of its epochs, interrupted or not."""
    config = quick("distill.batch_size=200", "distill.epochs=2", "distill.checkpoint_steps=3")
    run = RunFolder(tmp_path / "run")
    assert slowly(config, run, 5) is None
    assert slowly(config, run, 4) is None
    results = slowly(config, run, None)
    assert results is not None
    epochs = sum(line["train/seconds"] for line in read_metrics(run))
    assert results["train_seconds"] == pytest.approx(epochs, rel=0.05)


def test_an_attempt_that_succeeds_is_not_reported_as_the_failed_one_before(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_json(REFUSAL, {"error": "no store there"})
    with pytest.raises(TrainingError, match="no store there"):
        outcome(run)
    run.write_json(RESULTS, {"top1": 50.0})
    assert outcome(run) == {"top1": 50.0}


def test_a_pointer_leads_to_no_folder_out_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("../elsewhere", str(tmp_path / "elsewhere")):
        (folder / "last.json").write_text(json.dumps({"folder": name}), "utf-8")
        with pytest.raises(UsageError, match="is damaged"):
            Checkpoints(folder).find("last")


def test_who_is_told_of_an_epoch_finds_its_checkpoint(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A population copies it then; it is written by another thread, here a slow one."""

    def slow(path: Path, data: bytes) -> None:
        time.sleep(0.05)
        files.replace_file(path, data)

    monkeypatch.setattr(checkpoint, "replace_file", slow)
    run = training_folder(config)
    found: list[tuple[int, list[str]]] = []

    def report(epoch: int, metrics: Mapping[str, float]) -> None:
        assert metrics
        at = Checkpoints(run.checkpoints).position()
        half = [path.name for path in run.checkpoints.iterdir() if path.name.startswith(".")]
        found.append((at.epoch - epoch, half))

    distill.run(config, report=report)
    assert found == [(1, [])] * 3
