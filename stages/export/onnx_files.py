"""The student as an ONNX file."""

import json
import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from egapipe.pipeline.disk.files import json_object, replace_file
from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.machine.extras import require
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.export.folder import ONNX
from egapipe.stages.export.module import BATCH, INPUT, OUTPUTS
from egapipe.stages.export.preprocessing import KEY, preprocessing
from egapipe.stages.export.written import Arrays, Order, Run, Written, quiet


def write_onnx(order: Order) -> Written:
    """Write a file of any batch size, its first dimension called `batch`, with class names and
    preprocessing inside.

    Raises UsageError without the libraries of the extra `onnx`, EgapipeError if torch cannot write
    this opset.
    """
    return written(order, onnx_model(order), ONNX)


def onnx_model(order: Order) -> Any:
    """The `onnx.ModelProto`. Raises as `write_onnx` does."""
    require("onnx", "onnx", "an ONNX file")
    require("onnxscript", "onnx", "an ONNX file")
    try:
        with quiet():
            program = torch.onnx.export(
                order.program,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                opset_version=order.opset,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            model = cast(torch.onnx.ONNXProgram, program).model_proto
    except Exception as error:  # the exporter and its converter of opsets raise anything
        asked = "" if order.opset is None else f" of opset {order.opset}"
        raise EgapipeError(f"torch writes no ONNX{asked} of it: {one_line(error)}") from error
    _name_batch(model)
    found = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if order.opset not in (None, found):
        raise EgapipeError(
            f"this student cannot be written in opset {order.opset}, only in {found}: leave --opset"
        )
    return model


def _name_batch(model: Any) -> None:
    """Call the free dimension `batch` wherever it is, alone or in a product: the exporter gives it
    a number of its own."""
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    word = re.compile(rf"\b{re.escape(symbol)}\b")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = word.sub(BATCH, dimension.dim_param)


def written(order: Order, model: Any, file: str, *, exact: bool = True) -> Written:
    """A model as a file that says what its student is made of."""
    onnx = require("onnx", "onnx", "an ONNX file")
    said = {"egapipe": order.spec.model_dump(mode="json"), KEY: preprocessing(order.spec)}
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in said.items()})
    replace_file(order.folder / file, model.SerializeToString())
    return Written(file, open_onnx(order.folder / file)[0], exact=exact)


def open_onnx(file: Path, threads: int = 1) -> tuple[Run, StudentSpec]:
    """An exported ONNX file, run on so many CPU threads, and what its student is made of.

    Raises UsageError if it is no such file, or onnxruntime is missing.
    """
    runtime = require("onnxruntime", "onnx", "an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Errors come as exceptions; what else it logs is about its own insides.
    options.log_severity_level = 3
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
