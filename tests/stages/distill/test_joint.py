"""Rows of several sources are numbered through, and each is found in its own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.views import key_hashes
from egapipe.stages.distill.data.inputs.images import Frame, ResidentImages
from egapipe.stages.distill.data.joint import (
    JointEmbeddings,
    Offsets,
    joint_embeddings,
    joint_images,
)

CPU = torch.device("cpu")


class Table:
    """Embeddings that name their part, row and view."""

    dim = 3
    row_bytes = 4096

    def __init__(self, part: int, rows: int) -> None:
        self.part = part
        self.read: list[list[int]] = []
        self.valid = np.arange(rows) % 4 != 3

    def take(self, rows: np.ndarray, view: int | np.ndarray) -> torch.Tensor:
        views = np.broadcast_to(view, rows.shape)
        return torch.from_numpy(np.stack([np.full_like(rows, self.part), rows, views], axis=1))

    def read_ahead(self, rows: np.ndarray, view: int | np.ndarray) -> None:
        self.read += np.stack([rows, np.broadcast_to(view, rows.shape)], axis=1).tolist()


@given(data=st.data(), lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_every_row_comes_from_its_part_in_the_view_asked_for(
    data: st.DataObject, lengths: list[int]
) -> None:
    home = [(part, row) for part, length in enumerate(lengths) for row in range(length)]
    rows = np.array(data.draw(st.lists(st.integers(0, len(home) - 1), min_size=1)))
    views = np.arange(len(rows))
    joint = joint_embeddings([Table(part, length) for part, length in enumerate(lengths)])
    assert joint.take(rows, views).tolist() == [[*home[r], v] for v, r in enumerate(rows)]
    assert joint.take(rows, 7)[:, 2].tolist() == [7] * len(rows)
    assert joint.valid.tolist() == [row % 4 != 3 for _, row in home]


def test_rows_are_read_ahead_of_their_parts() -> None:
    parts = [Table(0, 3), Table(1, 2)]
    joint_embeddings(parts).read_ahead(np.array([4, 0, 2, 3]), np.array([7, 8, 9, 6]))
    assert parts[0].read == [[0, 8], [2, 9]]
    assert parts[1].read == [[1, 7], [0, 6]]


def test_rows_of_no_part_are_refused() -> None:
    joint = JointEmbeddings([Table(0, 3), Table(1, 2)])
    for row in (-1, 5):
        with pytest.raises(IndexError, match=r"not in 0\.\.4"):
            joint.take(np.array([0, row]), 0)


def test_an_empty_batch_has_no_parts() -> None:
    assert list(Offsets.of([3, 2]).parts(np.empty(0, dtype=np.int64))) == []


def test_a_part_of_another_size_is_fitted_to_the_students() -> None:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (5, *shape, 3), dtype=np.uint8) for shape in ((8, 8), (12, 10))]
    hashes = [key_hashes([f"{part}/{row}" for row in range(5)]) for part in range(2)]
    parts = [ResidentImages(p, h, Frame((8, 8)), CPU) for p, h in zip(pixels, hashes, strict=True)]
    plan, ks = ViewsConfig(), np.array([1, 2, 3, 4])
    batch = joint_images(parts, [5, 5]).batch(np.array([7, 0, 9, 2]), plan, ks)
    assert batch.shape == (4, 3, 8, 8)
    first = parts[0].batch(np.array([0, 2]), plan, np.array([2, 4]))
    second = parts[1].batch(np.array([2, 4]), plan, np.array([1, 3]))
    assert torch.equal(batch, torch.stack([second[0], first[0], second[1], first[1]]))


def test_one_part_is_itself() -> None:
    table = Table(0, 3)
    assert joint_embeddings([table]) is table
