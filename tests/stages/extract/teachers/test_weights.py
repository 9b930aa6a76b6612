"""The identity of a teacher: SHA-256 over its weights, wherever they lie."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from egapipe.stages.extract.teachers import load_teacher
from tests.stages.extract import models

OLD = 1_600_000_000


def sha256(folder: Path, **fields: Any) -> str:
    digest: str = load_teacher(models.settings(folder, **fields)).spec["sha256"]
    return digest


def by_hand(folder: Path) -> str:
    """From the file, without the library that loads the model."""
    tensors = load_file(folder / "model.safetensors").values()
    headers = [f"torch.{t.dtype} {t.shape} ".encode() for t in tensors]
    digests = [
        hashlib.sha256(h + t.tobytes()).digest() for h, t in zip(headers, tensors, strict=True)
    ]
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def test_it_is_a_digest_of_the_tensors_in_the_file(tmp_path: Path) -> None:
    folder = models.vit(tmp_path)
    assert sha256(folder) == by_hand(folder)


def test_equal_weights_are_equal_wherever_they_lie_and_however_they_are_pooled(
    tmp_path: Path,
) -> None:
    one, two = models.vit(tmp_path / "one"), models.vit(tmp_path / "two")
    assert sha256(one) == sha256(two) == sha256(two, pooling="mean")
    assert sha256(models.vit(tmp_path / "three", seed=1)) != sha256(one)


def test_one_bit_of_one_weight_makes_another_teacher(tmp_path: Path) -> None:
    folder = models.vit(tmp_path)
    before = sha256(folder)
    file = folder / "model.safetensors"
    tensors = {name: tensor.copy() for name, tensor in load_file(file).items()}
    bits = tensors["encoder.layer.1.output.dense.weight"].view(np.uint32)
    bits.ravel()[7] ^= np.uint32(1)
    save_file(tensors, file, metadata={"format": "pt"})
    assert sha256(folder) != before


def test_only_what_the_image_goes_through_counts(tmp_path: Path) -> None:
    """CLIP's text tower, or its absence, makes no other teacher of images."""
    both = models.clip(tmp_path / "both")
    before = sha256(both)
    model = transformers.CLIPModel.from_pretrained(both)
    with torch.no_grad():
        model.text_projection.weight.add_(1.0)
    assert sha256(models.save(model, tmp_path / "text", "clip")) == before
    with torch.no_grad():
        model.visual_projection.weight.add_(1.0)
    changed = models.save(model, tmp_path / "image", "clip")
    assert sha256(changed) != before
    assert sha256(changed, pooling="cls") == sha256(both, pooling="cls")


def test_weights_saved_in_half_precision_are_what_their_float32_values_are(tmp_path: Path) -> None:
    model = models.vit_model().half()
    half = models.save(model, tmp_path / "half", "vit")
    full = models.save(model.float(), tmp_path / "full", "vit")
    assert sha256(half) == sha256(full)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_spec_says_what_was_asked_for_and_what_it_came_to(pooling: str, tmp_path: Path) -> None:
    folder = models.dinov2(tmp_path)
    teacher = load_teacher(models.settings(folder, pooling=pooling, precision="bfloat16"))
    assert teacher.spec == {
        "backend": "transformers",
        "model": str(folder),
        "revision": None,
        "pooling": pooling,
        "grid": None,
        "logits": False,
        "precision": "bfloat16",
        "resolved_pooling": pooling,
        "class": "Dinov2Model",
        "sha256": by_hand(folder),
    }
    assert teacher.outputs == {"embedding": (16,)}


def test_the_digest_is_computed_once_and_again_when_a_file_changes(
    tmp_path: Path, cache: Path
) -> None:
    folder = models.vit(tmp_path)
    computed = sha256(folder)
    (entry,) = (cache / "digests").iterdir()
    entry.write_text("0" * 64)
    # What is remembered is taken, however the same weights are pooled.
    assert sha256(folder) == sha256(folder, pooling="mean") == "0" * 64
    os.utime(folder / "model.safetensors", (OLD, OLD + 1))
    assert sha256(folder) == computed


def test_other_weights_of_the_same_size_and_time_have_a_digest_of_their_own(tmp_path: Path) -> None:
    """As `cp -a` of another checkpoint leaves them."""
    folder = models.vit(tmp_path)
    file = folder / "model.safetensors"
    os.utime(file, (OLD, OLD))
    before = sha256(folder)
    weights = load_file(file)
    name = next(n for n, value in weights.items() if value.size)
    save_file({**weights, name: weights[name] + 1}, file, {"format": "pt"})
    os.utime(file, (OLD, OLD))
    assert sha256(folder) != before


def test_other_weights_of_the_same_files_have_a_digest_of_their_own(
    tmp_path: Path, cache: Path
) -> None:
    fresh = {p: sha256(models.clip(tmp_path / "new"), pooling=p) for p in ("cls", "projection")}
    assert len(set(fresh.values())) == 2
    folder = models.clip(tmp_path / "old")
    for _ in range(2):
        assert {p: sha256(folder, pooling=p) for p in fresh} == fresh
    assert len(list((cache / "digests").iterdir())) == len(fresh) + 2
