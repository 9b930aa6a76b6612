"""transformers' own format: `AutoModelForImageClassification` and `pipeline` load the folder."""

from pathlib import Path
from typing import Any, cast

from torch import nn

from egapipe.pipeline.disk.files import replace_json
from egapipe.pipeline.machine.extras import require
from egapipe.pipeline.machine.quiet import quiet as hushed
from egapipe.stages.distill.students.transformers import Logits, TransformersStudent
from egapipe.stages.export.folder import NATIVE_PREPROCESSOR
from egapipe.stages.export.native.folded import with_classifier
from egapipe.stages.export.native.pictures import class_names, processor
from egapipe.stages.export.written import Order, quiet


def write(order: Order, folder: str) -> nn.Module:
    """Write a `transformers:<model type>` student; give it as it loads again."""
    student = cast(TransformersStudent, order.module.student.backbone)
    return save(
        with_classifier(student.network, student.classifier, order.module.student.head),
        order,
        folder,
    )


def save(network: Any, order: Order, folder: str) -> nn.Module:
    """Write a network of transformers, its classifier included."""
    transformers = require("transformers", "transformers", "a checkpoint of transformers")
    names = class_names(order.spec)
    config = network.config
    config.architectures = [type(network).__name__]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = "single_label_classification"
    with hushed(), quiet():
        network.save_pretrained(folder)
        replace_json(Path(folder) / NATIVE_PREPROCESSOR, processor(order.spec))
        loaded = transformers.AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    return Logits(loaded)
