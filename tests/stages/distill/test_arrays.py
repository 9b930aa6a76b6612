"""Stage two over rows that are arrays: the same training, from whatever place they come."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.views import key_hashes
from egapipe.stages import distill, extract
from egapipe.stages.distill import load_student
from egapipe.stages.distill.data.inputs.arrays import (
    ResidentArrays,
    StreamedArrays,
    variant_numbers,
)
from egapipe.stages.distill.folder import training_folder
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.checkpoint import checkpoint_folder, load_student_weights
from egapipe.stages.distill.workers.world import World
from tests.stages.distill import workers
from tests.stages.distill.test_training import assert_same_weights
from tests.stages.words import of_words

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows and their stores."""
    place = tmp_path_factory.mktemp("words")
    config = of_words(place)
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return place


def train(config: Config, run: Path, *interruptions: int) -> RunFolder:
    file = run.with_suffix(".yaml")
    file.write_text(to_yaml(config))
    for stop in (*interruptions, None):
        assert workers.train(str(file), str(run), World.alone(CPU), stop) == (stop is None)
    return RunFolder(run)


def test_a_views_variant_is_a_function_of_plan_key_and_number() -> None:
    hashes = key_hashes(f"k{n}" for n in range(2000))
    plan = ViewsConfig(count=2)
    assert (variant_numbers(plan, hashes, 0, 4) == 0).all()
    for view in (1, 2):
        assert (variant_numbers(plan, hashes, view, 4) == view).all()
    further = variant_numbers(plan, hashes, 3, 4)
    counts = np.bincount(further, minlength=4)
    assert counts[0] == 0
    assert counts[1:].min() > 550
    assert (further != variant_numbers(plan, hashes, 4, 4)).any()
    assert (variant_numbers(plan, hashes, 3, 1) == 0).all()


def test_resident_and_streamed_trainings_are_one(folder: Path, tmp_path: Path) -> None:
    runs = []
    for data, kind in (("resident", ResidentArrays), ("stream", StreamedArrays)):
        config = of_words(folder, f"distill.data={data}")
        assert isinstance(prepare(config, World.alone(CPU)).loader.images, kind)
        runs.append(train(config, tmp_path / data))
    assert_same_weights(*(run.path for run in runs))


def test_a_paired_student_sees_the_teachers_variant(folder: Path) -> None:
    job = prepare(of_words(folder, "distill.student_view=paired"), World.alone(CPU))
    ids = torch.from_numpy(np.load(folder / "train.npy")).long()
    seen = set()
    for batch in job.loader.epoch(1):
        assert batch.views is not None
        assert torch.equal(batch.images, ids[batch.rows, batch.views])
        seen |= set(batch.views.tolist())
    assert seen == {1, 2}


@pytest.mark.parametrize("sets", [[], ["student_view=paired", "views_per_row=2"], ["data=stream"]])
def test_an_interrupted_training_ends_with_the_same_bits(
    folder: Path, tmp_path: Path, sets: list[str]
) -> None:
    settings = [f"distill.{value}" for value in (*sets, "checkpoint_steps=2", "ema_decay=0.9")]
    config = of_words(folder, *settings)
    whole, parts = (train(config, tmp_path / n, *s) for n, s in (("whole", ()), ("parts", (3, 7))))
    assert_same_weights(whole.path, parts.path)


def test_three_workers_train_as_one(folder: Path, tmp_path: Path) -> None:
    """The student has no batch normalisation: only sums over rows differ, in their last bits."""
    config = of_words(folder, "distill.objective={ega: auto}")
    alone = train(config, tmp_path / "alone")
    file = tmp_path / "three.yaml"
    file.write_text(to_yaml(of_words(folder, "distill.objective={ega: auto}", "distill.workers=3")))
    workers.train_together(3, file, tmp_path / "three", None)
    first = load_file(tmp_path / "three" / "rank0.safetensors")
    job = prepare(config, World.alone(CPU))
    folder_of = checkpoint_folder(alone, "last")
    load_student_weights(job.model.student, folder_of, averaged=False)
    for name, value in job.model.student.state_dict().items():
        assert torch.allclose(value, first[name], atol=2e-4), name


def test_a_run_is_measured_taught_from_and_not_taken_for_images(folder: Path) -> None:
    run = training_folder(of_words(folder, "distill.epochs=8"))
    distill.run(of_words(folder, "distill.epochs=8"))
    student = load_student(run, trust_remote_code=True)
    assert student.spec.array is not None
    assert student.accuracy().top1 > 60
    with pytest.raises(UsageError, match="trained on arrays"):
        _ = student.spec.frame
    again = of_words(
        folder,
        f"teacher={{backend: run, model: {run.path}, trust_remote_code: true}}",
        f"store.url={folder}/again",
    )
    assert extract.run(again, split="test", local=True).failures == 0


def test_other_arrays_than_the_students_are_refused(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros((8, 7), np.int64))
    np.save(tmp_path / "labels.npy", np.arange(8) % 4)
    test = f"{{kind: arrays, files: {tmp_path}/other.npy, labels: {tmp_path}/labels.npy}}"
    with pytest.raises(UsageError, match=r"int64 \[7\], the student sees arrays int64 \[6\]"):
        prepare(of_words(folder, f"dataset.test={test}"), World.alone(CPU))
    with pytest.raises(UsageError, match=r"on arrays \[2, 6\] fails"):
        prepare(of_words(folder, "distill.student={name: resnet8}"), World.alone(CPU))
