import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset


@pytest.mark.parametrize(
    ("split", "first", "stop"), [("train", 0, 1437), ("test", 1437, 1797), ("all", 0, 1797)]
)
def test_a_split_is_its_rows_of_the_original(split, first, stop) -> None:
    dataset = open_dataset(DigitsSource(kind="digits", split=split))
    original = load_digits()
    assert dataset.name == f"digits/{split}"
    assert list(dataset.keys) == [f"digits/{row:04d}" for row in range(first, stop)]
    assert dataset.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.labels, original.target[first:stop])
    assert dataset.classes == [str(digit) for digit in range(10)]
    for row in (0, len(dataset) - 1):
        expected = np.rint(original.images[first + row] * 255 / 16).astype(np.uint8)
        image = np.asarray(dataset.image(row))
        assert image.shape == (8, 8, 3)
        np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, axis=2))
        assert dataset.encoded(row) == expected.tobytes()


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    """It is part of the identity of every stored embedding: it must not change by accident."""
    dataset = open_dataset(DigitsSource(kind="digits", limit={"rows": 2, "choose": "first"}))
    digest = hashlib.sha256(b"egapipe data set fingerprint 1")
    for row in range(2):
        data = dataset.encoded(row)
        digest.update((11).to_bytes(8, "little") + f"digits/{row:04d}".encode())
        digest.update(row.to_bytes(8, "little"))
        digest.update((64).to_bytes(8, "little") + hashlib.sha256(data).digest())
    assert dataset.fingerprint() == digest.hexdigest()
