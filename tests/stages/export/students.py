"""Students with weights of chance in the place of a trained one's."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.distill.students import build_student, feature_width
from egapipe.stages.export.module import Inference
from egapipe.stages.export.written import Order

NAMES = ["ant", "bee", "cat", "cat", "elk"]


def order_of(
    name: str, args: dict[str, Any], folder: Path, size: int = 32, aspect: str | None = None
) -> Order:
    """What is to be written of a student: five classes, of which two have one name."""
    torch.manual_seed(0)
    network = build_student(name, args)
    content = {
        "student": {"name": name, "args": args},
        "features": feature_width(network, size),
        "dim": 16,
        "classes": len(NAMES),
        "class_names": NAMES,
        "size": [size, size],
        "normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]},
        "aspect": aspect,
    }
    spec = StudentSpec.read(content, name)
    student = spec.build(network, trust_remote_code=True)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    pixels = torch.randint(0, 256, (6, 3, size, size), dtype=torch.uint8)
    return Order(Inference(student.eval()), spec, folder, pixels)
