"""Images with stable keys and labels, from any source the configuration names."""

from egapipe.pipeline.datasets.base import UNLABELLED, Dataset, Images
from egapipe.pipeline.datasets.classes import aligned
from egapipe.pipeline.datasets.source import open_dataset, open_split

__all__ = ["UNLABELLED", "Dataset", "Images", "aligned", "open_dataset", "open_split"]
