"""How the settings of an experiment stand."""

import math
from collections.abc import Mapping

import pytest

from egapipe.pipeline.results.experiment import Cell, Experiment, Setting
from egapipe.pipeline.results.standing import leading, standings


def experiment(
    values: Mapping[str, Mapping[int, float | None]], mode: str = "max", group: str = ""
) -> Experiment:
    """A comparison with these values by setting and seed; None for a cell that failed."""
    settings = tuple(Setting(name=name, label=name, group=group) for name in values)
    pairs = [(name, seed, value) for name, of in values.items() for seed, value in of.items()]
    cells = tuple(
        Cell(
            number=number,
            setting=name,
            seed=seed,
            state="failed" if value is None else "done",
            epochs=2,
            value=value,
            seconds=10.0 + number,
        )
        for number, (name, seed, value) in enumerate(pairs)
    )
    content = {"kind": "comparison", "name": "x", "metric": "test/top1", "mode": mode}
    baseline = next(iter(values))
    return Experiment.model_validate(
        {**content, "baseline": baseline, "planned": len(cells)}
        | {"settings": settings, "cells": cells}
    )


def test_means_pairs_and_intervals() -> None:
    found = standings(
        experiment({"ce": {0: 50.0, 1: 52.0, 2: 51.0}, "ega": {0: 53.0, 1: 54.5, 3: 60.0}})
    )
    ce, ega = found
    assert (ce.n, ce.mean, ce.std) == (3, 51.0, 1.0)
    assert (ce.pairs, math.isnan(ce.gain), math.isnan(ce.low)) == (0, True, True)
    assert (ega.n, ega.pairs, ega.gain) == (3, 2, 2.75)
    # t of one degree of freedom, 12.7062, times 0.3536 / sqrt(2).
    assert ega.high - ega.gain == pytest.approx(12.7062 * 0.25, rel=1e-4)
    assert ce.seconds == 11.0


def test_what_separates_holds_for_all_settings_of_a_group_together() -> None:
    base = {seed: 50.0 + seed for seed in range(4)}
    close = {seed: 50.0 + seed + gain for seed, gain in enumerate((0.5, 1.5, 0.7, 1.9))}
    clear = {seed: 60.0 + seed + 0.1 * (seed % 2) for seed in range(4)}
    alone = standings(experiment({"ce": base, "close": close}))[1]
    assert alone.separates
    together = standings(experiment({"ce": base, "close": close, "b": close, "clear": clear}))
    assert [standing.separates for standing in together] == [False, False, False, True]
    assert together[1].p == pytest.approx(2 * alone.p)


def test_failed_cells_and_those_left_out_do_not_count() -> None:
    made = experiment({"ce": {0: 50.0, 1: 52.0}, "ega": {0: None, 1: 55.0}})
    ce, ega = standings(made)
    assert (ega.n, ega.pairs, ega.gain) == (1, 1, 3.0)
    assert not ega.separates
    ce, ega = standings(made, without=[1])
    assert (ce.n, ega.pairs) == (1, 0)


def test_the_best_has_most_seeds_and_then_the_best_mean() -> None:
    made = {
        "one": {0: 90.0},
        "two": {0: 50.0, 1: 60.0},
        "three": {0: 51.0, 1: 61.0},
        "no": {0: None},
    }
    for mode, best in (("max", "three"), ("min", "two")):
        found = experiment(made, mode)
        leader = leading(found, standings(found))
        assert leader is not None
        assert leader.setting.name == best
    nothing = experiment({"no": {0: None}})
    assert leading(nothing, standings(nothing)) is None
