"""Several teachers in one pass: each sees exactly what it sees alone."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import Normalize
from egapipe.pipeline.config.teachers import EnsembleTeacher
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.pairing import check_pair
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.views import View
from egapipe.stages.extract import run
from egapipe.stages.extract.teachers import Teacher, load_teacher
from egapipe.stages.extract.verifying.verify import verify_store
from tests.stages.extract import models
from tests.stages.extract.teachers import networks

# Three preprocessings: 16 x 16 squeezed, 16 x 16 out of the centre, 20 x 20 squeezed.
SMALL = {
    "backend": "python",
    "model": f"{networks.__name__}:small",
    "preprocessing": {"size": 20, "resample": "bilinear"},
}
IMAGES = [(40, 24), (16, 16), (9, 33)]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    vit, dinov2 = (tmp_path_factory.mktemp(name) for name in ("vit", "dinov2"))
    return {
        "vit": {"backend": "transformers", "model": str(models.vit(vit)), "grid": 2},
        "dino": {"backend": "transformers", "model": str(models.dinov2(dinov2))},
        "small": SMALL,
    }


def ensemble(members: dict[str, Any], **fields: Any) -> EnsembleTeacher:
    return EnsembleTeacher(backend="ensemble", teachers=members, **fields)


def alone(members: dict[str, Any]) -> dict[str, Teacher]:
    return {name: load_teacher(ensemble(members).teachers[name]) for name in members}


def image(height: int, width: int) -> Image.Image:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def joined(teacher: Teacher) -> Tensor:
    return torch.stack(
        [torch.from_numpy(teacher.preprocessing.clean(image(*size)).copy()) for size in IMAGES]
    )


@pytest.mark.parametrize("size", IMAGES)
def test_everybodys_pixels_are_those_it_has_alone(
    size: tuple[int, int], members: dict[str, Any]
) -> None:
    teacher = load_teacher(ensemble(members))
    view = View(top=1, left=2, height=7, width=8, flip=True)
    for make in (lambda p: p.clean(image(*size)), lambda p: p.view(image(*size), view)):
        flat = torch.from_numpy(make(teacher.preprocessing))[None]
        assert flat.shape == (1, *teacher.preprocessing.shape)
        parts = teacher.preprocessing.split(flat)  # type: ignore[attr-defined]
        for name, single in alone(members).items():
            expected = torch.from_numpy(make(single.preprocessing).copy())
            assert torch.equal(parts[name][0], expected)


def test_equal_pixels_are_kept_once_whatever_is_done_to_them_on_the_device(
    members: dict[str, Any],
) -> None:
    transform = SMALL["preprocessing"]
    others = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    twice = {"a": SMALL, "b": {**SMALL, "preprocessing": {**transform, **others}}}
    teacher = load_teacher(ensemble(twice, combine="separate"))
    assert teacher.preprocessing.shape == (3 * 20 * 20,)
    found = teacher.forward(joined(teacher))
    assert not torch.allclose(found["a"], found["b"])
    filtered = {**SMALL, "preprocessing": {**transform, "resample": "nearest"}}
    other = load_teacher(ensemble({"a": SMALL, "b": filtered}))
    assert other.preprocessing.shape == (2 * 3 * 20 * 20,)


def test_separate_outputs_are_those_of_each_alone_bit_for_bit(members: dict[str, Any]) -> None:
    teacher = load_teacher(ensemble(members, combine="separate"))
    pixels = joined(teacher)
    found, parts = teacher.forward(pixels), teacher.preprocessing.split(pixels)  # type: ignore[attr-defined]
    assert teacher.outputs == {"vit": (16,), "vit_grid": (16, 2, 2), "dino": (16,), "small": (8,)}
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == teacher.outputs
    for name, single in alone(members).items():
        own = single.forward(parts[name].contiguous())
        assert torch.equal(found[name], own["embedding"])
        assert "grid" not in own or torch.equal(found[f"{name}_grid"], own["grid"])


def test_concatenated_they_are_side_by_side(members: dict[str, Any]) -> None:
    separate = load_teacher(ensemble(members, combine="separate"))
    raw = load_teacher(ensemble(members, normalize=False))
    assert raw.outputs == {"embedding": (40,), "vit_grid": (16, 2, 2)}
    pixels = joined(raw)
    parts = [separate.forward(pixels)[name] for name in members]
    assert torch.equal(raw.forward(pixels)["embedding"], torch.cat(parts, dim=1))


def test_normalised_all_have_the_same_length_and_the_numbers_a_mean_square_of_one(
    members: dict[str, Any],
) -> None:
    teacher = load_teacher(ensemble(members))
    pixels = joined(teacher)
    embedding = teacher.forward(pixels)["embedding"]
    raw = load_teacher(ensemble(members, normalize=False)).forward(pixels)["embedding"]
    for part, own in zip(embedding.split([16, 16, 8], 1), raw.split([16, 16, 8], 1), strict=True):
        torch.testing.assert_close(part.norm(dim=1), torch.full((3,), (40 / 3) ** 0.5))
        assert torch.nn.functional.cosine_similarity(part, own).min() > 1 - 1e-5
    torch.testing.assert_close(embedding.square().mean(dim=1), torch.ones(3))


def test_the_spec_says_who_they_are(members: dict[str, Any]) -> None:
    config = ensemble(members)
    spec = load_teacher(config).spec
    singles = alone(members)
    assert {key: spec[key] for key in durable(config)} == durable(config)
    for name, single in singles.items():
        assert spec["members"][name]["sha256"] == single.spec["sha256"]
    assert spec["members"]["dino"]["resolved_pooling"] == "cls"
    assert spec["precision"] == "float32"
    swapped = load_teacher(ensemble({name: members[name] for name in ("small", "dino", "vit")}))
    assert swapped.spec["sha256"] != spec["sha256"]
    low = {**members, "vit": {**members["vit"], "precision": "bfloat16"}}
    assert load_teacher(ensemble(low)).spec["precision"] == "bfloat16"


def test_it_survives_the_way_to_another_process(members: dict[str, Any]) -> None:
    preprocessing = load_teacher(ensemble(members)).preprocessing
    again = pickle.loads(pickle.dumps(preprocessing))  # noqa: S301  (our own)
    assert np.array_equal(again.clean(image(9, 33)), preprocessing.clean(image(9, 33)))


def test_two_outputs_of_one_name_are_refused(members: dict[str, Any]) -> None:
    clash = {"vit": members["vit"], "vit_grid": members["dino"]}
    with pytest.raises(UsageError, match="two outputs would be called vit_grid: rename a teacher"):
        load_teacher(ensemble(clash, combine="separate"))
    assert load_teacher(ensemble(clash)).outputs["vit_grid"] == (16, 2, 2)


def test_what_is_no_ensemble_is_refused(members: dict[str, Any]) -> None:
    imported = {"backend": "imported", "model": "clip"}
    for wrong in ({"one": SMALL}, {"a": SMALL, "B c": SMALL}, {"a": SMALL, "b": imported}):
        with pytest.raises(ValidationError):
            ensemble(wrong)
    sets = [
        "teacher={backend: ensemble}",
        "teacher.teachers={a: {backend: timm, model: x}, b: {backend: tim, model: x}}",
    ]
    with pytest.raises(UsageError, match=r"teacher.teachers.b.backend must be one of .*timm"):
        load_config("quickstart", sets)


def config(folder: Path, members: dict[str, Any], **fields: Any) -> Config:
    small = {
        "dataset.train.limit": 20,
        "dataset.test.limit": 8,
        "views.count": 1,
        "store.shard_rows": 8,
        "store.url": str(folder / "store"),
        "store.cache_dir": str(folder / "cache"),
        "extract.batch_size": 7,
    }
    tree = load_config("quickstart", [f"{key}={value}" for key, value in small.items()])
    return tree.model_copy(update={"teacher": ensemble(members, **fields)})


@pytest.mark.parametrize("combine", ["concat", "separate"])
def test_a_store_holds_what_they_give_and_is_paired_and_verified(
    combine: str, members: dict[str, Any], tmp_path: Path
) -> None:
    settings = config(tmp_path, members, combine=combine)
    run(settings, split="train", local=True)
    store = FeatureStore.open(settings.store_url("train"))
    dataset = open_dataset(settings.dataset.train)
    check_pair(store, settings, dataset, "train")
    assert verify_store(settings, split="train", count=6).ok
    teacher = load_teacher(settings.teacher)
    rows = np.arange(20)
    pixels = torch.stack(
        [torch.from_numpy(teacher.preprocessing.clean(dataset.image(int(row)))) for row in rows]
    )
    expected = teacher.forward(pixels)
    for name, shape in teacher.outputs.items():
        features = Features.open(store, output=name, cache_dir=settings.store.cache_dir)
        assert features.shape == shape
        taken = features.take(rows, 0)
        assert taken.shape == (20, *shape)
        # Stored as float16, and in other batches.
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(taken.float(), expected[name], rtol=2e-3, atol=2e-3 * scale)
    raised = config(tmp_path, {**members, "small": {**SMALL, "args": {"seed": 1}}}, combine=combine)
    with pytest.raises(StoreError, match=r"teacher.teachers.small.args"):
        check_pair(store, raised, dataset, "train")


def test_students_are_normalised_as_the_first_teacher(
    members: dict[str, Any], tmp_path: Path
) -> None:
    recorded = load_teacher(ensemble(members)).preprocessing.to_json()
    vit = load_teacher(ensemble(members).teachers["vit"]).preprocessing.to_json()
    assert Normalize(mean=recorded["mean"], std=recorded["std"]) == Normalize(
        mean=vit["mean"], std=vit["std"]
    )
    assert recorded["members"]["vit"] == vit
