"""Each check finds what it is there for, and says what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from egapipe.pipeline.results.runs import run_folder
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import extract
from egapipe.stages.doctor.examination import CHECKS, examine
from egapipe.stages.doctor.machine import EXTRAS, needed_extras
from egapipe.stages.doctor.parts import Parts
from egapipe.stages.extract.planning.manifest import index_of
from tests.pipeline.store.samples import digests_of
from tests.stages.doctor.conftest import MakeParts
from tests.stages.extract import models

HERE = "tests.stages.doctor.networks"
BLACK = {"size": 16, "mean": [0, 0, 0], "std": [1, 1, 1]}
TOO_MANY_VIEWS = "views.count=1000000000000"


def network(name: str) -> str:
    """The override for a teacher of `networks.py`."""
    teacher = {"backend": "python", "model": f"{HERE}:{name}", "preprocessing": BLACK}
    return f"teacher={json.dumps(teacher)}"


def said(name: str, parts: Parts, status: str) -> str:
    """What a check says, whose status is known."""
    result = examine(CHECKS[name], parts)
    assert result.status == status, result
    assert "\n" not in result.said
    return result.said


def test_a_teacher_that_is_constant_or_not_finite_fails(fresh: MakeParts) -> None:
    for name, message in (
        ("Corner", "gives the same embedding for different images"),
        ("LogCorner", "embeddings of 16 of 16 images are not finite"),
        ("Large", "too large for float16: set store.dtype"),
        ("Raises", "ZeroDivisionError: a pixel is black"),
    ):
        assert message in said("teacher", fresh(network(name)), "FAIL")
    said("teacher", fresh(network("Large"), "store.dtype=bfloat16"), "ok")


def test_a_graph_that_says_nothing_fails(fresh: MakeParts) -> None:
    parts = fresh(network("Brightness"))
    assert "all images correlate above" in said("teacher", parts, "warn")
    assert "all pairs of images correlate alike" in said("ega", parts, "FAIL")


@pytest.mark.parametrize(
    ("images", "name", "status", "message"),
    [
        (1, "images", "FAIL", "digits/train has 1 image: a student needs some more"),
        (2, "ega", "skip", "a graph that can be shuffled needs 3 images, 2 are here"),
        (2, "teacher", "ok", "not constant"),
        (3, "ega", "ok", "edges of a batch and itself"),
        (7, "teacher", "ok", "not constant"),
        (8, "teacher", "warn", "all images correlate above"),
        (8, "ega", "FAIL", "all pairs of images correlate alike"),
    ],
)
def test_a_handful_of_images_is_no_ground_for_advice(
    fresh: MakeParts, images: int, name: str, status: str, message: str
) -> None:
    """A few may well be alike, and of two there is one edge."""
    parts = fresh(network("Brightness"), f"dataset.train.limit={images}")
    assert message in said(name, parts, status)


def test_the_graph_of_a_batch_equals_itself(fresh: MakeParts) -> None:
    assert said("ega", fresh(), "ok").startswith("edges of a batch and itself 0 apart")


def test_the_run_of_this_configuration_is_no_teacher(fresh: MakeParts, tmp_path: Path) -> None:
    # A link that follows the newest run.
    link = tmp_path / "newest"
    parts = fresh(f"teacher={{backend: run, model: {link}}}")
    own = run_folder(parts.config).path
    own.mkdir(parents=True)
    link.symlink_to(own)
    assert "the run of this very configuration" in said("teacher/student", parts, "FAIL")
    link.unlink()
    link.symlink_to(tmp_path)
    assert "has no config.yaml" in said("teacher/student", parts, "FAIL")


def test_a_student_with_the_teachers_weights_is_found(fresh: MakeParts) -> None:
    same = fresh(network("Linear"), f"distill.student.name={HERE}:Linear")
    assert "starts with the teacher's weights" in said("teacher/student", same, "FAIL")
    said("teacher/student", fresh(network("Linear")), "ok")


def test_a_student_that_cannot_be_used_fails(fresh: MakeParts) -> None:
    unknown = fresh("distill.student.name=digits_cn")
    assert "did you mean digits_cnn" in said("student", unknown, "FAIL")
    said("teacher/student", unknown, "skip")
    divides = fresh(f"distill.student.name={HERE}:NotFinite")
    assert "not finite" in said("student", divides, "FAIL")


def test_another_normalisation_for_the_student_is_a_warning(fresh: MakeParts) -> None:
    own = "distill.normalize={mean: [0.1, 0.2, 0.3], std: [1, 1, 1]}"
    assert "set it to null unless that is meant" in said("student input", fresh(own), "warn")
    same = "distill.normalize={mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
    assert "as the teacher's" in said("student input", fresh(same), "ok")


def test_a_store_of_something_else_fails(beside: MakeParts) -> None:
    for change in ("views.seed=5", "store.dtype=float32", "dataset.train.limit=60"):
        assert "the config asks for" in said("manifest", beside(change), "FAIL")
    # A student could learn from it, but it cannot be continued.
    said("manifest", beside("store.shard_rows=8"), "ok")
    assert "shard_rows is 16" in said("extraction", beside("store.shard_rows=8"), "FAIL")


@pytest.fixture
def own_teacher(fresh: MakeParts, tmp_path: Path) -> Parts:
    """Parts of a configuration whose teacher's folder the test may change; its store is there."""
    folder = models.vit(tmp_path / "own")
    parts = fresh(f"teacher.model={folder}")
    extract.run(parts.config, split="train", local=True)
    return parts


