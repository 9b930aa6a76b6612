"""The root of the configuration tree."""

from typing import Annotated, Literal

from pydantic import Field

from egapipe.pipeline.config.base import Section, Text
from egapipe.pipeline.config.compare import CompareConfig
from egapipe.pipeline.config.data import DatasetConfig, SourceConfig, StoreConfig, ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.extract import ClusterConfig, ExtractConfig
from egapipe.pipeline.config.teachers import TeacherConfig

Split = Literal["train", "test"]


class Config(Section):
    """One experiment: a data set, a teacher, the views it sees, the store, and the students."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the experiment; stores and runs are filed under it."""
    dataset: DatasetConfig
    """Images to learn from and to evaluate on."""
    teacher: TeacherConfig
    """The frozen encoder."""
    views: ViewsConfig = ViewsConfig()
    """The views of every training image that the teacher sees. Test images: the clean one."""
    store: StoreConfig = StoreConfig()
    """Where embeddings are kept."""
    extract: ExtractConfig = ExtractConfig()
    """Stage one."""
    distill: DistillConfig = DistillConfig()
    """Stage two."""
    compare: CompareConfig = CompareConfig()
    """Variants trained side by side."""
    cluster: ClusterConfig = ClusterConfig()
    """The Ray cluster."""
    runs: Text = "runs"
    """Folder of run folders."""

    def source(self, split: Split) -> SourceConfig | None:
        """The image source of a split."""
        return self.dataset.train if split == "train" else self.dataset.test

    def splits(self) -> list[Split]:
        """The splits this experiment has."""
        return ["train", "test"] if self.dataset.test is not None else ["train"]

    def store_url(self, split: Split) -> str:
        """Where the store of a split lies."""
        root = self.store.url or f"stores/{self.name}"
        return f"{root.rstrip('/')}/{split}.zarr"

    def view_plan(self, split: Split) -> ViewsConfig:
        """The teacher's views: the plan for training images, the clean view for test images."""
        return self.views if split == "train" else self.views.model_copy(update={"count": 0})
