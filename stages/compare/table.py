"""A comparison as text: one table a student, and a sentence of what separates from what."""

import math
from collections.abc import Sequence

from egapipe.pipeline.mathematics.significance import holm, p_value, silence
from egapipe.pipeline.results.experiment import Experiment
from egapipe.pipeline.results.standing import Standing, leading
from egapipe.pipeline.terminal.markdown import markdown
from egapipe.pipeline.terminal.markdown import table as markdown_table
from egapipe.pipeline.terminal.text import columns

WHOSE = {"last": "", "best": " of the best checkpoint", "ema": " of the moving average"}
"""Whose accuracy a comparison is of, in words."""
# Characters of names, so that a table has at most 100.
_LONGEST, _SHORT = 26, 10


def text_table(experiment: Experiment, rows: Sequence[Standing], title: str = "") -> list[str]:
    """The rows of one student as lines: mean and standard deviation over seeds, gain, interval."""
    baseline, share = experiment.baseline, percent(experiment.confidence)
    against = f"against {shortened(str(baseline), _SHORT)}"
    heading = ["n", "top-1 %", against, f"{share} interval", "p", "seconds"]
    lines = [[shortened(title) or "variant", *heading]]
    for row in rows:
        planned = len(experiment.cells_of(row.setting))
        n = str(row.n) if row.n == planned else f"{row.n}/{planned}"
        gain = between = p = ""
        if row.setting.label != baseline and row.pairs:
            gain = f"{row.gain:+.2f}" + (" *" if row.separates else "")
            between = "" if math.isnan(row.low) else _interval(row)
            p = "" if math.isnan(row.p) else f"{row.p:.2g}"
        seconds = "" if math.isnan(row.seconds) else f"{row.seconds:.1f}"
        lines.append([shortened(row.setting.label), n, score(row), gain, between, p, seconds])
    return columns(lines, gap=3)


def shortened(name: str, most: int = _LONGEST) -> str:
    """A name in at most so many characters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def poster(experiment: Experiment, rows: Sequence[Standing]) -> str:
    """The table of a poster: a line a variant, a column a student, mean ± standard deviation.

    Bold is what separates from the baseline; a mean of fewer trainings than are planned says so.
    """
    students = list(experiment.groups)
    variants = list(dict.fromkeys(setting.label for setting in experiment.settings))
    found = {(row.setting.label, row.setting.group): row for row in rows}
    lines = [
        [markdown(name), *(_entry(experiment, found.get((name, s))) for s in students)]
        for name in variants
    ]
    note = unfinished(experiment)
    text = markdown_table(["top-1 %", *map(markdown, students)], lines, align="---:")
    return "\n".join([*text, *(["", note] if note else [])]) + "\n"


def _entry(experiment: Experiment, row: Standing | None) -> str:
    if row is None:
        return ""
    planned = len(experiment.cells_of(row.setting))
    if not row.n:
        return f"0 of {planned}"
    text = f"**{score(row)}**" if row.separates else score(row)
    return text if row.n == planned else f"{text} ({row.n} of {planned})"


def unfinished(experiment: Experiment) -> str:
    """What is missing of an unfinished comparison, in words; empty for a finished one."""
    counts = experiment.counts
    if counts["done"] == len(experiment.cells):
        return ""
    broken = f", {counts['failed']} failed" if counts["failed"] else ""
    halved = f", {counts['stopped']} ended early" if counts["stopped"] else ""
    word = "unfinished: " if counts["planned"] or counts["running"] or counts["failed"] else ""
    return f"{word}{counts['done']} of {len(experiment.cells)} trainings done{halved}{broken}"


def separation(experiment: Experiment, rows: Sequence[Standing]) -> str:
    """One sentence: which variant is ahead, and from which others it separates; by Student's t of
    the differences with the same seed, after Holm's correction over all others. Empty where there
    is nothing to compare."""
    first = leading(experiment, rows)
    others = [row for row in rows if row is not first and row.n]
    if first is None or not others:
        return ""
    pairs = [
        [value - row.values[seed] for seed, value in first.values.items() if seed in row.values]
        for row in others
    ]
    known = {i: p for i, p in enumerate(map(p_value, pairs)) if not math.isnan(p)}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    sure = {i for i, p in corrected.items() if p <= 1 - experiment.confidence}
    names = [row.setting.label for row in others]
    from_these = _listed([name for i, name in enumerate(names) if i in sure])
    not_from = _listed([name for i, name in enumerate(names) if i not in sure])
    ahead = f"{first.setting.label} is ahead with {score(first)} %"
    if first.n < 2:
        return f"{ahead}, and one seed separates nothing."
    if not from_these:
        return f"{ahead}, and separates from no other variant."
    return f"{ahead}, and separates from {from_these}" + (
        f", not from {not_from}." if not_from else "."
    )


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _interval(row: Standing) -> str:
    """The ends of a row's interval; of one that says nothing, why."""
    silent = "" if row.separates else silence(row.low, row.high, row.pairs)
    return silent or f"{row.low:+.2f} to {row.high:+.2f}"


def score(row: Standing) -> str:
    """Mean ± standard deviation of a row, without the latter where there is one seed."""
    if not row.n:
        return ""
    return f"{row.mean:.2f}" + ("" if math.isnan(row.std) else f" ± {row.std:.2f}")


def percent(share: float) -> str:
    """A share as it is given, `95 %` or `99.83 %`, never rounded to 100 %."""
    return f"{float(f'{100 * share:.12g}'):.12g} %"
