"""From the `dataset` section of a configuration to images."""

from egapipe.pipeline.config.data import DigitsSource, FolderSource, SourceConfig
from egapipe.pipeline.datasets.base import Dataset


def open_dataset(source: SourceConfig) -> Dataset:
    """List the rows of a data set; images are read when they are asked for.

    Raises UsageError, in one line: nothing there, an unknown split or column, keys that repeat,
    labels that are no class numbers, or a hub that cannot be reached.
    """
    # Imported one by one: scikit-learn and `datasets` take a second each.
    if isinstance(source, DigitsSource):
        from egapipe.pipeline.datasets.digits import DigitsDataset

        return DigitsDataset(source)
    if isinstance(source, FolderSource):
        from egapipe.pipeline.datasets.folder import FolderDataset

        return FolderDataset(source)
    from egapipe.pipeline.datasets.tables import TableDataset

    return TableDataset(source)
