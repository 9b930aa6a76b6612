"""Student beside teacher on the same images: what probes read, and how alike the graphs are."""

from collections.abc import Callable
from functools import partial
from math import isnan

import numpy as np
import numpy.typing as npt
import torch

from egapipe.stages.distill import TrainedStudent
from egapipe.stages.evaluate.embeddings import Embeddings
from egapipe.stages.evaluate.evaluation import Probes
from egapipe.stages.evaluate.graphs import Agreement, Graph, agreement
from egapipe.stages.evaluate.left_out import LeftOut, UnavailableError
from egapipe.stages.evaluate.neighbours import knn_accuracy
from egapipe.stages.evaluate.probe import probe_accuracy

Floats = npt.NDArray[np.float32]
Read = Callable[[Embeddings], Floats]

_SOURCES: dict[str, Read] = {
    "nodes": lambda embeddings: embeddings.nodes,
    "features": lambda embeddings: embeddings.features,
    "teacher": lambda embeddings: embeddings.teacher(),
}
_CHUNK = 4096


def probe_all(train: Embeddings, test: Embeddings, left_out: LeftOut) -> dict[str, Probes]:
    """Neighbours and linear probe of nodes, features and teacher. All images are labelled."""
    found = {
        name: left_out.attempt(partial(probe, train, test, read), f"embeddings.{name}")
        for name, read in _SOURCES.items()
    }
    return {name: probes for name, probes in found.items() if probes is not None}


def probe(train: Embeddings, test: Embeddings, read: Read) -> Probes:
    """Both probes of one kind of embeddings. Raises UnavailableError if they cannot be read."""
    if len(train.rows) == 0 or len(test.rows) == 0:
        raise UnavailableError("no labelled image can be read")
    known, asked = finite(read(train)), finite(read(test))
    arrays = (known, train.labels, asked, test.labels)
    return Probes(known.shape[1], 100 * knn_accuracy(*arrays), 100 * probe_accuracy(*arrays))


def compare_graphs(
    student: TrainedStudent, test: Embeddings, left_out: LeftOut
) -> dict[str, Agreement]:
    """Agreement of the student's graphs of the test images with the teacher's."""
    teacher = left_out.attempt(lambda: graph(test.teacher()), "graphs")
    if teacher is None:
        return {}
    nodes = left_out.attempt(lambda: graph(test.nodes), "graphs.nodes", "graphs.node_layers")
    features = left_out.attempt(lambda: graph(test.features), "graphs.features")
    layer = left_out.attempt(
        lambda: graph(teacher_nodes(student, test.teacher())), "graphs.node_layers"
    )
    pairs = {
        "nodes": (nodes, teacher),
        "features": (features, teacher),
        "node_layers": (nodes, layer),
    }
    found = {
        name: agreement(one, other)
        for name, (one, other) in pairs.items()
        if one is not None and other is not None
    }
    for name, agreed in found.items():
        if isnan(agreed.edge_correlation):
            left_out[f"graphs.{name}.edge_correlation"] = "the edges of one graph are all equal"
    return found


def graph(embeddings: Floats) -> Graph:
    """The graph of float32 [n, D]. Raises UnavailableError unless there are two finite rows."""
    if len(embeddings) < 2:
        raise UnavailableError("a graph needs two images")
    return Graph.of(finite(embeddings))


@torch.no_grad()
def teacher_nodes(student: TrainedStudent, embeddings: Floats) -> Floats:
    """What the teacher's node layer makes of its embeddings [n, T]: float32 [n, D]."""
    head = student.teacher_head()
    if head is None:
        raise UnavailableError("the checkpoint has no teacher head")
    parts = (
        head(torch.from_numpy(embeddings[i : i + _CHUNK]).to(student.device))[0].cpu().numpy()
        for i in range(0, len(embeddings), _CHUNK)
    )
    return np.concatenate(list(parts))


def finite(embeddings: Floats) -> Floats:
    """The same [n, D]. Raises UnavailableError if some are not finite."""
    good = int(np.isfinite(embeddings).all(axis=1).sum())
    if good < len(embeddings):
        raise UnavailableError(f"{len(embeddings) - good} of {len(embeddings)} are not finite")
    return embeddings