def test_a_teacher_with_other_weights_of_the_same_name_is_found(
    own_teacher: Parts, tmp_path: Path
) -> None:
    said("embeddings", own_teacher, "ok")
    models.vit(tmp_path / "own", seed=1)
    assert "teacher.sha256 is" in said("embeddings", Parts(own_teacher.config), "FAIL")


def test_a_teacher_with_another_processor_is_found(own_teacher: Parts, tmp_path: Path) -> None:
    assert "as the teacher's processor has it" in said("normalisation", own_teacher, "ok")
    path = tmp_path / "own" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    changed = said("normalisation", Parts(own_teacher.config), "FAIL")
    assert "mean is [0.5, 0.5, 0.5], the teacher's [0.1, 0.2, 0.3]" in changed


def test_other_embeddings_under_the_same_manifest_are_found(own_teacher: Parts) -> None:
    store = own_teacher.store("train")
    kept = {shard: store.read_shard(shard).astype("float32") for shard in range(5)}
    for shard, values in kept.items():
        images = digests_of(store, shard)
        store.objects.delete(f"commits/{shard:06d}.json")
        store.write_shard(shard, {"embedding": -values[::-1].copy()}, images=images)
    message = said("embeddings", Parts(own_teacher.config), "FAIL")
    assert "DIFFERS" in message
    assert "extract into another store.url" in message


def test_an_unfinished_store_is_a_warning(own_teacher: Parts) -> None:
    store = own_teacher.store("train")
    store.objects.delete("commits/000003.json")
    parts = Parts(own_teacher.config)
    assert "train.zarr has 4 of 5 shards" in said("store", parts, "warn")
    assert "to be written" in said("extraction", parts, "ok")
    for shard in (0, 1, 2, 4):
        store.objects.delete(f"commits/{shard:06d}.json")
    assert "has no embeddings yet" in said("embeddings", parts, "skip")


