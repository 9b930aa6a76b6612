"""What an epoch costs beside its steps: drawing it, a checkpoint, an evaluation."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.mathematics.timing import timed
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.bench.distill import STEPS, Bench
from egapipe.stages.distill.setup import evaluation_logits
from egapipe.stages.distill.training.checkpoint import Checkpoints, Position
from egapipe.stages.distill.training.evaluation import Evaluation

ROWS, TESTED, REPEATS = 50_000, 10_000, 5


def costs(folder: Path, rows: int = ROWS, tested: int = TESTED) -> dict[str, float]:
    """Seconds of an epoch of so many rows: of all its `steps`, and of what comes to it once.

    `draw`: rows, views and crops of all steps, which the training does beside the epoch before.
    `checkpoint`: copying what one is made of, for which the steps wait, and `written`: writing it,
    for which they do not. `evaluation`: of so many test images.
    """
    # One epoch, so that none is drawn beside another.
    config = DistillConfig(epochs=1, milestones=())
    bench = Bench(folder, rows=rows, views=4)
    batches, learner = bench.batches(config), bench.learner(config)
    found = {"draw": _median(lambda: batches.begin(0, 0))}
    checkpoints = Checkpoints.of(RunFolder(folder / "run"))
    kept = [
        (timed(lambda: checkpoints.save(learner, Position(), best=True)), timed(checkpoints.wait))
        for _ in range(REPEATS)
    ]
    found["checkpoint"], found["written"] = map(statistics.median, zip(*kept, strict=True))
    student = learner.model.student.eval()
    logits = evaluation_logits(student, config)
    test = Evaluation(bench.resident, bench.data.labels, np.arange(tested))
    found["evaluation"] = _median(lambda: test.accuracy(logits, bench.world))
    learner.model.train()
    each = _median(bench.steps(config)) / STEPS
    return {"steps": each * (rows // config.batch_size), **found}


def _median(function: Callable[[], object]) -> float:
    function()
    return statistics.median(timed(function) for _ in range(REPEATS))


def report() -> list[str]:
    """The measurements as lines of text."""
    with tempfile.TemporaryDirectory() as name:
        found = costs(Path(name))
    whole = found.pop("steps")
    lines = [f"an epoch of {ROWS:,} rows, resnet8x4, batch 64: {whole:.0f} s of steps; beside them"]
    lines += [f"  {name:12} {s:8.3f} s {s / whole:8.2%}" for name, s in found.items()]
    waited = found["draw"] + found["checkpoint"]
    lines.append(f"  draw and checkpoint   {waited / whole:8.2%}  (aim <= 3 %)")
    return [*lines, f"  and the evaluation    {(waited + found['evaluation']) / whole:8.2%}"]
