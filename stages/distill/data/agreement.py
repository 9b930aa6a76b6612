"""Do image, key and view of a batch agree? One row is made again, another way than it came."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import TrainingError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.views import (
    CLEAN,
    apply_view,
    blended,
    key_hashes,
    own_shares,
    partners,
    view_params,
)
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.inputs.arrays import variant_numbers
from egapipe.stages.distill.data.inputs.crops import Size
from egapipe.stages.distill.data.joint import Offsets
from egapipe.stages.distill.data.loader import student_plan
from egapipe.stages.distill.data.rows.entries import first_views, student_views
from egapipe.stages.distill.data.rows.partners import without_image
from egapipe.stages.distill.data.sources import Sources

Pixels = npt.NDArray[np.uint8]

# Grey levels that resizing on a device may differ from PIL's by.
RESIZED = 2


@dataclass(frozen=True)
class Origin:
    """Where a row of a batch comes from. row: of the data set and of its store."""

    dataset: Dataset
    store: FeatureStore
    row: int

    @property
    def key(self) -> str:
        """The row's stable name."""
        return self.dataset.keys[self.row]

    def teacher_view(self, epoch: int, draws: int, entry: int, config: DistillConfig) -> int:
        """The view that the teacher's embedding must be of. entry: of those of the row."""
        plan = self.store.manifest.plan
        first = int(first_views(config, plan, key_hashes([self.key]), epoch, draws)[0])
        return CLEAN if first == CLEAN else first + entry

    def is_seen(
        self, found: torch.Tensor, epoch: int, draws: int, entry: int, config: DistillConfig
    ) -> bool:
        """Whether an image, uint8 [3, H, W], or an array [*shape], is what the student must see."""
        plan = student_plan(config, self.store.manifest.plan)
        if config.student_view == "paired":
            view = self.teacher_view(epoch, draws, entry, config)
        else:
            number = draws * config.views_per_row + entry
            view = int(student_views(epoch, np.array([number]))[0])
        if self.dataset.arrays is not None:
            hashes, variants = key_hashes([self.key]), self.dataset.arrays.variants
            [number] = variant_numbers(plan, hashes, view, variants).tolist()
            return bool((self.dataset.array(self.row)[number] == found.numpy()).all())
        height, width = found.shape[1:]
        wanted, resized = self._image(plan, view, (height, width))
        pixels = found.permute(1, 2, 0).numpy().astype(np.int64)
        return bool(np.abs(pixels - wanted).max() <= (RESIZED if resized else 0))

    def _image(self, plan: ViewsConfig, view: int, size: Size) -> tuple[Pixels, bool]:
        """A view, uint8 [H, W, 3], and whether it was resized."""
        found, resized = self._seen(self.row, plan, view, size)
        if plan.mix is None:
            return found, resized
        hashes = key_hashes([self.key])
        [partner] = partners(plan, hashes, np.array([self.row])).tolist()
        if partner == self.row or without_image(self.store)[partner]:
            return found, resized
        other, too = self._seen(partner, plan, view, size)
        [share] = own_shares(plan, hashes, np.array([view])).tolist()
        return blended(found, other, share), resized or too

    def _seen(self, row: int, plan: ViewsConfig, view: int, size: Size) -> tuple[Pixels, bool]:
        image, (height, width) = self.dataset.image(row), size
        drawn = view_params(plan, self.dataset.keys[row], view, (image.height, image.width))
        cropped = apply_view(image, drawn)
        if cropped.size == (width, height):
            return np.asarray(cropped), False
        return np.asarray(cropped.resize((width, height), Image.Resampling.BILINEAR)), True

    def stored(self, view: int, output: str) -> npt.NDArray[Any]:
        """An output in the durable store, of the shape it has there."""
        return self.store.read_view(self.row, view, output)


def check_agreement(batch: Batch, epoch: int, sources: Sources, config: DistillConfig) -> None:
    """Compare a row of a batch, another one each epoch, with what it was made from.

    The key must be the same in data set and store; the image the one that the data set decodes, in
    the view that its key draws; the features those that the durable store holds for the view that
    the epoch asks for. Raises TrainingError with the row and what differs, StoreError if the
    row is not in the store. Of the store it reads those features alone.
    """
    # A prime, so that places differ from epoch to epoch for any length of a batch below it.
    place = (config.seed + 7919 * epoch) % len(batch.rows)
    row = int(batch.rows[place])
    origin = find_origin(row, sources)
    where = f"row {row} ({origin.key}) in epoch {epoch}"
    [known] = origin.store.keys([origin.row])
    if known != origin.key:
        raise TrainingError(f"{where} is {known} in store {origin.store.url}: extract it again")
    draws = 0 if batch.draws is None else int(batch.draws[place])
    entry = place % config.views_per_row
    if not origin.is_seen(batch.images[place].cpu(), epoch, draws, entry, config):
        what = "image" if origin.dataset.arrays is None else "array"
        raise TrainingError(
            f"{where}: the {what} in the batch is not that of {origin.dataset.name} in its view: "
            f"remove `pixels` in the cache folder, where decoded {what}s are kept"
        )
    view = origin.teacher_view(epoch, draws, entry, config)
    for output, values in {config.teacher_output: batch.features, **batch.outputs}.items():
        bytes_taken = values[place].cpu().contiguous().view(torch.uint8).numpy().tobytes()
        if bytes_taken != origin.stored(view, output).tobytes():
            raise TrainingError(
                f"{where}: {output} in the batch is not view {view} of store {origin.store.url}: "
                "remove the store's copy in the cache folder"
            )


def find_origin(row: int, sources: Sources) -> Origin:
    """Of a row as it is numbered through all sources."""
    offsets = Offsets.of([len(dataset) for dataset in sources.datasets])
    [(part, _, rows)] = offsets.parts(np.array([row]))
    return Origin(sources.datasets[part], sources.stores[part], int(rows[0]))
