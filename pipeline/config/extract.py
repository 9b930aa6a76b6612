"""Stage one: the teacher and the machines it runs on."""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from egapipe.pipeline.config.base import AboveZero, Count, Fraction, Positive, Real, Section, Text
from egapipe.pipeline.config.data import Normalize

Precision = Literal["float32", "bfloat16", "float16"]


class TransformersTeacher(Section):
    """A vision encoder of the `transformers` library."""

    backend: Literal["transformers"]
    model: Text
    """Hub name, folder, or `package:<module>` for one shipped inside a Python package."""
    revision: Text | None = None
    """Branch, tag or commit on the hub."""
    pooling: Literal["auto", "cls", "mean", "pooler", "projection"] = "auto"
    """Which output is the embedding; `auto` takes what the family was trained with."""
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


class AnyOutput(Section):
    """A network whose output may be vectors [B, D], tokens [B, T, D] or maps [B, D, H, W]."""

    preprocessing: Transform
    """How images become its input."""
    pooling: Literal["auto", "cls", "mean", "cls_mean"] = "auto"
    """From tokens: the first, the mean of the patches, or both side by side; from maps: mean;
    `auto` takes an output that is a vector already."""
    prefix_tokens: Count = 1
    """Tokens before the patches (class, registers), which `mean` leaves out."""


class OnnxTeacher(AnyOutput):
    """A network in an ONNX file, run by onnxruntime in the types that the file has."""

    backend: Literal["onnx"]
    model: Text
    """File, or `package:<module>/<path>.onnx` for one shipped inside a Python package."""
    output: Text | None = None
    """Tensor that is the embedding, an inner one too; default: the only output of the file."""


class PythonTeacher(AnyOutput):
    """A network that a function of the user's own, or of any package, builds with its weights."""

    backend: Literal["python"]
    model: Text
    """`module:callable`; it is imported, called, and returns a `torch.nn.Module`."""
    args: dict[str, JsonValue] = Field(default={})
    """Keyword arguments of the callable."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""


class RunTeacher(Section):
    """A student that was distilled here."""

    backend: Literal["run"]
    model: Text
    """Its run folder."""
    checkpoint: Literal["last", "best"] = "last"
    """Which of its checkpoints."""
    output: Literal["features", "nodes"] = "features"
    """The backbone's features, or the nodes of the graph, behind the node layer."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""


class TimmTeacher(Section):
    """A pretrained network of timm, without its classifier."""

    backend: Literal["timm"]
    model: Text
    """timm's name (`vit_small_patch14_dinov2.lvd142m`), `hf-hub:<repository>` or
    `local-dir:<folder>`."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""


class OpenClipTeacher(Section):
    """The image tower of a pretrained model of open_clip."""

    backend: Literal["open_clip"]
    model: Text
    """open_clip's name (`ViT-B-32`), `hf-hub:<repository>` or `local-dir:<folder>`."""
    pretrained: Text | None = None
    """Tag or file of its weights, for a name (`laion2b_s34b_b79k`)."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""


TeacherConfig = Annotated[
    TransformersTeacher
    | ImportedTeacher
    | OnnxTeacher
    | OpenClipTeacher
    | PythonTeacher
    | RunTeacher
    | TimmTeacher,
    Field(discriminator="backend"),
]


class ExtractConfig(Section):
    """How the teacher is run over the images."""

    batch_size: Positive = 128
    """Views in one forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the teacher runs; `auto` takes the GPUs of the cluster, else the CPU."""
    min_workers: Positive = 1
    """Start as soon as so many workers have their resources."""
    max_workers: Positive | None = None
    """Most workers, one a device; default: every GPU, or one worker on CPU."""
    gpus_per_worker: AboveZero = 1.0
    """GPUs a worker takes (a fraction shares one), on `cuda`."""
    cpus_per_worker: Positive | None = None
    """CPUs a worker takes; default: this machine's cores over the workers."""
    decode_threads: Positive = 2
    """Threads that read and decode ahead of the teacher."""
    max_failures: Count | Fraction = 0.01
    """Most unreadable images: a count (integer) or a share of the rows (0.01 = 1 %)."""
    max_restarts: Count = 3
    """Times one shard may lose its worker before the run stops."""
    start_timeout: AboveZero = 300.0
    """Seconds to wait for the first `min_workers` workers."""

    @model_validator(mode="after")
    def _workers(self) -> Self:
        if self.max_workers is not None and self.min_workers > self.max_workers:
            raise ValueError(
                f"min_workers ({self.min_workers}) is above max_workers ({self.max_workers})"
            )
        return self


class ClusterConfig(Section):
    """The Ray cluster that workers run on."""

    address: Text | None = None
    """`auto` or `ray://host:port` to join a cluster; nothing starts a local one."""
    cpus: Positive | None = None
    """Logical CPUs of a local Ray; default: this machine's cores."""
