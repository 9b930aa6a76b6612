"""torchvision's own keys: `get_model(architecture, num_classes=C).load_state_dict(...)` takes them.

torchvision has no format of a folder: config.json says the name and the arguments of the network.
"""

from pathlib import Path
from typing import cast

from safetensors.torch import load_file
from torch import nn

from egapipe.pipeline.disk.files import replace_file, replace_json
from egapipe.pipeline.machine.extras import require
from egapipe.stages.distill.students.imported import known_arguments
from egapipe.stages.distill.students.layers import last_linear
from egapipe.stages.export.folder import CONFIG, NATIVE_PREPROCESSOR, WEIGHTS
from egapipe.stages.export.native.folded import with_classifier
from egapipe.stages.export.native.pictures import class_names, processor
from egapipe.stages.export.weights import weights_of
from egapipe.stages.export.written import Order


def write(order: Order, folder: str) -> nn.Module:
    """Write a `torchvision:<name>` student; give it as torchvision loads it again."""
    models = require("torchvision.models", "torchvision", "a checkpoint of torchvision")
    spec, student = order.spec, order.module.student
    name = spec.student.name.partition(":")[2]
    args = {**known_arguments(spec.student.name, spec.student.args), "num_classes": spec.classes}
    fresh = models.get_model(name, **args)
    whole = with_classifier(student.backbone, last_linear(fresh), student.head)
    replace_file(Path(folder) / WEIGHTS, weights_of(whole, {"format": "pt"}))
    config = {"library": "torchvision", "architecture": name, "args": args}
    replace_json(Path(folder) / CONFIG, {**config, "label_names": class_names(spec)})
    replace_json(Path(folder) / NATIVE_PREPROCESSOR, processor(spec))
    fresh.load_state_dict(load_file(Path(folder) / WEIGHTS))
    return cast(nn.Module, fresh)
