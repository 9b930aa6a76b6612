"""Stage one: the teacher and the machines it runs on."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from egapipe.pipeline.config.base import Fraction, Positive, Section

Precision = Literal["float32", "bfloat16", "float16"]


class TransformersTeacher(Section):
    """A vision encoder of the `transformers` library."""

    backend: Literal["transformers"]
    model: str
    """Hub name, folder, or `package:<module>` for one shipped inside a Python package."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    pooling: Literal["auto", "cls", "mean", "pooler", "projection"] = "auto"
    """Which output is the embedding; `auto` takes what the family was trained with."""
    precision: Precision = "float32"
    """Type of the forward pass (autocast below float32)."""


# One backend so far: with the second this becomes a union discriminated by `backend`.
TeacherConfig = TransformersTeacher


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
    gpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """GPUs a worker takes (a fraction shares one), on `cuda`."""
    cpus_per_worker: Positive | None = None
    """CPUs a worker takes; default: this machine's cores over the workers."""
    decode_threads: Positive = 2
    """Threads that read and decode ahead of the teacher."""
    max_failures: Annotated[int, Field(ge=0)] | Fraction = 0.01
    """Most unreadable images: a count (integer) or a share of the rows (0.01 = 1 %)."""
    max_restarts: Annotated[int, Field(ge=0)] = 3
    """Times one shard may lose its worker before the run stops."""
    start_timeout: Annotated[float, Field(gt=0)] = 300.0
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

    address: str | None = None
    """`auto` or `ray://host:port` to join a cluster; nothing starts a local one."""
    cpus: Positive | None = None
    """Logical CPUs of a local Ray; default: this machine's cores."""
