"""What a trial tells Ray Tune: its epochs, each of them once."""

from collections.abc import Mapping

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import TrainingError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics

EPOCHS = "epochs"


class Reports:
    """Reports the epochs of one trial; Ray Tune may end the trial at any of them.

    copy_epochs: epochs between checkpoints that are handed over with the report.
    """

    def __init__(self, run: RunFolder, config: Config, copy_epochs: int | None) -> None:
        self._run, self._copy_epochs = run, copy_epochs
        self._epochs = config.distill.epochs
        self._metric = config.sweep.metric

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report an epoch; the last one waits for `last`, when the run folder is complete."""
        from ray import tune

        self._check(metrics)
        done = epoch + 1
        if done == self._epochs:
            return
        copied = self._copy_epochs is not None and done % self._copy_epochs == 0
        checkpoint = tune.Checkpoint.from_directory(self._run.checkpoints) if copied else None
        tune.report({**metrics, EPOCHS: done}, checkpoint=checkpoint)

    def last(self) -> None:
        """Report the last epoch of a finished run. Nobody is asked whether it goes on."""
        from ray import tune

        *_, metrics = read_metrics(self._run)
        self._check(metrics)
        tune.report({**metrics, EPOCHS: self._epochs, "done": True})

    def _check(self, metrics: Mapping[str, float]) -> None:
        if self._metric not in metrics:
            known = ", ".join(name for name in metrics if name != "epoch")
            raise TrainingError(
                f"sweep.metric {self._metric!r} is no metric of an epoch, those are: {known}"
            )
