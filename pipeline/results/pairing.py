"""Whether a store holds what a configuration would learn from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.locations.places import FILES, is_place, same_place, with_files
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.images import fingerprint_of, require_images
from egapipe.pipeline.store import Features, FeatureStore, Manifest
from egapipe.pipeline.store.copies.features import Rows
from egapipe.pipeline.store.format.stored import found_by_loading
from egapipe.pipeline.views import CLEAN, plan_hash, settled

if TYPE_CHECKING:
    from torch import Tensor

_OF_TEACHER = ("teacher", "preprocessing", "outputs")


class Vectors(Features):
    """Features of which each is one vector, whatever the shape of the output."""

    def take(self, rows: Rows, view: int | Rows) -> "Tensor":
        """[B, dim], of scalars [B, 1]; see `Features`."""
        taken = super().take(rows, view)
        return taken.flatten(1) if taken.ndim > 1 else taken.unsqueeze(1)


def open_pair(config: Config, dataset: Dataset, split: Split) -> tuple[FeatureStore, Vectors]:
    """The store of a split and this node's copy of the output `distill.teacher_output`.

    Raises StoreError, in one line, if the store is not there, was made of something else than the
    configuration says, or has no such output.
    """
    # Also as it was before rows were appended, where the data set is still of those.
    store = FeatureStore.open(config.store_url(split), rows=len(dataset))
    check_pair(store, config, dataset, split)
    output = config.distill.teacher_output
    if output not in store.manifest.outputs:
        raise StoreError(
            f"store {store.url} has no output {output!r}: set distill.teacher_output to one of "
            + ", ".join(store.manifest.outputs)
        )
    return store, Vectors.open(
        store, output, config.store.cache_dir, views=copied_views(config, split)
    )


def copied_views(config: Config, split: Split) -> list[int] | None:
    """The teacher's views that a node needs of a split's store to learn from it, or to evaluate on
    it; None for all.

    What standardises features goes over all views, whichever the student sees.
    """
    distill = config.distill
    plain = distill.student_view == "clean" and distill.standardize == "none"
    return [CLEAN] if split == "test" or plain else None


def check_pair(store: FeatureStore, config: Config, dataset: Dataset, split: Split) -> None:
    """Raise StoreError, in one line, if a store was not made as the configuration says.

    Compared without loading the teacher: the data set's keys, labels and images (see
    `require_images`), the teacher as it was asked for
    (backend, model, revision, pooling, precision; names as text, local files by their content), the
    views and the stored type.
    """
    asked = asked_of(store.manifest, config, dataset, split)
    differences = store.manifest.differences(asked)
    if differences:
        raise StoreError(
            f"store {store.url}: {'; '.join(differences)}: run `egapipe extract -c ...` with "
            "another store.url, or point store.url at the right store"
        )
    require_images(store, dataset)


def check_one_teacher(first: FeatureStore, other: FeatureStore) -> None:
    """Raise StoreError, in one line, if the embeddings of two stores do not go together.

    The configuration names the teacher; this compares what it was when each store was made: its
    weights, its preprocessing and the outputs.
    """
    theirs = other.manifest.model_dump(mode="json", include=set(_OF_TEACHER))
    changes = first.manifest.changes(first.manifest.asking(**theirs))
    if first.manifest.teacher.get("backend") == "imported":
        # There it is the checksum of the file of embeddings, and each store has its own.
        changes.pop("teacher.sha256", None)
    if changes:
        listed = "; ".join(f"{key} is {one} and {two}" for key, (one, two) in changes.items())
        raise StoreError(
            f"stores {first.url} and {other.url} are not of one teacher: {listed}: "
            "extract one of them again"
        )


def asked_of(stored: Manifest, config: Config, dataset: Dataset, split: Split) -> Manifest:
    """A stored manifest with everything that a configuration decides, without loading a teacher."""
    plan = settled(config.view_plan(split), stored.views.aspect, stored.views.among(len(dataset)))
    settings = durable(config.teacher)
    # What loading the teacher has found out is not known here: it is what was found then.
    teacher = {**found_by_loading(stored.teacher), **_placed(stored.teacher, settings)}
    record = {"fingerprint": fingerprint_of(dataset, stored.dataset), "rows": len(dataset)}
    return stored.asking(
        dataset=stored.dataset.model_copy(update=record),
        teacher=with_files(teacher, settings),
        views=plan,
        views_hash=plan_hash(plan),
        dtype=config.store.dtype,
    )


def _placed(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that name a place as the store does, where the same weights lie at both.

    For stores of an older egapipe, which have no checksum of the files. What is a relative path in
    them may as well be a name of the hub, so that the place alone says nothing.
    """
    if settings["backend"] == "ensemble":
        members = {
            name: _placed({**_of(stored, "members", name), **_of(stored, "teachers", name)}, one)
            for name, one in settings["teachers"].items()
        }
        return {**settings, "teachers": members}
    key = "pretrained" if settings.get("pretrained") else "model"
    was, now = str(stored.get(key)), str(settings.get(key))
    if FILES in stored or not (is_place(was) or is_place(now)) or same_place(was, now):
        return dict(settings)
    # It reads weights, and imports torch.
    from egapipe.pipeline.results.weights import holds_weights

    same = holds_weights(settings, str(stored.get("sha256")))
    return {**settings, key: was} if same else dict(settings)


def _of(stored: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    """What a stored ensemble says of one of its teachers; nothing where it is unlike one."""
    found = stored[key].get(name) if isinstance(stored.get(key), Mapping) else None
    return found if isinstance(found, Mapping) else {}
