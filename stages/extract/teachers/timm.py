"""Teachers of timm: its networks without their classifiers, in its own evaluation transform."""

import inspect
import math
from typing import Any

from egapipe.pipeline.config.teachers import TimmTeacher as Settings
from egapipe.pipeline.errors import TeacherError, UsageError, one_line
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
    """Load a pretrained network of timm, see `load_teacher`.

    Raises UsageError if timm is not installed, or is so old that weights could run code.
    """
    timm = require("timm", "timm", "teacher.backend=timm")
    _check_loads_data_only(timm)
    try:
        module = timm.create_model(expanded_name(settings.model), pretrained=True, num_classes=0)
        # Some of its loaders only warn where there are no weights, and leave random ones.
        if not any(module.pretrained_cfg.get(place) for place in ("file", "url", "hf_hub_id")):
            raise ValueError("there are no pretrained weights of it")  # noqa: TRY301
        module = module.eval().requires_grad_(False)
        widen(module, settings.precision)
        preprocessing = translate(timm.data.resolve_model_data_config(module))
        spec = {
            **durable(settings),
            "class": type(module).__name__,
            "runtime": f"timm {timm.__version__}",
            "sha256": weights_sha256(module),
        }
        narrow(module, settings.precision)
        others = asked_outputs(settings)
        pooled = Pooled(Tapped(module, others), "auto", 0, others)
        return NetworkTeacher(spec, pooled, preprocessing, loading)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise TeacherError(
            f"teacher {settings.model} cannot be loaded by timm: {one_line(error)}"
        ) from error


def translate(config: dict[str, Any]) -> Preprocessing:
    """Our form of timm's data configuration. Raises ValueError if it can't be expressed."""
    _, height, width = config["input_size"]
    crop_mode = config.get("crop_mode") or "center"
    edge = math.floor(height / config["crop_pct"])
    if height != width or crop_mode not in ("center", "squash"):
        raise ValueError(
            f"its transform (crop_mode {crop_mode} of {height} x {width}) is neither the "
            "centre nor the whole of an image as a square"
        )
    return TorchvisionPreprocessing(
        resize=edge if crop_mode == "center" else (edge, edge),
        crop=(height, width),
        resample=config["interpolation"],
        rescale=1 / 255,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _check_loads_data_only(timm: Any) -> None:
    parameter = inspect.signature(timm.models.load_state_dict).parameters.get("weights_only")
    if parameter is None or parameter.default is not True:
        raise UsageError(
            f"teacher.backend=timm: timm {timm.__version__} opens weights in a way that can run "
            "code, pip install --upgrade timm"
        )
