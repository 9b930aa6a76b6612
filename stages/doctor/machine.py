"""Checks of this machine: software, device, Ray, memory, disk."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from packaging.requirements import Requirement
from rich.filesize import decimal

from egapipe.pipeline.config import Config
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import one_line
from egapipe.pipeline.locations.remote import is_remote
from egapipe.pipeline.locations.urls import absolute_url, with_variables
from egapipe.pipeline.machine.cluster import cluster_nodes, ray_session
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.results.pairing import copied_views
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.copies.copying import copy_path
from egapipe.pipeline.store.copies.selection import Selection
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.stages.distill.setup import pick_device
from egapipe.stages.distill.students.zoo import ZOOS
from egapipe.stages.doctor.parts import MissingError, Parts
from egapipe.stages.doctor.report import Result, fail, ok, warn
from egapipe.stages.extract.planning.plan import StorePlan
from egapipe.stages.extract.planning.room import free_bytes, probe_writing
from egapipe.stages.extract.workers.pool.fleet import check_fits, plan_fleet

_SHOWN = ("egapipe", "torch", "ray", "zarr", "pyarrow", "transformers", "numpy")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (the size of it is what is asked)
# The object store of a Ray that is started here, and what its workers put beside it.
_SHARED_BYTES = 320 * 2**20
_RAY_SECONDS = 60.0

EXTRAS = {
    "onnx": "onnxruntime",
    "timm": "timm",
    "open_clip": "open_clip",
    "torchvision": "torchvision",
    "jpeg": "torchcodec",
    "s3": "s3fs",
    "gcs": "gcsfs",
}
"""Optional extra -> the module that it brings."""
_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def check_software(parts: Parts) -> Result:
    """Versions are those that the package was declared to need."""
    del parts
    wrong = [text for asked in requires("egapipe") or [] if (text := _unmet(Requirement(asked)))]
    if wrong:
        return fail(f"{', '.join(wrong)}: pip install --upgrade egapipe")
    shown = ", ".join(f"{name} {version(name)}" for name in _SHOWN)
    return ok(f"Python {platform.python_version()}, {shown}")


def _unmet(asked: Requirement) -> str | None:
    """What is wrong with an installed distribution; optional ones are not asked for."""
    if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
        return None
    try:
        found = version(asked.name)
    except PackageNotFoundError:
        return f"{asked} is not installed"
    fits = asked.specifier.contains(found, prereleases=True)
    return None if fits else f"{asked} is asked for, {found} is installed"


def check_device(parts: Parts) -> Result:
    """The devices of teacher and student are here, and compute."""
    settings = parts.config.extract
    student = pick_device(parts.config.distill.device)
    for device in {parts.device(), student}:
        ones = torch.ones(8, 8, device=device)
        if float((ones @ ones).sum()) != 8**3:
            return fail(f"{device} multiplies matrices wrongly: check its driver")
    said = f"teacher on {_named(parts.device())}, student on {_named(student)}"
    if settings.device != "cuda" or torch.cuda.is_available():
        return ok(said)
    if parts.config.cluster.address is not None:
        return ok(f"{said}; extract.device is cuda, which the cluster's workers must have")
    return fail("extract.device is cuda, but torch finds no GPU here: set it to cpu or auto")


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return f"{torch.cuda.get_device_name(device)} ({decimal(memory)})"
    return f"CPU ({available_cpus()} cores, {torch.get_num_threads()} threads)"


def check_extras(parts: Parts) -> Result:
    """The optional extras that the configuration needs are installed."""
    present = {extra for extra, module in EXTRAS.items() if find_spec(module) is not None}
    needed = needed_extras(parts.config)
    missing = sorted(needed - present)
    if missing:
        return fail(f"{', '.join(missing)} needed: pip install 'egapipe[{','.join(missing)}]'")
    absent = ", ".join(extra for extra in EXTRAS if extra not in present) or "none"
    here = ", ".join(extra for extra in EXTRAS if extra in present) or "none"
    return ok(f"needed: {', '.join(sorted(needed)) or 'none'}; present: {here}; absent: {absent}")


def needed_extras(config: Config) -> set[str]:
    """The extras that teacher, student and store of a configuration come from, and its decoding."""
    scheme = with_variables(config.store.url or "").partition("://")[0]
    zoo = config.distill.student.name.partition(":")[0]
    return (
        ({config.teacher.backend} & EXTRAS.keys())
        | ({zoo} & ZOOS.keys() & EXTRAS.keys())
        | ({_SCHEMES[scheme]} if scheme in _SCHEMES else set())
        | ({"jpeg"} if config.extract.jpeg == "device" else set())
    )


def check_faiss(parts: Parts) -> Result:
    """The nearest neighbour of a vector is itself."""
    del parts
    try:
        import faiss
    except ImportError as error:
        return fail(f"faiss cannot be imported ({error}): pip install faiss-cpu")
    vectors = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(8)
    index.add(vectors)
    found = index.search(vectors, 1)[1][:, 0]
    if not np.array_equal(found, np.arange(64)):
        return fail("faiss finds wrong neighbours: install faiss-cpu again")
    return ok(f"faiss {faiss.__version__}, a vector's nearest neighbour is itself")


def check_shared_memory(parts: Parts) -> Result:
    """The object store of a Ray that is started here fits into shared memory."""
    if not _SHARED_MEMORY.is_dir():
        raise MissingError(f"this system has no {_SHARED_MEMORY}")
    if parts.config.cluster.address is not None:
        raise MissingError("no Ray is started here, cluster.address is set")
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if free < _SHARED_BYTES:
        return warn(
            f"{_SHARED_MEMORY} has {decimal(free)} free, Ray takes {decimal(_SHARED_BYTES)}: it "
            "falls back to slower files; run a container with --shm-size=1g"
        )
    return ok(f"{decimal(free)} free in {_SHARED_MEMORY}")


def check_ray(parts: Parts) -> Result:
    """Ray starts or the cluster answers, runs a task, and has room for the workers."""
    config = parts.config
    with ray_session(config.cluster):
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        task = ray.remote(platform.node).options(num_cpus=0)
        try:
            host = ray.get(task.remote(), timeout=_RAY_SECONDS)
        except GetTimeoutError:
            return fail(f"Ray ran no task within {_RAY_SECONDS:.0f} s: look at `ray status`")
        except RayError as error:
            return fail(f"Ray cannot run a task ({one_line(error)}): look at `ray status`")
        nodes = cluster_nodes()
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    fleet = plan_fleet(config.extract, nodes)
    said = f"{cpus:g} CPU and {gpus:g} GPU on {len(nodes)} machines, {host} ran a task"
    if config.cluster.address is None:
        check_fits(fleet, nodes)
    if config.distill.workers > cpus:
        return warn(
            f"{said}; distill.workers is {config.distill.workers}: Ray Train waits until there are "
            "as many CPUs, lower it or raise cluster.cpus"
        )
    return ok(f"{said}; extraction takes {fleet.size} workers of {fleet.resources}")


def check_cache(parts: Parts) -> Result:
    """The folder of node-local copies can be written to, and those still to be made fit."""
    folder = open_objects(parts.config.store.cache_dir or cache_dir())
    probe_writing(folder)
    free = free_bytes(folder) or 0
    said = f"{folder.url} is writable, {decimal(free)} free"
    try:
        needed = _copies(parts, Path(folder.url))
    except MissingError:
        return ok(said)
    if needed > free:
        return fail(
            f"{said}, but the copies for stage two take {decimal(needed)}: make room, or set "
            "store.cache_dir or EGAPIPE_CACHE to a larger folder"
        )
    return ok(f"{said}, {decimal(needed)} to be copied for stage two")


def _copies(parts: Parts, folder: Path) -> int:
    """Bytes of the copies that are not there yet. Raises MissingError without store and teacher."""
    needed = 0
    for split, store in parts.stores().items():
        part = Selection.of(store, copied_views(parts.config, split))
        if not _is_copied(store, folder, part):
            copied = len(part.views)
            needed += StorePlan(
                split, store.objects, store.manifest, begun=True, pending=(), copied=copied
            ).cache_bytes
    return needed


def _is_copied(store: FeatureStore, folder: Path, part: Selection) -> bool:
    found = store.snapshot()
    if not found.complete:
        return False
    content = found.content_hash()
    kept = (copy_path(folder, content, "embedding", p) for p in (part, Selection.of(store)))
    return any(path.exists() for path in kept)


def check_runs(parts: Parts) -> Result:
    """The folder of runs can be written to."""
    runs = absolute_url(parts.config.runs)
    folder = open_objects(runs if is_remote(runs) else Path(runs))
    probe_writing(folder)
    free = free_bytes(folder)
    return ok(f"{folder.url} is writable" + ("" if free is None else f", {decimal(free)} free"))
