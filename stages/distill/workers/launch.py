"""Where the loop runs: in this process, or on the workers of Ray Train."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import EgapipeError, TrainingError, UsageError
from egapipe.pipeline.locations.clients import file_system
from egapipe.pipeline.machine.cluster import (
    cluster_nodes,
    promised_resources,
    ray_session,
    started_here,
)
from egapipe.pipeline.results.runs import RunFolder, folder_at
from egapipe.pipeline.results.tracking import following
from egapipe.stages.distill.setup import Job, prepare
from egapipe.stages.distill.shown import Shown
from egapipe.stages.distill.training.checkpoint import Checkpoints
from egapipe.stages.distill.training.loop import fit
from egapipe.stages.distill.workers.together import agreed
from egapipe.stages.distill.workers.world import OtherWorkerError, World

RESULTS = "results.json"
REFUSAL = "error.json"
PLACEMENT = "placement.json"
"""Which resources the workers have, for whoever ends the training in the middle."""


def train_inline(job: Job, run: RunFolder, view: Shown) -> dict[str, float]:
    """Train in this process, without Ray."""
    return fit(job, run, view.report, view.stepped, settled=view.told)


def train_on_ray(config: Config, run: RunFolder, view: Shown) -> dict[str, float]:
    """Train on `distill.workers` Ray Train workers; lost workers are replaced.

    The run folder must be visible to every worker at the same path, or lie in an object store.
    Raises TrainingError when
    training fails, or more workers are lost than `distill.max_failures`; UsageError for
    `distill.min_workers` with a Ray that cannot go on with fewer.
    """
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    distill = config.distill
    run.discard(RESULTS, REFUSAL)
    with ray_session(config.cluster), following(run, view.report):
        gpu = _on_gpus(distill)
        _tell_room(distill, view, gpu=gpu, own=started_here())
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "config": config.model_dump(mode="json"),
                "run": str(run.path.resolve()) if run.url is None else run.url,
                "held": run.held,
                "gpu": gpu,
            },
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            scaling_config=_scaling(distill, gpu=gpu),
            run_config=RunConfig(
                name="ray",
                **ray_storage(run),
                failure_config=FailureConfig(max_failures=distill.max_failures),
            ),
        )
        try:
            trainer.fit()
        except (TrainingFailedError, RayError, OSError) as error:
            raise TrainingError(f"Ray Train gave up on {run.where}: {_last_line(error)}") from error
    run.discard(PLACEMENT)
    return outcome(run)


def ray_storage(run: RunFolder, folder: str = "") -> dict[str, Any]:
    """Where Ray keeps its own state: in the run folder, or a folder of it."""
    if run.url is None:
        return {"storage_path": str(run.path.resolve() / folder)}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    # The very client of the run's files, with what the environment says of it: Arrow's own ones
    # read another part of that.
    fs, path = file_system(run.url)
    place = f"{path}/{folder}" if folder else path
    return {"storage_path": place, "storage_filesystem": PyFileSystem(FSSpecHandler(fs))}


def _scaling(distill: DistillConfig, *, gpu: bool) -> Any:
    """All workers, or as many as find room."""
    import ray
    from ray.train import ScalingConfig

    most, fewest = distill.workers, distill.min_workers
    if fewest in (None, most):
        return ScalingConfig(num_workers=most, use_gpu=gpu)
    if "elastic_resize_monitor_interval_s" not in signature(ScalingConfig).parameters:
        raise UsageError(
            f"distill.min_workers is {fewest}, but Ray {ray.__version__} keeps the number of "
            "workers: install a newer ray[train], or leave min_workers out"
        )
    # Ray annotates the range away, and takes it.
    elastic: Any = (fewest, most)
    return ScalingConfig(num_workers=elastic, use_gpu=gpu)


def outcome(run: RunFolder) -> dict[str, float]:
    """What the workers left: results, or TrainingError with what one of them was refused.

    An attempt before the one that succeeded may have left its error.
    """
    if not run.has(RESULTS) and run.has(REFUSAL):
        raise TrainingError(str(run.read_json(REFUSAL)["error"]))
    return run.read_json(RESULTS)


def _worker(arguments: dict[str, Any]) -> None:
    """One Ray Train worker. An explained error would repeat itself: it is recorded, not retried."""
    from ray import train

    config = Config.model_validate(arguments["config"])
    device = _own_gpu() if arguments["gpu"] else torch.device("cpu")
    world = World.current(device)
    use_cache(config.store.cache_dir)
    run = _folder(arguments, world)
    if world.is_main:
        _leave_placement(run)

    def report(epoch: int, metrics: Mapping[str, float]) -> None:
        train.report({"epoch": epoch, **metrics})

    try:
        agreed(world, partial(_bring, run, world))
        results = fit(agreed(world, partial(prepare, config, world)), run, report)
    except OtherWorkerError:
        return
    except EgapipeError as error:
        run.write_json(REFUSAL, {"error": str(error)})
        return
    if world.is_main:
        run.write_json(RESULTS, {**results, "device": str(device)})


def _folder(arguments: dict[str, Any], world: World) -> RunFolder:
    """The run, of one elsewhere the copy that this worker may use: the main one writes."""
    run = folder_at(arguments["run"], "work" if world.is_main else "read")
    return replace(run, held=arguments["held"])


def _leave_placement(run: RunFolder) -> None:
    """Say where the workers are placed. Ray knows it, but names nobody who asked for it."""
    from ray.util import get_current_placement_group

    group = get_current_placement_group()
    if group is not None:
        run.write_json(PLACEMENT, {"group": group.id.hex()})


def _bring(run: RunFolder, world: World) -> None:
    """What this worker goes on from, where the run lies elsewhere."""
    if world.is_main:
        run.fetch()
    else:
        Checkpoints.of(run).fetch("last")


def _on_gpus(distill: DistillConfig) -> bool:
    """Whether workers get a GPU each, which the cluster decides and not the driver's machine."""
    import ray

    if distill.device != "auto":
        return distill.device == "cuda"
    return bool(ray.cluster_resources().get("GPU", 0) >= distill.workers)


def _tell_room(distill: DistillConfig, view: Shown, *, gpu: bool, own: bool) -> None:
    """Ray waits, and says nothing, for resources that it has not.

    own: whether it was started for this command, and so never gets more: then raises UsageError.
    """
    kind, fewest = "GPU" if gpu else "CPU", distill.min_workers or distill.workers
    nodes = cluster_nodes()
    there = sum(int(node.gpus if gpu else node.cpus) for node in nodes)
    if max(there, promised_resources().get(kind, 0)) >= fewest:
        return
    lacking = f"{fewest} workers need a {kind} each, Ray has {there}"
    if own:
        remedy = "set distill.device=cpu" if gpu else f"set cluster.cpus={fewest}"
        raise UsageError(f"{lacking} on this machine: {remedy}, or fewer distill.workers")
    view.note(f"{lacking}: the training waits until there are more")


def _own_gpu() -> torch.device:
    """The GPU of this worker, among those of its machine."""
    from ray.train.torch import get_device

    device: torch.device = get_device()
    torch.cuda.set_device(device)
    return device


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
