"""A small network as an ONNX file, and the same in torch."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SIDE, PATCH, WIDTH, CLASSES = 16, 4, 8, 5
TOKENS = (SIDE // PATCH) ** 2
TRANSFORM = {"size": SIDE, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def weights(dtype: Any = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"patch": (WIDTH, 3, PATCH, PATCH), "classes": (WIDTH, CLASSES)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def expected(pixels: Tensor) -> dict[str, Tensor]:
    """Every tensor of the graph for uint8 [B, 3, H, W], by torch."""
    mean, std = (torch.tensor(TRANSFORM[k]).view(3, 1, 1) for k in ("mean", "std"))
    values = {name: torch.from_numpy(array) for name, array in weights().items()}
    maps = F.conv2d((pixels / 255 - mean) / std, values["patch"], stride=PATCH)
    tokens = maps.flatten(2).transpose(1, 2)
    vector = tokens.mean(dim=1)
    return {"maps": maps, "tokens": tokens, "vector": vector, "logits": vector @ values["classes"]}


def model(batch: int | str = "batch", dtype: Any = np.float32, last: str = "MatMul") -> Any:
    """maps [B, 8, 4, 4] -> tokens [B, 16, 8] -> vector [B, 8] -> logits [B, 5], the output.

    batch: size of the batch, text for any. last: the operator of the logits.
    """
    import onnx
    from onnx import helper, numpy_helper

    node = helper.make_node
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = {**weights(dtype), "flat": np.array([0, WIDTH, -1], np.int64)}
    nodes = [
        node("Conv", ["image", "patch"], ["maps"], strides=[PATCH, PATCH]),
        node("Reshape", ["maps", "flat"], ["columns"]),
        node("Transpose", ["columns"], ["tokens"], perm=[0, 2, 1]),
        node("ReduceMean", ["tokens"], ["vector"], axes=[1], keepdims=0),
        node(last, ["vector", "classes"], ["logits"], domain="" if last == "MatMul" else "mine"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", kind, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", kind, [batch, CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def hungry() -> Any:
    """The same, with an output sated [B, 8], the vector, for which B to the 24th numbers are made
    on the way."""
    import onnx
    from onnx import helper, numpy_helper

    made = model()
    node = helper.make_node
    made.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.array([24.0]), "power"),
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
        ]
    )
    made.graph.node.extend(
        [
            node("Shape", ["image"], ["shape"]),
            node("Gather", ["shape", "first"], ["images"]),
            node("Cast", ["images"], ["rows"], to=onnx.TensorProto.DOUBLE),
            node("Pow", ["rows", "power"], ["many"]),
            node("Cast", ["many"], ["length"], to=onnx.TensorProto.INT64),
            node("Expand", ["one", "length"], ["wide"]),
            node("ReduceMax", ["wide"], ["least"], keepdims=0),
            node("Mul", ["vector", "least"], ["sated"]),
        ]
    )
    return made


def save(folder: Path, made: Any = None, **fields: Any) -> Path:
    """made: a model; None: one of the fields."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.onnx"
    path.write_bytes((made or model(**fields)).SerializeToString())
    return path
