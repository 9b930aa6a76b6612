"""A store and a configuration belong together, or the difference is named."""

from pathlib import Path

import pyarrow as pa
import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.pairing import check_one_teacher, check_pair
from egapipe.pipeline.store import FeatureStore, Manifest
from egapipe.pipeline.views import plan_hash

SMALL = ["dataset.train.limit=30", "dataset.test.limit=10", "views.count=2"]


def config(*sets: str) -> Config:
    return load_config("quickstart", [*SMALL, *sets])


def images(of: Config, split: Split) -> Dataset:
    source = of.source(split)
    assert source is not None
    return open_dataset(source)


def store(folder: Path, of: Config, split: Split, sha256: str = "0" * 64) -> FeatureStore:
    """A store as extraction would have created it; the teacher is not run."""
    dataset, plan = images(of, split), of.view_plan(split)
    manifest = Manifest(
        dataset={
            "name": dataset.name,
            "fingerprint": dataset.fingerprint(),
            "rows": len(dataset),
        },
        teacher={**of.teacher.model_dump(mode="json"), "sha256": sha256, "class": "ViTModel"},
        preprocessing={"mean": [0.5, 0.5, 0.5]},
        views=plan,
        views_hash=plan_hash(plan),
        outputs={"embedding": (4,)},
        dtype=of.store.dtype,
        shard_rows=of.store.shard_rows,
        versions={"torch": "2.0"},
    )
    index = pa.table(
        {
            "row": pa.array(range(len(dataset)), pa.int64()),
            "key": pa.array(list(dataset.keys)),
            "label": pa.array(dataset.labels, pa.int64()),
            "source": pa.array([dataset.name] * len(dataset)),
        }
    )
    return FeatureStore.create(str(folder / f"{split}.zarr"), manifest, index)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_store_of_a_configuration_is_its_store(tmp_path: Path, split: Split) -> None:
    made = config()
    check_pair(store(tmp_path, made, split), made, images(made, split), split)


def test_what_stage_two_and_the_machine_decide_makes_no_difference(tmp_path: Path) -> None:
    made = store(tmp_path, config(), "train")
    other = config("distill.epochs=1", "extract.batch_size=7", "store.shard_rows=9", "runs=r")
    check_pair(made, other, images(other, "train"), "train")


@pytest.mark.parametrize(
    ("asked", "difference"),
    [
        ("teacher.pooling=mean", "teacher.pooling is 'auto', the config asks for 'mean'"),
        ("teacher.model=facebook/dinov2-small", "the config asks for 'facebook/dinov2-small'"),
        ("teacher.revision=v2", "teacher.revision is None, the config asks for 'v2'"),
        ("teacher.precision=float16", "teacher.precision is 'float32', the config asks for"),
        ("views.seed=5", "views.seed is 0, the config asks for 5"),
        ("views.count=4", "views.count is 2, the config asks for 4"),
        ("views.crop=scale", "views.crop is 'pad', the config asks for 'scale'"),
        ("store.dtype=float32", "dtype is 'float16', the config asks for 'float32'"),
        ("dataset.train.limit=29", "dataset.rows is 30, the config asks for 29"),
        ("dataset.train.split=test", "dataset.fingerprint is"),
    ],
)
def test_another_teacher_view_plan_type_or_data_set_is_refused(
    tmp_path: Path, asked: str, difference: str
) -> None:
    made, other = store(tmp_path, config(), "train"), config(asked)
    with pytest.raises(StoreError) as error:
        check_pair(made, other, images(other, "train"), "train")
    text = str(error.value)
    assert text.startswith(f"store {tmp_path}/train.zarr: ")
    assert difference in text
    assert "views_hash" not in text
    assert text.endswith("or point store.url at the right store")
    assert "\n" not in text


def test_test_images_are_clean_whatever_the_plan(tmp_path: Path) -> None:
    made = store(tmp_path, config(), "test")
    other = config("views.count=4")
    check_pair(made, other, images(other, "test"), "test")


UNLABELLED = "dataset.unlabelled={kind: digits, split: test, limit: 9}"


def test_stores_of_one_teacher_go_together(tmp_path: Path) -> None:
    made = config(UNLABELLED)
    one, two = (store(tmp_path, made, split) for split in made.training_splits())
    check_pair(two, made, images(made, "unlabelled"), "unlabelled")
    check_one_teacher(one, two)


def test_stores_of_other_weights_are_refused(tmp_path: Path) -> None:
    """Both are what the configuration asks for: a name may stand for other weights by now."""
    made = config(UNLABELLED)
    one, two = store(tmp_path, made, "train"), store(tmp_path, made, "unlabelled", "1" * 64)
    with pytest.raises(StoreError) as error:
        check_one_teacher(one, two)
    text = str(error.value)
    assert "train.zarr" in text
    assert "unlabelled.zarr are not of one teacher: teacher.sha256 is '000" in text
    assert "\n" not in text


def test_imported_embeddings_come_from_a_file_for_each_store(tmp_path: Path) -> None:
    normalize = "{mean: [0, 0, 0], std: [1, 1, 1]}"
    made = config(UNLABELLED, f"teacher={{backend: imported, model: m, normalize: {normalize}}}")
    one, two = store(tmp_path, made, "train"), store(tmp_path, made, "unlabelled", "1" * 64)
    check_one_teacher(one, two)
