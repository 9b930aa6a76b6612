"""Images with stable keys and labels, from any source the configuration names."""

from egapipe.pipeline.datasets.base import UNLABELLED, Dataset
from egapipe.pipeline.datasets.classes import aligned
from egapipe.pipeline.datasets.source import open_dataset, open_split

__all__ = ["UNLABELLED", "Dataset", "aligned", "open_dataset", "open_split"]
