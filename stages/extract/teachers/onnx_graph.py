"""An ONNX graph with one tensor of it, an inner one too, as its only output."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from egapipe.stages.extract.teachers.extras import require


def read_graph(path: Path) -> Any:
    """The model of an ONNX file, a `ModelProto`; weights kept in files beside it stay there.

    Raises ValueError if the file is no ONNX model.
    """
    onnx, message = require("onnx", "onnx"), require("google.protobuf.message", "onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except message.DecodeError:
        raise ValueError("it is no ONNX file, or is cut off") from None
    if not model.graph.node:
        raise ValueError("it is no ONNX file: there is no node in its graph")
    return model


def external_files(model: Any, folder: Path) -> list[Path]:
    """The files beside the model that hold weights, in the order of their names.

    Raises ValueError if one is missing, or would lie outside the model's folder.
    """
    names = {
        entry.value
        for tensor in _tensors(model.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in sorted(names):
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"its weights {name} are outside its folder")
        if not (folder / name).is_file():
            raise ValueError(f"its weights {name} are not beside it")
    return [folder / name for name in sorted(names)]


def image_input(model: Any) -> Any:
    """The one input that is no weight. Raises ValueError if there is another number of them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ValueError(f"it has {len(inputs)} inputs ({names}), a teacher has one: the image")
    return inputs[0]


def expose(model: Any, output: str | None) -> str:
    """Make a tensor the only output, drop the nodes that it does not need, and return its name.

    None takes the file's only output. Raises ValueError if there is no such tensor.
    """
    graph = model.graph
    name = _resolve(graph, output)
    declared = [value for value in graph.output if value.name == name]
    needed = [node for node, wanted in zip(graph.node, _needed(graph, name), strict=True) if wanted]
    value = declared[0] if declared else require("onnx", "onnx").ValueInfoProto(name=name)
    graph.ClearField("output")
    graph.ClearField("node")
    graph.output.append(value)
    graph.node.extend(needed)
    return name


def _resolve(graph: Any, output: str | None) -> str:
    outputs: list[str] = [value.name for value in graph.output]
    if output is None:
        if len(outputs) != 1:
            raise ValueError(
                f"it has {len(outputs)} outputs: set teacher.output to one of them, "
                f"or to an inner tensor ({', '.join(outputs)})"
            )
        return outputs[0]
    tensors = [name for node in graph.node for name in node.output if name]
    if output not in tensors:
        near = get_close_matches(output, tensors, n=3) or outputs
        raise ValueError(
            f"none of its {len(tensors)} tensors is called {output}: set teacher.output to one of "
            f"them, such as {', '.join(near)}"
        )
    return output


def _needed(graph: Any, name: str) -> list[bool]:
    """Whether each node, in its order (producers first), is needed for a tensor."""
    wanted, needed = {name}, []
    for node in reversed(graph.node):
        needed.append(not wanted.isdisjoint(node.output))
        if needed[-1]:
            wanted.update(_read_by(node))
    return needed[::-1]


def _read_by(node: Any) -> Iterator[str]:
    """Tensors that a node reads; the branches of an If or Loop see those of the graph around."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _read_by(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that a file stores: weights and constants, of the branches too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
