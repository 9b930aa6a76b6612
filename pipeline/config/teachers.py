"""The frozen encoder: one section a library."""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from egapipe.pipeline.config.base import AboveZero, Count, Name, Positive, Real, Section, Text
from egapipe.pipeline.config.data import ArrayType, Normalize
from egapipe.pipeline.config.located import NameOrPath, Path

SHAPES = r"^(vector|tokens|frames [1-9][0-9]{0,5}|grid [1-9][0-9]{0,5})$"
Precision = Literal["float32", "bfloat16", "float16"]


class OutputConfig(Section):
    """One more output of a network, as it is stored."""

    at: Text | None = None
    """Submodule whose output it is (`blocks.10`), of an `onnx` teacher a tensor; default: what the
    embedding is made of, before it is pooled."""
    shape: Annotated[str, Field(pattern=SHAPES)] | None = None
    """`vector`: [D], the mean where there are several places; `tokens`: [T, D], maps row by row;
    `frames T`: tokens averaged along their length to T of them; `grid g`: the patches, averaged to
    [D, g, g]. Default: as the network gives it."""


class NetworkTeacher(Section):
    """What all networks that are run here have."""

    outputs: dict[Name, OutputConfig] = Field(default={})
    """Name -> what is stored beside the embedding, of any shape."""

    @model_validator(mode="after")
    def _names_of_their_own(self) -> Self:
        short = [name for name in ("grid", "logits") if getattr(self, name, None)]
        taken = [name for name in ("embedding", *short) if name in self.outputs]
        if taken:
            raise ValueError(f"outputs.{taken[0]}: there is an output {taken[0]}, rename this one")
        return self


class TransformersTeacher(NetworkTeacher):
    """A vision encoder of the `transformers` library."""

    backend: Literal["transformers"]
    model: NameOrPath
    """Hub name, folder, or `package:<module>` for one shipped inside a Python package."""
    revision: Text | None = None
    """Branch, tag or commit on the hub."""
    pooling: Literal["auto", "cls", "mean", "pooler", "projection"] = "auto"
    """Which output is the embedding; `auto` takes what the family was trained with."""
    grid: Positive | None = None
    """Also store the patch tokens or maps, averaged to a grid of this side: output `grid`, short
    for `outputs: {grid: {shape: grid 4}}`."""
    logits: bool = False
    """Also store the logits of the model's image classifier, if it has one: output `logits`."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""


class ImportedTeacher(Section):
    """An encoder that ran elsewhere: its embeddings come in with `egapipe store import`."""

    backend: Literal["imported"]
    model: Text
    """Name of the encoder, for the manifest."""
    normalize: Normalize = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    """Its input normalisation, the student's default; default: ImageNet's."""


class Transform(Section):
    """The evaluation transform of a network whose files do not hold it."""

    size: Positive | tuple[Positive, Positive]
    """Side of the square input in pixels, or its height and width."""
    resize: Positive | None = None
    """Length of the shortest edge before a centre crop of `size`; default: the whole image is
    resized to `size`."""
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bicubic"
    """Filter of the resizing."""
    mean: tuple[Real, Real, Real] = (0.485, 0.456, 0.406)
    """Mean of R, G, B in images scaled to 0..1; default: ImageNet's."""
    std: tuple[AboveZero, AboveZero, AboveZero] = (0.229, 0.224, 0.225)
    """Standard deviation of R, G, B in images scaled to 0..1; default: ImageNet's."""


class AnyOutput(NetworkTeacher):
    """A network whose output may be vectors [B, D], tokens [B, T, D] or maps [B, D, H, W]."""

    pooling: Literal["auto", "cls", "mean", "cls_mean"] = "auto"
    """From tokens: the first, the mean of the patches, or both side by side; from maps: mean;
    `auto` takes an output that is a vector already."""
    prefix_tokens: Count = 1
    """Tokens before the patches (class, registers), which `mean` and `grid` leave out."""
    grid: Positive | None = None
    """Also store the tokens or maps, averaged to a grid of this side: output `grid`, short for
    `outputs: {grid: {shape: grid 4}}`."""


