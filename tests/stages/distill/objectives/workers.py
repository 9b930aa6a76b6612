"""What the worker processes of test_workers run. Each imports this module anew."""

import math
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from egapipe.pipeline.config.objectives import EgaOptions
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.model.synchronised import synchronise
from egapipe.stages.distill.objectives import Ega, Pair, Sides
from egapipe.stages.distill.objectives.shared.edges import edges_among
from egapipe.stages.distill.objectives.shared.gather import global_rows
from tests.stages.distill.objectives import samples

WORLD = 4
BATCH = 64
ROWS = 100
"""Of the data set."""
STEPS = 2
SPLITS = {
    "1 x 64": [64],
    "4 x 16": [16, 16, 16, 16],
    "uneven": [5, 40, 0, 19],
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
SPLIT = [*((split, "float64") for split in SPLITS), ("4 x 16", "float32"), ("uneven", "float32")]
"""Rows of the workers, and the type: float32 where most is added up."""
# The direct form of ega knows the rows of one worker only.
OBJECTIVES = [name for name in samples.CONFIGS if name != "ega direct"]
OF_ROWS = (
    "kd",
    "fitnet",
    "crd",
    "lskd",
    "dkd",
    "unic",
    "rrd",
    "simkd",
    "igsd",
    "lsp",
    "hashing",
    "embeddistill",
    *samples.ON_FEATURES,
)
NEIGHBOURS = torch.randint(-1, ROWS, (ROWS, 7), generator=torch.Generator().manual_seed(2))
GRAPHS = [name for name in samples.CONFIGS if name.split()[0] not in OF_ROWS]


class Distilled(nn.Module):
    """An objective over trained layers of both sides, as in a training step."""

    def __init__(self, name, dtype):
        super().__init__()
        dim, classes = samples.DIM, samples.CLASSES
        self.student = nn.Linear(10, dim)
        self.teacher = nn.Linear(12, dim)
        self.student_logits = nn.Linear(dim, classes)
        self.teacher_logits = nn.Linear(dim, classes)
        sizes = {name: [math.prod(shape) for shape in s] for name, s in samples.SHAPES.items()}
        self.of_student = nn.ModuleDict({n: nn.Linear(10, size) for n, (size, _) in sizes.items()})
        self.of_teacher = nn.ModuleDict({n: nn.Linear(12, size) for n, (_, size) in sizes.items()})
        generator = torch.Generator().manual_seed(7)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        self.repeats = name.startswith("ega")
        self.objective = samples.build(name, torch.float64, samples.labels_of(ROWS))
        several = map(samples.entries_per_row, self.objective.objectives.values())
        self.several = max(several)
        self.to(dtype)

    def forward(self, batch, group):
        images, features, rows = batch
        labels = samples.labels_of(ROWS)[rows]
        if self.several > 1:
            # An image and what stands for other views of it, or for three turned copies.
            factors = torch.tensor([1.0, 0.8, -0.5, 1.1], dtype=images.dtype)[: self.several]
            images, features = (
                x.repeat_interleave(self.several, dim=0) * factors.repeat(len(rows))[:, None]
                for x in (images, features)
            )
            rows, labels = (x.repeat_interleave(self.several) for x in (rows, labels))
            if self.several == 4:
                labels = torch.where(torch.arange(len(rows)) % 4 == 0, labels, -1)
        student, teacher = self.student(images), self.teacher(features)
        pair = Pair(
            student=student,
            teacher=teacher,
            student_logits=self.student_logits(student),
            teacher_logits=self.teacher_logits(teacher),
            labels=labels,
            # Some images twice, where an objective minds; the two may be with two workers.
            rows=rows // 2 if self.repeats else rows,
            repeats=self.repeats,
            features={
                name: Sides(
                    self.of_student[name](images).unflatten(1, shape),
                    self.of_teacher[name](features).unflatten(1, other),
                )
                for name, (shape, other) in samples.SHAPES.items()
            },
            teacher_features=features,
            edges=edges_among(global_rows([rows], group)[0], NEIGHBOURS),
            group=group,
            turns=4 if self.several == 4 else 1,
        )
        loss, _ = self.objective(pair)
        # As the cross-entropies do in a training: every layer takes part.
        tensors = samples.tensors(pair).values()
        return loss + sum(0 * value.sum() for value in tensors if value.requires_grad)


def batches(dtype):
    """The global batches of the steps: inputs of both sides, and rows of the data set."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(STEPS):
        inputs = torch.randn(BATCH, 22, generator=generator, dtype=torch.float64).to(dtype)
        yield inputs[:, :10], inputs[:, 10:], torch.randperm(ROWS, generator=generator)[:BATCH]


def steps(name, dtype, counts, rank, group):
    """Loss of each step, the sum of their gradients, and the buffers afterwards."""
    model = Distilled(name, dtype)
    step = model
    if group is not None:
        synchronise(model.objective, group)
        own = [f"objective.{buffer}" for buffer in model.objective.replicated]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, own)
        step = DistributedDataParallel(model, process_group=group)
    losses = []
    for batch in batches(dtype):
        loss = step([tensor.split(counts)[rank] for tensor in batch], group)
        loss.backward()
        losses.append(loss.detach())
    gradients = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
    return {
        "loss": torch.stack(losses),
        "gradients": torch.cat(gradients),
        "buffers": {k: v for k, v in model.objective.state_dict().items() if "bank" in k},
    }


def local(name, rank, group):
    """Loss of the first step with scope "local"."""
    model = Distilled(name, torch.float64)
    (objective,) = model.objective.objectives.values()
    objective.options = objective.options.model_copy(update={"scope": "local"})
    batch = next(batches(torch.float64))
    return model([tensor.split(SPLITS["4 x 16"])[rank] for tensor in batch], group).detach()


def refusal(group):
    """What is said of the form that several workers cannot have."""
    rows = torch.eye(4)
    try:
        Ega(EgaOptions(form="direct"))(Pair(student=rows, teacher=rows, group=group))
    except UsageError as error:
        return str(error)
    return ""


def run(rank: int, folder: str) -> None:
    """Every objective in every split on a group of its size; each rank saves what it saw."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=120),
    )
    try:
        # Every process must take part in making every group.
        groups = {size: dist.new_group(list(range(size))) for size in (1, 4)}
        seen = {}
        for name in OBJECTIVES:
            for split, type_name in SPLIT:
                counts, dtype = SPLITS[split], DTYPES[type_name]
                if rank < len(counts):
                    found = steps(name, dtype, counts, rank, groups[len(counts)])
                    seen[f"{name} {split} {type_name}"] = found
        for name in GRAPHS:
            seen[f"{name} local"] = local(name, rank, groups[4])
        seen["refusal"] = refusal(groups[4])
        torch.save(seen, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
