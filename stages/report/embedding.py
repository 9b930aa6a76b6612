"""Two pictures of one batch: where its images lie, and how they relate."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.mathematics.correlation import correlations
from egapipe.stages.report.figure import GREY, Figure, Paint, draw
from egapipe.stages.report.names import shortened
from egapipe.stages.report.sample import Floats, Ints, Sample

_MAP = {"images": 500, "classes": 20}
_EDGES = {"images": 64, "classes": 10}
POINTS = "points"
"""The id of a map's points, with which page.js finds them."""
_PERPLEXITY = 30
_FEWEST = 5


def chosen(sample: Sample, images: int, classes: int) -> Ints:
    """Places of at most so many images that both have an embedding of, evenly over at most so many
    of the classes, sorted by class: int64 [n]."""
    known = sample.embedded()
    present = np.unique(sample.labels[known])
    known = known[np.isin(sample.labels[known], _evenly(present, classes))]
    return _evenly(known[np.argsort(sample.labels[known], kind="stable")], images)


def map_places(sample: Sample) -> Ints:
    """The images of the map: int64 [n]."""
    return chosen(sample, **_MAP)


def _evenly(values: Ints, count: int) -> Ints:
    if len(values) <= count:
        return values
    picked: Ints = values[np.linspace(0, len(values) - 1, count).round().astype(int)]
    return picked


def _of_classes(sample: Sample, places: Ints) -> str:
    """How many images, and of which part of the classes if not of all."""
    here, all_of_them = (len(np.unique(of)) for of in (sample.labels[places], sample.labels))
    part = "" if here == all_of_them else f" of {here} of the {all_of_them} classes"
    return f"{len(places)} test images{part}"


def map_figure(sample: Sample, places: Ints) -> Figure | None:
    """t-SNE of teacher and student embeddings of the same images, coloured by class.

    t-SNE: van der Maaten and Hinton, JMLR 2008. None for fewer images than it can place.
    """
    if len(places) < _FEWEST:
        return None
    labels = sample.labels[places]
    paints = [
        partial(_paint_map, name=name, positions=tsne(vectors), labels=labels, names=sample.names)
        for name, vectors in _spaces(sample, places).items()
    ]
    return draw(
        "map",
        "Where images lie" if len(paints) == 1 else "Where images lie for teacher and student",
        f"t-SNE of {_of_classes(sample, places)}, coloured by class. Point at one, or tap it, to "
        "see the image. Near points are alike; distances between far groups mean nothing.",
        *paints,
        size=(4.4, 3.9),
    )


def tsne(vectors: Floats) -> Floats:
    """float32 [n, 2], the same at every call."""
    from sklearn.manifold import TSNE

    spread = float(vectors.std(axis=0).max())
    perplexity = min(_PERPLEXITY, max(2, (len(vectors) - 1) // 3))
    # Equal vectors have no principal components.
    start = "pca" if spread > 0 and vectors.shape[1] > 1 else "random"
    method = TSNE(init=start, perplexity=perplexity, random_state=0, n_jobs=1)
    positions: Floats = method.fit_transform(vectors)
    return positions


def edge_figure(sample: Sample, *, aligned: bool = True) -> Figure | None:
    """Matrices of Pearson correlations between the nodes of one batch, the edges of EGA.

    Nodes and not embeddings: those of the teacher's head are what the loss compares the student's
    with. aligned: whether the student was trained with EGA. None without images.
    """
    places = chosen(sample, **_EDGES)
    if not len(places):
        return None
    teacher, student = sample.teacher_nodes(places), sample.nodes[places]
    spaces = {} if teacher is None else {"teacher's nodes": teacher}
    matrices = {k: correlations(of) for k, of in {**spaces, "student's nodes": student}.items()}
    text = f"Pearson correlation of the nodes of {_of_classes(sample, places)}, sorted by class."
    if aligned:
        text += " EGA makes the student's matrix that of the teacher's nodes."
    else:
        text += " This student was trained without EGA, which compares these."
    if len(matrices) == 2:
        one, other = matrices.values()
        difference = other - one
        matrices["student minus teacher"] = difference
        text += f" The mean absolute difference is {np.abs(difference).mean():.3f}."
    paints: list[Paint] = [
        partial(_paint_edges, name=name, matrix=matrix) for name, matrix in matrices.items()
    ]
    return draw("edges", "Edges of the embedding graph", text, *paints, size=(3.4, 3.6))


def _spaces(sample: Sample, places: Ints) -> dict[str, Floats]:
    teacher, student = sample.teacher(places), {"student's nodes": sample.nodes[places]}
    return student if teacher is None else {"teacher's embeddings": teacher, **student}


def _paint_map(axes: Any, name: str, positions: Floats, labels: Ints, names: list[str]) -> None:
    x, y = positions.T
    points = axes.scatter(x, y, c=_colours(labels), s=16, linewidths=0)
    points.set_gid(POINTS)
    for label in np.unique(labels):
        # The median point and not the mean: a class may lie in two places.
        mine = positions[labels == label]
        middle = np.abs(mine - np.median(mine, axis=0)).sum(axis=1).argmin()
        style = {"ha": "center", "va": "center", "fontweight": "bold", "zorder": 3}
        axes.text(*mine[middle], shortened(names[label], 12), **style)
    axes.set(title=name, xticks=[], yticks=[])
    axes.margins(0.05)
    axes.spines[:].set(visible=True, color=GREY, alpha=0.4)


def _colours(labels: Ints) -> Any:
    """RGBA [n, 4]: one colour for each class that is there."""
    from matplotlib import colormaps

    present, places = np.unique(labels, return_inverse=True)
    if len(present) <= 10:
        return colormaps["tab10"](places)
    # Its ends are hard to see on a dark page.
    return colormaps["turbo"](0.06 + 0.88 * places / (len(present) - 1))


def _paint_edges(axes: Any, name: str, matrix: npt.NDArray[np.float64]) -> None:
    shown = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="none")
    axes.set(title=name, xticks=[], yticks=[])
    axes.figure.colorbar(shown, ax=axes, location="bottom", shrink=0.8, aspect=30)
