"""Labels that are ids: a student has a class for each value that occurs, named by it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.terminal.progress import JsonLines, Progress
from egapipe.stages import extract
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World
from tests.pipeline.datasets.samples import images, write_parquet

ROWS, DIM = 12, 8


def config(folder: Path, labels: Any) -> Config:
    """Of a table with these labels; embeddings come from elsewhere."""
    write_parquet(folder / "train.parquet", images(ROWS), label=labels)
    np.save(folder / "train.npy", np.random.default_rng(0).normal(size=(ROWS, DIM)).astype("f4"))
    return load_config(
        "quickstart",
        [
            f"dataset={{train: {{kind: parquet, files: {folder / 'train.parquet'}}}}}",
            "teacher={backend: imported, model: somewhere}",
            f"store={{url: {folder / 'stores'}, cache_dir: {folder / 'cache'}}}",
            f"runs={folder / 'runs'}",
            "views.count=0",
            "distill={epochs: 1, threads: 1, batch_size: 8, head: {dim: 4}}",
        ],
    )


def trained_on(labels: list[Any]) -> list[Any]:
    """Twelve rows of them in turn."""
    return [labels[row % len(labels)] for row in range(ROWS)]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([5, 1000], ["5", "1000"]),
        ([0, 4611686018427387904], ["0", "4611686018427387904"]),
        ([900000001, None, -1, 7], ["7", "900000001"]),
        (["dog", None, "ant"], ["ant", "dog"]),
        ([True, False, None], ["false", "true"]),
        ([10.0, float("nan"), 2.0], ["2", "10"]),
    ],
)
def test_the_classifier_has_a_class_for_each_value(
    tmp_path: Path, labels: list[Any], names: list[str]
) -> None:
    made = config(tmp_path, trained_on(labels))
    extract.import_embeddings(made, str(tmp_path / "train.npy"), split="train")
    job = prepare(made, World.alone(torch.device("cpu")))
    assert job.spec.classes == len(names)
    assert list(job.spec.class_names or ()) == names
    assert job.model.student.head.classifier.weight.shape[0] == len(names)
    seen = [int(label) for label in job.loader.labels]
    known = [None if label in (None, -1) or label != label else label for label in labels]
    shown = [None if n is None else str(n).lower().removesuffix(".0") for n in trained_on(known)]
    assert [None if label < 0 else names[label] for label in seen] == shown


def test_a_dictionary_column_too(tmp_path: Path) -> None:
    made = config(tmp_path, pa.array(trained_on(["b", "a", None])).dictionary_encode())
    extract.import_embeddings(made, str(tmp_path / "train.npy"), split="train")
    job = prepare(made, World.alone(torch.device("cpu")))
    assert (job.spec.classes, list(job.spec.class_names or ())) == (2, ["a", "b"])


@pytest.mark.parametrize(("labels", "said"), [([0, -2], "holds -2"), ([0.5, 1.0], "fractions")])
def test_what_is_no_label_is_refused(tmp_path: Path, labels: list[Any], said: str) -> None:
    made = config(tmp_path, trained_on(labels))
    with pytest.raises(UsageError, match=said):
        extract.import_embeddings(made, str(tmp_path / "train.npy"), split="train")


def test_the_number_of_classes_is_said_and_a_doubtful_one_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by whoever never runs `egapipe extract`."""

    def progress(task: str, total: int, *, done: int = 0, unit: str = "rows") -> Progress:
        return Progress(JsonLines(sys.stderr), task, total, done=done, unit=unit)

    made = config(tmp_path, [900000000 + row for row in range(ROWS)])
    extract.import_embeddings(made, str(tmp_path / "train.npy"), split="train", progress=progress)
    said = capsys.readouterr().err
    assert "12 of 12 rows have one of 12 classes" in said
    assert "12 classes for 12 labelled rows: are its labels ids of the images?" in said
