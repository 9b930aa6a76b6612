"""A teacher in another memory layout or compiled: nearly the same numbers, under another name."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from egapipe.pipeline.errors import StoreError, TeacherError
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import extract
from egapipe.stages.extract.teachers import Outputs, Teacher, load_teacher
from egapipe.stages.extract.workers.forward.tuned import tuned
from tests.stages.extract import models
from tests.stages.extract.conftest import MakeConfig

CPU = torch.device("cpu")
BATCH = 6
# Sums in another order, in float32.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def noise(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)


@pytest.fixture
def plain(teacher_folder: Path) -> Teacher:
    return load_teacher(models.settings(teacher_folder))


def test_nothing_asked_is_the_teacher_itself(plain: Teacher) -> None:
    assert tuned(plain, BATCH, channels_last=False, compiled=False) is plain


def test_each_change_is_named_in_the_manifest(plain: Teacher) -> None:
    both = tuned(plain, BATCH, channels_last=True, compiled=True)
    assert both.spec == {**plain.spec, "channels_last": True, "compiled": True}
    one = tuned(plain, BATCH, channels_last=True, compiled=False)
    assert one.spec == {**plain.spec, "channels_last": True}
    assert one.outputs == plain.outputs
    assert one.preprocessing == plain.preprocessing


@pytest.mark.parametrize("family", [models.vit, models.convnext])
def test_channels_last_changes_the_layout_and_no_more(
    family: Callable[[Path], Path], tmp_path: Path
) -> None:
    settings = models.settings(family(tmp_path))
    shape = load_teacher(settings).preprocessing.input_size  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (BATCH, 3, *shape), dtype=torch.uint8, generator=generator)
    expected = load_teacher(settings).forward(pixels)["embedding"]
    teacher = tuned(load_teacher(settings), BATCH, channels_last=True, compiled=False)
    teacher.to(CPU)
    torch.testing.assert_close(teacher.forward(pixels)["embedding"], expected, **CLOSE)
    torch.testing.assert_close(teacher.forward(pixels[:2])["embedding"], expected[:2], **CLOSE)


def test_a_store_is_of_one_layout_only(quick: MakeConfig) -> None:
    config = quick("extract.channels_last=true")
    report = extract.run(config, split="train", local=True)
    assert FeatureStore.open(report.url).manifest.teacher["channels_last"] is True
    assert extract.run(config, split="train", local=True).extracted == 0
    with pytest.raises(StoreError, match=r"teacher\.channels_last is True, the config does not"):
        extract.run(quick(), split="train", local=True)


class WithoutTorch:
    """A teacher that runs elsewhere, as one in an ONNX file does."""

    def __init__(self, like: Teacher) -> None:
        self.spec, self.preprocessing, self.outputs = like.spec, like.preprocessing, like.outputs

    def to(self, device: torch.device) -> None: ...

    def forward(self, pixels: Tensor) -> Outputs:
        return {"embedding": pixels.flatten(1).float()}


def test_a_teacher_without_a_torch_network_is_refused(plain: Teacher) -> None:
    teacher = tuned(WithoutTorch(plain), BATCH, channels_last=True, compiled=False)
    with pytest.raises(TeacherError, match=r"does not run in torch: set extract\.channels_last"):
        teacher.to(CPU)


COMPILE = """
import sys, torch
from egapipe.pipeline.config.teachers import TransformersTeacher
from egapipe.pipeline.errors import TeacherError
from egapipe.stages.extract.teachers import load_teacher
from egapipe.stages.extract.workers.forward.tuned import tuned

plain = load_teacher(TransformersTeacher(backend="transformers", model=sys.argv[1]))
try:
    tuned(plain, 6, channels_last=False, compiled=True).to(torch.device("cpu"))
except TeacherError as error:
    print(error)
"""


@pytest.mark.slow  # Torch traces a network for ten seconds before it looks for a compiler.
def test_no_compiler_is_said_in_one_line(teacher_folder: Path, tmp_path: Path) -> None:
    """In a process of its own: torch remembers a compiler that it has found."""
    none = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", COMPILE, str(teacher_folder)],
        env=os.environ | none,
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = ended.stdout.splitlines()
    assert f"teacher {teacher_folder} cannot be compiled on cpu: " in line
    assert line.endswith("install a C++ compiler, or set extract.compile=false")


@pytest.mark.slow  # A compiler turns a network into code in ten seconds or more.
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_compiled_code_gives_an_image_one_embedding_in_any_batch(plain: Teacher) -> None:
    pixels = noise(BATCH)
    expected = plain.forward(pixels)["embedding"]
    teacher = tuned(plain, BATCH, channels_last=True, compiled=True)
    teacher.to(CPU)
    whole = teacher.forward(pixels)["embedding"]
    torch.testing.assert_close(whole, expected, **CLOSE)
    for count in range(1, BATCH):
        assert torch.equal(teacher.forward(pixels[:count])["embedding"], whole[:count])
