"""An ONNX graph with chosen tensors of it, inner ones too, as its only outputs."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from egapipe.pipeline.machine.extras import require


def read_graph(path: Path) -> Any:
    """The model of an ONNX file, a `ModelProto`; weights kept in files beside it stay there.

    Raises ValueError if the file is no ONNX model.
    """
    onnx = require("onnx", "onnx", "teacher.backend=onnx")
    message = require("google.protobuf.message", "onnx", "teacher.backend=onnx")
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


def free_size(model: Any) -> None:
    """Forget the height and width that the input is declared with, and all that follows of them."""
    for length in image_input(model).type.tensor_type.shape.dim[2:]:
        length.Clear()
    model.graph.ClearField("value_info")
    for value in model.graph.output:
        value.ClearField("type")


def expose(model: Any, names: Sequence[str]) -> None:
    """Make tensors the only outputs, and drop the nodes that they do not need."""
    graph = model.graph
    declared = {value.name: value for value in graph.output}
    wanted = _needed(graph, names)
    needed = [node for node, kept in zip(graph.node, wanted, strict=True) if kept]
    anew = require("onnx", "onnx", "teacher.backend=onnx").ValueInfoProto
    values = [declared.get(name, anew(name=name)) for name in dict.fromkeys(names)]
    graph.ClearField("output")
    graph.ClearField("node")
    graph.output.extend(values)
    graph.node.extend(needed)


def resolve(graph: Any, output: str | None, setting: str = "teacher.output") -> str:
    """The name of a tensor; None takes the graph's only output.

    setting: that named it. Raises ValueError if there is no such tensor, or no only output.
    """
    outputs: list[str] = [value.name for value in graph.output]
    if output is None:
        if len(outputs) != 1:
            raise ValueError(
                f"it has {len(outputs)} outputs: set {setting} to one of them, "
                f"or to an inner tensor ({', '.join(outputs)})"
            )
        return outputs[0]
    tensors = [name for node in graph.node for name in node.output if name]
    if output not in tensors:
        near = get_close_matches(output, tensors, n=3) or outputs
        raise ValueError(
            f"none of its {len(tensors)} tensors is called {output}: set {setting} to one of them, "
            f"such as {', '.join(near)}"
        )
    return output


def _needed(graph: Any, names: Sequence[str]) -> list[bool]:
    """Whether each node, in its order (producers first), is needed for one of some tensors."""
    wanted, needed = set(names), []
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
