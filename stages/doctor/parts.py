"""What several checks look at: each is made once, when it is first asked for."""

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.teachers import ImportedTeacher
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import EgapipeError, ImageError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.format.dtypes import to_floats
from egapipe.stages.distill.students import build_student
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.planning.plan import StorePlan, plan_store
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.tuned import open_teacher

T = TypeVar("T")
Rows = npt.NDArray[np.int64]

# Enough for a graph, and quick on a CPU.
_IMAGES = 16


class MissingError(Exception):
    """A check cannot be made: something it looks at is not there, which is no fault by itself."""


class Part(Generic[T]):
    """Something that is made once. Only the first to ask hears why it cannot be made."""

    def __init__(self, name: str, make: Callable[[], T]) -> None:
        self._name = name
        self._make = make
        self._made: list[T] = []
        self._missing: MissingError | None = None

    def get(self) -> T:
        """The part. Raises EgapipeError if it cannot be made, and MissingError ever after."""
        if self._missing is not None:
            raise self._missing
        if not self._made:
            try:
                self._made.append(self._make())
            except EgapipeError:
                self._missing = MissingError(f"needs {self._name}, see above")
                raise
            except MissingError as missing:
                self._missing = missing
                raise
        return self._made[0]


class Parts:
    """A configuration, and what it names.

    rows: int64 [B], training images that can be read. pixels: uint8 [B, 3, H, W], as the teacher
    sees them. embeddings: float32 [B, D] of the same rows, by the teacher, or out of the store
    where the teacher is not here.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._datasets: dict[Split, Part[Dataset]] = {
            split: Part(f"the {split} images", partial(self._open, split))
            for split in ("train", "test", *config.splits())
        }
        self._stores: dict[Split, Part[FeatureStore]] = {
            split: Part(f"the {split} store", partial(self._open_store, split))
            for split in config.splits()
        }
        self.teacher: Part[Teacher] = Part("the teacher", self._load_teacher)
        self.plans: Part[list[StorePlan]] = Part("the stores", self._plan)
        self.rows: Part[Rows] = Part("images", self._readable_rows)
        self.pixels: Part[Tensor] = Part("images", self._decode)
        self.embeddings: Part[Tensor] = Part("embeddings", self._embed)
        self.backbone: Part[nn.Module] = Part("the student", self._build)

    def dataset(self, split: Split) -> Dataset:
        """The images of a split."""
        return self._datasets[split].get()

    def store(self, split: Split) -> FeatureStore:
        """The store of a split, finished or not."""
        return self._stores[split].get()

    def stores(self) -> dict[Split, FeatureStore]:
        """The stores there are. Raises MissingError if there is none that can be opened."""
        found: dict[Split, FeatureStore] = {}
        missing = MissingError("no store yet")
        for split in self.config.splits():
            try:
                found[split] = self.store(split)
            except MissingError as reason:
                missing = reason
        if not found:
            raise missing
        return found

    def device(self) -> torch.device:
        """Where the teacher runs on this machine."""
        gpu = torch.cuda.is_available() and self.config.extract.device != "cpu"
        return torch.device("cuda" if gpu else "cpu")

    def _open(self, split: Split) -> Dataset:
        source = self.config.source(split)
        if source is None:
            raise MissingError(f"the configuration has no dataset.{split}")
        use_cache(self.config.store.cache_dir)
        return open_dataset(source)

    def _open_store(self, split: Split) -> FeatureStore:
        url = self.config.store_url(split)
        if not FeatureStore.exists(url):
            raise MissingError(f"no {split} store yet: run `egapipe extract`")
        return FeatureStore.open(url)

    def _load_teacher(self) -> Teacher:
        if isinstance(self.config.teacher, ImportedTeacher):
            raise MissingError("embeddings are imported, there is no teacher to run")
        return open_teacher(self.config)

    def _plan(self) -> list[StorePlan]:
        teacher = self.teacher.get()
        splits = self.config.splits()
        return [plan_store(self.config, s, self.dataset(s), teacher) for s in splits]

    def _readable_rows(self) -> Rows:
        dataset = self.dataset("train")
        spread = np.unique(np.linspace(0, len(dataset) - 1, _IMAGES).round().astype(np.int64))
        rows = [row for row in spread if _is_readable(dataset, int(row))]
        if len(dataset) < 2:
            raise ImageError(f"{dataset.name} has {len(dataset)} image: a student needs some more")
        if len(rows) < 2:
            raise ImageError(
                f"{len(rows)} of {len(spread)} images of {dataset.name} can be read: check its path"
            )
        return np.array(rows)

    def _decode(self) -> Tensor:
        dataset, plan = self.dataset("train"), self.config.view_plan("test")
        reader = Reader(dataset, self.teacher.get().preprocessing, plan)
        views = [reader.views(int(row))[0] for row in self.rows.get()]
        return torch.from_numpy(np.stack(views))

    def _embed(self) -> Tensor:
        if isinstance(self.config.teacher, ImportedTeacher):
            return self._stored()
        teacher, device = self.teacher.get(), self.device()
        teacher.to(device)
        outputs = teacher.forward(self.pixels.get().to(device))
        return outputs["embedding"].cpu().flatten(1)

    def _stored(self) -> Tensor:
        """The clean embeddings of the first shard there is, those of failed rows left out."""
        store = self.store("train")
        commit = next(filter(None, map(store.commit, store.snapshot().committed)), None)
        if commit is None:
            raise MissingError("the train store has no embeddings yet")
        failed = {failure.row for failure in commit.failures}
        good = [row - commit.start for row in range(commit.start, commit.stop) if row not in failed]
        if len(good) < 2:
            raise MissingError("the train store has no two embeddings in its first shard")
        values = store.read_shard(commit.shard)[good[:_IMAGES], 0]
        return torch.from_numpy(to_floats(values, store.manifest.dtype)).flatten(1)

    def _build(self) -> nn.Module:
        distill = self.config.distill
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(distill.seed)
            return build_student(distill.student.name, distill.student.args)


def _is_readable(dataset: Dataset, row: int) -> bool:
    try:
        dataset.image(row) if dataset.arrays is None else dataset.array(row)
    except ImageError:
        return False
    return True
