"""What makes two trainings one: what decides what is learned, never how that is written.

Places of images and teachers are left out: what is in them decides, and a run is tied to that by
the features it learned from, see `egapipe.pipeline.results.learned`.
"""

import hashlib
import json
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.locations.places import is_local, is_place
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.initial import initial_sha256

# What does not change the trained weights does not change the run: it may resume with other values.
_LAUNCH = {"runs", "extract", "compare", "sweep", "cluster", "track"}
_LAUNCH_DISTILL = {
    # It is in the settings that it decides.
    "recipe",
    "workers",
    # One worker and several with it are the same.
    "sync_batchnorm",
    "max_failures",
    "min_workers",
    "threads",
    "channels_last",
    "tf32",
    "deterministic",
    "cuda_graphs",
    "compile",
    "stream_threads",
    "data",
    "resident_bytes",
    "checkpoint_epochs",
    "checkpoint_steps",
}
_PLACES = {
    "folder": {"path"},
    "parquet": {"files"},
    "webdataset": {"files"},
    "archive": {"folder", "url"},
}

Tree = dict[str, Any]


def run_identity(config: Config, workers: int | None = None) -> str:
    """Eight hex digits of everything that decides what is learned, but for what lies elsewhere.

    workers: their number where it does, too; see `deciding_workers` of stage two. Weights to start
    from count by what is in their file. Raises UsageError if that is not there.
    """
    tree = {key: value for key, value in durable(config).items() if key not in _LAUNCH}
    tree["distill"] = {k: v for k, v in tree["distill"].items() if k not in _LAUNCH_DISTILL}
    if workers is not None:
        tree["distill"]["workers"] = workers
    if config.distill.init is not None:
        tree["distill"]["init"] = initial_sha256(config.distill.init)
    tree["store"] = {"dtype": tree["store"]["dtype"]}
    tree["dataset"] = _dataset(tree["dataset"])
    tree["teacher"] = _teacher(tree["teacher"])
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def has_places(config: Config) -> bool:
    """Whether a configuration names places that are left out of its run's identity."""
    tree = durable(config)
    return (
        bool(_dataset(tree["dataset"]) != tree["dataset"])
        or _teacher(tree["teacher"]) != tree["teacher"]
    )


def in_place(source: Tree) -> bool:
    """Whether the images of a source, as plain values, lie at a place that it names."""
    return bool(_source(source) != source)


def _dataset(dataset: Tree) -> Tree:
    """Its sources without their places; of pairs of rows, that there are some."""
    sources = {split: _source(source) for split, source in dataset.items()}
    return sources | ({"pairs": True} if "pairs" in sources else {})


def _source(source: Any) -> Any:
    if isinstance(source, list):
        return [_source(one) for one in source]
    if not isinstance(source, dict):
        return source
    places = _PLACES.get(str(source.get("kind")), set())
    if source.get("kind") == "hub" and is_place(str(source["name"])):
        places = {"name"}
    inner = {"sources": _source(source["sources"])} if "sources" in source else {}
    return {k: v for k, v in source.items() if k not in places} | inner


def _teacher(teacher: Tree) -> Tree:
    members = teacher.get("teachers")
    if isinstance(members, dict):
        return {**teacher, "teachers": {name: _teacher(one) for name, one in members.items()}}
    places = {"model"} if is_local(teacher) else set()
    pretrained = teacher.get("pretrained")
    if isinstance(pretrained, str) and is_place(pretrained):
        places.add("pretrained")
    return {key: value for key, value in teacher.items() if key not in places}
