"""Small archives in the layout of the official ones."""

import io
import tarfile
import zipfile
from typing import Literal

import numpy as np

from tests.pipeline.datasets.samples import encode, pixels

CLASSES = ["apple", "bee", "cup"]


def squares(n: int, side: int, seed: int = 0) -> np.ndarray:
    """uint8 [n, side, side, 3], no two pixels' neighbours alike: a wrong axis order shows."""
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def tar_gz(members: dict[str, bytes]) -> bytes:
    return tarred(members, "w:gz")


def tarred(members: dict[str, bytes], mode: Literal["w", "w:gz"] = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def cifar100(train: np.ndarray, test: np.ndarray, labels: list[int]) -> bytes:
    """Records of coarse label, fine label and the red, green and blue plane, row after row."""

    def records(images: np.ndarray) -> bytes:
        return b"".join(
            bytes([19, label]) + image.transpose(2, 0, 1).tobytes()
            for image, label in zip(images, labels, strict=False)
        )

    return tar_gz(
        {
            "cifar-100-binary/coarse_label_names.txt": b"fruit\n",
            "cifar-100-binary/fine_label_names.txt": "\n".join(CLASSES).encode() + b"\n",
            "cifar-100-binary/test.bin": records(test),
            "cifar-100-binary/train.bin": records(train),
        }
    )


def stl10(train: np.ndarray, test: np.ndarray, free: np.ndarray, labels: list[int]) -> bytes:
    """Planes column after column; labels from 1."""

    def planes(images: np.ndarray) -> bytes:
        return images.transpose(0, 3, 2, 1).tobytes()

    return tar_gz(
        {
            "stl10_binary/test_X.bin": planes(test),
            "stl10_binary/test_y.bin": bytes(n + 1 for n in labels[: len(test)]),
            "stl10_binary/train_X.bin": planes(train),
            "stl10_binary/train_y.bin": bytes(n + 1 for n in labels[: len(train)]),
            "stl10_binary/unlabeled_X.bin": planes(free),
            "stl10_binary/class_names.txt": "\n".join(CLASSES).encode(),
            "stl10_binary/fold_indices.txt": b"0 1 2\n",
        }
    )


def tinyimagenet(compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Two classes of two images each, two validation images, one of the test part."""
    top = "tiny-imagenet-200/"
    jpeg = [encode(pixels(n, (64, 64)), "JPEG") for n in range(7)]
    members = {
        "wnids.txt": b"n02\nn01\n",
        "words.txt": b"n01\tcrane\nn02\tcrane\n",
        "train/n01/images/n01_0.JPEG": jpeg[0],
        "train/n01/images/n01_1.JPEG": jpeg[1],
        "train/n01/n01_boxes.txt": b"n01_0.JPEG\t0\t0\t9\t9\n",
        "train/n02/images/n02_0.JPEG": jpeg[2],
        "train/n02/images/n02_1.JPEG": jpeg[3],
        "val/images/val_0.JPEG": jpeg[4],
        "val/images/val_1.JPEG": jpeg[5],
        "val/val_annotations.txt": b"val_1.JPEG\tn01\t0\t0\t9\t9\nval_0.JPEG\tn02\t1\t1\t9\t9\n",
        "test/images/test_0.JPEG": jpeg[6],
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.mkdir(f"{top}train")
        for name, data in members.items():
            archive.writestr(top + name, data)
    return buffer.getvalue()
