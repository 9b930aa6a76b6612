"""A training that starts from weights of before: whose, and what that makes of a run."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import run_folder
from egapipe.stages import distill
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.checkpoint import checkpoint_folder
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig

CPU = torch.device("cpu")


def first_weights(config) -> dict[str, torch.Tensor]:
    """Of the backbone, before any step."""
    return prepare(config, World.alone(CPU)).model.student.backbone.state_dict()


@pytest.fixture
def weights(quick: MakeConfig, tmp_path: Path) -> Path:
    """A safetensors file of other weights than those that seed 0 draws."""
    file = tmp_path / "other.safetensors"
    drawn = first_weights(quick("distill.seed=9"))
    save_file({name: value.contiguous() for name, value in drawn.items()}, file)
    return file


def test_a_student_starts_from_a_run_and_from_a_file(quick: MakeConfig, tmp_path: Path) -> None:
    """Of a run the last checkpoint, of a whole student its backbone; the heads are drawn."""
    done = distill.run(quick("distill.epochs=1", "distill.seed=4"))
    folder = checkpoint_folder(run_folder(quick("distill.epochs=1", "distill.seed=4")), "last")
    last = load_file(folder / "student.safetensors")
    whole = {f"backbone.{name}": value for name, value in last.items()}
    save_file({**whole, "head.node.weight": torch.ones(2, 2)}, tmp_path / "whole.safetensors")
    plain = prepare(quick(), World.alone(CPU)).model.student
    for init in (done.run, folder / "student.safetensors", tmp_path / "whole.safetensors"):
        student = prepare(quick(f"distill.init={init}"), World.alone(CPU)).model.student
        found = student.backbone.state_dict()
        assert all(torch.equal(found[name], value) for name, value in last.items())
        assert torch.equal(student.head.node.weight, plain.head.node.weight)  # type: ignore[arg-type]
    config = quick(f"distill.init={done.run}", "distill.epochs=1", "distill.lr=0")
    distill.run(config)
    kept = load_file(checkpoint_folder(run_folder(config), "last") / "student.safetensors")
    learning = dict(student.backbone.named_parameters())
    assert all(torch.equal(kept[name], last[name]) for name in learning)


def test_a_run_is_what_the_file_holds_wherever_it_lies(
    quick: MakeConfig, weights: Path, tmp_path: Path
) -> None:
    named = run_folder(quick(f"distill.init={weights}")).path
    moved = tmp_path / "moved.safetensors"
    shutil.copy(weights, moved)
    assert run_folder(quick(f"distill.init={moved}")).path == named
    save_file({name: v + 1 for name, v in load_file(weights).items()}, moved)
    others = {run_folder(quick(f"distill.init={moved}")).path, run_folder(quick()).path, named}
    assert len(others) == 3


@pytest.mark.parametrize("damage", ["cut", "shape", "less", "more"])
def test_weights_that_do_not_fit_are_refused(quick: MakeConfig, weights: Path, damage: str) -> None:
    tensors = load_file(weights)
    name = next(name for name, value in tensors.items() if value.dim() > 0)
    said = f"{name} is "
    if damage == "shape":
        tensors[name] = tensors[name][:1].clone()
    elif damage == "less":
        del tensors[name]
        said = f"{name} is missing in it"
    elif damage == "more":
        tensors["extra"] = torch.zeros(1)
        said = r"extra is \[1\] in it, and missing in this one"
    save_file(tensors, weights)
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
        said = "does not load"
    config = quick(f"distill.init={weights}")
    with pytest.raises(UsageError, match=said) as caught:
        distill.run(config)
    assert "\n" not in str(caught.value)
    assert not run_folder(config).path.exists()


def test_weights_that_are_not_there_are_said_to_be(quick: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a safetensors file nor a run folder"):
        distill.run(quick(f"distill.init={tmp_path}"))
    with pytest.raises(UsageError, match=r"distill\.init: s3://.* is a URL"):
        quick("distill.init=s3://bucket/run")
