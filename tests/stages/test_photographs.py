"""Images that are no squares: what teacher and student see of them, now and in stores of before."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import FolderSource, ViewsConfig
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.views import key_hashes, view_params
from egapipe.stages import distill, export, extract, predict
from egapipe.stages.distill.data.inputs.images import Frame, ResidentImages, StreamedImages
from egapipe.stages.extract.planning.manifest import Origin, manifest_for
from egapipe.stages.extract.teachers import load_teacher
from egapipe.stages.extract.verifying.verify import verify_store
from tests.pipeline.views.test_views import circle, roundness
from tests.stages.extract import models

SIZES = [(54, 72), (72, 54), (60, 60), (48, 96)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs of two colours, bright and less so, in images of four shapes."""
    folder = tmp_path_factory.mktemp("photographs")
    for label in ("bright", "dim"):
        (folder / label).mkdir()
        for number in range(12):
            image = circle(SIZES[number % 4])
            factor = (1.0 if label == "bright" else 0.7) - 0.01 * number
            image.point(lambda value, factor=factor: int(value * factor)).save(
                folder / label / f"{number:02}.png"
            )
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that takes the shortest edge and a centre crop."""
    return models.dinov2(tmp_path_factory.mktemp("teacher"))


def config(photographs: Path, teacher: Path, folder: Path, *sets: str) -> Config:
    source = f"{{kind: folder, path: {photographs}}}"
    where = [f"store.url={folder / 'store'}", f"runs={folder / 'runs'}"]
    data = [f"dataset.train={source}", f"dataset.test={source}", f"teacher.model={teacher}"]
    small = ["views.count=1", "distill.epochs=1", "distill.batch_size=8", "distill.image_size=16"]
    return load_config("quickstart", [*where, *data, *small, *sets])


def test_all_of_egapipe_sees_the_same_part_of_a_photograph(
    photographs: Path, teacher: Path, tmp_path: Path
) -> None:
    """The teacher's views, training, its test, the exported file and its own description."""
    made = config(photographs, teacher, tmp_path)
    for split in made.splits():
        extract.run(made, split=split, local=True)
    store = FeatureStore.open(made.store_url("train"))
    assert store.manifest.views.aspect == "keep"
    # What is stored of a view is of the crop that the manifest names, made here another way.
    used, dataset = load_teacher(made.teacher), open_dataset(made.dataset.train)
    for row in (0, 1, 3):
        image = dataset.image(row)
        view = view_params(store.manifest.plan, dataset.keys[row], 1, (image.height, image.width))
        assert view.height == view.width == min(image.size)
        pixels = torch.from_numpy(used.preprocessing.view(image, view))[None]
        [expected] = used.forward(pixels)["embedding"].detach().numpy()
        np.testing.assert_allclose(store.read_view(row, 1).astype(float), expected, atol=5e-3)
    assert verify_store(made, split="train").ok
    done = distill.run(made)
    student = distill.load_student(done.run)
    assert student.spec.aspect == "keep"
    folder = export.run(done.run, to=tmp_path / "exported").folder
    files = sorted(photographs.rglob("*.png"))
    by_run, by_file, by_onnx = (
        [p.features for p in predict.run(model, files)]
        for model in (done.run, folder, folder / "model.onnx")
    )
    np.testing.assert_allclose(by_run, by_file, atol=1e-4)
    np.testing.assert_allclose(by_run, by_onnx, atol=1e-3)
    about = json.loads((folder / "preprocessor.json").read_text("utf-8"))
    assert about["crop"] == "the middle square"
    # A disc and the same disc in a wider image are seen alike.
    frame = student.spec.frame
    seen = [predict.clean_view(circle(size), frame).permute(1, 2, 0).numpy() for size in SIZES]
    for pixels in seen:
        assert pixels.shape == (16, 16, 3)
        assert roundness(pixels) == 1


def test_a_store_of_before_goes_on_as_it_was_and_so_do_its_students(
    photographs: Path, teacher: Path, tmp_path: Path
) -> None:
    """Its manifest has no such member: images were stretched."""
    before = config(photographs, teacher, tmp_path, "views.aspect=stretch")
    extract.run(before, split="train", local=True)
    store = FeatureStore.open(before.store_url("train"))
    assert "aspect" not in store.manifest.model_dump(mode="json")["views"]
    now = config(photographs, teacher, tmp_path, "dataset.test=null")
    assert extract.run(now, split="train", local=True).extracted == 0
    done = distill.run(now)
    assert distill.load_student(done.run).spec.aspect is None
    with pytest.raises(StoreError, match=r"views\.aspect is not set, the config asks for 'keep'"):
        distill.run(config(photographs, teacher, tmp_path, "views.aspect=keep"))


def test_a_teacher_that_stretches_clean_images_stretches_its_views(
    photographs: Path, tmp_path: Path
) -> None:
    made = config(photographs, models.vit(tmp_path / "vit"), tmp_path)
    [extraction] = extract.prepare(made, ["train"])
    assert extraction.job.store.manifest.views.aspect is None


@pytest.mark.parametrize(
    ("preprocessing", "aspect"),
    [
        ({"resize": 20, "crop": [16, 16]}, "keep"),
        ({"resize": [16, 16], "crop": None}, None),
        ({"resize": None, "crop": [16, 16]}, None),
        ({"members": {"a": {"resize": [8, 8]}, "b": {"resize": 9}}}, "keep"),
        ({"members": {"a": {"resize": [8, 8]}}}, None),
    ],
)
def test_views_follow_the_teachers_own_transform(
    preprocessing: dict[str, object], aspect: str | None
) -> None:
    made = load_config("quickstart")
    origin = Origin({"backend": "python"}, preprocessing, {"embedding": (4,)})
    manifest = manifest_for(
        made, "train", origin, open_dataset(made.dataset.train), fingerprint="x"
    )
    assert manifest.views.aspect == aspect


def test_resident_and_streamed_students_see_the_same(tmp_path: Path) -> None:
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    dataset = open_dataset(FolderSource(kind="folder", path=str(tmp_path)))
    pixels = np.stack([np.asarray(dataset.image(row)) for row in range(6)])
    hashes, rows, cpu = key_hashes(dataset.keys), np.arange(6), torch.device("cpu")
    for size in ((20, 20), (12, 12)):
        resident = ResidentImages(pixels, hashes, Frame(size, "keep"), cpu)
        streamed = StreamedImages(dataset, hashes, Frame(size, "keep"), cpu, 0)
        plan = ViewsConfig(aspect="keep")
        pairs = [(one.clean(rows), one.batch(rows, plan, 3)) for one in (resident, streamed)]
        for one, other in zip(*pairs, strict=True):
            assert (one.int() - other.int()).abs().max() <= (0 if size == (20, 20) else 1)
