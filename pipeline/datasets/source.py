"""From the `dataset` section of a configuration to images."""

from egapipe.pipeline.config.data import (
    ArchiveSource,
    ArraysSource,
    DigitsSource,
    FolderSource,
    OneSource,
    ParquetSource,
    SeveralSource,
    SourceConfig,
    WebDatasetSource,
)
from egapipe.pipeline.config.tree import Config, Split
from egapipe.pipeline.datasets.base import Dataset
from egapipe.pipeline.datasets.classes import aligned
from egapipe.pipeline.datasets.rows import RowsDataset
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import UsageError


def open_split(config: Config, split: Split) -> Dataset:
    """The data set of a split; `test` has the class numbers of `train`, see `aligned`.

    Raises UsageError where there is none, or for classes that cannot be matched; else see
    `open_dataset`.
    """
    use_cache(config.store.cache_dir)
    source = config.source(split)
    if source is None:
        known = " and ".join(config.splits())
        raise UsageError(f"config {config.name} has no dataset.{split}: add it, there is {known}")
    dataset = open_dataset(source)
    return aligned(dataset, open_dataset(config.dataset.train)) if split == "test" else dataset


def open_dataset(source: SourceConfig) -> Dataset:
    """List the rows of a data set; images are read when they are asked for.

    Raises UsageError, in one line: nothing there, an unknown split or column, keys that repeat,
    labels that are no class numbers, class names that cannot be matched, an archive with another
    checksum, or a hub or server that cannot be reached.
    """
    if not isinstance(source, SeveralSource):
        return _open_one(source)
    from egapipe.pipeline.datasets.kinds.several import SeveralDataset

    return SeveralDataset(source, [_open_one(one) for one in source.sources])


def _open_one(source: OneSource) -> RowsDataset:
    # Imported one by one: scikit-learn and `datasets` take a second each.
    if isinstance(source, DigitsSource):
        from egapipe.pipeline.datasets.kinds.digits import DigitsDataset

        return DigitsDataset(source)
    if isinstance(source, FolderSource):
        from egapipe.pipeline.datasets.kinds.folder import FolderDataset

        return FolderDataset(source)
    if isinstance(source, WebDatasetSource):
        from egapipe.pipeline.datasets.kinds.webdataset import TarDataset

        return TarDataset(source)
    if isinstance(source, ArchiveSource):
        from egapipe.pipeline.datasets.files.archives import open_archive

        return open_archive(source)
    if isinstance(source, ArraysSource):
        from egapipe.pipeline.datasets.kinds.arrays.dataset import ArraysDataset

        return ArraysDataset(source)
    if isinstance(source, ParquetSource):
        from egapipe.pipeline.datasets.kinds.parquet import ParquetDataset

        return ParquetDataset(source)
    from egapipe.pipeline.datasets.kinds.tables import TableDataset

    return TableDataset(source)
