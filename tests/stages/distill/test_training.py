"""A whole training on real digits: what it leaves behind, and that it repeats itself exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from egapipe.pipeline.errors import StoreError, TrainingError, UsageError
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.training.checkpoint import Checkpoints
from tests.stages.distill.conftest import MakeConfig


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = Checkpoints(RunFolder(run).checkpoints).find("last")
    assert folder is not None
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) >= 3
    return {f"{f.stem}:{key}": value for f in files for key, value in load_file(f).items()}


def assert_same_weights(one: Path, two: Path) -> None:
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_a_run_leaves_everything_that_explains_it(quick: MakeConfig) -> None:
    config = quick("distill.epochs=8")
    done = distill.run(config)
    run = RunFolder(done.run)
    assert run.config() == config
    metrics = read_metrics(run)
    assert [line["epoch"] for line in metrics] == list(range(8))
    assert metrics[-1]["train/ce"] < metrics[0]["train/ce"]
    # Of images that are not learned from; the graphs come closer to each other.
    assert 0 < metrics[-1]["test/loss"] < metrics[0]["test/loss"]
    assert -1 <= metrics[0]["test/graph"] < metrics[-1]["test/graph"] <= 1
    summary = json.loads((done.run / "summary.json").read_text())
    assert summary == done.summary
    assert summary["top1"] == metrics[-1]["test/top1"] > 25
    assert summary["top5"] == metrics[-1]["test/top5"] >= summary["top1"]
    assert summary["labelled_rows"] == 100
    assert summary["train_rows"] == 1437
    assert 0 <= summary["data_wait"] < 1
    assert {"torch", "egapipe"} <= summary["versions"].keys()
    board = EventAccumulator(str(run.tensorboard)).Reload()
    assert [e.step for e in board.Scalars("test/top1")] == list(range(8))
    assert not list(done.run.rglob("*.pkl")) + list(done.run.rglob("*.pt"))


def test_a_finished_run_is_found_again_and_restart_repeats_it_bit_for_bit(
    quick: MakeConfig, tmp_path: Path
) -> None:
    first = distill.run(quick())
    assert distill.run(quick()).finished_before
    kept = tmp_path / "kept"
    first.run.rename(kept)
    again = distill.run(quick(), restart=True)
    assert not again.finished_before
    assert_same_weights(kept, again.run)


def test_evaluation_repeats_the_summary(quick: MakeConfig) -> None:
    done = distill.run(quick())
    last = distill.load_student(done.run).accuracy()
    best = distill.load_student(done.run, "best").accuracy()
    assert (last.top1, last.top5) == (done.summary["top1"], done.summary["top5"])
    assert best.top1 == done.summary["best_top1"]


def test_streaming_trains_the_same_student(quick: MakeConfig, tmp_path: Path) -> None:
    resident = distill.run(quick("distill.data=resident"))
    kept = tmp_path / "kept"
    resident.run.rename(kept)
    streamed = distill.run(quick("distill.data=stream"))
    assert_same_weights(kept, streamed.run)


@pytest.mark.parametrize(
    ("mode", "view"),
    [
        ("simultaneous", "independent"),
        ("sequential", "independent"),
        ("sequential", "paired"),
        ("simultaneous", "clean"),
    ],
)
def test_every_pairing_and_head_learns(quick: MakeConfig, view: str, mode: str) -> None:
    done = distill.run(
        quick(f"distill.student_view={view}", f"distill.head.mode={mode}", "distill.epochs=8")
    )
    assert done.summary["top1"] > 25
    assert done.summary["teacher_top1"] > 60
    # Not the sum: the graph of a teacher head that still learns becomes harder to match.
    losses = [line["train/ce"] for line in read_metrics(RunFolder(done.run))]
    assert losses[-1] < 0.8 * losses[0]


def test_a_sequential_head_is_frozen_while_the_student_learns(quick: MakeConfig) -> None:
    config = quick("distill.head.mode=sequential", "distill.checkpoint_steps=5")
    losses = [m["train/head_ce"] for m in read_metrics(RunFolder(distill.run(config).run))]
    # Frozen on the same labels: only the views and the rows left over differ from epoch to epoch.
    assert max(losses) - min(losses) < 0.1


def test_objectives_start_from_the_same_student(quick: MakeConfig) -> None:
    from egapipe.stages.distill.setup import prepare
    from egapipe.stages.distill.workers.world import World

    world = World.alone(torch.device("cpu"))
    ega = prepare(quick(), world).model.student.state_dict()
    ce = prepare(quick("distill.objective={}"), world).model.student.state_dict()
    assert all(torch.equal(ega[name], ce[name]) for name in ega)


def test_launch_settings_do_not_make_another_run(quick: MakeConfig) -> None:
    same = ["distill.workers=2", "distill.data=stream", "extract.batch_size=7"]
    other = ["distill.lr=0.02", "distill.seed=1", "distill.objective.ega.weight=2", "views.count=1"]
    folder = run_folder(quick())
    assert {run_folder(quick(s)) for s in same} == {folder}
    assert folder not in {run_folder(quick(s)) for s in other}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(quick: MakeConfig) -> None:
    distill_config = quick("distill.lr=1e18", "distill.weight_decay=1e18", "distill.epochs=5")
    with pytest.raises(TrainingError, match=r"not finite at epoch \d+, step \d+ .*distill\.lr"):
        distill.run(distill_config)
    assert not run_folder(distill_config).finished


@pytest.mark.parametrize(
    ("sets", "error", "said"),
    [
        (["views.seed=9"], StoreError, "views.seed"),
        (["teacher.model=facebook/dinov2-small"], StoreError, "dinov2-small"),
        (["dataset.train.limit=100"], StoreError, "dataset"),
        (["store.url=nowhere"], StoreError, "egapipe extract"),
        (["distill.student.name=resnet8x5"], UsageError, "resnet8x4"),
        (["distill.student.name=no.such:thing"], UsageError, "no.such"),
        (["distill.head.dim=null"], UsageError, "distill.head.dim"),
        (["distill.labels_per_class=5000"], UsageError, "labels_per_class"),
        (["distill.device=cuda"], UsageError, "GPU"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(
    quick: MakeConfig, tmp_path: Path, sets: list[str], error: type[Exception], said: str
) -> None:
    if "distill.device=cuda" in sets and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(error, match=said) as raised:
        distill.run(quick(*sets))
    assert "\n" not in str(raised.value)
    assert [
        p for p in (tmp_path / "runs").rglob("*") if p.name != "quickstart" and p.suffix != ".lock"
    ] == []


def test_a_damaged_checkpoint_says_what_to_do(quick: MakeConfig) -> None:
    done = distill.run(quick())
    (done.run / "summary.json").unlink()
    folder = Checkpoints(RunFolder(done.run).checkpoints).find("last")
    assert folder is not None
    whole = (folder / "student.safetensors").read_bytes()
    (folder / "student.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="--restart"):
        distill.run(quick())
    with pytest.raises(UsageError, match="does not load"):
        distill.load_student(done.run)


def test_any_callable_can_be_the_student(
    quick: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from torch import nn\n"
        "def tiny(width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Dropout(0.1))\n"
    )
    (tmp_path / "my_student.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    student = "distill.student={name: 'my_student:tiny', args: {width: 24}}"
    first = distill.run(quick(student))
    assert first.summary["parameters"] == 192 * 24 + 24
    kept = tmp_path / "kept"
    first.run.rename(kept)
    # Dropout is random, and still a function of (seed, epoch, step).
    assert_same_weights(kept, distill.run(quick(student)).run)


def test_epochs_use_other_views(quick: MakeConfig) -> None:
    from egapipe.stages.distill.setup import prepare
    from egapipe.stages.distill.workers.world import World

    loader = prepare(quick(), World.alone(torch.device("cpu"))).loader
    first, second = (
        {int(r): image for b in loader.epoch(e) for r, image in zip(b.rows, b.images, strict=True)}
        for e in (0, 1)
    )
    shared = sorted(first.keys() & second.keys())
    differ = np.mean([not torch.equal(first[row], second[row]) for row in shared])
    assert differ > 0.7


LATER = ("rkd", "ccl", "fitnet", "cc", "pkt", "nce", "irg")


@pytest.mark.parametrize(
    "name",
    [
        # Of logits, and with a state; what the others compute is tested elsewhere.
        *("kd", "crd"),
        *(pytest.param(n, marks=pytest.mark.slow) for n in LATER),
    ],
)
def test_every_objective_trains_and_repeats_itself(
    quick: MakeConfig, tmp_path: Path, name: str
) -> None:
    options = "{weight: 0.1, negatives: 64}" if name == "crd" else "0.1"
    sets = ["distill.epochs=2", f"distill.objective={{{name}: {options}}}"]
    first = distill.run(quick(*sets, f"runs={tmp_path / 'first'}"))
    assert np.isfinite(first.summary["top1"])
    assert all(np.isfinite(m[f"train/{name}"]) for m in read_metrics(RunFolder(first.run)))
    again = distill.run(quick(*sets, f"runs={tmp_path / 'again'}"))
    assert_same_weights(first.run, again.run)
