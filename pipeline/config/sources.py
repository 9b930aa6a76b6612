"""Where rows come from: images, or arrays of one shape."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from egapipe.pipeline.config.base import Positive, Section, Seed, Text
from egapipe.pipeline.config.located import ArchiveUrl, NameOrPath, Path, Url


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


class ArrayType(Section):
    """One sample of arrays, as teacher and student see it."""

    shape: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Its shape: `[64]` of 64 token ids, `[100, 40]` of a spectrogram."""
    dtype: Literal["int64", "float32"]
    """`int64` of whole numbers and truth values, `float32` of all others."""


class ArraysSource(Source):
    """Arrays of one shape, such as token ids, spectrograms or a node's features."""

    kind: Literal["arrays"]
    files: Annotated[list[Url], Field(min_length=1)]
    """Paths, URLs or patterns (`*`, `{00..99}`) of .npy files [N, ...] or of parquet files, in the
    order of their rows."""
    variants: bool = False
    """The first axis of a row counts ready-made variants of it, [N, V, ...]. They are its views:
    the first is the clean one."""
    column: Text | None = None
    """Of parquet files, the column of arrays: lists, of lists or not, or tensors of one shape;
    found when there is only one."""
    label_column: Text | None = None
    """Of parquet files, see `kind: parquet`; without it there are no labels."""
    key_column: Text | None = None
    """Of parquet files, the column of unique, stable ids. Without it, and of .npy files, the key is
    `<split>/<row>`."""
    labels: Url | None = None
    """For .npy files, a .npy file of whole numbers [N], -1 where a row has no label."""
    class_names: Annotated[list[Text], Field(min_length=1)] | None = None
    """Class names by number, for labels that are numbers."""
    split: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "train"
    """What the keys of the rows begin with."""

    @field_validator("files", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @property
    def in_parquet(self) -> bool:
        """Whether the files are parquet files."""
        return not self.files[0].endswith(".npy")

    @model_validator(mode="after")
    def _of_one_format(self) -> Self:
        if len({file.endswith(".npy") for file in self.files}) > 1:
            raise ValueError("files are .npy files or parquet files, not both")
        if self.in_parquet and self.labels is not None:
            raise ValueError("labels is for .npy files: set label_column")
        columns = ("column", "label_column", "key_column")
        given = [name for name in columns if getattr(self, name) is not None]
        if given and not self.in_parquet:
            raise ValueError(f"{given[0]} is for parquet files: leave it out")
        return self


OneSource = Annotated[
    DigitsSource
    | HubSource
    | ParquetSource
    | FolderSource
    | WebDatasetSource
    | ArchiveSource
    | ArraysSource,
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
    | ArraysSource
    | SeveralSource,
    Field(discriminator="kind"),
]


def holds_arrays(source: SourceConfig) -> bool:
    """Whether the rows of a source are arrays, not images."""
    if isinstance(source, SeveralSource):
        return isinstance(source.sources[0], ArraysSource)
    return isinstance(source, ArraysSource)
