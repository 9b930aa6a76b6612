"""A rehearsal of an extraction: what it will take, and whether it can be run at all."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_split
from egapipe.pipeline.disk.caches import FEATURES
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.machine.cluster import Node, cluster_nodes, promised_resources, ray_session
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.machine.memory import total_memory
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.stages.extract.decoding.decoders import Decoders, decoders_for
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.planning.append import plan_append
from egapipe.stages.extract.planning.memory import WorkerMemory, room_of, worker_memory
from egapipe.stages.extract.planning.plan import StorePlan, plan_store
from egapipe.stages.extract.planning.room import free_bytes, probe_writing, require_room
from egapipe.stages.extract.planning.speed import Speed, measure_speed
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.inference import cpu_threads
from egapipe.stages.extract.workers.forward.sizing import FIRST
from egapipe.stages.extract.workers.forward.tuned import open_teacher
from egapipe.stages.extract.workers.pool.fleet import Fleet, check_fits, plan_fleet


@dataclass(frozen=True)
class Estimate:
    """Seconds to finish one store: by one worker, and by all that are planned.

    The start of Ray and its workers is not in them.
    """

    speed: Speed
    one_worker: float
    all_workers: float


@dataclass(frozen=True)
class DryRun:
    """What a run would do.

    fleet: its workers; of size 1 without Ray. free: bytes that fit, None where nobody knows.
    write: bytes a second of the write probe. estimates: of the stores with something left to do;
    empty where the teacher's GPU is not on this machine. problem: why the run would be refused.
    cache: where stage two's copies will lie. cache_free: bytes that fit there. memory: of a worker
    at its fullest. room: bytes that the machine with most has for one.
    """

    plans: Sequence[StorePlan]
    fleet: Fleet
    free: int | None
    write: float | None
    estimates: Mapping[Split, Estimate]
    problem: str | None
    cache: str
    cache_free: int | None
    memory: WorkerMemory
    room: int

    def check(self) -> None:
        """Raise UsageError if the run would be refused."""
        if self.problem is not None:
            raise UsageError(self.problem)


def dry_run(
    config: Config, splits: Sequence[Split], *, local: bool = False, append: bool = False
) -> DryRun:
    """Rehearse `extract.run` of some splits; nothing stays where the stores will lie.

    local, append: as in a run. A cluster is joined to see its machines; no Ray is started here.
    Raises UsageError (no such split, no cluster answers, no room for the workers), TeacherError
    (the teacher cannot be used) or StoreError (another store is there).
    """
    datasets = {split: open_split(config, split) for split in splits}
    teacher = open_teacher(config)
    planned = plan_append if append else plan_store
    plans = [planned(config, split, datasets[split], teacher) for split in splits]
    # Where nothing is left to do, a run starts no Ray.
    alone = local or not any(plan.pending for plan in plans)
    fleet, room = _one_worker(config.extract) if alone else _planned_fleet(config)
    memory = max((_memory(plan, teacher, config, fleet) for plan in plans), key=lambda m: m.total)
    write, problem = _try_writing(plans)
    problem = problem or _too_large(plans)
    if any(plan.pending for plan in plans):
        problem = problem or _too_full(memory, room)
    if write is not None and local and not _is_here(fleet.device):
        problem = "extract.device is cuda, but torch finds no GPU here: set it to cpu"
    copies = open_objects(config.store.cache_dir or cache_dir())
    dry = DryRun(
        plans=plans,
        fleet=fleet,
        free=free_bytes(plans[0].objects),
        write=write,
        estimates={},
        problem=problem,
        cache=f"{copies.url}/{FEATURES.folder}",
        cache_free=free_bytes(copies),
        memory=memory,
        room=room,
    )
    if write is None or problem is not None or not _is_here(fleet.device):
        return dry
    estimates = {
        plan.split: _estimate(config, plan, datasets[plan.split], teacher, fleet, write)
        for plan in plans
        if plan.pending
    }
    return replace(dry, estimates=estimates)


def seconds_by(plan: StorePlan, view_seconds: float, write: float, workers: int) -> float:
    """Seconds until so many workers, each taking whole shards, have written what is left.

    view_seconds: of one worker. write: bytes a second of one worker. A worker writes a shard beside
    the forward passes of the next one, so that only the slower of both takes time, except for the
    passes of its first shard and the writing of its last one.
    """
    shards = len(plan.pending)
    if not shards:
        return 0.0
    encoding, writing = plan.views_left * view_seconds / shards, plan.bytes_left / write / shards
    return encoding + writing + (math.ceil(shards / workers) - 1) * max(encoding, writing)


def _estimate(
    config: Config,
    plan: StorePlan,
    dataset: Dataset,
    teacher: Teacher,
    fleet: Fleet,
    write: float,
) -> Estimate:
    settings = config.extract
    reader = Reader(dataset, teacher.preprocessing, plan.manifest.plan)
    first = plan.shards[plan.pending[0]]
    here = decoders_for(settings, available_cpus(), own_process=False)
    speed = measure_speed(teacher, reader, first, settings, here, fleet.device, fleet.usual_cpus)
    view = speed.view_seconds(_decoders(settings, fleet).number)
    return Estimate(
        speed, seconds_by(plan, view, write, 1), seconds_by(plan, view, write, fleet.size)
    )


def _one_worker(settings: ExtractConfig) -> tuple[Fleet, int]:
    """The worker of a run in this process, and bytes of memory for it."""
    gpu = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    cores = settings.cpus_per_worker or cpu_threads()
    fleet = Fleet(
        device="cuda" if gpu else "cpu",
        minimum=1,
        most=1,
        share=1.0,
        asked_cpus=cores,
        a_machine=1,
        usual_cpus=cores,
        size=1,
    )
    return fleet, room_of(total_memory(), 1.0)


def _planned_fleet(config: Config) -> tuple[Fleet, int]:
    """The workers of a run on Ray, and bytes of memory for one where there are most."""
    settings = config.extract
    if config.cluster.address is None and "RAY_ADDRESS" not in os.environ:
        cpus = config.cluster.cpus or available_cpus()
        nodes = [Node(cpus, torch.cuda.device_count(), memory=total_memory())]
        fleet = plan_fleet(settings, nodes)
        check_fits(fleet, nodes)
        return fleet, _most_room(fleet, nodes)
    with ray_session(config.cluster):
        nodes = cluster_nodes()
        fleet = plan_fleet(settings, nodes, promised_resources())
        return fleet, _most_room(fleet, nodes)


def _most_room(fleet: Fleet, nodes: Sequence[Node]) -> int:
    rooms = (room_of(node.memory, fleet.share_on(node)) for node in nodes)
    return max(rooms, default=0)


def _memory(plan: StorePlan, teacher: Teacher, config: Config, fleet: Fleet) -> WorkerMemory:
    settings, device = config.extract, torch.device(fleet.device)
    cores = fleet.usual_cpus if fleet.device == "cpu" else 1
    decoders, batch = _decoders(settings, fleet), settings.usual_batch
    # A worker that looks for its batch begins with the least.
    batch = FIRST if settings.batch_size == "auto" else batch
    return worker_memory(teacher, plan.manifest, decoders, device, cores, batch)


def _decoders(settings: ExtractConfig, fleet: Fleet) -> Decoders:
    """Of a worker, as far as this machine shows: those beside a GPU go by its own cores."""
    on_gpu = fleet.device != "cpu"
    return decoders_for(
        settings, available_cpus() if on_gpu else fleet.usual_cpus, own_process=on_gpu
    )


def _too_full(memory: WorkerMemory, room: int) -> str | None:
    try:
        memory.within(room, "the machine with most")
    except UsageError as error:
        return str(error)
    return None


def _try_writing(plans: Sequence[StorePlan]) -> tuple[float | None, str | None]:
    """Bytes a second of the slowest place, or why one cannot be written to.

    A store without anything left to write need not be writable.
    """
    try:
        return min((probe_writing(p.objects) for p in plans if p.pending), default=None), None
    except StoreError as error:
        said = str(error)
        return None, said if "store.url" in said else f"{said}: set store.url to another place"


def _too_large(plans: Sequence[StorePlan]) -> str | None:
    try:
        require_room(plans)
    except UsageError as error:
        return str(error)
    return None


def _is_here(device: str) -> bool:
    return device == "cpu" or torch.cuda.is_available()
