"""One worker: a teacher, the images and the store. The same inline and on a cluster."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import numpy as np
import torch

from egapipe.pipeline.store import Commit, FeatureStore
from egapipe.stages.extract.decoding.crew import LIMITS, HungError, Limits
from egapipe.stages.extract.decoding.decode import Batch, Decoder, ShardImages
from egapipe.stages.extract.decoding.decoders import Decoders
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.planning.manifest import software
from egapipe.stages.extract.teachers import Teacher, check_distinct
from egapipe.stages.extract.workers.forward.inference import (
    Arrays,
    Pending,
    computed_on,
    open_inference,
)
from egapipe.stages.extract.workers.forward.passes import Note, unheard
from egapipe.stages.extract.workers.writer import Writer

_DOING = {
    "wait": "waits for images",
    "infer": "runs the teacher",
    "hold": "waits for the storage",
}


class Worker:
    """Turns shard numbers into stored embeddings on one device."""

    def __init__(
        self,
        teacher: Teacher,
        reader: Reader,
        store: FeatureStore,
        *,
        batch_size: int,
        decoders: Decoders,
        device: torch.device,
        cores: int,
        limits: Limits = LIMITS,
        moved: Callable[[int], None] = lambda views: None,
        note: Note = unheard,
    ) -> None:
        """Put the teacher on its device and start to decode ahead of it.

        batch_size: views in one forward pass. limits: of one row. cores: CPU cores for the teacher,
        on the CPU. moved: called with the number of views of every batch that has been encoded.
        note: told in a line that memory ran out, after which smaller batches are encoded.
        """
        self._teacher = teacher
        self._store = store
        self._moved = moved
        self._device = device
        self._inference = open_inference(teacher, device, cores, batch_size, note)
        self.computed = computed_on(teacher, device, self._inference.passes.size)
        """What else decided the last bits of the last shard, see `Commit`."""
        self.batch = batch_size
        """Views in one forward pass, to begin with."""
        pinned = device.type == "cuda"
        self._crew = decoders

        def opened(crew: Decoders) -> Decoder:
            return Decoder(reader, batch_size, crew.number, pinned, crew.by, limits)

        self._open = opened
        self._decoder = self._open(decoders)
        self._decoders = [self._decoder]
        self._writer = Writer()
        self._clock = Clock()

    def extract(self, shard: int, upcoming: int | None = None, isolated: bool = False) -> Commit:
        """`encode` a shard, and wait until it is stored."""
        self.encode(shard, upcoming, isolated)
        return self.written(shard)

    def encode(self, shard: int, upcoming: int | None = None, isolated: bool = False) -> None:
        """Encode a shard and begin to store it; images of the upcoming one are decoded as threads
        get free.

        isolated: decode in processes, whatever the worker does else, and nothing of another shard:
        an image that ends or hangs its process becomes a failure.

        The record's seconds: `decode` (of all threads or processes), `wait` (for decoded images),
        `infer`, `hold` (until the shard before it was stored) and `write` (beside the next shard).
        Raises TeacherError if different images have equal embeddings, HungError if an image hangs a
        thread: the worker can be used on, but the thread is lost.
        """
        if isolated and self._crew.by != "processes":
            with closing(self._open(self._crew.isolated)) as decoder:
                self._decoders.append(decoder)
                self._encode(decoder, shard, None)
            return
        try:
            self._encode(self._decoder, shard, None if isolated else upcoming)
        except HungError:
            hung, self._decoder = self._decoder, self._open(self._crew)
            self._decoders.append(self._decoder)
            hung.close()
            raise

    def written(self, shard: int) -> Commit:
        """Wait until an encoded shard is stored. Raises StoreError if it cannot be."""
        return self._writer.written(shard)

    def _encode(self, decoder: Decoder, shard: int, upcoming: int | None) -> None:
        shards = self._store.shards
        images = decoder.open(shards[shard], None if upcoming is None else shards[upcoming])
        self._clock = clock = Clock()
        arrays = self._outputs(decoder, images, clock)
        sizes = self._inference.passes.sizes()
        self.computed = computed_on(self._teacher, self._device, *sizes)
        with clock.phase("hold"):
            self._writer.wait()
        seconds = {"decode": round(images.seconds, 6), **clock.seconds}
        self._writer.begin(
            shard,
            partial(
                self._store.write_shard,
                shard,
                arrays,
                failures=images.failures,
                seconds=seconds,
                versions=software(),
                computed=self.computed,
                images=images.digests,
            ),
        )

    @property
    def doing(self) -> str:
        """What it does at the moment, in words; nothing while it has nothing to do."""
        return _DOING.get(self._clock.now, "")

    @property
    def decoded(self) -> int:
        """A number that grows with the rows that were decoded, or tried."""
        return sum(decoder.decoded for decoder in self._decoders)

    def close(self) -> None:
        """Stop all threads and processes; what is being stored is stored to its end."""
        self._writer.close()
        self._decoder.close()
        self._inference.close()

    def _outputs(self, decoder: Decoder, images: ShardImages, clock: "Clock") -> Arrays:
        """All embeddings of a shard, float32 [rows, V, *shape] a name."""
        manifest, rows, batches = self._store.manifest, len(images.rows), decoder.batches(images)
        views = rows * manifest.view_count
        flat = {name: np.empty((views, *s), np.float32) for name, s in manifest.outputs.items()}
        flight: deque[tuple[Batch, Pending]] = deque()
        while True:
            with clock.phase("wait"):
                batch = next(batches, None)
            with clock.phase("infer"):
                if batch is not None:
                    lost = partial(images.lost, batch)
                    flight.append((batch, self._inference.submit(batch.pixels, lost)))
                while flight and (batch is None or len(flight) > self._inference.ahead):
                    self._collect(*flight.popleft(), flat)
            if batch is None:
                break
        return {n: a.reshape(rows, manifest.view_count, *a.shape[1:]) for n, a in flat.items()}

    def _collect(self, batch: Batch, pending: Pending, flat: Arrays) -> None:
        outputs = pending.result()
        check_distinct(self._teacher, batch.pixels, outputs)
        for name, output in outputs.items():
            flat[name][batch.start : batch.start + len(output)] = output
        self._moved(len(batch.pixels))


class Clock:
    """Wall-clock seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.now = ""
        """The phase that it is in."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        began, self.now = time.perf_counter(), name
        yield
        self.now = ""
        self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - began, 6)
