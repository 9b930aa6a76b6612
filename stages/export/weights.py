"""The student as egapipe itself loads it: every weight, beside what the student is made of."""

from safetensors.torch import save

from egapipe.pipeline.disk.files import replace_file
from egapipe.stages.export.folder import CONFIG, WEIGHTS, config_json, load_exported
from egapipe.stages.export.module import Inference
from egapipe.stages.export.written import Order, Written, arrays


def write_safetensors(order: Order) -> Written:
    """Write weights and config.json."""
    student = order.module.student
    # A copy each: a student may use one tensor under two names, which the format refuses.
    state = student.state_dict().items()
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in state}
    replace_file(order.folder / WEIGHTS, save(weights))
    replace_file(order.folder / CONFIG, config_json(order.spec).encode())
    # What it names was imported when the student was loaded, if it was trusted then.
    return Written(
        WEIGHTS, arrays(Inference(load_exported(order.folder, trust_remote_code=True)[0]))
    )
