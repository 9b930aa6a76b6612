"""Whether a store holds what a configuration would learn from."""

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore, Manifest
from egapipe.pipeline.views import plan_hash


def check_pair(store: FeatureStore, config: Config, dataset: Dataset, split: Split) -> None:
    """Raise StoreError, in one line, if a store was not made as the configuration says.

    Compared without loading the teacher: the data set's content, the teacher as it was asked for
    (backend, model, revision, pooling, precision; names as text), the views and the stored type.
    """
    asked = _asked(store.manifest, config, dataset, split)
    differences = store.manifest.differences(asked, versions=False)
    if differences:
        raise StoreError(
            f"store {store.url}: {'; '.join(differences)}: run `egapipe extract -c ...` with "
            "another store.url, or point store.url at the right store"
        )


def _asked(stored: Manifest, config: Config, dataset: Dataset, split: Split) -> Manifest:
    """The stored manifest with everything that the configuration decides."""
    plan = config.view_plan(split)
    record = {"fingerprint": dataset.fingerprint(), "rows": len(dataset)}
    return stored.model_copy(
        update={
            "dataset": stored.dataset.model_copy(update=record),
            "teacher": {**stored.teacher, **config.teacher.model_dump(mode="json")},
            "views": plan,
            "views_hash": plan_hash(plan),
            "dtype": config.store.dtype,
        }
    )
