"""Whether a store holds what a configuration would learn from."""

from collections.abc import Iterator, Mapping
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.views import plan_hash

_SHOWN = 60


def check_pair(store: FeatureStore, config: Config, dataset: Dataset, split: Split) -> None:
    """Raise StoreError, in one line, if a store was not made as the configuration says.

    Compared without loading the teacher: the data set's content, the teacher as it was asked for
    (backend, model, revision, pooling, precision; names as text), the view plan and the stored type.
    """
    stored, asked = _stored(store), _asked(config, dataset, split)
    differences = [
        f"{key} is {_shown(stored.get(key))}, the config asks for {_shown(value)}"
        for key, value in asked.items()
        if stored.get(key) != value
    ]
    if differences:
        raise StoreError(
            f"store {store.url}: {'; '.join(differences)}: run `egapipe extract -c ...` with another "
            "store.url, or point store.url at the right store"
        )


def _stored(store: FeatureStore) -> dict[str, Any]:
    manifest = store.manifest
    return dict(
        _leaves(
            {
                "dataset": {"fingerprint": manifest.dataset.fingerprint},
                "teacher": manifest.teacher,
                "views": manifest.views.model_dump(mode="json"),
                "views_hash": manifest.views_hash,
                "store": {"dtype": manifest.dtype},
            }
        )
    )


def _asked(config: Config, dataset: Dataset, split: Split) -> dict[str, Any]:
    plan = config.view_plan(split)
    return dict(
        _leaves(
            {
                "dataset": {"fingerprint": dataset.fingerprint()},
                "teacher": config.teacher.model_dump(mode="json"),
                "views": plan.model_dump(mode="json"),
                "views_hash": plan_hash(plan),
                "store": {"dtype": config.store.dtype},
            }
        )
    )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
