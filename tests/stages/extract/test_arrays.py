"""Stage one over rows that are arrays, with a teacher of the user's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from egapipe.pipeline.config.sources import DigitsSource
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import extract
from egapipe.stages.extract.verifying.verify import verify_store
from tests.stages.words import LENGTH, bag_of_words, of_words, write_words


@pytest.mark.parametrize("decode", ["threads", "processes"])
def test_every_variant_has_the_embedding_of_its_numbers(tmp_path: Path, decode: str) -> None:
    config = of_words(tmp_path, f"extract.decode={decode}", "store.shard_rows=40")
    report = extract.run(config, split="train", local=True)
    assert (report.rows, report.views, report.failures) == (96, 3, 0)
    store = FeatureStore.open(config.store_url("train"))
    assert store.manifest.preprocessing == {"array": {"shape": [LENGTH], "dtype": "int64"}}
    ids = torch.from_numpy(np.load(tmp_path / "train.npy")).long()
    teacher = bag_of_words()
    with torch.no_grad():
        for view in range(3):
            wanted = teacher(ids[:, view]).half().numpy()
            found = np.stack([store.read_view(row, view, "embedding") for row in range(96)])
            assert np.allclose(found, wanted, atol=2e-3)
    assert verify_store(config, split="train").ok


def test_a_network_blind_to_padding_and_order_is_a_teacher(tmp_path: Path) -> None:
    """What it is tried with has few ids, among which it need not see a difference."""
    config = of_words(tmp_path, "teacher.model=tests.stages.words:bag_of_some_words")
    assert extract.run(config, split="train", local=True).failures == 0


def test_a_row_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    write_words(tmp_path, "train", 32)
    values = np.load(tmp_path / "train.npy").astype(np.float32)
    values[5, 1, 2] = np.nan
    np.save(tmp_path / "train.npy", values)
    config = of_words(
        tmp_path,
        "dataset.test=null",
        f"teacher.array={{shape: [{LENGTH}], dtype: float32}}",
        "teacher.model=tests.stages.words:projected",
        "extract.max_failures=1",
    )
    report = extract.run(config, split="train", local=True)
    assert report.failures == 1
    [failure] = FeatureStore.open(config.store_url("train")).snapshot().failures
    assert (failure.row, "not finite" in failure.reason) == (5, True)


def test_a_teacher_of_other_arrays_and_views_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for setting, reason in (
        ("teacher.array={shape: [7], dtype: int64}", r"int64 \[6\], the teacher sees.*\[7\]"),
        (
            "teacher={backend: python, model: 'tests.stages.words:projected', "
            "array: {shape: [6], dtype: float32}}",
            "holds arrays int64",
        ),
        ("views.count=3", "views.count is 3, and must be less"),
    ):
        config = of_words(tmp_path, setting)
        with pytest.raises(UsageError, match=reason):
            extract.run(config, split="train", local=True)
    digits = of_words(tmp_path).model_copy(
        update={
            "dataset": of_words(tmp_path).dataset.model_copy(
                update={"train": DigitsSource(kind="digits")}
            )
        }
    )
    with pytest.raises(UsageError, match="holds images, the teacher sees arrays"):
        extract.run(digits, split="train", local=True)


def test_replaced_numbers_under_a_finished_store_are_noticed(tmp_path: Path) -> None:
    config = of_words(tmp_path)
    extract.run(config, split="train", local=True)
    values = np.load(tmp_path / "train.npy")
    values[17] += 1
    np.save(tmp_path / "train.npy", values)
    report = verify_store(config, split="train", images=True)
    assert not report.ok
    assert [changed.row for changed in report.changed] == [17]
