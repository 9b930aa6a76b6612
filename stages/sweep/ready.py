"""What every trial of a sweep would stumble over, found before the first one starts."""

import importlib.util
from collections.abc import Sequence

from egapipe.pipeline.config import Config
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.pairing import open_pair
from egapipe.stages.distill.students import build_student
from egapipe.stages.sweep.plan import Trial


def check_ready(config: Config, trials: Sequence[Trial]) -> None:
    """Open the store, make this node's copy of its features, and build every student once.

    Raises UsageError or StoreError with the one thing to change.
    """
    if config.sweep.search == "optuna" and importlib.util.find_spec("optuna") is None:
        raise UsageError(
            "sweep.search is optuna, which is not installed: pip install 'egapipe[optuna]', or set "
            "sweep.search to random"
        )
    metric = config.sweep.metric
    if metric.startswith("test/") and config.dataset.test is None:
        raise UsageError(
            f"sweep.metric is {metric}, but {config.name} has no dataset.test: add test images, or "
            "compare by a metric of training such as train/top1"
        )
    # All trials of a node map the one file that this makes.
    use_cache(config.store.cache_dir)
    open_pair(config, open_dataset(config.dataset.train), "train")
    students = {trial.config.distill.student.model_dump_json(): trial for trial in trials}
    for trial in students.values():
        student = trial.config.distill.student
        build_student(student.name, student.args)
