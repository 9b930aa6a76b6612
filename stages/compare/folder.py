"""What a comparison leaves behind, beside the run folders of its cells.

config.yaml      the resolved configuration
experiment.json  all cells and where each stands, see `egapipe.pipeline.results.experiment`
cells.csv        one line a training
table.md         objectives against students, mean ± standard deviation
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.disk.comma_separated import comma_separated
from egapipe.pipeline.results.experiment import Experiment
from egapipe.pipeline.results.runs import RunFolder, folder_at
from egapipe.pipeline.results.standing import standings
from egapipe.stages.compare.table import poster

_COLUMNS = ["student", "variant", "seed", "run", "top1", "seconds"]


def comparison_folder(config: Config, runs: Sequence[RunFolder]) -> "ComparisonFolder":
    """The folder of a comparison: the same cells find the same folder again."""
    names = "\n".join(run.path.name for run in runs)
    identity = hashlib.sha256(names.encode()).hexdigest()[:8]
    folder = folder_at(f"{config.runs.rstrip('/')}/{config.name}/compare-{identity}")
    return ComparisonFolder(folder.path, folder.url)


def trainings(experiment: Experiment) -> list[dict[str, Any]]:
    """Student, variant, seed, run folder relative to the comparison's, accuracy (%) and seconds of
    every training that is done."""
    return [
        {
            "student": experiment.setting(cell.setting).group,
            "variant": experiment.setting(cell.setting).label,
            "seed": cell.seed,
            "run": cell.run,
            "top1": cell.value,
            "seconds": cell.seconds,
        }
        for cell in experiment.cells
        if cell.state == "done"
    ]


@dataclass(frozen=True)
class ComparisonFolder(RunFolder):
    """The small files of one comparison."""

    def write_tables(self, experiment: Experiment) -> None:
        """Write the tables anew."""
        self.write("cells.csv", comma_separated(_COLUMNS, trainings(experiment)))
        self.write("table.md", poster(experiment, standings(experiment)).encode())
