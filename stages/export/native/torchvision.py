"""torchvision's own keys: `get_model(architecture, num_classes=C).load_state_dict(...)` takes them.

torchvision has no format of a folder: config.json says the name and the arguments of the network.
"""

import json
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save
from torch import nn

from egapipe.pipeline.disk.files import replace_file
from egapipe.pipeline.machine.extras import require
from egapipe.stages.distill.students.imported import known_arguments
from egapipe.stages.distill.students.layers import last_linear
from egapipe.stages.export.folder import CONFIG, NATIVE_PREPROCESSOR, WEIGHTS
from egapipe.stages.export.native.folded import with_classifier
from egapipe.stages.export.native.pictures import class_names, processor
from egapipe.stages.export.written import Order


def write(order: Order, folder: str) -> nn.Module:
    """Write a `torchvision:<name>` student; give it as torchvision loads it again."""
    models = require("torchvision.models", "torchvision", "a checkpoint of torchvision")
    spec, student = order.spec, order.module.student
    name = spec.student.name.partition(":")[2]
    args = {**known_arguments(spec.student.name, spec.student.args), "num_classes": spec.classes}
    fresh = models.get_model(name, **args)
    whole = with_classifier(student.backbone, last_linear(fresh), student.head)
    state = {k: v.contiguous().clone() for k, v in whole.state_dict().items()}
    replace_file(Path(folder) / WEIGHTS, save(state, {"format": "pt"}))
    config = {"library": "torchvision", "architecture": name, "args": args}
    for file, content in (
        (CONFIG, {**config, "label_names": class_names(spec)}),
        (NATIVE_PREPROCESSOR, processor(spec)),
    ):
        replace_file(Path(folder) / file, _json(content))
    fresh.load_state_dict(load_file(Path(folder) / WEIGHTS))
    return cast(nn.Module, fresh)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
