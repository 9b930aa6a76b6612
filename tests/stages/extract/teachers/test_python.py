"""A function of the user's own builds the teacher."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from egapipe.pipeline.config.teachers import PythonTeacher as Settings
from egapipe.pipeline.errors import EgapipeError, TeacherError, UsageError
from egapipe.pipeline.results.durable import durable
from egapipe.stages.extract.teachers import load_teacher
from egapipe.stages.extract.teachers.weights import weights_sha256
from tests.stages.extract.teachers import networks

HERE = networks.__name__
SIDE = 16


def settings(name: str, **fields: Any) -> Settings:
    fields = {"preprocessing": {"size": SIDE}, **fields}
    return Settings(backend="python", model=name, **fields)


def pixels() -> Tensor:
    noise = np.random.default_rng(1).integers(0, 256, (3, 3, SIDE, SIDE))
    return torch.from_numpy(noise.astype(np.uint8))


def normalised() -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def encoded(name: str, **fields: Any) -> Tensor:
    return load_teacher(settings(f"{HERE}:{name}", **fields)).forward(pixels())["embedding"]


def test_it_is_the_network_in_evaluation_mode() -> None:
    """In training mode, its dropout would also fail the probe."""
    expected = networks.small().eval()(normalised())
    torch.testing.assert_close(encoded("small"), expected, rtol=1e-4, atol=1e-5)


def test_args_reach_the_function() -> None:
    expected = networks.small(width=5, seed=7).eval()(normalised())
    ours = encoded("small", args={"width": 5, "seed": 7})
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_convolutional_network_with_batch_normalisation() -> None:
    expected = networks.real().eval()(normalised())
    torch.testing.assert_close(encoded("real"), expected, rtol=1e-4, atol=1e-5)


def test_tokens_are_pooled_as_asked() -> None:
    tokens = networks.Tokens()(normalised())
    ours = encoded("Tokens", pooling="cls_mean", prefix_tokens=1)
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_lower_precision_is_near_and_not_the_same() -> None:
    exact, low = encoded("small"), encoded("small", precision="bfloat16")
    assert low.dtype == torch.float32
    assert not torch.equal(low, exact)
    assert torch.nn.functional.cosine_similarity(low, exact).min() > 0.99


def test_the_spec_is_the_configuration_and_the_weights_digest() -> None:
    config = settings(f"{HERE}:small", args={"seed": 1})
    spec = load_teacher(config).spec
    assert spec == {
        **durable(config),
        "class": "Sequential",
        "sha256": weights_sha256(networks.small(seed=1)),
    }
    assert spec["sha256"] != load_teacher(settings(f"{HERE}:small")).spec["sha256"]


def test_a_module_of_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"from {HERE} import small\n"
    (tmp_path / "a_teacher_of_my_own.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    teacher = load_teacher(settings("a_teacher_of_my_own:small"))
    assert teacher.outputs == {"embedding": (8,)}
    del sys.modules["a_teacher_of_my_own"]


REFUSED: dict[str, tuple[type[EgapipeError], str]] = {
    "small": (UsageError, "not of the form module:callable"),
    "no_such_module_here:small": (UsageError, "cannot import no_such_module_here .*No module"),
    f"{HERE}:smal": (UsageError, "has no smal, did you mean small?"),
    f"{HERE}:NUMBER": (UsageError, "is a int: name a class or a function"),
    f"{HERE}:nothing": (TeacherError, "returned a int: return a torch.nn.Module"),
    f"{HERE}:broken": (TeacherError, "failed: FileNotFoundError: no weights at all"),
    f"{HERE}:Wrapped": (TeacherError, "its output is a dict, not one tensor"),
    f"{HERE}:Tokens": (TeacherError, "set teacher.pooling to cls, mean or cls_mean"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_teacher_is_refused_in_one_line(name: str) -> None:
    kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as error:
        load_teacher(settings(name))
    assert str(error.value).startswith(f"teacher {name}")
    assert "\n" not in str(error.value)


def test_args_that_it_does_not_take() -> None:
    with pytest.raises(TeacherError, match=r"failed: TypeError: .*'depth'"):
        load_teacher(settings(f"{HERE}:small", args={"depth": 3}))


def test_images_that_it_does_not_take() -> None:
    with pytest.raises(TeacherError, match="cannot be used: RuntimeError"):
        load_teacher(settings(f"{HERE}:small", preprocessing={"size": 2}))
