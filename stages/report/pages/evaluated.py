"""What `egapipe evaluate` measured of a run, on its page."""

from collections.abc import Mapping
from typing import Any

from egapipe.stages.report.pages.document import Section

_WHICH = {"last": "last epoch", "best": "best epoch", "ema": "weights' moving average"}
# What `egapipe evaluate` measured, by its names.
_SPACES = {
    "nodes": "student's nodes",
    "features": "student's features",
    "teacher": "teacher's embeddings",
}
_GRAPHS = {
    "nodes": "student's nodes, teacher's embeddings",
    "features": "student's features, teacher's embeddings",
    "node_layers": "node layers of both",
}


def add_evaluation(section: Section, which: str, found: Mapping[str, Any]) -> None:
    """What `egapipe evaluate` measured of one checkpoint: predictions, embeddings, graphs, cost."""
    section.heading(f"Evaluation of the {_WHICH.get(which, which)}")
    predictions, cost = found.get("predictions"), found.get("cost")
    if predictions:
        section.table(
            ["test images", "top-1 %", "top-5 %", "expected calibration error %"],
            [
                [
                    f"{predictions['images']:,}",
                    *(_shown(predictions[k], ".2f") for k in ("top1", "top5", "calibration_error")),
                ]
            ],
            texts=(),
        )
    rows = [
        (
            _SPACES.get(name, name),
            of["width"],
            _shown(of["knn"], ".2f"),
            _shown(of["linear"], ".2f"),
        )
        for name, of in found.get("embeddings", {}).items()
    ]
    if rows:
        section.table(["embeddings", "width", "20-NN %", "linear probe %"], rows)
    edges = [
        (
            _GRAPHS.get(name, name),
            _shown(of["edge_correlation"], ".3f"),
            _shown(of["neighbour_recall"], ".3f"),
        )
        for name, of in found.get("graphs", {}).items()
    ]
    if edges:
        section.table(["graphs that are compared", "edge r", "recall@10"], edges)
    if cost:
        section.table(["cost", ""], _cost(cost))
    reasons = list(found.get("left_out", {}).items())
    if reasons:
        section.long_texts(["left out", "why"], reasons)


def _cost(cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("parameters", f"{cost['parameters']:,}"),
        ("of them in the backbone", f"{cost['backbone_parameters']:,}"),
        ("multiply-accumulates an image", f"{cost['macs']:,}"),
        *(
            (f"ms on one CPU thread, batch {of['batch']}", f"{of['milliseconds']:.2f}")
            for of in cost["latency"]
        ),
    ]


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
