"""Weights that are kept in the precision of the forward pass: half the memory, the same bits."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from egapipe.stages.extract.teachers import Known, Loading, Teacher, load_teacher
from egapipe.stages.extract.teachers import precision as module
from egapipe.stages.extract.teachers.precision import narrow, widen
from tests.stages.extract import models
from tests.stages.extract.teachers import families

FAMILIES = [
    models.vit,
    models.dinov2,
    models.clip,
    models.convnext,
    families.dinov3_vit,
    families.dinov3_convnext,
    families.siglip,
    families.deit,
    families.ijepa,
]


def encode(teacher: Teacher) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (3, *teacher.preprocessing.shape)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return teacher.forward(pixels)["embedding"]


def types(teacher: Teacher) -> set[torch.dtype]:
    network: nn.Module = teacher._network  # type: ignore[attr-defined]
    return {weights.dtype for weights in network.parameters()}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_gives_the_bits_that_autocast_gives_from_float32_weights(
    family: Callable[[Path], Path], precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = models.settings(family(tmp_path), precision=precision)
    kept = load_teacher(settings)
    assert getattr(torch, precision) in types(kept)
    monkeypatch.setattr(module, "_FORWARDS", set())
    cast = load_teacher(settings)
    assert types(cast) == {torch.float32}
    assert torch.equal(encode(kept), encode(cast))
    assert kept.spec == cast.spec


def test_float64_is_rounded_once_as_before() -> None:
    network = nn.Sequential(nn.Linear(4, 4).double(), nn.LayerNorm(4).double())
    widen(network, "bfloat16")
    assert {weights.dtype for weights in network.parameters()} == {torch.float32}


def test_float32_is_float32(tmp_path: Path) -> None:
    assert types(load_teacher(models.settings(models.vit(tmp_path)))) == {torch.float32}


def test_weights_in_a_files_own_type_are_never_held_in_a_larger_one(tmp_path: Path) -> None:
    folder = models.save(models.vit_model().bfloat16(), tmp_path, "vit")
    low = load_teacher(models.settings(folder, precision="bfloat16"))
    full = load_teacher(models.settings(folder))
    assert low.spec["sha256"] == full.spec["sha256"]


class Scaled(nn.Linear):
    """Uses its weights for more than a linear layer does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.weight.norm()


def test_weights_that_are_used_otherwise_are_not_rounded() -> None:
    tied = nn.Linear(4, 4)
    network = nn.ModuleDict({"tied": tied, "own": Scaled(4, 4), "plain": nn.Linear(4, 4)})
    network["table"] = nn.Embedding.from_pretrained(tied.weight, freeze=False)
    network["table"].weight = tied.weight
    widen(network, "bfloat16")
    narrow(network, "bfloat16")
    found = {name: weights.dtype for name, weights in network.named_parameters()}
    low = {name for name, dtype in found.items() if dtype == torch.bfloat16}
    assert low == {"tied.bias", "plain.weight", "plain.bias"}


def test_a_teacher_of_which_all_is_known_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a worker: the manifest has what trying it would find."""
    settings = models.settings(models.dinov2(tmp_path))
    tried = load_teacher(settings)

    def run(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "__call__", run)
        known = load_teacher(settings, Loading(Known(tried.spec, tried.outputs)))
    assert (known.spec, known.outputs) == (tried.spec, tried.outputs)
    assert torch.equal(encode(known), encode(tried))
