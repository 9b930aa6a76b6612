"""What a student costs with stored embeddings, and what it would cost with a live teacher."""

import math
from dataclasses import dataclass

import altair as alt

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.store import FeatureStore
from egapipe.stages.report.charts.figure import Figure, draw, hover, table
from egapipe.stages.report.charts.series import Series

_RUNS, _STEPS = 20, 40
# Of less work, extraction and a student together, times are those of starting it.
_LEAST_SECONDS = 5.0
_WAITED, _INFER = "decode", "infer"


@dataclass(frozen=True)
class Costs:
    """Seconds of one device. extract: of all views of the training images, until they are stored.
    infer: of that, the teacher's forward pass. views: V. train: of one student. epochs: of it."""

    extract: float
    infer: float
    views: int
    train: float
    epochs: int

    @property
    def live_teacher(self) -> float:
        """A live teacher sees one view of every image each epoch. Its decoding is not counted:
        the student may look at the same image."""
        return self.infer / self.views * self.epochs

    @property
    def break_even(self) -> float:
        """Students n from which on extraction has paid: extract + n train = n (train + live)."""
        return self.extract / self.live_teacher if self.live_teacher else math.inf

    def cached(self, students: float) -> float:
        """Seconds of extraction and so many students."""
        return self.extract + students * self.train

    def live(self, students: float) -> float:
        """Seconds of so many students that run the teacher themselves."""
        return students * (self.train + self.live_teacher)


def measure(config: Config, train_seconds: float | None) -> Costs | None:
    """The costs from the records of the training store; None without them."""
    try:
        store = FeatureStore.open(config.store_url("train"))
        records = [commit.seconds for commit in store.commits().values()]
    except EgapipeError:
        return None
    # Threads decode while the teacher works; what a worker waits for them is recorded beside it.
    spent = sum(s for record in records for name, s in record.items() if name != _WAITED)
    infer = sum(record.get(_INFER, 0.0) for record in records)
    if not infer or train_seconds is None:
        return None
    return Costs(spent, infer, store.manifest.view_count, train_seconds, config.distill.epochs)


def timing_figure(costs: Costs) -> Figure:
    """Total seconds by the number of students."""
    n = costs.break_even
    last = _RUNS if n == math.inf else max(_RUNS, math.ceil(1.5 * n))
    totals = {"live teacher": costs.live, "extracted once": costs.cached}
    series = Series(tuple(totals), "timing")
    rows = [
        {"series": number, "students": last * step / _STEPS, "seconds": of(last * step / _STEPS)}
        for number, of in enumerate(totals.values())
        for step in range(_STEPS + 1)
    ]
    axis = alt.Axis(tickMinStep=1, format="d", grid=False)
    base = alt.Chart(table(rows)).transform_calculate(name="whole[datum.series]")
    lines = base.mark_line().encode(
        x=alt.X("students:Q", title="students trained, n", axis=axis),
        y=alt.Y("seconds:Q", title="seconds", axis=alt.Axis(format="~s")),
        color=series.colour(),
        opacity=series.opacity(),
    )
    points = base.mark_point(filled=True, size=80, opacity=0).encode(
        x="students:Q",
        y="seconds:Q",
        color=series.colour(),
        tooltip=hover(("name", ""), ("students", "students", ".1f"), ("seconds", "s", ",.1f")),
    )
    chart = lines + points
    if n < math.inf:
        even = alt.Chart(table([{"students": n}])).mark_rule(strokeDash=[2, 3])
        chart += even.encode(
            x="students:Q", tooltip=hover(("students", "break-even, students", ".2f"))
        )
    chart = chart.add_params(*series.params())
    when = "with the first student" if n <= 1 else f"from {_whole(n)} students on"
    pays = f" Extraction pays {when}."
    if costs.cached(1) < _LEAST_SECONDS:
        pays = " That is too little work to say from when on extraction pays."
    even = "" if n == math.inf else f" The dotted line is where both cost the same, n = {n:.2f}."
    caption = (
        f"Extraction of {costs.views} views took {costs.extract:.1f} s of a worker, "
        f"{costs.infer:.1f} s of them in the teacher's forward pass; a student takes "
        f"{costs.train:.1f} s. A live teacher would add {costs.live_teacher:.1f} s to each: one "
        f"view of every image in each of {costs.epochs} epochs.{even}{pays}"
    )
    return draw("timing", "Once against every time", caption, chart, series=series)


def _whole(n: float) -> str:
    return "no number of" if n == math.inf else f"{math.ceil(n):,}"
