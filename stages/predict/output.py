"""Predictions as a file: Parquet and JSON lines with embeddings, CSV without."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from egapipe.pipeline.disk.files import output_file
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.terminal.text import columns
from egapipe.stages.predict.predictor import Prediction

Record = dict[str, Any]
_GROUP = 1024
# What of a summary is listed: classes, errors.
_CLASSES, _ERRORS = 20, 5


class Summary:
    """How many images are of which class, and which could not be read."""

    def __init__(self) -> None:
        self._classes: Counter[str] = Counter()
        self._sure: dict[str, float] = {}
        self.errors: list[str] = []

    def add(self, prediction: Prediction) -> None:
        """Count an image."""
        if prediction.error:
            self.errors.append(f"{prediction.path}: error: {prediction.error}")
            return
        name, probability = prediction.classes[0]
        self._classes[name] += 1
        self._sure[name] = self._sure.get(name, 0.0) + probability

    def lines(self) -> list[str]:
        """The classes, those of most images first, with their mean probability; the first errors,
        and how many there are."""
        known = self._classes.most_common(_CLASSES)
        rows = [["class", "images", "probability"]]
        rows += [[name, f"{n:,}", f"{self._sure[name] / n:.3f}"] for name, n in known]
        rest = len(self._classes) - len(known)
        kinds = len(self._classes)
        counted = f"{self._classes.total():,} images of {kinds:,} class{'es' * (kinds != 1)}"
        failed = f", {len(self.errors):,} could not be read" if self.errors else ""
        return [
            *columns(rows),
            *([f"and {rest:,} more classes"] if rest > 0 else []),
            *self.errors[:_ERRORS],
            f"{counted}{failed}",
        ]


def check_output(file: Path) -> None:
    """Raise UsageError unless the file's name says a format and its folder exists."""
    if file.suffix not in WRITERS:
        raise UsageError(f"--output {file}: the name must end in {', '.join(WRITERS)}")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"--output {file}: there is no folder {file.absolute().parent}")


def write_output(file: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions in the format that the file's ending names, as they come.

    The file appears when it is complete. Raises UsageError if it cannot be written.
    """
    with output_file(file, "--output") as stream:
        WRITERS[file.suffix](stream, map(record, predictions))


def record(prediction: Prediction) -> Record:
    """A prediction as plain values: path, label, probability, classes, nodes, features, error."""
    label, probability = prediction.classes[0] if prediction.classes else (None, None)
    return {
        "path": str(prediction.path),
        "label": label,
        "probability": probability,
        "classes": [{"label": name, "probability": p} for name, p in prediction.classes],
        "nodes": None if prediction.nodes is None else prediction.nodes.tolist(),
        "features": None if prediction.features is None else prediction.features.tolist(),
        "error": prediction.error,
    }


def _write_parquet(stream: BinaryIO, records: Iterable[Record]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    floats = pa.list_(pa.float32())
    classes = pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float32())]))
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("label", pa.string()),
            ("probability", pa.float32()),
            ("classes", classes),
            ("nodes", floats),
            ("features", floats),
            ("error", pa.string()),
        ]
    )
    rest = iter(records)
    with pq.ParquetWriter(stream, schema) as writer:
        while group := list(islice(rest, _GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _write_lines(stream: BinaryIO, records: Iterable[Record]) -> None:
    stream.writelines(f"{json.dumps(line)}\n".encode() for line in records)


def _write_csv(stream: BinaryIO, records: Iterable[Record]) -> None:
    columns = ["path", "label", "probability", "error"]
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(records)
    # The stream is another's to close.
    text.detach()


WRITERS = {".parquet": _write_parquet, ".jsonl": _write_lines, ".csv": _write_csv}
