"""How the golden stores and runs were made, with the egapipe that README.md names.

Do not run it again for the files that are here: what a later egapipe writes tests nothing.
"""

import platform
import socket
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

from egapipe.pipeline.config import load_config
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import distill, extract

# Files name no machine.
socket.gethostname = lambda: "golden"
platform.platform = lambda *_, **__: "golden"


def images() -> None:
    """Twelve digits to learn from and six to test on, of three classes."""
    digits = load_digits()
    for split, start, count in (("train", 0, 4), ("test", 100, 2)):
        for label, name in enumerate(("nought", "one", "two")):
            rows = [row for row in range(start, 1797) if digits.target[row] == label][:count]
            folder = Path("images", split, name)
            folder.mkdir(parents=True)
            for row in rows:
                pixels = (digits.images[row] * 255 / 16).round().astype("uint8")
                Image.fromarray(pixels).save(folder / f"{row:04d}.png")


def half_a_store() -> None:
    """The first and the last of three shards."""
    config = load_config("golden.yaml", ["store.url=stores/half"])
    [extraction] = extract.prepare(config, ["train"])
    from egapipe.stages.extract.workers.inline import extract_inline

    for _ in extract_inline(extraction.job, extraction.teacher, [0, 2], lambda _: None):
        pass
    assert FeatureStore.open("stores/half/train.zarr").pending() == [1]


class KilledError(Exception):
    """In the place of a signal."""


def kill(epoch: int, metrics: Mapping[str, float]) -> None:
    raise KilledError


def main() -> None:
    images()
    config = load_config("golden.yaml")
    for split in config.splits():
        extract.run(config, split=split, local=True)
    half_a_store()
    distill.run(config)
    try:
        distill.run(load_config("golden.yaml", ["distill.seed=1"]), report=kill)
    except KilledError:
        print("stopped after the first epoch")


if __name__ == "__main__":
    main()
