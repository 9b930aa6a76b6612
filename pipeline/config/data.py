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
    Text,
)
from egapipe.pipeline.config.located import ArchiveUrl, NameOrPath, NodePath, Path, Url
from egapipe.pipeline.config.views import ViewMix, ViewsConfig


class Limit(Section):
    """Fewer rows of a source."""

    rows: Positive
    """Use only so many rows."""
    choose: Literal["balanced", "first"] = "balanced"
    """`balanced`: drawn by `seed`, as many of each class as can be, unlabelled rows by their share;
    a larger limit adds rows and drops none. `first`: the first rows, which in a sorted source are
    of a class or two."""
    seed: Seed = 0
    """Seed of the drawing."""


class Source(Section):
    """What every image source understands."""

    limit: Limit | None = None
    """Use only so many rows; a number is short for `{rows: NUMBER}`."""

    @field_validator("limit", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"rows": value} if isinstance(value, int) else value


class DigitsSource(Source):
    """scikit-learn's 1,797 real 8 x 8 digits: rows 0-1436 are `train`, the last 360 are `test`."""

    kind: Literal["digits"]
    split: Literal["train", "test", "all"] = "train"
    """Which rows."""


class ColumnsSource(Source):
    """A table with an image column, read by Hugging Face `datasets`."""

    split: Text = "train"
    """Split, in `datasets` syntax: `train`, `test`, `train[:5000]`."""
    image_column: Text | None = None
    """Column of images ({bytes, path} or an Image feature); found when there is only one."""
    label_column: Text | None = None
    """Column of classes: names, or numbers, which need not count from 0; found when it is called
    label, labels or fine_label, or is the only ClassLabel. `none` for no labels."""
    key_column: Text | None = None
    """Column of unique, stable ids. Without it the key is `<split>/<row>`."""
    class_names: Annotated[list[Text], Field(min_length=1)] | None = None
    """Class names by number, where the label column does not know them: sources of `several` are
    matched by them."""
    outside: bool = False
    """Also read images whose path, or a link on it, leads out of the folder of the table's files.
    Relative paths are below that folder."""


class HubSource(ColumnsSource):
    """A data set of the Hugging Face hub."""

    kind: Literal["hub"]
    name: NameOrPath
    """Repository, e.g. `uoft-cs/cifar100`, or a local folder in such a layout."""
    config: Text | None = None
    """Configuration of the data set, where it has several."""
    revision: Text | None = None
    """Branch, tag or commit."""


class ParquetSource(ColumnsSource):
    """Parquet files in the layout of the hub's image data sets, here or at any fsspec URL."""

    kind: Literal["parquet"]
    files: Annotated[list[Url], Field(min_length=1)]
    """Paths, URLs or patterns (`*`, `{00..99}`), in the order of their rows."""

    @field_validator("files", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class FolderSource(Source):
    """A folder of images; with sub-folders, each is a class."""

    kind: Literal["folder"]
    path: Url
    """The folder, a path or any fsspec URL that can be listed."""


class WebDatasetSource(Source):
    """WebDataset tars: members of one name up to the first dot are one sample."""

    kind: Literal["webdataset"]
    files: Annotated[list[Url], Field(min_length=1)]
    """Paths, fsspec URLs or patterns (`*`, `{000..999}`) of uncompressed tars, in the order of
    their rows."""
    image: Text | None = None
    """Ending of the image members, such as `jpg` or `seg.png`; by default every image format's."""
    label_field: Text = "label"
    """Field of `.json` members that holds the class, a number or a name, for samples without a
    `.cls` member."""
    tar_in_key: bool = False
    """Put the tar's name before each key: for tars that repeat the names of their members."""
    class_names: Annotated[list[Text], Field(min_length=1)] | None = None
    """Class names by number: sources of `several` are matched by them."""

    @field_validator("files", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class ArchiveSource(Source):
    """An official archive, downloaded once a node, checked and kept."""

    kind: Literal["archive"]
    name: Literal["cifar100", "stl10", "tinyimagenet"]
    """CIFAR-100 (binary version, 32 x 32), STL-10 (binary, 96 x 96) or TinyImageNet (zip, 64 x 64).
    """
    split: Literal["train", "test", "unlabelled"] = "train"
    """STL-10: 5,000, 8,000 and 100,000 images. TinyImageNet: `test` is its labelled validation
    part, `unlabelled` its test part, 10,000 each. CIFAR-100 has no `unlabelled`."""
    folder: Path | None = None
    """Where it is kept; default `archives` in `store.cache_dir`, else in `$EGAPIPE_CACHE` or
    `~/.cache/egapipe`."""
    url: ArchiveUrl | None = None
    """A mirror of the archive."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Checksum of the archive, in place of the published one."""

    @model_validator(mode="after")
    def _has_split(self) -> Self:
        if self.name == "cifar100" and self.split == "unlabelled":
            raise ValueError("cifar100 has the splits train and test, not unlabelled")
        return self


OneSource = Annotated[
    DigitsSource | HubSource | ParquetSource | FolderSource | WebDatasetSource | ArchiveSource,
    Field(discriminator="kind"),
]


class SeveralSource(Source):
    """Several sources as one data set, their rows one source after the other."""

    kind: Literal["several"]
    sources: Annotated[list[OneSource], Field(min_length=1)]
    """The sources. Labels are matched by class names where there are names: the names of the first
    source keep their numbers, new names of the next ones follow."""


SourceConfig = Annotated[
    DigitsSource
    | HubSource
    | ParquetSource
    | FolderSource
    | WebDatasetSource
    | ArchiveSource
    | SeveralSource,
    Field(discriminator="kind"),
]


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
]
