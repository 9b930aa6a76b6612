"""Two pictures of one batch: where its images lie, and how they relate."""

from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from egapipe.pipeline.mathematics.correlation import correlations
from egapipe.stages.report.charts.colours import BLUE, GREY, RED
from egapipe.stages.report.charts.figure import Figure, draw, hover, table
from egapipe.stages.report.charts.series import Series
from egapipe.stages.report.sample import Floats, Ints, Sample
from egapipe.stages.report.thumbnails import sheet_of

_MAP = {"images": 500, "classes": 20}
EDGES = {"images": 48, "classes": 10}
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
    """t-SNE of teacher and student embeddings of the same images, coloured by class; the student's
    is turned, mirrored and scaled so that it lies on the teacher's as well as it can.

    t-SNE: van der Maaten and Hinton, JMLR 2008. None for fewer images than it can place.
    """
    if len(places) < _FEWEST:
        return None
    maps = {name: tsne(vectors) for name, vectors in _spaces(sample, places).items()}
    first, *others = maps
    maps[first] = standard(maps[first])
    maps |= {name: onto(maps[name], maps[first]) for name in others}
    labels = sample.labels[places]
    present = np.unique(labels)
    series = Series(tuple(sample.names[label] for label in present), "map")
    span = 1.06 * max(float(np.abs(positions).max()) for positions in maps.values())
    panels = [
        _map_panel(name, positions, np.searchsorted(present, labels), series, span)
        for name, positions in maps.items()
    ]
    texts = [sample.described(int(place)) for place in places]
    aligned = (
        " The student's map is turned, mirrored and scaled onto the teacher's (Procrustes)."
        if others
        else ""
    )
    return draw(
        "map",
        "Where images lie for teacher and student" if others else "Where images lie",
        f"t-SNE of {_of_classes(sample, places)}, coloured by class. Point at one, or tap it, to "
        f"see its image. Near points are alike; distances between far groups mean "
        f"nothing.{aligned}",
        *panels,
        size=(400, 360),
        series=series,
        sheet=(
            sheet_of(sample.dataset, sample.rows[places].tolist(), texts)
            if sample.dataset.arrays is None
            else None
        ),
    )


def standard(positions: Floats) -> Floats:
    """float32 [n, 2], centred, with a mean square distance of 1 from the middle."""
    centred = positions - positions.mean(axis=0)
    scale = float(np.sqrt((centred**2).sum(axis=1).mean()))
    result: Floats = (centred / (scale or 1.0)).astype(np.float32)
    return result


def onto(positions: Floats, other: Floats) -> Floats:
    """Positions [n, 2] turned, mirrored and scaled onto those of the same images, as `standard`
    gives them, by the least squares of their distances (orthogonal Procrustes)."""
    from scipy.linalg import orthogonal_procrustes

    own = standard(positions)
    turn, scale = orthogonal_procrustes(own, other)
    # Of two equal shapes the scale is 1. Of unlike ones it is small, and nothing could be seen.
    scale = max(0.5, float(scale) / max(1e-12, float((own**2).sum())))
    result: Floats = (scale * own @ turn).astype(np.float32)
    return result


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
    places = chosen(sample, **EDGES)
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
    panels = [_edge_panel(name, matrix) for name, matrix in matrices.items()]
    return draw("edges", "Edges of the embedding graph", text, *panels, size=(280, 280))


def _spaces(sample: Sample, places: Ints) -> dict[str, Floats]:
    teacher, student = sample.teacher(places), {"student's nodes": sample.nodes[places]}
    return student if teacher is None else {"teacher's embeddings": teacher, **student}


def _map_panel(name: str, positions: Floats, numbers: Ints, series: Series, span: float) -> Any:
    """positions: float32 [n, 2]. numbers: int64 [n], of the series."""
    scale = alt.Scale(domain=[-span, span], nice=False)
    where = {
        "x": alt.X("x:Q", scale=scale, axis=None),
        "y": alt.Y("y:Q", scale=scale, axis=None),
    }
    points = [
        {"i": i, "x": round(float(px), 4), "y": round(float(py), 4), "series": int(number)}
        for i, ((px, py), number) in enumerate(zip(positions, numbers, strict=True))
    ]
    named = alt.Data(values=points, name="points")
    base = alt.Chart(named)
    dots = base.mark_point(filled=True, size=34, opacity=1).encode(
        **where, color=series.colour(), opacity=series.opacity()
    )
    ring = (
        base.transform_filter("datum.i === near")
        .mark_point(size=140, strokeWidth=2, color=GREY, opacity=1)
        .encode(**where)
    )
    words = (
        alt.Chart(table(_middles(positions, numbers)))
        .transform_calculate(text="names[datum.series]")
        .mark_text(fontWeight="bold", fontSize=12)
        .encode(**where, text="text:N", opacity=series.opacity())
    )
    near = alt.param(name="near", value=-1)
    title = alt.TitleParams(name)
    return alt.layer(dots, ring, words, title=title).add_params(*series.params(), near)


def _middles(positions: Floats, numbers: Ints) -> list[dict[str, float]]:
    """Where the names of classes stand: at the median point and not at the mean, for a class may
    lie in two places."""
    found = []
    for number in np.unique(numbers):
        mine = positions[numbers == number]
        x, y = mine[np.abs(mine - np.median(mine, axis=0)).sum(axis=1).argmin()]
        found.append({"series": int(number), "x": float(x), "y": float(y)})
    return found


def _edge_panel(name: str, matrix: npt.NDArray[np.float64]) -> Any:
    """matrix: [n, n], -1 to 1."""
    side = len(matrix)
    numbers = alt.Data(values=[round(float(value), 3) + 0.0 for value in matrix.ravel()])
    scale = alt.Scale(domain=[-1, 0, 1], range=[BLUE, "#8f96a322", RED])
    legend = alt.Legend(title=None, orient="bottom", gradientLength=200, tickCount=3)
    return (
        alt.Chart(numbers, title=alt.TitleParams(name))
        .transform_window(place="row_number()")
        .transform_calculate(row=f"floor((datum.place - 1) / {side})")
        .transform_calculate(column=f"(datum.place - 1) % {side}")
        .mark_rect()
        .encode(
            x=alt.X("column:O", axis=None),
            y=alt.Y("row:O", axis=None),
            color=alt.Color("data:Q", scale=scale, legend=legend),
            tooltip=hover(("row", "image"), ("column", "image beside"), ("data", "edge", ".3f")),
        )
    )
