"""Stage one: how the teacher is run, and on which machines."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from egapipe.pipeline.config.base import AboveZero, Count, Fraction, Positive, Section
from egapipe.pipeline.config.located import Address

_USUAL_BATCH = 128
# Lengths are sent in 15 bits.
_LARGEST_CANVAS = 8192

DecodeBy = Literal["threads", "processes"]


class ExtractConfig(Section):
    """How the teacher is run over the images."""

    batch_size: Positive | Literal["auto"] = 128
    """Views in one forward pass, fewer where memory runs out; `auto` doubles them until memory or
    speed ends, once for all workers of a kind, and a run that goes on keeps what was found."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the teacher runs; `auto` takes the GPUs of the cluster, else the CPU."""
    min_workers: Positive = 1
    """Start as soon as so many workers have their resources."""
    max_workers: Positive | None = None
    """Most workers, one a device; more than there are devices asks an autoscaler for machines.
    Default: every GPU, or one worker a machine on CPU, and those of machines that come later."""
    gpus_per_worker: AboveZero = 1.0
    """GPUs a worker takes, on `cuda`: 1, or a fraction to share one with other workers."""
    cpus_per_worker: Positive | None = None
    """CPUs a worker takes; default: its machine's over the workers there, 1 beside a GPU."""
    channels_last: bool = False
    """Lay pixels and weights out with channels last: faster for convolutions, not for a ViT."""
    compile: bool = False
    """Compile the teacher: faster after some seconds; a CPU needs a C++ compiler for it."""
    canvas: Annotated[Positive, Field(le=_LARGEST_CANVAS)] | None = None
    """Resize images on the teacher's device, to which they go in squares of so many pixels; larger
    ones are brought to that size before. Another store: pixels differ by a grey level or two."""
    decode_threads: Positive | None = None
    """Threads, or processes, that read and decode ahead of the teacher. Default: the cores of the
    worker's share of its machine, and 2 at least."""
    decode: DecodeBy | Literal["auto"] = "auto"
    """`threads`, or `processes` that write into shared memory: the latter are faster for tiny
    images, and beyond 8 for photographs too, where `auto` takes them; see docs/benchmarks.md."""
    jpeg: Literal["whole", "reduced", "device"] = "whole"
    """`reduced` decodes large JPEG images at a half, a quarter or an eighth of their size, as long
    as no view has to be enlarged for it: faster, other pixels, another store. `device` leaves plain
    ones to the teacher's device, where TorchCodec decodes them: it needs `canvas`, and makes
    another store."""
    max_failures: Count | Fraction = 0.01
    """Most unreadable images: a count (integer) or a share of the rows (0.01 = 1 %)."""
    same_software: bool = False
    """Refuse to continue a store that other versions of the software have begun. By default that is
    a warning, and the record of each shard names the versions that made it."""
    row_timeout: AboveZero = 120.0
    """Seconds that reading and decoding one image may take. One that takes longer, or ends its
    process, twice, the second time alone in a process, is recorded as failed."""
    same_device: bool = False
    """Refuse to continue a store whose shards were computed on another kind of device, in another
    precision or in batches of another size. By default that is a warning, and each record says what
    its shard was computed on."""
    max_restarts: Count = 3
    """Times one shard may fail or lose its worker before the run stops. After the second its images
    are decoded in processes of their own, so that the one that does harm is found."""
    max_machine_failures: Positive = 3
    """Workers that one machine may fail (a broken device, deaths while they start, shards that are
    then done elsewhere) before no further one is started there."""
    wait: AboveZero | Literal["forever"] = 300.0
    """Seconds to wait for the machines of the first `min_workers` workers, and for any machine
    after all were lost; `forever` for an autoscaler, or for others to finish."""
    start_timeout: AboveZero = 1800.0
    """Seconds that a worker may take to load the teacher once it has its machine."""
    stall_timeout: AboveZero = 1800.0
    """Seconds that a worker may go without a further batch of its shard before it is replaced."""

    @property
    def usual_batch(self) -> int:
        """Views in one forward pass where nobody has tried which number is best."""
        return _USUAL_BATCH if self.batch_size == "auto" else self.batch_size

    @model_validator(mode="after")
    def _decoded_when_resized(self) -> Self:
        if self.jpeg == "device" and self.canvas is None:
            raise ValueError(
                "jpeg is device, where images are resized too: set canvas to a square that most of "
                "them fit in"
            )
        return self

    @model_validator(mode="after")
    def _workers(self) -> Self:
        if self.max_workers is not None and self.min_workers > self.max_workers:
            raise ValueError(
                f"min_workers ({self.min_workers}) is above max_workers ({self.max_workers})"
            )
        return self


class ClusterConfig(Section):
    """The Ray cluster that workers run on."""

    address: Address | None = None
    """`auto` or `ray://host:port` to join a cluster; nothing starts a local one."""
    cpus: Positive | None = None
    """Logical CPUs of a local Ray; default: this machine's cores."""
