"""timm's own format: `timm.create_model("local-dir:FOLDER", pretrained=True)` loads the folder.

timm says in config.json, too, how a picture becomes the input.
"""

from pathlib import Path
from typing import Any, cast

from torch import nn

from egapipe.pipeline.disk.files import replace_file, replace_json
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.machine.extras import require
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.distill.students.imported import known_arguments
from egapipe.stages.distill.students.zoo import TimmBackbone
from egapipe.stages.export.folder import CONFIG, WEIGHTS
from egapipe.stages.export.native.folded import fold
from egapipe.stages.export.native.pictures import class_names, cropped
from egapipe.stages.export.weights import weights_of
from egapipe.stages.export.written import Order


def write(order: Order, folder: str) -> nn.Module:
    """Write a `timm:<name>` student; give it as timm loads it again.

    Raises UsageError if timm's classifier of this network is not one linear layer.
    """
    timm = require("timm", "timm", "a checkpoint of timm")
    spec, student = order.spec, order.module.student
    name = spec.student.name.partition(":")[2]
    args = known_arguments(spec.student.name, spec.student.args)
    network = timm.create_model(name, **{**args, "num_classes": spec.classes})
    classifier = network.get_classifier()
    if not isinstance(classifier, nn.Linear) or classifier.in_features != spec.features:
        raise UsageError(
            f"timm's classifier of {name} is not one linear layer: leave --format native"
        )
    network.load_state_dict(cast(TimmBackbone, student.backbone).network.state_dict(), strict=False)
    weight, bias = fold(student.head)
    classifier.load_state_dict({"weight": weight, "bias": bias})
    replace_file(Path(folder) / WEIGHTS, weights_of(network, {"format": "pt"}))
    replace_json(Path(folder) / CONFIG, _config(spec, name, args, network))
    try:
        return cast(nn.Module, timm.create_model(f"local-dir:{folder}", pretrained=True))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"timm {timm.__version__} does not load its own format from a folder "
            f"({one_line(error)}): install a newer one, or choose other formats"
        ) from None


def _config(spec: StudentSpec, name: str, args: dict[str, Any], network: Any) -> dict[str, Any]:
    names = class_names(spec)
    return {
        "architecture": name.partition(".")[0],
        "num_classes": spec.classes,
        "num_features": network.num_features,
        "label_names": names,
        "model_args": args,
        "pretrained_cfg": {
            "num_classes": spec.classes,
            "input_size": [3, *spec.frame.size],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center" if cropped(spec) else "squash",
            "mean": list(spec.levels.mean),
            "std": list(spec.levels.std),
            "first_conv": network.default_cfg.get("first_conv"),
            "classifier": network.default_cfg.get("classifier"),
        },
    }