def test_a_place_that_cannot_be_written_to_fails(fresh: MakeParts, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    inside = tmp_path / "file" / "inside"
    for name, key in (("store", "store.url"), ("cache", "store.cache_dir"), ("runs", "runs")):
        assert "a file is where a folder" in said(name, fresh(f"{key}={inside}"), "FAIL")
    said("store", fresh("store.url=memory://doctor"), "ok")


def test_what_does_not_fit_fails(fresh: MakeParts) -> None:
    parts = fresh(TOO_MANY_VIEWS)
    assert "are to be written, only" in said("extraction", parts, "FAIL")
    small = fresh("dataset.test=null")
    extract.run(small.config, split="train", local=True)
    assert "0 bytes to be copied" not in said("cache", small, "ok")
    manifest = small.store("train").manifest
    views = manifest.views.model_copy(update={"count": 10**12})
    shutil.rmtree(small.store("train").url)
    larger = manifest.model_copy(update={"views": views})
    FeatureStore.create(small.store("train").url, larger, index_of(small.dataset("train")))
    assert "the copies for stage two take" in said("cache", Parts(small.config), "FAIL")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folders train (cat, dog, unlabelled below flat) and test (dog, owl) of small images."""
    for place in ("train/cat", "train/dog", "test/dog", "test/owl", "flat"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (80 * number, 0, 9)).save(tmp_path / place / f"{number}.png")
    return tmp_path


def test_labels_must_be_there_and_mean_the_same(fresh: MakeParts, pictures: Path) -> None:
    def folders(train: str, test: str) -> str:
        return (
            f"dataset={{train: {{kind: folder, path: {pictures / train}}}, "
            f"test: {{kind: folder, path: {pictures / test}}}}}"
        )

    assert "has no labelled image" in said("labels", fresh(folders("flat", "test")), "FAIL")
    assert "labels_per_class is 5 and cat" in said(
        "labels", fresh(folders("train", "test")), "FAIL"
    )
    fewer = "distill.labels_per_class=3"
    said("labels", fresh(folders("train", "test"), fewer), "ok")
    both = "(owl): its classes are dog, owl; those of folder/train are cat, dog"
    assert both in said("classes", fresh(folders("train", "test")), "FAIL")
    said("classes", fresh(folders("train", "train")), "ok")
    assert "no labelled image" in said("classes", fresh(folders("train", "flat")), "FAIL")
    said("classes", fresh("dataset.test=null"), "skip")


def test_images_that_cannot_be_read_fail(fresh: MakeParts, pictures: Path) -> None:
    for file in (pictures / "flat").iterdir():
        file.write_bytes(b"")
    source = f"dataset.train={{kind: folder, path: {pictures / 'flat'}}}"
    assert "0 of 3 images" in said("images", fresh(source), "FAIL")
    nowhere = f"dataset.train={{kind: folder, path: {pictures / 'nowhere'}}}"
    assert "is not a folder" in said("images", fresh(nowhere), "FAIL")


def test_extras_that_are_needed_are_named(fresh: MakeParts) -> None:
    def needed(*sets: str) -> set[str]:
        return needed_extras(fresh(*sets).config)

    assert needed() == set()
    assert needed("teacher={backend: timm, model: m}") == {"timm"}
    assert needed("distill.student.name=torchvision:resnet18") == {"torchvision"}
    assert needed("store.url=s3://bucket/x") == {"s3"}
    assert needed("store.url=gs://bucket/x", "teacher={backend: open_clip, model: m}") == {
        "gcs",
        "open_clip",
    }
    assert needed("extract.jpeg=device", "extract.canvas=64") == {"jpeg"}
    assert {"s3", "gcs", "jpeg", "onnx", "open_clip", "timm", "torchvision"} == EXTRAS.keys()
    said("extras", fresh(), "ok")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_here_fails(fresh: MakeParts) -> None:
    assert "torch finds no GPU" in said("device", fresh("extract.device=cuda"), "FAIL")
    assert "torch sees no GPU" in said("device", fresh("distill.device=cuda"), "FAIL")
    said("device", fresh("extract.device=cuda", "cluster.address=auto"), "ok")


@pytest.mark.usefixtures("ray_cluster")
def test_more_workers_than_ray_has_cpus_are_a_warning(fresh: MakeParts) -> None:
    asked = ("distill.workers=64", "distill.batch_size=64")
    assert "Ray Train waits" in said("ray", fresh(*asked), "warn")
    assert "room for" in said("ray", fresh("extract.cpus_per_worker=64"), "FAIL")
