"""What the Hugging Face hub calls the teacher and the images of a configuration, where it knows
them."""

import re
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import ArchiveSource, HubSource

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ARCHIVES = {
    "cifar100": "uoft-cs/cifar100",
    "tinyimagenet": "zh-plus/tiny-imagenet",
}
"""Archive -> data set of the same images on the hub."""


def known_on_hub(config: Config) -> dict[str, Any]:
    """`base_model` and `datasets` of a model card, without what the hub does not know."""
    teachers = sorted(set(_teachers(config.teacher)))
    sources = [config.dataset.train, *filter(None, [config.dataset.test])]
    sets = dict.fromkeys(name for source in sources for name in _data_sets(source))
    front: dict[str, Any] = {}
    if teachers:
        front["base_model"] = teachers[0] if len(teachers) == 1 else teachers
    if sets:
        front["datasets"] = list(sets)
    return front


def data_set_id(source: object) -> str | None:
    """The one data set of a source on the hub, None where there is none or several are."""
    names = _data_sets(source)
    return names[0] if len(names) == 1 else None


def _teachers(teacher: Any) -> list[str]:
    """Those of an ensemble are several. A path of this machine is no name of the hub's."""
    if teacher.backend == "ensemble":
        return [name for one in teacher.teachers.values() for name in _teachers(one)]
    model = str(getattr(teacher, "model", ""))
    if Path(model).exists():
        return []
    if teacher.backend == "transformers" and _REPOSITORY.fullmatch(model):
        return [model]
    if teacher.backend in ("timm", "open_clip") and model.startswith("hf-hub:"):
        return [model.removeprefix("hf-hub:")]
    if teacher.backend == "timm" and re.fullmatch(r"[\w.]+", model):
        return [f"timm/{model}"]
    return []


def _data_sets(source: object) -> list[str]:
    if isinstance(source, HubSource):
        return [source.name] if _REPOSITORY.fullmatch(source.name) else []
    if isinstance(source, ArchiveSource):
        return [_ARCHIVES[source.name]] if source.name in _ARCHIVES else []
    return [name for one in getattr(source, "sources", ()) for name in _data_sets(one)]
