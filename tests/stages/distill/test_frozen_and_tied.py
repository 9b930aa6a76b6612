"""Students of other people: with parts that do not learn, and with weights under two names."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from egapipe.pipeline.config import Config
from egapipe.stages import distill, export
from egapipe.stages.distill.students import build_student
from egapipe.stages.distill.students.frozen import frozen_parts
from egapipe.stages.export.folder import WEIGHTS
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_resume import train
from tests.stages.distill.test_training import assert_same_weights

STUDENT = """
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.stem.requires_grad_(False)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(72, 72), nn.BatchNorm1d(72))
        self.again = nn.Linear(72, 72)
        self.again.weight = self.body[1].weight

    def forward(self, images):
        return self.again(self.body(self.stem(images)).relu())
"""


@pytest.fixture
def config(quick: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    (tmp_path / "tied_student.py").write_text(STUDENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    few = ["student.name=tied_student:Tied", "batch_size=200", "epochs=2", "ema_decay=0.5"]
    return quick(*(f"distill.{value}" for value in few), "distill.checkpoint_steps=2")


def test_a_training_leaves_frozen_parts_alone_and_tied_weights_tied(
    config: Config, tmp_path: Path
) -> None:
    """Also interrupted, and in what is loaded, averaged and exported of it."""
    whole = distill.run(config).run
    assert_same_weights(whole, train(config, tmp_path / "parts", 3, 5).path)
    torch.manual_seed(config.distill.seed)
    fresh = build_student(config.distill.student.name, {}).state_dict()
    for which in ("last", "ema"):
        backbone = distill.load_student(whole, which, trust_remote_code=True).student.backbone
        now = backbone.state_dict()
        stem = [name for name in fresh if name.startswith("stem.")]
        assert len(stem) == 7
        assert [name for name in stem if not torch.equal(now[name], fresh[name])] == []
        assert not torch.equal(now["body.1.weight"], fresh["body.1.weight"])
        assert torch.equal(now["body.1.weight"], now["again.weight"])
    export.run(whole, to=tmp_path / "exported", formats=["safetensors"], trust_remote_code=True)
    assert torch.equal(*_tied(tmp_path / "exported" / WEIGHTS))


def _tied(file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight that has two names, under each of them."""
    found = load_file(file)
    one, two = (
        next(value for name, value in found.items() if name.endswith(end))
        for end in ("body.1.weight", "again.weight")
    )
    return one, two


def test_what_has_no_parameter_that_learns_is_frozen() -> None:
    module = nn.Sequential(
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
        nn.Dropout(),
    )
    assert frozen_parts(module) == []
    module[0].requires_grad_(False)
    module[1][1].requires_grad_(False)
    assert frozen_parts(module) == [module[0], module[1][1]]
    module.requires_grad_(False)
    assert frozen_parts(module) == [module]


def test_frozen_parts_stay_in_evaluation_mode(config: Config) -> None:
    """In any order of `train` and `eval`: a loop evaluates between two epochs."""
    from egapipe.stages.distill.setup import prepare
    from egapipe.stages.distill.workers.world import World

    model = prepare(config, World.alone(torch.device("cpu"))).model
    for mode in (True, False, True):
        model.train(mode)
        backbone = model.student.backbone
        assert not any(part.training for part in backbone.stem.modules())
        assert all(part.training == mode for part in backbone.body.modules())
        assert model.teacher_head.training == mode
