"""A store and a configuration belong together, or the difference is named."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.locations.places import with_files
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.pairing import Vectors, check_one_teacher, check_pair
from egapipe.pipeline.results.weights import tensors_sha256
from egapipe.pipeline.store import FeatureStore, Manifest
from egapipe.pipeline.views import plan_hash
from tests.pipeline.results.test_durable import extended
from tests.pipeline.store.samples import finished, make_manifest

SMALL = ["dataset.train.limit=30", "dataset.test.limit=10", "views.count=2"]


def config(*sets: str) -> Config:
    return load_config("quickstart", [*SMALL, *sets])


def images(of: Config, split: Split) -> Dataset:
    source = of.source(split)
    assert source is not None
    return open_dataset(source)


def store(
    folder: Path, of: Config, split: Split, sha256: str = "0" * 64, **teacher: object
) -> FeatureStore:
    """A store as extraction would have created it; the teacher is not run."""
    dataset, plan, settings = images(of, split), of.view_plan(split), durable(of.teacher)
    manifest = Manifest(
        dataset={
            "name": dataset.name,
            "fingerprint": dataset.fingerprint(),
            "rows": len(dataset),
        },
        teacher=with_files(
            {**settings, "sha256": sha256, "class": "ViTModel", **teacher}, settings
        ),
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


def settings_of(folder: object) -> list[str]:
    """A teacher that lies in a folder. It is not run here, so that its files need only be there."""
    return [f"teacher={{backend: transformers, model: '{folder}'}}"]


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Below the current folder, `models/own/vit`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "models" / "own" / "vit"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def pairs(made: FeatureStore, other: Config) -> None:
    check_pair(made, other, images(other, "train"), "train")


@pytest.mark.parametrize("kept", ["content", "place alone"])
def test_a_teacher_is_one_however_its_folder_is_written(
    tmp_path: Path, teacher: Path, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`place alone`: as stores were before the content of files was in them."""
    before = config(*settings_of("models/own/vit"))
    with pytest.MonkeyPatch.context() as patch:
        if kept == "place alone":
            patch.setattr(
                "tests.pipeline.results.test_pairing.with_files", lambda spec, _: dict(spec)
            )
        made = store(tmp_path, before, "train")
    assert ("files" in made.manifest.teacher) == (kept == "content")
    for written in ("models/own/vit", "./models/own/vit", teacher, "models/../models/own/vit"):
        pairs(made, config(*settings_of(written)))
    # A job of `submit` runs elsewhere, where the relative path leads nowhere.
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    pairs(made, config(*settings_of(teacher)))
    shutil.rmtree(teacher)
    pairs(made, config(*settings_of(teacher)))


@pytest.mark.parametrize("parts", [("vision_model", "visual_projection"), ("vision_model",)])
def test_an_old_store_knows_the_weights_of_its_teacher_at_another_place(
    tmp_path: Path, teacher: Path, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`models/foo` could be a name of the hub; parts: what loading took of the file."""
    old = teacher.parent.parent / "foo"
    teacher.rename(old)
    names = ("logit_scale", "text_model", "vision_model", "visual_projection")
    weights = {f"{name}.weight": torch.full((2,), float(i)) for i, name in enumerate(names)}
    save_file(weights, old / "model.safetensors")
    sha256 = tensors_sha256(weights[f"{part}.weight"] for part in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.pipeline.results.test_pairing.with_files", lambda spec, _: dict(spec))
        made = store(tmp_path, config(*settings_of("models/foo")), "train", sha256)
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    pairs(made, config(*settings_of(old)))
    pairs(made, config(*settings_of(old.rename(tmp_path / "elsewhere"))))
    other = {**weights, f"{parts[0]}.weight": torch.full((2,), 7.0)}
    save_file(other, tmp_path / "elsewhere" / "model.safetensors")
    with pytest.raises(StoreError, match=r"teacher\.model is 'models/foo', the config asks for '/"):
        pairs(made, config(*settings_of(tmp_path / "elsewhere")))


def test_a_teacher_that_was_moved_is_the_same_and_another_in_its_place_is_not(
    tmp_path: Path, teacher: Path
) -> None:
    made = store(tmp_path, config(*settings_of(teacher)), "train")
    moved = teacher.rename(tmp_path / "elsewhere")
    pairs(made, config(*settings_of(moved)))
    teacher.mkdir()
    (teacher / "config.json").write_text("{}")
    (teacher / "model.safetensors").write_bytes(b"others!")
    with pytest.raises(StoreError, match=r"teacher\.files is '.*', the config asks for '"):
        pairs(made, config(*settings_of(teacher)))


def test_renaming_the_images_folder_makes_no_other_data_set(tmp_path: Path) -> None:
    digits = images(config(), "train")
    for row in range(4):
        (tmp_path / "photos" / str(row % 2)).mkdir(parents=True, exist_ok=True)
        digits.image(row).save(tmp_path / "photos" / str(row % 2) / f"{row}.png")
    before = config(f"dataset.train={{kind: folder, path: '{tmp_path / 'photos'}'}}")
    made = store(tmp_path, before, "train")
    renamed = (tmp_path / "photos").rename(tmp_path / "pictures")
    after = config(f"dataset.train={{kind: folder, path: '{renamed}'}}")
    pairs(made, after)
    assert store(tmp_path, after, "train").manifest.dataset.name == "folder/photos"
    (renamed / "1" / "1.png").unlink()
    with pytest.raises(StoreError, match=r"dataset\.rows is 4, the config asks for 3"):
        pairs(made, after)


def test_a_setting_that_only_the_store_has_is_a_difference(tmp_path: Path) -> None:
    """A later version may have stored it: what the configuration does not ask for is not taken."""
    asked = config()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "egapipe.pipeline.results.durable.LATER", {"TransformersTeacher": {"lora": None}}
        )
        made = store(tmp_path, asked, "train", lora="adapter")
        with pytest.raises(StoreError, match=r"teacher\.lora is 'adapter', the config does not"):
            pairs(made, asked)


def test_a_new_setting_at_its_default_pairs(tmp_path: Path) -> None:
    made, later = store(tmp_path, config(), "train"), extended(config())
    check_pair(made, later, images(config(), "train"), "train")
    asked = later.model_copy(update={"teacher": extended(config().teacher, added=8)})
    with pytest.raises(StoreError, match=r"teacher\.added is not set, the config asks for 8"):
        check_pair(made, asked, images(config(), "train"), "train")


@pytest.mark.parametrize(("shape", "dim"), [((), 1), ((5,), 5), ((2, 3), 6)])
def test_every_output_is_taken_as_vectors(tmp_path: Path, shape: tuple[int, ...], dim: int) -> None:
    made = finished(str(tmp_path / "s"), make_manifest(8, 4, 2, "float32", {"norm": shape}))
    vectors = Vectors.open(made, "norm", str(tmp_path / "cache"))
    for count in (3, 0):
        assert vectors.take(np.arange(count), 1).shape == (count, dim)
