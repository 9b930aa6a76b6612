"""From the `dataset` section of a configuration to images."""

from egapipe.pipeline.config.data import (
    ArchiveSource,
    DigitsSource,
    FolderSource,
    OneSource,
    SeveralSource,
    SourceConfig,
    WebDatasetSource,
)
from egapipe.pipeline.datasets.base import Dataset
from egapipe.pipeline.datasets.rows import RowsDataset


def open_dataset(source: SourceConfig) -> Dataset:
    """List the rows of a data set; images are read when they are asked for.

    Raises UsageError, in one line: nothing there, an unknown split or column, keys that repeat,
    labels that are no class numbers, class names that cannot be matched, an archive with another
    checksum, or a hub or server that cannot be reached.
    """
    if not isinstance(source, SeveralSource):
        return _open_one(source)
    from egapipe.pipeline.datasets.several import SeveralDataset

    return SeveralDataset(source, [_open_one(one) for one in source.sources])


def _open_one(source: OneSource) -> RowsDataset:
    # Imported one by one: scikit-learn and `datasets` take a second each.
    if isinstance(source, DigitsSource):
        from egapipe.pipeline.datasets.digits import DigitsDataset

        return DigitsDataset(source)
    if isinstance(source, FolderSource):
        from egapipe.pipeline.datasets.folder import FolderDataset

        return FolderDataset(source)
    if isinstance(source, WebDatasetSource):
        from egapipe.pipeline.datasets.webdataset import TarDataset

        return TarDataset(source)
    if isinstance(source, ArchiveSource):
        from egapipe.pipeline.datasets.archives import open_archive

        return open_archive(source)
    from egapipe.pipeline.datasets.tables import TableDataset

    return TableDataset(source)
