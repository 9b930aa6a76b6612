"""IGSD on images, without labels. `python run.py --help`; README.md says more."""

import argparse
import os
import sys
from pathlib import Path
from statistics import mean, stdev

import egapipe
from egapipe.stages import evaluate

CONFIG = Path(__file__).resolve().with_name("twins.yaml")
MISSING = 3
FILES = ("train.parquet", "test.parquet")
QUICK = {
    "dataset.train.limit.rows": 640,
    "dataset.test.limit.rows": 200,
    "distill.epochs": 1,
    "compare.seeds": [0, 1],
}


def main() -> None:
    """Train the students and print a table."""
    asked = arguments()
    images = asked.cifar100.resolve()
    require(images)
    folder = asked.folder / ("quick" if asked.quick else "all")
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    places = {f"dataset.{name[:-8]}.files": str(images / name) for name in FILES}
    config = egapipe.load_config(CONFIG, {**places, **(QUICK if asked.quick else {})})
    egapipe.extract(config, local=True, progress=True)
    print("| variant | linear probe, % | seconds a student |\n| --- | ---: | ---: |")
    for name, changes in config.compare.variants.items():
        found, seconds = [], []
        for seed in config.compare.seeds:
            done = egapipe.distill(config, {**changes, "distill.seed": seed}).report
            found.append(evaluate.run(done.run, device="cpu").embeddings["features"].linear)
            seconds.append(done.summary["seconds"])
        line = f"| {name} | {mean(found):.2f} ± {stdev(found):.2f} | {mean(seconds):.0f} |"
        print(line, flush=True)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("twins-example"), help="all it writes")
    parser.add_argument(
        "--cifar100", type=Path, default=Path("data/cifar100"), help=" and ".join(FILES)
    )
    parser.add_argument("--quick", action="store_true", help="few images, one epoch")
    return parser.parse_args()


def require(folder: Path) -> None:
    """End with code 3, and in one line, where the images are not there."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        says = f"no {missing[0]} in {folder}: --cifar100 FOLDER with the parquet files of CIFAR-100"
        print(says, file=sys.stderr)
        sys.exit(MISSING)


if __name__ == "__main__":
    main()
