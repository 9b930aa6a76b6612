"""The teacher on the CPU: the same numbers whatever the cores, and no trace left in the process."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from egapipe.stages.extract.teachers import Teacher, load_teacher
from egapipe.stages.extract.workers.forward.inference import OnCpu, open_inference
from tests.stages.extract import models

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> Teacher:
    return load_teacher(models.settings(teacher_folder))


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [16, 16, 16, 16, 16, 5, 1]
    return [
        torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator) for n in sizes
    ]


def encode(teacher: Teacher, cores: int) -> list[np.ndarray]:
    with closing(open_inference(teacher, CPU, cores)) as inference:
        pending = [inference.submit(batch) for batch in batches()]
        return [one.result()["embedding"] for one in pending]


def test_embeddings_are_the_same_bits_on_any_number_of_cores(
    teacher: Teacher, threads: int
) -> None:
    """Float32, because float16 would hide the last bits most of the time."""
    torch.set_num_threads(1)
    expected = [teacher.forward(batch)["embedding"].numpy() for batch in batches()]
    for cores, in_process in [(1, 1), (1, 4), (2, 1), (3, 2), (8, 8)]:
        torch.set_num_threads(in_process)
        found = encode(teacher, cores)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_processes_own_threads_are_as_before(teacher: Teacher, threads: int) -> None:
    torch.set_num_threads(3)
    encode(teacher, 2)
    assert torch.get_num_threads() == 3


def test_as_many_batches_are_in_flight_as_there_are_cores(teacher: Teacher) -> None:
    inference = open_inference(teacher, CPU, 5)
    assert isinstance(inference, OnCpu)
    assert inference.ahead == 5
    inference.close()
