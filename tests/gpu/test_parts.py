"""The parts of a step on a GPU against the same on the CPU."""

from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.distributed as dist

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.objectives import ObjectiveConfig
from egapipe.pipeline.views import key_hashes
from egapipe.stages import extract
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.inputs.images import Frame, ResidentImages
from egapipe.stages.distill.data.resident import ResidentBatches
from egapipe.stages.distill.objectives import Facts, Pair, build_objective
from egapipe.stages.distill.setup import Job, make_batches, prepare
from egapipe.stages.distill.training.meters import epoch_means
from egapipe.stages.distill.workers.totals import over_workers
from egapipe.stages.distill.workers.world import World
from tests.gpu.conftest import Make
from tests.stages.distill.objectives.samples import ON_VECTORS

CPU = torch.device("cpu")


def pair(device: torch.device) -> tuple[Pair, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch, dim, classes = 48, 32, 10

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

    student = normal(batch, dim).requires_grad_()
    labels = torch.randint(-1, classes, (batch,), generator=generator).to(device)
    both = Pair(
        student=student,
        teacher=normal(batch, dim),
        student_logits=normal(batch, classes),
        teacher_logits=normal(batch, classes),
        labels=labels,
        rows=torch.randperm(200, generator=generator)[:batch].to(device),
        teacher_features=normal(batch, dim),
    )
    return both, student


def anchors(kind: str, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(min(count, 200), 32, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", ON_VECTORS)
def test_losses_and_gradients_are_those_of_the_cpu(device: torch.device, name: str) -> None:
    found = []
    for where in (device, CPU):
        labels = torch.arange(200) % 10
        facts = Facts(32, 32, labels, teacher_features=32, anchors=anchors)
        torch.manual_seed(0)
        objective = build_objective(ObjectiveConfig.model_validate({name: 1.0}), facts)
        objective.double().to(where)
        both, student = pair(where)
        for _ in range(2):
            student.grad = None
            loss, _ = objective(both)
            if loss.requires_grad:
                loss.backward()
        grad = torch.zeros(1) if student.grad is None else student.grad.cpu()
        found.append((loss.detach().cpu(), grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [(12, 10), (8, 8), (20, 24)])
@pytest.mark.parametrize("crop", ["none", "pad", "scale"])
def test_crops_are_those_of_the_cpu(device: torch.device, crop: str, size: tuple[int, int]) -> None:
    """Exact, or within a grey level where they are resized."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3), dtype=np.uint8)
    hashes, rows = key_hashes(map(str, range(40))), np.arange(40)
    plan = ViewsConfig(crop=crop, flip=0.5)
    batches = [
        ResidentImages(pixels, hashes, Frame(size), where).batch(rows, plan, 3).cpu().int()
        for where in (device, CPU)
    ]
    exact = crop != "scale" and size == (12, 10)
    assert (batches[0] - batches[1]).abs().max() <= (0 if exact else 1)


def named(batch: Batch) -> dict[str, torch.Tensor | None]:
    """All that a batch has, outputs by their own names."""
    own = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {**own.pop("outputs"), **own}


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["student_view=paired"],
        ["student_view=clean"],
        ["unlabelled_ratio=1"],
        ["augment={crop: scale}"],
    ],
    ids=" ".join,
)
def test_batches_made_on_the_device_are_the_loaders(make: Make, options: list[str]) -> None:
    config = make(*(f"distill.{option}" for option in options))
    device = config.distill.device
    job = prepare(config, World.alone(torch.device(device, 0) if device == "cuda" else CPU))
    assert_batches_are_the_loaders(job)


def assert_batches_are_the_loaders(job: Job) -> None:
    """Those of the device and those of the host are equal to the bit."""
    batches = make_batches(job)
    assert isinstance(batches, ResidentBatches)
    for epoch, first in ((0, 0), (3, 2)):
        batches.begin(epoch, first)
        for expected, _ in zip(job.loader.epoch(epoch, first), range(4), strict=False):
            batches.advance()
            made = batches.batch()
            assert made.outputs.keys() == expected.outputs.keys()
            for name, one in named(made).items():
                two = named(expected)[name]
                assert (one is None) == (two is None)
                assert one is None or torch.equal(one, two), name
            batches.step.add_(1)


def test_sums_over_workers_go_through_the_devices_own_group(gpu: torch.device) -> None:
    """A group that knows GPUs only, as nccl does, of one worker."""
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1, device_id=gpu)  # type: ignore[attr-defined]
    try:
        world = World.current(gpu)
        sums = {"loss": 6.0, "seconds": 2.0, "wait": 1.0, "steps": 3, "rows": 30}
        sums |= {"correct": 15, "labelled": 30}
        assert epoch_means(over_workers({}, sums, world))["train/top1"] == 50
        gradient = torch.ones(5, device=gpu)
        world.average([gradient])
        world.broadcast([gradient])
        assert gradient.tolist() == [1.0] * 5
        world.agree(lambda: None)
    finally:
        dist.destroy_process_group()


def test_embeddings_are_those_of_the_cpu(gpu: torch.device, make: Make, tmp_path) -> None:
    """To the rounding of convolutions and matrix products, half precision of the store included."""
    from egapipe.pipeline.store import Features, FeatureStore

    config = make()
    there = Features.open(FeatureStore.open(config.store_url("test")))
    own = config.model_copy(
        update={
            "store": config.store.model_copy(update={"url": str(tmp_path / "cpu")}),
            "extract": config.extract.model_copy(update={"device": "cpu"}),
        }
    )
    extract.run(own, split="test", local=True)
    here = Features.open(FeatureStore.open(own.store_url("test")))
    rows = np.arange(here.rows)
    one, two = there.take(rows, 0).float(), here.take(rows, 0).float()
    assert torch.nn.functional.cosine_similarity(one, two).min() > 0.999


def test_neighbours_on_the_gpu(gpu: torch.device) -> None:
    faiss = pytest.importorskip("faiss")
    if not hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this faiss has no GPU: install egapipe[faiss-gpu]")
    vectors = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    index = faiss.IndexFlatIP(16)
    index.add(vectors)
    there = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    assert (index.search(vectors[:20], 5)[1] == there.search(vectors[:20], 5)[1]).all()
