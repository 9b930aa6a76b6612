"""Where images come from and which augmented views of them exist."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from egapipe.pipeline.config.base import (
    AboveZero,
    Fraction,
    Positive,
    Real,
    Section,
    Seed,
)
from egapipe.pipeline.config.located import NodePath, Url
from egapipe.pipeline.config.sources import (
    ArchiveSource,
    ArraysSource,
    ArrayType,
    ColumnsSource,
    DigitsSource,
    FolderSource,
    HubSource,
    Limit,
    OneSource,
    ParquetSource,
    SeveralSource,
    Source,
    SourceConfig,
    WebDatasetSource,
    holds_arrays,
)
from egapipe.pipeline.config.views import ViewMix, ViewsConfig


class ValidationConfig(Section):
    """Images to choose by that are neither trained on nor tested on: exactly one of two kinds.

    A source in its place is short for `source`.
    """

    fraction: Annotated[Fraction, Field(gt=0.0, lt=1.0)] | None = None
    """This share of each class of `train`, at least one image; no training sees them."""
    seed: Seed = 0
    """Which ones. It is not the students' seed: all of them leave out the same."""
    source: SourceConfig | None = None
    """Labelled images of their own."""

    @model_validator(mode="before")
    @classmethod
    def _source_alone(cls, value: Any) -> Any:
        if isinstance(value, Source) or (isinstance(value, dict) and "kind" in value):
            return {"source": value}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.fraction is None) == (self.source is None):
            raise ValueError("give one of fraction, source")
        return self


class DatasetConfig(Section):
    """The images to learn from and those to evaluate on."""

    train: SourceConfig
    """The labelled images to learn from; those without a label count as unlabelled."""
    unlabelled: list[SourceConfig] = Field(default=[])
    """More images to learn from, without their labels: a source, or a list of them. Each has a
    store of its own, `unlabelled.zarr`, `unlabelled2.zarr` and so on."""
    test: SourceConfig | None = None
    """Labelled images for evaluation."""
    validation: ValidationConfig | None = None
    """Labelled images to choose by: the best epoch, a sweep's trials and which of them end early.
    `test` is then measured once, at the end. Without it these choices are made on `test`."""
    pairs: Url | None = None
    """Pairs of rows to learn from, by their keys: a parquet file, here or at any fsspec URL, with
    the columns `first`, `second` and, if wanted, `score`. For `distill.edges` and the sampler
    `pairs`."""

    @field_validator("unlabelled", mode="before")
    @classmethod
    def _one_source(cls, value: Any) -> Any:
        if value is None:
            return []
        return [value] if isinstance(value, dict | Source) else value


class StoreConfig(Section):
    """Where embeddings are kept, and in which form."""

    url: Url | None = None
    """Folder or fsspec URL of the stores, `train.zarr` and so on; default `stores/<name>`."""
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Stored type of the embeddings."""
    shard_rows: Positive | None = None
    """Rows a shard: the unit of work, of writing and of resuming. Default: 4096, fewer where they
    would be more than 256 MiB; a store that is there keeps its own."""
    cache_dir: NodePath | None = None
    """Node-local folder of all caches, the memory-mapped copies among them; default
    `$EGAPIPE_CACHE` or `~/.cache/egapipe`."""


class Normalize(Section):
    """Channel mean and standard deviation of images scaled to 0..1."""

    mean: tuple[Real, Real, Real]
    """Mean of R, G, B."""
    std: tuple[AboveZero, AboveZero, AboveZero]
    """Standard deviation of R, G, B."""


__all__ = [
    "ArchiveSource",
    "ArrayType",
    "ArraysSource",
    "ColumnsSource",
    "DatasetConfig",
    "DigitsSource",
    "FolderSource",
    "HubSource",
    "Limit",
    "Normalize",
    "OneSource",
    "ParquetSource",
    "SeveralSource",
    "Source",
    "SourceConfig",
    "StoreConfig",
    "ValidationConfig",
    "ViewMix",
    "ViewsConfig",
    "WebDatasetSource",
    "holds_arrays",
]
