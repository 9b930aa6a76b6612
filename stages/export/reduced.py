"""The student as an ONNX file of a lower precision: half as many bytes, or a quarter."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from egapipe.pipeline.errors import EgapipeError, one_line
from egapipe.pipeline.machine.extras import require
from egapipe.stages.export.folder import FP16, INT8
from egapipe.stages.export.module import INPUT
from egapipe.stages.export.onnx_files import onnx_model, written
from egapipe.stages.export.written import Order, Written, quiet

# Images that activations are observed on at once.
_TOGETHER = 8


def write_fp16(order: Order) -> Written:
    """Write a file that computes in float16; inputs and outputs stay as they are.

    Raises as `write_onnx` does.
    """
    model = onnx_model(order)
    float16 = require("onnxruntime.transformers.float16", "onnx", "an ONNX file in float16")
    try:
        with quiet():
            half = float16.convert_float_to_float16(model, keep_io_types=True)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise EgapipeError(f"this student cannot be written in fp16: {one_line(error)}") from error
    return written(order, half, FP16, exact=False)


def write_int8(order: Order) -> Written:
    """Write a file of int8 weights, one scale a channel, and uint8 activations, whose range is that
    on the calibration images.

    Weights take 7 of their bits: on CPUs without VNNI a sum of two products would overflow. Raises
    as `write_onnx` does.
    """
    onnx = require("onnx", "onnx", "an ONNX file")
    quantization = require("onnxruntime.quantization", "onnx", "an ONNX file in int8")
    preprocess = require("onnxruntime.quantization.shape_inference", "onnx", "an int8 ONNX file")
    model = onnx_model(order)
    with tempfile.TemporaryDirectory(prefix="egapipe-") as folder:
        # As a file: given a model, onnxruntime takes its constants out, which its inference needs.
        exact, prepared, done = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        onnx.save(model, exact)
        try:
            with quiet():
                preprocess.quant_pre_process(exact, prepared, skip_symbolic_shape=True)
                quantization.quantize_static(
                    prepared,
                    done,
                    _reader(quantization, order),
                    quant_format=quantization.QuantFormat.QDQ,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    per_channel=True,
                    reduce_range=True,
                )
        except (RuntimeError, ValueError, TypeError, LookupError) as error:
            raise EgapipeError(
                f"this student cannot be written in int8: {one_line(error)}"
            ) from error
        return written(order, onnx.load(done), INT8, exact=False)


def _reader(quantization: Any, order: Order) -> Any:
    """The calibration images as onnxruntime asks for them."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = _batches(order.calibration.numpy())

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    return Reader()


def _batches(images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(images), _TOGETHER):
        yield {INPUT: images[start : start + _TOGETHER]}
