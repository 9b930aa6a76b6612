"""Stage two: student, heads, objective, schedule."""

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from egapipe.pipeline.config.base import (
    AboveZero,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Section,
    Seed,
    Text,
)
from egapipe.pipeline.config.data import Normalize, ViewsConfig
from egapipe.pipeline.config.objectives import EgaOptions, ObjectiveConfig


class StudentConfig(Section):
    """The network to train."""

    name: Text = "resnet8x4"
    """A registered student, or `module:callable` giving an nn.Module of images -> features."""
    args: dict[str, JsonValue] = Field(default={})
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


class DistillConfig(Section):
    """One student's training. Defaults are the paper's protocol on CIFAR-100."""

    student: StudentConfig = StudentConfig()
    """The network to train."""
    head: HeadConfig = HeadConfig()
    """Node layers and classifiers."""
    objective: ObjectiveConfig = ObjectiveConfig(ega=EgaOptions())
    """Weighted sum of objectives beside the cross-entropy."""
    label_smoothing: Fraction = 0.0
    """Share of the student's target that is spread evenly over all classes."""
    ce_weight: NonNegative = 1.0
    """Factor of the student's cross-entropy (gamma)."""
    seed: Seed = 0
    """Seed of weights, order, augmentation and the choice of labels."""
    epochs: Positive = 240
    """Passes over the training rows."""
    batch_size: Positive = 64
    """Rows of one step over all workers."""
    lr: NonNegative = 0.05
    """Student's initial learning rate."""
    schedule: Literal["steps", "cosine"] = "steps"
    """`steps`: the rate is multiplied by `decay` at each of `milestones`; `cosine`: it falls to 0
    along half a cosine, step by step."""
    warmup_epochs: NonNegative = 0
    """Epochs over which the rate first rises from 0, step by step; part of `epochs`."""
    milestones: tuple[NonNegative, ...] = (150, 180, 210)
    """Epochs at which the student's rate is multiplied by `decay`; below 1: a share of `epochs`."""
    decay: NonNegative = 0.1
    """Factor at each milestone."""
    momentum: Fraction = 0.9
    """SGD momentum."""
    weight_decay: NonNegative = 5e-4
    """SGD weight decay."""
    clip_grad_norm: AboveZero | None = None
    """Largest norm of the student's gradient, over all its parameters: a longer one is scaled down.
    The teacher's head is not clipped."""
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
    workers: Count = 0
    """Ray Train workers; 0 trains in this process, without Ray."""
    max_failures: Count = 3
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

    @model_validator(mode="after")
    def _warmup_within_epochs(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} is not below epochs {self.epochs}"
            )
        return self
