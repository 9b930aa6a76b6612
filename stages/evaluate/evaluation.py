"""What an evaluation found, as a value and as JSON."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from egapipe.stages.evaluate import calibration, graphs, neighbours, probe
from egapipe.stages.evaluate.cost import Cost
from egapipe.stages.evaluate.graphs import Agreement
from egapipe.stages.evaluate.left_out import LeftOut

PROTOCOL = {
    "calibration_bins": calibration.BINS,
    "knn_neighbours": neighbours.NEIGHBOURS,
    "knn_temperature": neighbours.TEMPERATURE,
    "linear_weight_decay": probe.WEIGHT_DECAY,
    "recall_neighbours": graphs.NEIGHBOURS,
}


@dataclass(frozen=True)
class Predictions:
    """Of the student on `images` labelled test images. top1, top5: accuracy, %. calibration_error:
    expected, in 15 bins, %."""

    top1: float
    top5: float
    calibration_error: float
    images: int


@dataclass(frozen=True)
class Probes:
    """What embeddings of this width tell of the classes of labelled test images, by the example of
    labelled training images. knn: accuracy of the vote of 20 neighbours, %. linear: of a logistic
    regression, %."""

    width: int
    knn: float
    linear: float


@dataclass(frozen=True)
class Evaluation:
    """Everything measured of one student; what could not be is in `left_out`, with the reason.

    run, which: the run folder, and `last`, `best` or `ema`. checkpoint: the folder of the weights.
    embeddings: `nodes` and `features` of the student, `teacher` of the store. graphs: agreement on
    the test images of the student's `nodes` and `features` with the teacher's embeddings, and as
    `node_layers` of the student's nodes with the teacher's nodes, which EGA aligns. test_images,
    probe_images: test and training images that were embedded; test images that failed in the store
    count for the predictions alone. A number that is not defined, such as
    the edge correlation of a graph without variance, is NaN, and null in JSON.
    """

    run: str | Path
    which: str
    checkpoint: str
    student: str
    cost: Cost
    predictions: Predictions | None = None
    embeddings: dict[str, Probes] = field(default_factory=dict)
    graphs: dict[str, Agreement] = field(default_factory=dict)
    test_images: int = 0
    probe_images: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The content of evaluation.json; the protocol's constants are part of it."""
        content = {**asdict(self), "run": str(self.run), "protocol": PROTOCOL}
        return {name: _without_nan(value) for name, value in content.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
