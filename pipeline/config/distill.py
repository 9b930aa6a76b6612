"""Stage two: student, heads, objective, schedule."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from egapipe.pipeline.config.base import Fraction, NonNegative, Positive, Section
from egapipe.pipeline.config.data import Normalize, ViewsConfig


class StudentConfig(Section):
    """The network to train."""

    name: str = "resnet8x4"
    """A registered student, or `module:callable` giving an nn.Module of images -> features."""
    args: dict[str, Any] = Field(default={})
    """Keyword arguments of the callable."""


class HeadConfig(Section):
    """The linear node-embedding layers and classifiers on top of student and teacher."""

    dim: Positive | None = 256
    """Width of both node layers. Without one (null) the features themselves are the nodes; student
    and teacher must then be equally wide."""
    mode: Literal["simultaneous", "sequential"] = "simultaneous"
    """The teacher's head learns beside the student, or first and is then frozen."""
    lr: NonNegative = 0.01
    """Learning rate of the teacher's head, never decayed."""
    epochs: Positive = 30
    """Epochs of the teacher's head in `sequential` mode."""


class Objective(Section):
    """What every objective has."""

    weight: NonNegative = 1.0
    """Factor of this objective in the loss (the paper's lambda_EGA or beta)."""


class EgaOptions(Objective):
    """Embedding Graph Alignment, arXiv 2211.13264."""

    node_weight: NonNegative = 0.8
    """Weight of the node-matching term."""
    edge_weight: NonNegative = 0.24
    """Weight of the edge-matching term (lambda_edge)."""
    form: Literal["auto", "direct", "factored"] = "auto"
    """How it is computed; the value is the same."""
    scope: Literal["global", "local"] = "global"
    """Graph over the batch of all workers, or one graph a worker."""


class ObjectiveConfig(Section):
    """The weighted sum of distillation objectives; none at all is cross-entropy alone."""

    ega: EgaOptions | None = None
    """Embedding Graph Alignment. `ega: 1.0` is short for `ega: {weight: 1.0}`."""

    @model_validator(mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        number = (int, float, str)
        return {k: {"weight": v} if isinstance(v, number) else v for k, v in value.items()}


class DistillConfig(Section):
    """One student's training. Defaults are the paper's protocol on CIFAR-100."""

    student: StudentConfig = StudentConfig()
    """The network to train."""
    head: HeadConfig = HeadConfig()
    """Node layers and classifiers."""
    objective: ObjectiveConfig = ObjectiveConfig(ega=EgaOptions())
    """Weighted sum of objectives beside the cross-entropy."""
    ce_weight: NonNegative = 1.0
    """Factor of the student's cross-entropy (gamma)."""
    seed: int = 0
    """Seed of weights, order, augmentation and the choice of labels."""
    epochs: Positive = 240
    """Passes over the training rows."""
    batch_size: Positive = 64
    """Rows of one step over all workers."""
    lr: NonNegative = 0.05
    """Student's initial learning rate."""
    milestones: tuple[Annotated[float, Field(ge=0)], ...] = (150, 180, 210)
    """Epochs at which the student's rate is multiplied by `decay`; below 1: a share of `epochs`."""
    decay: NonNegative = 0.1
    """Factor at each milestone."""
    momentum: Fraction = 0.9
    """SGD momentum."""
    weight_decay: NonNegative = 5e-4
    """SGD weight decay."""
    image_size: Positive | None = None
    """Side of the student's square input; default: the size of the images."""
    normalize: Normalize | None = None
    """Student's input normalisation; default: the teacher's."""
    augment: ViewsConfig = ViewsConfig()
    """The student's own augmentation (its `count` and `seed` are not used: every epoch is a view).
    """
    student_view: Literal["independent", "paired", "clean"] = "independent"
    """`independent`: own augmentation beside a random teacher view; `paired`: the teacher's crop
    and flip; `clean`: own augmentation beside the teacher's clean view."""
    labels_per_class: Positive | None = None
    """Keep so many labels a class, chosen by seed; the other rows become unlabelled."""
    data: Literal["auto", "resident", "stream"] = "auto"
    """Images on the device as uint8, or decoded as needed; `auto`: resident if they fit."""
    resident_bytes: Positive = 4 * 2**30
    """Most bytes of images that `auto` keeps on the device."""
    stream_threads: Positive = 2
    """Threads that decode ahead when streaming."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the student trains."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the forward pass (autocast below float32)."""
    threads: Positive | None = None
    """CPU threads a worker; default: torch's own choice."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Ray Train workers; 0 trains in this process, without Ray."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Times Ray Train replaces lost workers."""
    checkpoint_epochs: Positive = 1
    """Epochs between checkpoints."""
    checkpoint_steps: Positive | None = None
    """Steps between checkpoints within an epoch, for long ones."""

    @model_validator(mode="after")
    def _batch_over_workers(self) -> Self:
        if self.workers > self.batch_size:
            raise ValueError(f"batch_size {self.batch_size} is below workers {self.workers}")
        return self


class CompareConfig(Section):
    """Variants of one experiment trained side by side on one store."""

    variants: dict[str, dict[str, Any]] = Field(default={})
    """Name of a variant -> overrides, e.g. {ce: {distill.objective: {}}}. The first is the
    baseline."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Seeds every variant is trained with."""
