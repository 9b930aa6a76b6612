"""The root of the configuration tree."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from egapipe.pipeline.config.arrays import check_arrays, with_array_views
from egapipe.pipeline.config.base import Section
from egapipe.pipeline.config.compare import CompareConfig
from egapipe.pipeline.config.data import DatasetConfig, SourceConfig, StoreConfig, ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.extract import ClusterConfig, ExtractConfig
from egapipe.pipeline.config.located import Url
from egapipe.pipeline.config.recipes import filled
from egapipe.pipeline.config.sweep import SweepConfig
from egapipe.pipeline.config.teachers import TeacherConfig
from egapipe.pipeline.config.track import Tracking

# `train`, `test`, `unlabelled`, and for more sources without labels `unlabelled2`, `unlabelled3`...
Split = str


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
    sweep: SweepConfig = SweepConfig()
    """A search over settings of stage two."""
    track: Tracking | None = None
    """Where else metrics of trainings, comparisons and sweeps go, besides TensorBoard files."""
    cluster: ClusterConfig = ClusterConfig()
    """The Ray cluster."""
    runs: Url = "runs"
    """Folder or fsspec URL of run folders."""

    @model_validator(mode="before")
    @classmethod
    def _chosen_by_validation(cls, tree: Any) -> Any:
        """Test images are measured once where there is a validation, and no epoch has a metric of
        them: a sweep compares by the same metric of the other images."""
        dataset, sweep = (_plain(tree, name) for name in ("dataset", "sweep"))
        metric = sweep.get("metric", SweepConfig.model_fields["metric"].default)
        if dataset.get("validation") is None or not str(metric).startswith("test/"):
            return tree
        return {**tree, "sweep": {**sweep, "metric": "validation/" + metric.removeprefix("test/")}}

    @model_validator(mode="before")
    @classmethod
    def _by_recipe(cls, tree: Any) -> Any:
        """What is not said of the training is as its recipe has it."""
        if not isinstance(tree, dict) or not isinstance(tree.get("distill", {}), dict):
            return tree
        return {**tree, "distill": filled(tree.get("distill", {}))}

    @model_validator(mode="before")
    @classmethod
    def _views_of_arrays(cls, tree: Any) -> Any:
        return with_array_views(tree)

    @model_validator(mode="after")
    def _of_images_or_arrays(self) -> Self:
        check_arrays(self)
        return self

    @model_validator(mode="after")
    def _mixed_when_resized(self) -> Self:
        if self.views.mix is not None and self.extract.canvas is not None:
            raise ValueError(
                "views.mix is of images that are resized, which extract.canvas leaves to the "
                "device: leave out one of them"
            )
        return self

    @model_validator(mode="after")
    def _pairs_that_there_are(self) -> Self:
        asked = {
            "distill.sampler": self.distill.sampler == "pairs",
            "distill.edges.of": self.distill.edges.of == "pairs",
        }
        wanting = [key for key, wants in asked.items() if wants and self.dataset.pairs is None]
        if wanting:
            raise ValueError(f"{wanting[0]} is pairs: name the file of them in dataset.pairs")
        return self

    def source(self, split: Split) -> SourceConfig | None:
        """The image source of a split, None if there is no such split."""
        return self._sources().get(split)

    def splits(self) -> list[Split]:
        """The splits this experiment has."""
        return list(self._sources())

    def training_splits(self) -> list[Split]:
        """Those a student learns from: `train`, then the unlabelled ones."""
        return [split for split in self._sources() if split != "test"]

    @property
    def stores(self) -> str:
        """Where the stores of all splits lie."""
        return (self.store.url or f"stores/{self.name}").rstrip("/")

    def store_url(self, split: Split) -> str:
        """Where the store of a split lies."""
        return f"{self.stores}/{split}.zarr"

    def view_plan(self, split: Split) -> ViewsConfig:
        """The teacher's views: the plan for training images, the clean view for test images."""
        if split == "test":
            return self.views.model_copy(update={"count": 0, "turns": 1, "mix": None})
        return self.views

    def _sources(self) -> dict[Split, SourceConfig]:
        sources: dict[Split, SourceConfig] = {"train": self.dataset.train}
        if self.dataset.test is not None:
            sources["test"] = self.dataset.test
        for number, source in enumerate(self.dataset.unlabelled, start=1):
            sources["unlabelled" if number == 1 else f"unlabelled{number}"] = source
        return sources


def _plain(tree: Any, name: str) -> dict[str, Any]:
    """A section as it is given, empty where it is none."""
    section = tree.get(name) if isinstance(tree, dict) else None
    if isinstance(section, BaseModel):
        return section.model_dump(exclude_unset=True)
    return section if isinstance(section, dict) else {}
