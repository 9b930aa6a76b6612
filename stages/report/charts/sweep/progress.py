"""How a search went: the best so far, and which settings mattered."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import altair as alt

from egapipe.pipeline.results.labels import short_name
from egapipe.stages.report.charts.colours import BLUE, ORANGE
from egapipe.stages.report.charts.figure import WIDTH, Figure, draw, fitting, hover, table
from egapipe.stages.report.charts.series import Series, named_axis, texts
from egapipe.stages.report.charts.sweep.trials import Trial, state_colour, trial_rows


def best_figure(trials: Sequence[Trial], series: Series, metric: str, mode: str) -> Figure:
    """The best value so far, by the order in which trials ended. trials: those with a value."""
    # Of an older egapipe none is known; those that still run come last.
    timed = all(trial.cell.ended is not None for trial in trials if trial.cell.over)
    order = sorted(trials, key=lambda t: (_ended(t) if timed else 0.0, t.cell.number))
    better = max if mode == "max" else min
    done = [trial for trial in order if trial.cell.state == "done"]
    best = list(accumulate((trial.value for trial in done), better))
    place = {trial.place: number + 1 for number, trial in enumerate(order)}
    steps = [
        {"order": place[trial.place], "value": value}
        for trial, value in zip(done, best, strict=True)
    ]
    steps.append({"order": len(order), "value": best[-1]})
    rows = [
        {**row, "order": place[trial.place]}
        for row, trial in zip(trial_rows(order), order, strict=True)
    ]
    x = alt.X(
        "order:Q",
        title="trials, in the order in which they ended" if timed else "trials, by number",
        axis=alt.Axis(tickMinStep=1, format="d", grid=False),
        scale=alt.Scale(domain=[0.5, len(order) + 0.5], nice=False),
    )
    y = alt.Y("value:Q", title=metric, scale=fitting())
    line = alt.Chart(table(steps)).mark_line(interpolate="step-after", color=ORANGE)
    dots = (
        alt.Chart(table(rows))
        .transform_calculate(name="whole[datum.series]")
        .mark_point(filled=True, size=45)
        .encode(
            x=x,
            y=alt.Y("drawn:Q", title=metric, scale=fitting()),
            color=state_colour(order),
            opacity=series.opacity(0.8),
            tooltip=hover(("name", "trial"), ("state", ""), ("value", metric, ".4~g")),
        )
    )
    chart = alt.layer(line.encode(x=x, y=y), dots).add_params(*series.params())
    caption = "The line is the best of the trials that reached the last epoch, so far."
    if len(done) < len(order):
        caption += " Those that did not, where they are worse than all of these, stand at the edge."
    if timed and any(trial.cell.ended is None for trial in order):
        caption += " Those that are still under way come last."
    return draw("best", "Best so far", caption, chart, series=series)


def _ended(trial: Trial) -> float:
    return math.inf if trial.cell.ended is None else trial.cell.ended


def importance_figure(shares: Mapping[str, float], trials: int) -> Figure:
    """How much of what settings explain is each one's. shares: setting -> 0 to 1."""
    rows = [{"place": place, "share": share} for place, share in enumerate(shares.values())]
    names = [short_name(path) for path in shares]
    chart = (
        alt.Chart(table(rows))
        .transform_calculate(name="whole[datum.place]")
        .mark_bar(color=BLUE)
        .encode(
            x=alt.X(
                "share:Q",
                title="share of what the settings explain",
                axis=alt.Axis(format="~%"),
                scale=alt.Scale(domain=[0, 1]),
            ),
            y=alt.Y("place:O", axis=named_axis(ticks=False, domain=False)),
            tooltip=hover(("name", "setting"), ("share", "share", ".1%")),
        )
        .add_params(*texts(names))
    )
    caption = (
        f"Of {trials} trials that reached the last epoch: how much worse a random forest of their "
        "results is when one setting's values are shuffled. Of few trials it is a hint; a setting "
        "that hardly varied cannot matter here."
    )
    return draw(
        "importance", "Which setting mattered", caption, chart, size=(WIDTH, 30 + 26 * len(rows))
    )
