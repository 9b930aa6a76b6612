"""A distilled student as the next teacher."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.teachers import RunTeacher as Settings
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.durable import durable
from egapipe.stages import distill, extract
from egapipe.stages.extract.teachers import load_teacher
from egapipe.stages.extract.teachers.weights import weights_sha256

ROWS = np.arange(40)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a student of real digits."""
    folder = tmp_path_factory.mktemp("student")
    small = ["views.count=0", "distill.student_view=clean", "dataset.train.limit=128"]
    sets = [f"store.url={folder / 'stores'}", f"runs={folder / 'runs'}", *small]
    few = ["distill.epochs=1", "distill.threads=1", "distill.ema_decay=0.5"]
    config = load_config("quickstart", [*sets, *few])
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return distill.run(config).run


def settings(run: Path, **fields: Any) -> Settings:
    return Settings(backend="run", model=str(run), **fields)


@pytest.mark.parametrize(
    ("output", "checkpoint"), [("features", "last"), ("nodes", "last"), ("features", "ema")]
)
def test_it_encodes_as_the_student_does(output: str, checkpoint: str, finished: Path) -> None:
    student = distill.load_student(finished, checkpoint, "cpu")
    assert student.config.dataset.test is not None
    dataset = open_dataset(student.config.dataset.test)
    expected = torch.cat([getattr(o, output) for o in student.outputs(dataset, ROWS)])

    teacher = load_teacher(settings(finished, output=output, checkpoint=checkpoint))
    images = [teacher.preprocessing.clean(dataset.image(int(row))) for row in ROWS]
    ours = teacher.forward(torch.from_numpy(np.stack(images)))["embedding"]
    assert teacher.outputs == {"embedding": tuple(expected.shape[1:])}
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_the_spec_is_the_configuration_and_the_weights_digest(finished: Path) -> None:
    config = settings(finished)
    backbone = distill.load_student(finished, device="cpu").student.backbone
    assert load_teacher(config).spec == {
        **durable(config),
        "class": type(backbone).__name__,
        "sha256": weights_sha256(backbone),
    }
    nodes = load_teacher(settings(finished, output="nodes"))
    assert nodes.spec["sha256"] != weights_sha256(backbone)


def test_it_teaches_the_next_student(finished: Path, tmp_path: Path) -> None:
    """Through both stages, from its run folder alone."""
    small = ["views.count=0", "distill.student_view=clean", "dataset.train.limit=128"]
    config = load_config(
        "quickstart",
        [
            f"teacher={{backend: run, model: {finished}, output: nodes}}",
            f"store.url={tmp_path / 'stores'}",
            f"runs={tmp_path / 'runs'}",
            *small,
            "distill.epochs=1",
            "distill.threads=1",
        ],
    )
    for split in config.splits():
        extract.run(config, split=split, local=True)
    assert distill.load_student(distill.run(config).run).accuracy().top1 > 0


@pytest.mark.parametrize("place", ["no/such/run", "."])
def test_a_folder_that_is_no_run_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        load_teacher(settings(tmp_path / place))
    assert "\n" not in str(error.value)
