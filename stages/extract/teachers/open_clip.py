"""Teachers of open_clip: the image tower with its projection, in its own evaluation transform."""

from typing import Any

from egapipe.pipeline.config.teachers import OpenClipTeacher as Settings
from egapipe.pipeline.errors import TeacherError, one_line
from egapipe.pipeline.locations.places import is_place
from egapipe.pipeline.locations.urls import path_of
from egapipe.pipeline.machine.extras import require
from egapipe.pipeline.results.durable import durable
from egapipe.stages.extract.teachers.base import UNKNOWN, Loading
from egapipe.stages.extract.teachers.location import expanded_name
from egapipe.stages.extract.teachers.network import NetworkTeacher
from egapipe.stages.extract.teachers.outputs import asked_outputs
from egapipe.stages.extract.teachers.pooled import Pooled, Tapped
from egapipe.stages.extract.teachers.precision import narrow, widen
from egapipe.stages.extract.teachers.preprocessing import Preprocessing
from egapipe.stages.extract.teachers.torchvision_crop import TorchvisionPreprocessing
from egapipe.stages.extract.teachers.weights import weights_sha256


def load(settings: Settings, loading: Loading = UNKNOWN) -> NetworkTeacher:
    """Load a pretrained image tower of open_clip, see `load_teacher`.

    Raises UsageError if open_clip is not installed.
    """
    open_clip = require("open_clip", "open_clip", "teacher.backend=open_clip")
    try:
        model = open_clip.create_model(
            expanded_name(settings.model),
            _weights(settings.pretrained),
            pretrained_text=False,
            require_pretrained=True,
            weights_only=True,
        )
        tower = model.visual.eval().requires_grad_(False)
        widen(tower, settings.precision)
        spec = {
            **durable(settings),
            "class": type(tower).__name__,
            "runtime": f"open_clip {open_clip.__version__}",
            "sha256": weights_sha256(tower),
        }
        narrow(tower, settings.precision)
        others = asked_outputs(settings)
        pooled = Pooled(Tapped(tower, others), "auto", 0, others)
        preprocessing = translate(tower.preprocess_cfg)
        return NetworkTeacher(spec, pooled, preprocessing, loading)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise TeacherError(
            f"teacher {settings.model} cannot be loaded by open_clip: {one_line(error)}"
        ) from error


def _weights(pretrained: str | None) -> str | None:
    """A tag, or the file that a path means."""
    return str(path_of(pretrained)) if pretrained and is_place(pretrained) else pretrained


def translate(config: dict[str, Any]) -> Preprocessing:
    """Our form of open_clip's `preprocess_cfg`. Raises ValueError if it can't be expressed."""
    size, mode = config["size"], config["resize_mode"]
    height, width = (size, size) if isinstance(size, int) else size
    if mode not in ("shortest", "squash") or (mode == "shortest" and height != width):
        raise ValueError(
            f"its transform (resize_mode {mode} to {height} x {width}) is neither the centre "
            "square nor the whole of an image"
        )
    return TorchvisionPreprocessing(
        resize=height if mode == "shortest" else (height, width),
        crop=(height, width) if mode == "shortest" else None,
        resample=config["interpolation"],
        rescale=1 / 255,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
