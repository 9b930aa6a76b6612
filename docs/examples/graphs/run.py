"""Nouns of WordNet as a graph, and students that see one node at a time. See README.md."""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from nouns import CLASSES, Graph, nouns
from teachers import Made, Neighbours, framelets, self_labelled

import egapipe
from egapipe.stages.compare.command import table_lines
from egapipe.stages.extract import import_embeddings

HERE = Path(__file__).resolve().parent
MISSING = 3
TABLES = {
    "frameless": "Frameless GKD",
    "lsp": "LSP, neighbours meet in a batch",
    "alignahead": "Alignahead",
    "vgae": "embeddings of a self-labelled VGAE, which is no distillation",
}
QUICK = {"distill.epochs": 5, "distill.eval_epochs": 5, "compare.seeds": [0]}


def main() -> int:
    """Write the graph, train two teachers and the students of four tables; 3 without data."""
    asked = arguments()
    if not (asked.wordnet / "data.noun").is_file():
        print(f"no data.noun in {asked.wordnet}: apt-get install wordnet-base, or --wordnet FOLDER")
        return MISSING
    folder = asked.folder / "quick" if asked.quick else asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    graph = nouns(asked.wordnet / "data.noun", *((800, 10) if asked.quick else (6000, 20)))
    os.chdir(folder)
    torch.set_num_threads(1)
    neighbours = Neighbours(graph.edges, len(graph.keys))
    words, labels = torch.from_numpy(graph.words), torch.from_numpy(graph.labels)
    bands = neighbours.bands(words)
    write(graph, bands)
    print("| teacher | top-1 of the test nodes, % | seconds |\n| --- | ---: | ---: |")
    for name, network, x, steps in (
        ("framelets", framelets, bands, 100),
        ("vgae", self_labelled, words, 300),
    ):
        began = time.perf_counter()
        made = network(x, neighbours, labels, len(CLASSES), 10 if asked.quick else steps)
        seconds = time.perf_counter() - began
        print(f"| {name} | {right(made, graph):.1f} | {seconds:.0f} |", flush=True)
        keep(name, made, graph)
    for name, title in TABLES.items():
        report = egapipe.compare(HERE / f"{name}.yaml", QUICK if asked.quick else {}).report
        print(f"\n{title}", *table_lines(report), sep="\n", flush=True)
    return 0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("graphs-example"), help="all it writes")
    parser.add_argument(
        "--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="of data.noun"
    )
    parser.add_argument("--quick", action="store_true", help="few nodes, five epochs, one seed")
    return parser.parse_args()


def write(graph: Graph, bands: torch.Tensor) -> None:
    """Nodes to learn from and nodes to be tested on, and each edge in both directions."""
    for name, rows, numbers in (
        ("train", ~graph.tested, graph.labels),
        ("test", graph.tested, graph.classes),
    ):
        values = bands.numpy()[rows]
        lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values[0].size)
        kind = pa.fixed_shape_tensor(pa.float32(), values.shape[1:])
        names = [*CLASSES.values(), None]
        table = {
            "synset": np.array(graph.keys)[rows],
            "class": pa.array([names[number] for number in numbers[rows]], pa.string()),
            "bands": pa.ExtensionArray.from_storage(kind, lists),
        }
        pq.write_table(pa.table(table), f"{name}.parquet", row_group_size=100)
    learned = graph.edges[:, ~graph.tested[graph.edges].any(axis=0)]
    first, second = np.array(graph.keys)[np.concatenate([learned, learned[::-1]], axis=1)]
    pq.write_table(pa.table({"first": first, "second": second}), "pairs.parquet")


def keep(name: str, made: Made, graph: Graph) -> None:
    """Import what a teacher made of the nodes into stores of its name."""
    config = egapipe.load_config(
        HERE / "graphs.yaml", {"teacher.model": name, "store.url": f"stores/{name}"}
    )
    for split, rows in (("train", ~graph.tested), ("test", graph.tested)):
        files = {output: f"{name}-{split}-{output}.npy" for output in Made._fields}
        for output, values in made._asdict().items():
            np.save(files[output], values.numpy()[rows])
        embedding = files.pop("embedding")
        import_embeddings(config, embedding, split=split, outputs=files)


def right(made: Made, graph: Graph) -> float:
    """Test nodes whose class the logits find, in %."""
    found = made.logits.numpy().argmax(axis=1) == graph.classes
    return 100 * float(found[graph.tested].mean())


if __name__ == "__main__":
    sys.exit(main())
