"""The student as egapipe itself loads it: every weight, beside what the student is made of."""

from pathlib import Path

from safetensors.torch import save
from torch import nn

from egapipe.pipeline.disk.files import replace_file, replace_json
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.distill.model.student import Student
from egapipe.stages.export.folder import CONFIG, FORMAT, WEIGHTS, load_exported
from egapipe.stages.export.module import Inference
from egapipe.stages.export.written import Order, Written, arrays


def write_safetensors(order: Order) -> Written:
    """Write weights and config.json."""
    save_student(order.module.student, order.spec, order.folder)
    # What it names was imported when the student was loaded, if it was trusted then.
    return Written(
        WEIGHTS, arrays(Inference(load_exported(order.folder, trust_remote_code=True)[0]))
    )


def save_student(student: Student, spec: StudentSpec, folder: Path) -> None:
    """Write what `load_exported` reads into a folder."""
    replace_file(folder / WEIGHTS, weights_of(student))
    replace_json(folder / CONFIG, {**FORMAT, **spec.model_dump(mode="json")})


def weights_of(network: nn.Module, about: dict[str, str] | None = None) -> bytes:
    """A safetensors file of a network's weights. about: its metadata."""
    # A copy each: a student may use one tensor under two names, which the format refuses.
    state = network.state_dict().items()
    return save({name: value.detach().cpu().contiguous().clone() for name, value in state}, about)
