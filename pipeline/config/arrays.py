"""What of a configuration is for images, and what is meant by it where rows are arrays."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from egapipe.pipeline.config.sources import SourceConfig, holds_arrays

if TYPE_CHECKING:
    from egapipe.pipeline.config.tree import Config

# Views of arrays are ready-made: nothing is cut out, nothing is flipped.
_AS_THEY_ARE = {"crop": "none", "flip": 0.0}
_BACKENDS = ("imported", "python", "run")
# Settings of the student's images, and of what else is done to pixels.
_FOR_IMAGES = ("distill.image_size", "distill.normalize", "distill.jitter", "distill.mix")


def with_array_views(tree: Any) -> Any:
    """A configuration as it is given, its views those of arrays where its rows are arrays."""
    if not isinstance(tree, Mapping) or not _of_arrays(_member(tree, "dataset", "train")):
        return tree
    distill = _section(tree.get("distill"))
    views = {"count": 0, **_AS_THEY_ARE, **_section(tree.get("views"))}
    augment = {**_AS_THEY_ARE, **_section(distill.get("augment")), "count": 0}
    return {**tree, "views": views, "distill": {**distill, "augment": augment}}


def check_arrays(config: "Config") -> None:
    """Raise ValueError for settings of images in a configuration of arrays, and for both kinds of
    rows beside each other."""
    dataset = config.dataset
    validation = None if dataset.validation is None else dataset.validation.source
    others = (*dataset.unlabelled, dataset.test, validation)
    sources: list[SourceConfig] = [one for one in (dataset.train, *others) if one is not None]
    if len({holds_arrays(source) for source in sources}) > 1:
        raise ValueError("dataset: arrays and images do not go together, have one kind of rows")
    if not holds_arrays(dataset.train):
        return
    if config.teacher.backend not in _BACKENDS:
        raise ValueError(
            f"teacher.backend {config.teacher.backend} sees images, and the data set is of arrays: "
            f"use one of {', '.join(_BACKENDS)}"
        )
    for name, plan in (("views", config.views), ("distill.augment", config.distill.augment)):
        own = plan.model_dump(exclude={"seed", "count"}, exclude_defaults=True)
        if own != _AS_THEY_ARE:
            odd = next(k for k in {**own, **_AS_THEY_ARE} if own.get(k) != _AS_THEY_ARE.get(k))
            raise ValueError(f"{name}.{odd} is for images: views of arrays are ready-made variants")
    given = [name for name in _FOR_IMAGES if _value(config, name) is not None]
    if config.extract.canvas is not None:
        given.append("extract.canvas")
    if given:
        raise ValueError(f"{given[0]} is for images, and the data set is of arrays: leave it out")


def _value(config: "Config", name: str) -> Any:
    section, field = name.split(".")
    return getattr(getattr(config, section), field)


def _of_arrays(source: Any) -> bool:
    plain = _section(source)
    if plain.get("kind") == "several":
        sources = plain.get("sources")
        return isinstance(sources, list) and bool(sources) and _of_arrays(sources[0])
    return plain.get("kind") == "arrays"


def _member(tree: Mapping[str, Any], *path: str) -> Any:
    found: Any = tree
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
    return found


def _section(given: Any) -> dict[str, Any]:
    """A section as it is given, empty where it is none."""
    if isinstance(given, BaseModel):
        return given.model_dump(exclude_unset=True)
    return dict(given) if isinstance(given, Mapping) else {}