class OnnxTeacher(AnyOutput):
    """A network in an ONNX file, run by onnxruntime in the types that the file has."""

    backend: Literal["onnx"]
    model: NameOrPath
    """File, or `package:<module>/<path>.onnx` for one shipped inside a Python package."""
    preprocessing: Transform
    """How images become its input."""
    output: Text | None = None
    """Tensor that is the embedding, an inner one too; default: the only output of the file."""
    logits: Text | None = None
    """Tensor [B, K] that is also stored: output `logits`."""
    any_size: bool = False
    """The height and width of the input that the file declares are only those of its export."""


class PythonTeacher(AnyOutput):
    """A network that a function of the user's own, or of any package, builds with its weights."""

    backend: Literal["python"]
    model: Text
    """`module:callable`; it is imported, called, and returns a `torch.nn.Module`."""
    preprocessing: Transform | None = None
    """How images become its input."""
    array: ArrayType | None = None
    """In place of `preprocessing`: its input is an array of this shape, as the data set has it."""
    args: dict[str, JsonValue] = Field(default={})
    """Keyword arguments of the callable; `package:<module>/<path>` becomes the path of a file that
    is shipped inside a Python package."""
    output: Text | None = None
    """Submodule whose output is the embedding (`blocks.10`); default: the network itself."""
    logits: Text | None = None
    """Submodule whose output [B, K] is also stored: output `logits`."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.preprocessing is None) == (self.array is None):
            raise ValueError("give one of preprocessing (of images) and array")
        return self


class RunTeacher(NetworkTeacher):
    """A student that was distilled here."""

    backend: Literal["run"]
    model: Path
    """Its run folder."""
    checkpoint: Literal["last", "best", "ema"] = "last"
    """Which of its checkpoints; `ema`: the moving average of its weights (`distill.ema_decay`)."""
    output: Literal["features", "nodes"] = "features"
    """The backbone's features, or the nodes of the graph, behind the node layer."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""
    trust_remote_code: bool = False
    """Import the `module:callable` that the run names as its student, which runs it."""


class TimmTeacher(NetworkTeacher):
    """A pretrained network of timm, without its classifier."""

    backend: Literal["timm"]
    model: NameOrPath
    """timm's name (`vit_small_patch14_dinov2.lvd142m`), `hf-hub:<repository>` or
    `local-dir:<folder>`."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""


class OpenClipTeacher(NetworkTeacher):
    """The image tower of a pretrained model of open_clip."""

    backend: Literal["open_clip"]
    model: NameOrPath
    """open_clip's name (`ViT-B-32`), `hf-hub:<repository>` or `local-dir:<folder>`."""
    pretrained: NameOrPath | None = None
    """Tag or file of its weights, for a name (`laion2b_s34b_b79k`)."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""


MemberConfig = Annotated[
    TransformersTeacher | OnnxTeacher | OpenClipTeacher | PythonTeacher | RunTeacher | TimmTeacher,
    Field(discriminator="backend"),
]


class EnsembleTeacher(Section):
    """Several encoders that see the same views in one pass, each in its own preprocessing."""

    backend: Literal["ensemble"]
    teachers: Annotated[dict[Name, MemberConfig], Field(min_length=2)]
    """Name -> encoder, in the order in which their embeddings are joined."""
    combine: Literal["concat", "separate"] = "concat"
    """`concat`: one embedding, all side by side; `separate`: each is an output of the store, under
    its name."""
    normalize: bool = True
    """For `concat`: bring all embeddings to one length first, so that none outweighs the others."""


TeacherConfig = Annotated[
    TransformersTeacher
    | EnsembleTeacher
    | ImportedTeacher
    | OnnxTeacher
    | OpenClipTeacher
    | PythonTeacher
    | RunTeacher
    | TimmTeacher,
    Field(discriminator="backend"),
]
