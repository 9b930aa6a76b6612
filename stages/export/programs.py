"""The same student as three kinds of file, and each of them as a function again."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from egapipe.pipeline.disk.files import json_object, replace_file
from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.machine.extras import require
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.export.folder import CONFIG, ONNX, PROGRAM, WEIGHTS, config_json, load_exported
from egapipe.stages.export.module import INPUT, OUTPUTS, Inference
from egapipe.stages.export.preprocessing import KEY, preprocessing

Arrays = tuple[np.ndarray, ...]
Run = Callable[[Tensor], Arrays]
"""uint8 images [B, 3, H, W] to arrays, one for each of OUTPUTS."""

_BATCH = torch.export.Dim("batch", min=1)


def write_safetensors(module: Inference, spec: StudentSpec, folder: Path) -> Run:
    """Write weights and config.json; give what they load to."""
    weights = {k: v.detach().cpu().contiguous() for k, v in module.student.state_dict().items()}
    # A copy each: a student may use one tensor under two names, which the format refuses.
    replace_file(folder / WEIGHTS, save({k: v.clone() for k, v in weights.items()}))
    replace_file(folder / CONFIG, config_json(spec).encode())
    # What it names was imported when the student was loaded, if it was trusted then.
    return arrays(Inference(load_exported(folder, trust_remote_code=True)[0]))


def write_program(module: Inference, spec: StudentSpec, folder: Path) -> Run:
    """Write a `torch.export` program of any batch size; give what it loads to."""
    torch.export.save(_program(module, spec), folder / PROGRAM)
    return arrays(torch.export.load(folder / PROGRAM).module())


def write_onnx(module: Inference, spec: StudentSpec, folder: Path) -> Run:
    """Write an ONNX file of any batch size, class names and preprocessing in it; give what it
    loads to.

    Raises UsageError without the libraries of the extra `onnx`.
    """
    onnx = require("onnx", "onnx", "an ONNX file")
    require("onnxscript", "onnx", "an ONNX file")
    with _quiet():
        program = torch.onnx.export(
            _program(module, spec),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = cast(torch.onnx.ONNXProgram, program).model_proto
    said = {"egapipe": spec.model_dump(mode="json"), KEY: preprocessing(spec)}
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in said.items()})
    replace_file(folder / ONNX, model.SerializeToString())
    return open_onnx(folder / ONNX)[0]


def open_onnx(file: Path) -> tuple[Run, StudentSpec]:
    """An exported ONNX file, run on one CPU thread, and what its student is made of.

    Raises UsageError if it is no such file, or onnxruntime is missing.
    """
    runtime = require("onnxruntime", "onnx", "an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each way a file can be damaged
        raise UsageError(f"{file} is not an ONNX file that can be run: {one_line(error)}") from None
    known = _metadata(session, file)
    if known is None:
        raise UsageError(f"{file} is not a student of `egapipe export`: it does not say its input")
    spec = StudentSpec.read(json_object(known, f"{file}, what it says of its student,"), str(file))

    def run(images: Tensor) -> Arrays:
        return tuple(session.run(list(OUTPUTS), {INPUT: images.numpy()}))

    return run, spec


def _metadata(session: Any, file: Path) -> str | None:
    try:
        return cast("str | None", session.get_modelmeta().custom_metadata_map.get("egapipe"))
    except UnicodeDecodeError:
        raise UsageError(f"{file} is damaged: its metadata are not text") from None


WRITERS = {"safetensors": write_safetensors, "torch": write_program, "onnx": write_onnx}
FILES = {"safetensors": WEIGHTS, "torch": PROGRAM, "onnx": ONNX}


def _program(module: Inference, spec: StudentSpec) -> torch.export.ExportedProgram:
    example = torch.zeros(2, 3, *spec.size, dtype=torch.uint8)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(module, (example,), dynamic_shapes={INPUT: {0: _BATCH}})
    except Exception as error:  # whatever a network of the user's own does to the tracer
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise EgapipeError(
            f"student {spec.student.name} cannot be traced by torch.export "
            f"({type(error).__name__}: {lines[0][:300] if lines else ''}): its forward pass must "
            "not branch on values; --format safetensors still works"
        ) from error


def arrays(module: Any) -> Run:
    """A module of OUTPUTS as a function to arrays."""

    def run(images: Tensor) -> Arrays:
        with torch.no_grad():
            return tuple(output.numpy() for output in module(images))

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' progress, notes and warnings are about their own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
