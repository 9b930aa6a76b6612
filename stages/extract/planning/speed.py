"""How fast one worker is, measured on two batches of the images themselves."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.stages.extract.decoding.decode import Decoder
from egapipe.stages.extract.decoding.decoders import Decoders
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.inference import Inference, open_inference

_BATCHES = 2


@dataclass(frozen=True)
class Speed:
    """Of one worker.

    decode: seconds that one thread or process takes to read, decode and resize a view. infer:
    seconds between two views that leave the teacher when it never waits. cores: that the teacher
    computes on, 0 on a GPU. rows, unreadable: images that were tried, and how many of them could
    not be read.
    """

    decode: float
    infer: float
    cores: int
    rows: int
    unreadable: int

    def view_seconds(self, decoders: int) -> float:
        """Seconds a view, the slower of decoding and inference; on a CPU both need its cores."""
        bounds = [self.infer, self.decode / decoders]
        if self.cores:
            here = available_cpus()
            bounds.append((self.infer * min(self.cores, here) + self.decode) / here)
        return max(bounds)


def measure_speed(
    teacher: Teacher,
    reader: Reader,
    rows: range,
    settings: ExtractConfig,
    decoders: Decoders,
    device: str,
    cores: int,
) -> Speed:
    """Decode the first two batches of some rows, then run the teacher over them.

    device: cpu or cuda. cores: CPU cores for the teacher, on the CPU; the two batches are dealt out
    to all of them, so that none idles. An unreadable image counts like any other.
    """
    on_gpu = device == "cuda"
    tried = rows[: -(-_BATCHES * settings.usual_batch // reader.view_count)]
    decoder = Decoder(reader, settings.usual_batch, decoders.number, pinned=on_gpu, by=decoders.by)
    with closing(decoder):
        images = decoder.open(tried)
        batches = [batch.pixels for batch in decoder.batches(images)][:_BATCHES]
    with closing(open_inference(teacher, torch.device(device), cores)) as inference:
        infer = _infer_seconds(inference, batches, warm=on_gpu)
    return Speed(
        decode=images.seconds / images.view_count,
        infer=infer,
        cores=0 if on_gpu else cores,
        rows=len(tried),
        unreadable=len(images.failures),
    )


def _infer_seconds(inference: Inference, batches: Sequence[Tensor], *, warm: bool) -> float:
    """Seconds a view. warm: whether the first pass of a shape takes longer than the others."""
    views = sum(map(len, batches))
    share = -(-views // inference.ahead)
    parts = [part for batch in batches for part in batch.split(min(len(batch), share))]
    if warm:
        inference.submit(parts[0]).result()
    began = time.perf_counter()
    for pending in [inference.submit(part) for part in parts]:
        pending.result()
    return (time.perf_counter() - began) / views
